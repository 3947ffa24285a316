"""Recorded experiments as chapters use them: tables, sentences, nets, sources; what is committed; the scripts."""

import contextlib
import importlib
import io
import json
import runpy
import shlex
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT

import d2l_utils as d2l
from d2l_utils.book import grids, records
from d2l_utils.book.records import MACHINE, RECORDED, by_seed, main_precision, spread, stored

KEYS = ["command", "commit", "date", "torch", "processor", "threads", "seconds", "data_sha256", "runs"]
PENDING = set()                                                                     # incomplete
# What has a value in some rows of a run only: removed sets; what the head fits, no stem; what is measured at the end;
# what is folded, a ratio to 0, what a folded net that diverges has no more.
PARTLY = {"lesions": {"mask"}, "probes": {"exit_error", "likeness"}, "identity": {"missed_choosing"},
          "without_shortcuts": {"equal", "difference", "size_ratio", "relative_ratio", "product_ratio", "test_error"}}
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py") if path.stem != "common")
NAMES = sorted(path.stem for path in RECORDED.glob("*.csv"))
NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture
def table():
    """Two nets, two precisions, three seeds, two epochs; the control has one seed."""
    rows = [{"depth": depth, "shortcut": shortcut, "precision": precision, "seed": seed, "epoch": epoch,
             "error": depth / 100 + seed / 1000 + epoch / 10_000 + (precision == "float32")}
            for depth in (8, 20) for shortcut in ("none", "A") for precision in ("bfloat16", "float32")
            for seed in range(3 if precision == "bfloat16" else 1) for epoch in (1, 2)]
    return pd.DataFrame(rows)


# Tables and sentences

def test_by_seed_has_a_row_per_seed_and_a_column_per_x(table):
    runs = by_seed(main_precision(table), "error", depth=8, shortcut=None)
    assert runs.index.tolist() == [0, 1, 2]
    assert runs.columns.tolist() == [1, 2]
    assert runs.loc[2, 1] == pytest.approx(0.0821)
    wide = by_seed(table, "error", ["shortcut", "depth"], precision="bfloat16", epoch=2)
    assert wide.loc[1, ("none", 20)] == pytest.approx(0.2012)
    assert by_seed(table, "error", "depth", shortcut="A", precision="float32", epoch=1).shape == (1, 2)


def test_by_seed_says_what_it_lacks(table):
    with pytest.raises(ValueError, match=r"depth must be one of \[8, 20\] here, got 56"):
        by_seed(table, "error", depth=56)
    with pytest.raises(ValueError, match=r"one value for each seed and epoch: .* \['depth', 'precision'\]"):
        by_seed(table, "error", shortcut="A")
    with pytest.raises(KeyError, match="lr"):
        by_seed(table, "error", lr=1)


def test_main_precision_is_the_one_of_most_rows_wherever_they_stand(table):
    assert set(main_precision(table).precision) == {"bfloat16"}
    assert main_precision(table[::-1]).equals(main_precision(table)[::-1])
    tie = table[table.seed == 0]
    assert set(main_precision(tie).precision) == {"bfloat16"}
    assert set(main_precision(tie[::-1]).precision) == {"float32"}


@pytest.mark.parametrize(("values", "options", "text"), [
    ([0.071, 0.0749, 0.08], {}, f"7.5{NBSP}% (7.1 to 8.0 over 3 seeds)"), ([0.5], {}, f"50.0{NBSP}% (one seed)"),
    ([1.5, 2.5], {"percent": False}, "2.000 (1.500 to 2.500 over 2 seeds)"),
    (pd.Series([0.1, 0.3]), {"digits": 0}, f"20{NBSP}% (10 to 30 over 2 seeds)")])
def test_spread_is_mean_and_range(values, options, text):
    assert spread(values, **options) == text


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_spread_averages_over_no_missing_run(values):
    with pytest.raises(ValueError, match="values must be finite numbers, at least one, got"):
        spread(values)


def test_missing_values_leave_whole_numbers_and_truth_values_what_they_are(tmp_path):
    (tmp_path / "a.csv").write_text("seed,whole,truth,part,text,gone\n"
                                    "0,9007199254740993,True,0.5,x,nan\n1,nan,nan,nan,,nan\n")
    read = d2l.recorded("a", tmp_path)
    assert read.whole[0] == 2**53 + 1
    assert read.truth[0]
    assert read.part[0] == 0.5
    assert read.text.tolist() == ["x", ""]
    assert read.isna().iloc[1].tolist() == [False, True, True, True, False, True]
    assert read.gone.isna().all()


def test_unknown_name_says_which_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"name must be a recorded experiment \(none\), got 'nothing'"):
        d2l.recorded("nothing", tmp_path)
    (tmp_path / "grid.csv").touch()
    with pytest.raises(FileNotFoundError, match=r"\(grid\), got 'nothing'; experiments/nothing\.py would make it"):
        d2l.recorded("nothing", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"name must be a recorded net \(none\), got 'nothing'"):
        stored("nothing", tmp_path)


# Nets

@pytest.fixture
def store(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("common").store


@pytest.mark.parametrize(("net", "facts"), [
    (lambda: d2l.small_resnet(8, None, width=4), {"depth": 8, "shortcut": None, "width": 4}),
    (lambda: d2l.small_resnet(14, "B", norm=False, width=4, in_channels=3, num_classes=7),
     {"depth": 14, "shortcut": "B", "norm": False, "width": 4, "in_channels": 3, "num_classes": 7}),
    (lambda: d2l.small_resnet(11, "C", block=d2l.Bottleneck, width=4),
     {"depth": 11, "shortcut": "C", "block": d2l.Bottleneck, "width": 4}),
    (lambda: d2l.resnet18(1, 10), {"net": "resnet18", "in_channels": 1, "num_classes": 10})])
def test_stored_net_computes_what_the_net_computed(tmp_path, store, net, facts):
    torch.manual_seed(3)
    net = net().to(memory_format=torch.channels_last)
    X = torch.randn(4, net.conv1.in_channels, 32, 32)
    net(X)                                                      # running statistics of its own
    store(net, "a", tmp_path, **facts, seed=3, test_error=0.065, note="as is")
    state = torch.get_rng_state()
    again = stored("a", tmp_path)
    assert torch.equal(torch.get_rng_state(), state)            # nobody's seed is disturbed
    assert not any(module.training for module in again.modules())
    torch.testing.assert_close(again(X), net.eval()(X))
    assert (again.facts["seed"], again.facts["test_error"], again.facts["note"]) == (3, 0.065, "as is")
    assert again.facts.get("shortcut") == facts.get("shortcut")
    assert {"commit", "made by"} <= set(again.facts)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("facts", [{"depth": 14}, {"depth": 8, "width": 8}, {"depth": 8, "shortcut": "C"}])
def test_facts_that_do_not_describe_the_net_are_refused(tmp_path, store, facts):
    with pytest.raises(ValueError, match="facts must describe the net, got"):
        store(d2l.small_resnet(8, width=4), "a", tmp_path, **{"width": 4, **facts})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "shortcut"), [("residual", "A"), ("plain", None)])
def test_committed_nets_are_those_of_the_record(name, shortcut):
    net, data = stored(f"fashion_mnist_{name}20"), d2l.fashion_mnist(device="cpu")
    assert (net.facts["depth"], net.facts["shortcut"], net.facts["seed"]) == (20, shortcut, 0)
    run = d2l.recorded("fashion_mnist").query("recipe == 'book' and seed == 0 and epoch == 14")
    recorded = run[run.shortcut == (shortcut or "none")].test_error.item()
    assert net.facts["test_error"] == recorded
    error = d2l.evaluate(net, data.X_test[:1000], data.y_test[:1000], precision="float32")[1]
    assert abs(error - recorded) < 0.02                         # 1,000 of the 10,000 pictures


# Where it comes from

def test_source_names_record_script_machines_minutes_commits_and_one_point(tmp_path, monkeypatch):
    shown = []

    def run(depth, shortcut, recipe, precision, seed):
        return [{"epoch": 1, "loss": 0.5}]
    configs = [{"depth": 8, "shortcut": None, "recipe": "long <up>", "precision": "float32", "seed": seed}
               for seed in (0, 1)]
    grids.run_grid("runs", configs, run, folder=tmp_path)
    entries = json.loads((tmp_path / "runs.json").read_text())
    entries[0] |= {"processor": "A & B", "commit": "0123456789+changes", "seconds": 200}
    entries.append(entries[0] | {"runs": 0, "processor": "C"})
    (tmp_path / "runs.json").write_text(json.dumps(entries))
    monkeypatch.setattr(records, "display", shown.append)
    d2l.source("runs", tmp_path, seed=1)
    [line] = shown
    text = ("Source: runs.csv, made by experiments/runs.py (2 runs, A & B, 3 minutes; commit 0123456). "
            "One point again: python experiments/runs.py --only depth=8 shortcut=none 'recipe=long <up>' seed=1")
    assert repr(line) == text
    page = BeautifulSoup(line._repr_html_(), "html.parser")
    assert page.select_one("p.source").text == text
    assert page.code.text.startswith("python experiments/runs.py --only")
    assert [link["href"].removeprefix(records.REPOSITORY) for link in page.select("a")] == [
        "/blob/main/d2l_utils/recorded/runs.csv", "/blob/main/experiments/runs.py", "/commit/0123456789"]
    (tmp_path / "runs.json").write_text(json.dumps([entries[0] | {"runs": 1, "seconds": 20}]))
    d2l.source("runs", tmp_path)
    assert "(1 run, A & B, under a minute; commit" in repr(shown[1])


@pytest.mark.parametrize("name", NAMES)
def test_source_of_every_record_names_a_point_of_its_grid(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    shown = []
    monkeypatch.setattr(records, "display", shown.append)
    d2l.source(name)
    words = shlex.split(repr(shown[0]).partition(" --only ")[2])
    assert importlib.import_module("common").chosen(importlib.import_module(name).CONFIGS, words)


def test_source_leads_to_this_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert records.REPOSITORY == config["repository"]["url"]


# What is committed

def labels(configs, keys):
    return {grids.label(config, keys) for config in configs}


@pytest.mark.parametrize("name", NAMES)
def test_committed_record_is_its_scripts_grid_and_its_provenance_adds_up(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    configs, table = importlib.import_module(name).CONFIGS, d2l.recorded(name)
    entries = json.loads((RECORDED / f"{name}.json").read_text())
    assert all(set(KEYS) <= set(entry) and len(entry["data_sha256"]) == 64 for entry in entries)
    rows, keys = table.to_dict("records"), [key for key in configs[0] if key in table]
    assert "seed" in keys
    assert "None" not in set(table.get("shortcut", []))
    assert sum(entry["runs"] for entry in entries) == len(labels(rows, keys))
    counts = table.drop_duplicates(keys).entry.value_counts()
    assert [counts.get(number, 0) for number in range(len(entries))] == [entry["runs"] for entry in entries]
    keys = [key for key in keys if key not in MACHINE]      # the scripts take the machine's: it may be another one here
    assert labels(rows, keys) <= labels(configs, keys)
    finished = labels(rows, keys) == labels(configs, keys)
    assert finished == (name not in PENDING), "PENDING names the unfinished grids and no others"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_a_committed_run_are_finite_or_it_is_said_to_have_diverged(name):
    table = d2l.recorded(name)
    numbers = table[~table.diverged].select_dtypes("number")
    assert not np.isinf(numbers.astype(float)).any().any()
    keys = records.keys_of(table)
    runs = [table[key] for key in keys]
    if {"epoch", "step"} <= set(table):             # some rows measure at a step, the others say how an epoch went
        runs += [table.epoch.isna(), table.step.fillna(-1)]
    missing = numbers.drop(columns=keys, errors="ignore").isna().groupby(runs).any()
    whole = numbers.drop(columns=keys, errors="ignore").notna().groupby(runs).any()
    partly = [column for column in missing if column.startswith("test_error ") or column in PARTLY.get(name, ())]
    assert not (missing & whole).drop(columns=partly).any().any()             # a column applies to a run or it does not


def test_every_record_has_a_script_and_every_script_a_record_or_is_pending():
    assert set(SCRIPTS) == set(NAMES) | PENDING, "name the experiments that have no record yet in PENDING"


# The scripts

def call(name, *words):
    """experiments/NAME.py as it is called, and what it prints; in this process unless it is to have two workers."""
    script = ROOT / "experiments" / f"{name}.py"
    command = [str(script), *map(str, words)]
    if 2 in words:
        done = subprocess.run([sys.executable, *command], check=True, timeout=240, capture_output=True, text=True)
        return done.stdout
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", command)
        patch.syspath_prepend(script.parent)
        threads = torch.get_num_threads()
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    return printed.getvalue()


def seconds_of_work():
    """Seconds of one core that this process and its children have used: the same however busy the machine."""
    import resource
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke_corner_of_every_experiment_runs_in_30_seconds_on_two_cores(name, tmp_path):
    before = seconds_of_work()
    call(name, "--smoke", "--folder", tmp_path)
    assert seconds_of_work() - before < 2 * 30
    assert "seed" in d2l.recorded(name, tmp_path)
    assert len(json.loads((tmp_path / f"{name}.json").read_text())) == 1


def test_smoke_corner_runs_in_worker_processes_too(tmp_path):
    call("branch_share", "--smoke", "--workers", 2, "--folder", tmp_path)
    assert len(d2l.recorded("branch_share", tmp_path)) == 2 * 27


def test_one_point_is_made_again_beside_the_recorded_one(tmp_path, monkeypatch):
    point = ["depth=4", "start=residual", "t=0.5", "lr=0.02", "seed=0"]
    printed = call("identity", "--only", *point, "--folder", tmp_path, "--workers", 0)
    assert len(d2l.recorded("identity", tmp_path).drop_duplicates("seed")) == 1
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines if "residual" in line] == ["recorded", "again"]
    old, new = (dict(zip(lines[0].split(), line.split()[1:], strict=True)) for line in lines[2:])
    assert old["step"] == new["step"] == "200"
    assert float(new["missed"]) == pytest.approx(float(old["missed"]), rel=0.2)
    with pytest.raises(SystemExit, match=r"start can be delta, full, he, residual where .*; got 'start=she'"):
        call("identity", "--only", "depth=4", "start=she")
    with pytest.raises(SystemExit, match=r"--only takes depth start t lr precision seed; .* got 'rate=1'"):
        call("identity", "--only", "rate=1")

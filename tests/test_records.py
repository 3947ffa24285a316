"""Recorded experiments: grids that are killed, interrupted, spread over processes; and what is committed."""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest
import torch
from conftest import ROOT

import d2l_utils as d2l
from d2l_utils.book import records

KEYS = ["command", "commit", "date", "torch", "processor", "threads", "seconds", "data_sha256", "runs"]
PENDING = set()             # experiments whose record is not there yet, or not complete
CONFIGS = [{"depth": depth, "shortcut": shortcut, "seed": seed}
           for depth in (8, 20) for shortcut in (None, "A") for seed in (0, 1, 2)]
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))
NAMES = sorted(path.stem for path in records.RECORDED.glob("*.csv"))

grid = partial(records.run_grid, "grid")


def run(depth, shortcut, seed, epochs=2, note=None, seconds=0.0):
    """A run whose result says what it was given; `note` is a file in which every start leaves a line."""
    if note:
        with open(note, "a") as file:
            file.write(f"{depth} {shortcut} {seed} {os.getpid()}\n")
    time.sleep(seconds)
    return [{"epoch": epoch, "loss": depth + seed / 7 + epoch, "was_none": shortcut is None}
            for epoch in range(1, epochs + 1)]


def provenance(folder):
    return json.loads((folder / "grid.json").read_text())


def assert_complete(table, folder, configs=CONFIGS):
    """Every configuration is there once, with its own rows, and the provenance counts them all."""
    assert len(table) == 2 * len(configs)
    assert not table.duplicated(["depth", "shortcut", "seed", "epoch"]).any()
    assert {tuple(row) for row in table[["depth", "shortcut", "seed"]].to_numpy().tolist()} == {
        (c["depth"], c["shortcut"] or "none", c["seed"]) for c in configs}
    assert ((table.loss - (table.depth + table.seed / 7 + table.epoch)).abs() < 1e-3).all()
    assert sum(entry["runs"] for entry in provenance(folder)) == len(configs)


# What is written

def test_grid_writes_tidy_rows_and_provenance(tmp_path):
    table = grid(CONFIGS, run, folder=tmp_path, data_sha256="abc", threads=1)
    assert_complete(table, tmp_path)
    assert (table.was_none == (table.shortcut == "none")).all()         # run is given None, the CSV says none
    assert list(table)[:3] == ["depth", "shortcut", "seed"]
    assert not table.diverged.any()
    assert table.equals(d2l.recorded("grid", tmp_path))
    [entry] = provenance(tmp_path)
    assert list(entry) == KEYS
    assert (entry["data_sha256"], entry["threads"], entry["runs"]) == ("abc", 1, len(CONFIGS))
    assert entry["torch"] == torch.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.csv", "grid.json"]


def test_seed_0_of_every_configuration_comes_first_in_the_order_given(tmp_path):
    table = grid(CONFIGS, run, folder=tmp_path)
    first = table[::2]
    assert first.seed.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert first[:4][["depth", "shortcut"]].to_numpy().tolist() == [[8, "none"], [8, "A"], [20, "none"], [20, "A"]]


def test_diverged_run_is_a_result_and_the_grid_goes_on(tmp_path):
    def diverging(depth, shortcut, seed):
        if depth == 20 and seed == 1:
            error = FloatingPointError("the loss is not a number")
            if shortcut is None:
                error.history = run(depth, shortcut, seed, epochs=1)
            raise error
        return run(depth, shortcut, seed)
    table = grid(CONFIGS, diverging, folder=tmp_path)
    bad = table[table.diverged]
    assert bad[["depth", "shortcut", "seed"]].to_numpy().tolist() == [[20, "none", 1], [20, "A", 1]]
    assert bad.epoch.tolist() == [1, 0]
    assert bad.loss.isna().tolist() == [False, True]
    assert table.groupby(["depth", "shortcut", "seed"]).ngroups == len(CONFIGS)
    assert grid(CONFIGS, pytest.fail, folder=tmp_path).equals(table)    # it is there: it is not run again


@pytest.mark.parametrize("values", [[1 / 3, 0.1, 1e-4, 3.0], ["none", "A", "1x"], [None, 0.5], [True, False],
                                    [1_234_567, 1_234_568], [1_234_567.0, 1e-7 / 3], ["", "a"]])
def test_configurations_are_known_again_after_a_trip_through_the_csv(tmp_path, values):
    configs = [{"value": value, "seed": 0} for value in values]
    table = grid(configs, lambda value, seed: [{"epoch": 1}], folder=tmp_path)
    assert len(table) == len(values)
    assert grid(configs, pytest.fail, folder=tmp_path).equals(table)


# Bad arguments

def test_unknown_name_says_which_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"name must be a recorded experiment \(none\), got 'nothing'"):
        d2l.recorded("nothing", tmp_path)
    grid(CONFIGS[:1], run, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"\(grid\), got 'nothing'; experiments/nothing\.py would make it"):
        d2l.recorded("nothing", tmp_path)


@pytest.mark.parametrize(("configs", "message"), [
    ([], "at least one"), ([{"depth": 8}], "seed among them, got {'depth': 8}"),
    ([{"depth": 8, "seed": 0}, {"seed": 1}], "the same keys"),
    ([{"depth": 8, "seed": 0}, {"depth": 8.0, "seed": 0}], "differ from each other, got {'depth': 8.0")])
def test_bad_configs_are_refused_before_any_run(tmp_path, configs, message):
    with pytest.raises(ValueError, match=message):
        grid(configs, pytest.fail, folder=tmp_path)


def test_new_keys_are_refused(tmp_path):
    grid(CONFIGS[:1], run, folder=tmp_path)
    with pytest.raises(ValueError, match=r"configs must have the keys of grid.csv: \['lr'\] are new"):
        grid([{**CONFIGS[0], "lr": 0.1}], pytest.fail, folder=tmp_path)


def test_two_grids_at_once_do_not_overwrite_each_other(tmp_path):
    def meanwhile(**config):
        grid(CONFIGS[1:2], run, folder=tmp_path)
        return run(**config)

    with pytest.raises(RuntimeError, match=r"grid.csv has changed .* one grid at a time"):
        grid(CONFIGS[:1], meanwhile, folder=tmp_path)
    assert_complete(d2l.recorded("grid", tmp_path), tmp_path, CONFIGS[1:2])


def test_unwritable_folder_is_refused_before_any_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"folder must be one that can be written to, got '.*below'"):
        grid(CONFIGS, pytest.fail, folder=tmp_path / "file" / "below")


# Killed, interrupted, failing

def test_killed_grid_resumes_with_nothing_lost_and_nothing_twice(tmp_path):
    note = tmp_path / "starts"
    code = ("from test_records import *\n"
            f"grid(CONFIGS, partial(run, note={str(note)!r}, seconds=0.2), folder={str(tmp_path)!r})")
    command = [sys.executable, "-c", code]
    kept = ""
    for rows in (2, 8):
        process = subprocess.Popen(command, cwd=ROOT / "tests", stderr=subprocess.DEVNULL)
        while not ((tmp_path / "grid.csv").exists() and len(d2l.recorded("grid", tmp_path)) >= rows):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, kept = kept, (tmp_path / "grid.csv").read_text()
        assert kept.startswith(before)
        assert len(kept.splitlines()) < 2 * len(CONFIGS)
    subprocess.run(command, cwd=ROOT / "tests", check=True, capture_output=True)
    assert (tmp_path / "grid.csv").read_text().startswith(kept)
    assert_complete(d2l.recorded("grid", tmp_path), tmp_path)
    assert len(provenance(tmp_path)) == 3
    assert len(note.read_text().splitlines()) <= len(CONFIGS) + 2       # at most the run under way is done again


@pytest.mark.parametrize("stop_after", [1, len(CONFIGS)])
def test_kill_between_a_runs_rows_and_its_count_is_mended(tmp_path, monkeypatch, stop_after):
    count, real = [], records.Provenance.add_run

    def killed(self):
        count.append(1)
        if len(count) == stop_after:
            raise KeyboardInterrupt
        real(self)
    monkeypatch.setattr(records.Provenance, "add_run", killed)
    with pytest.raises(KeyboardInterrupt):
        grid(CONFIGS, run, folder=tmp_path)
    assert sum(entry["runs"] for entry in provenance(tmp_path)) == stop_after - 1
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


def test_finished_grid_is_left_as_it_is(tmp_path):
    grid(CONFIGS, run, folder=tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("grid.csv", "grid.json")]
    grid(CONFIGS, pytest.fail, folder=tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("grid.csv", "grid.json")] == before


def test_grid_can_grow_and_start_afresh(tmp_path):
    grid(CONFIGS[:3], run, folder=tmp_path)
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)
    assert [entry["runs"] for entry in provenance(tmp_path)] == [3, 9]
    (tmp_path / "grid.csv").unlink()
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


def test_rows_of_another_commit_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "old")
    grid(CONFIGS[:3], run, folder=tmp_path)
    monkeypatch.setattr(records, "commit", lambda: "new")
    with pytest.warns(UserWarning, match=r"grid\.json: rows of other commits are there already \(old\)"):
        grid(CONFIGS, run, folder=tmp_path)
    assert [entry["commit"] for entry in provenance(tmp_path)] == ["old", "new"]


def test_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                       capture_output=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit() == "unknown"
    (tmp_path / "records.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    assert len(records.commit()) == 40
    (tmp_path / "records.py").write_text("2")
    assert records.commit().endswith("+changes")


# Executors

@pytest.mark.parametrize("pool", [partial(ThreadPoolExecutor, 3),
                                  partial(ProcessPoolExecutor, 2, get_context("spawn"))])
def test_executors_run_the_same_grid(tmp_path, pool):
    with pool() as executor:
        assert_complete(grid(CONFIGS, run, executor, tmp_path), tmp_path)


def test_failing_run_stops_the_grid_after_those_under_way(tmp_path):
    def failing(depth, shortcut, seed):
        if seed == 1:
            raise RuntimeError("out of memory")
        return run(depth, shortcut, seed, seconds=0.05)
    for executor in (None, ThreadPoolExecutor(2)):
        with pytest.raises(RuntimeError, match="out of memory"):
            grid(CONFIGS, failing, executor, tmp_path)
        assert set(d2l.recorded("grid", tmp_path).seed) == {0}
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


def test_interrupted_grid_does_not_wait_for_runs_that_have_not_begun(tmp_path, monkeypatch):
    def interrupted(futures):
        raise KeyboardInterrupt
    class Queue:
        def submit(self, *call):
            futures.append(Future())
            return futures[-1]
    futures = []
    monkeypatch.setattr(records, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid(CONFIGS, run, Queue(), tmp_path)
    assert [future.cancelled() for future in futures] == [True] * len(CONFIGS)


def test_killed_dask_worker_costs_no_run(tmp_path):
    from dask.distributed import Client, LocalCluster
    note = tmp_path / "starts"
    with (LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
          Client(cluster) as client):
        pids = set(client.run(os.getpid).values())

        def kill_one():
            while not (note.exists() and len(note.read_text().splitlines()) >= 4):
                time.sleep(0.02)
            victim = int(note.read_text().split()[-1])
            assert victim in pids
            os.kill(victim, signal.SIGKILL)
            return victim
        with ThreadPoolExecutor(1) as thread:
            killed = thread.submit(kill_one)
            slow = partial(run, note=str(note), seconds=0.3)
            table = grid(CONFIGS, slow, client.get_executor(), tmp_path)
            assert killed.result(timeout=1) in pids
    assert_complete(table, tmp_path)


# What is committed

def labels(configs, keys):
    return {records.label(config, keys) for config in configs}


@pytest.mark.parametrize("name", NAMES)
def test_committed_record_is_its_scripts_grid_and_its_provenance_adds_up(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    configs, table = importlib.import_module(name).CONFIGS, d2l.recorded(name)
    entries = json.loads((records.RECORDED / f"{name}.json").read_text())
    assert all(set(KEYS) <= set(entry) and len(entry["data_sha256"]) == 64 for entry in entries)
    rows, keys = table.to_dict("records"), list(configs[0])
    assert "seed" in keys
    assert "None" not in set(table.get("shortcut", []))
    assert sum(entry["runs"] for entry in entries) == len(labels(rows, keys))
    keys = [key for key in keys if key != "precision"]      # the scripts take the machine's: it may be another one here
    assert labels(rows, keys) <= labels(configs, keys)
    finished = labels(rows, keys) == labels(configs, keys)
    assert finished == (name not in PENDING), "PENDING names the unfinished grids and no others"


def test_every_record_has_a_script_and_every_script_a_record_or_is_pending():
    assert set(SCRIPTS) >= set(NAMES) | PENDING
    assert set(SCRIPTS) == set(NAMES) | PENDING, "name the experiments that have no record yet in PENDING"


@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke_corner_of_every_experiment_runs_in_30_seconds_on_two_cores(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, ROOT / "experiments" / f"{name}.py", "--smoke", "--folder", tmp_path],
                   check=True, timeout=240, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * 30     # however busy the machine
    assert "seed" in d2l.recorded(name, tmp_path)
    assert len(json.loads((tmp_path / f"{name}.json").read_text())) == 1

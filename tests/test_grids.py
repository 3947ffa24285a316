"""run_grid: what it writes, what it refuses; grids that are killed, interrupted, failing, spread over processes."""

import json
import os
import signal
import subprocess
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

import d2l_utils as d2l
from d2l_utils.book import grids, provenance
from d2l_utils.book.records import recorded_array

KEYS = ["command", "commit", "date", "torch", "processor", "threads", "seconds", "data_sha256", "runs"]
CONFIGS = [{"depth": depth, "shortcut": shortcut, "seed": seed}
           for depth in (8, 20) for shortcut in (None, "A") for seed in (0, 1, 2)]

grid = partial(grids.run_grid, "grid")


def run(depth, shortcut, seed, epochs=2, note=None, seconds=0.0):
    """A run whose result says what it was given; `note` is a file in which every start leaves a line."""
    if note:
        with open(note, "a") as file:
            file.write(f"{depth} {shortcut} {seed} {os.getpid()}\n")
    time.sleep(seconds)
    return [{"epoch": epoch, "loss": depth + seed / 7 + epoch, "was_none": shortcut is None}
            for epoch in range(1, epochs + 1)]


def entries(folder):
    return json.loads((folder / "grid.json").read_text())


def files(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def assert_complete(table, folder, configs=CONFIGS):
    """Every configuration is there once, with its own rows, and the provenance counts them all."""
    assert len(table) == 2 * len(configs)
    assert not table.duplicated(["depth", "shortcut", "seed", "epoch"]).any()
    assert {tuple(row) for row in table[["depth", "shortcut", "seed"]].to_numpy().tolist()} == {
        (c["depth"], c["shortcut"] or "none", c["seed"]) for c in configs}
    assert ((table.loss - (table.depth + table.seed / 7 + table.epoch)).abs() < 1e-3).all()
    assert sum(entry["runs"] for entry in entries(folder)) == len(configs)


# What is written

def test_grid_writes_tidy_rows_and_entries(tmp_path):
    table = grid(CONFIGS, run, folder=tmp_path, data_sha256="abc", threads=1)
    assert_complete(table, tmp_path)
    assert (table.was_none == (table.shortcut == "none")).all()         # run is given None, the CSV says none
    assert list(table)[:3] == ["depth", "shortcut", "seed"]
    assert not table.diverged.any()
    assert table.equals(d2l.recorded("grid", tmp_path))
    [entry] = entries(tmp_path)
    assert list(entry) == KEYS
    assert (entry["data_sha256"], entry["threads"], entry["runs"]) == ("abc", 1, len(CONFIGS))
    assert entry["torch"] == torch.__version__
    assert files(tmp_path) == ["grid.csv", "grid.json"]
    assert (table.entry == 0).all()


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan"),
                                 torch.tensor(float("inf"))])
def test_number_that_is_not_finite_makes_its_run_a_diverged_one(tmp_path, bad):
    def runs(seed):
        return [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": bad if seed == 1 else 0.4}]
    table = grid([{"seed": seed} for seed in range(3)], runs, folder=tmp_path)
    assert table.diverged.tolist() == [False, False, True, True, False, False]
    assert table.loss[:3].tolist() + table.loss[4:].tolist() == [0.5, 0.4, 0.5, 0.5, 0.4]


@pytest.mark.parametrize("absent", [{}, {"val_loss": None}, {"val_loss": pd.NA}])
def test_column_that_does_not_apply_to_a_run_is_no_divergence(tmp_path, absent):
    def runs(seed):
        return [{"epoch": 1, "loss": 0.5} | ({"val_loss": 0.25} if seed else absent)]
    table = grid([{"seed": 0}, {"seed": 1}], runs, folder=tmp_path)
    assert not table.diverged.any()
    assert table.val_loss.isna().tolist() == [True, False]


@pytest.mark.parametrize("values", [
    [1 / 3, 0.1, 1e-4, 3.0], ["none", "A", "1x"], [None, 0.5], [True, False], [1_234_567, 1_234_568],
    [1_234_567.0, 1_234_568.0, 1e-7 / 3], ["", "a"], [2**53, 2**53 + 1], [-2**62, 2**62 + 1],
    ["a,b", 'say "c"', "d\ne"],
    [np.float64(0.1), np.int64(7), np.bool_(True), torch.tensor(3)], ["shifts, 14x14", "ä"]])
def test_configurations_are_known_again_after_a_trip_through_the_csv(tmp_path, values):
    configs = [{"value": value, "seed": 0} for value in values]
    table = grid(configs, lambda value, seed: [{"epoch": 1}], folder=tmp_path)
    assert len(table) == len(values)
    assert grid(configs, pytest.fail, folder=tmp_path).equals(table)
    if all(isinstance(value, int) for value in values):
        assert table.value.tolist() == values


def test_seeds_above_2_to_the_53_are_told_apart(tmp_path):
    made = []

    def note(seed):
        made.append(seed)
        return [{"epoch": 1}]
    for seed in (2**53, 2**53 + 1):
        table = grid([{"seed": seed}], note, folder=tmp_path)
    assert made == table.seed.tolist() == [2**53, 2**53 + 1]


@pytest.mark.parametrize(("value", "text"), [(19_421_274, "19421274"), (2**53 + 1, "9007199254740993"), (True, "True"),
                                             (0.1234567, "0.123457"), ("A", "A"), (12_345_678.0, "12345678")])
def test_value_stays_as_it_was_written_where_another_run_has_none(tmp_path, value, text):
    def runs(seed):
        if seed == 1:
            raise FloatingPointError
        return [{"epoch": 1, "measured": value}]
    grid([{"seed": 0}], runs, folder=tmp_path)
    before = (tmp_path / "grid.csv").read_text().splitlines()[1]
    assert before == f"0,1,{text},False,0"
    table = grid([{"seed": 0}, {"seed": 1}], runs, folder=tmp_path)
    assert (tmp_path / "grid.csv").read_text().splitlines()[1].startswith(f"0,1,{text},")
    assert str(table.measured[0]) == text
    assert table.measured.isna().tolist() == [False, True]


def test_arrays_are_kept_beside_the_rows(tmp_path):
    for count in (2, 5):
        grid(CONFIGS[:count], with_arrays, folder=tmp_path)
    assert files(tmp_path) == ["grid.csv", "grid.json", "grid.npz"]
    assert recorded_array("grid", "weights", tmp_path, depth=8, shortcut=None, seed=1).tolist() == [801] * 3
    assert recorded_array("grid", "bias", tmp_path, shortcut="A", seed=0).shape == (0,)
    with pytest.raises(KeyError, match=r"one run must have left 'weights' with .*, got 2 of 10"):
        recorded_array("grid", "weights", tmp_path, seed=0)
    with pytest.raises(KeyError, match="got 0 of 10"):
        recorded_array("grid", "weights", tmp_path, depth=80)
    with pytest.raises(FileNotFoundError, match="name must be a recorded experiment with arrays"):
        recorded_array("other", "weights", tmp_path)


def test_a_text_with_a_comma_is_not_taken_for_a_shorter_one(tmp_path):
    starts = ("fan-in", "fan-in, circular")
    d2l.run_grid("starts", [{"start": start, "seed": 0} for start in starts], folder=tmp_path,
                 run=lambda start, seed: ([{"error": 0.5}], {"length": np.array(len(start))}))
    for start in starts:
        assert recorded_array("starts", "length", tmp_path, start=start) == len(start)


# Old records

OLD = "depth,seed,epoch,loss,diverged,entry\n8,0,1,0.5,False,0\n8,0,2,0.4,False,0\n8,1,1,1,False,1\n20,0,1,3,True,1\n"


def old_record(folder):
    (folder / "grid.csv").write_text(OLD)
    text = json.dumps([dict.fromkeys(KEYS, "") | {"commit": "old", "runs": count} for count in (1, 2)])
    (folder / "grid.json").write_text(text)
    return [{"depth": depth, "seed": seed} for depth, seed in [(8, 0), (8, 1), (20, 0)]]


@pytest.mark.filterwarnings("ignore:grid.json. rows of other commits")
def test_new_column_is_written_where_no_run_is_lacking_and_old_values_stay_as_they_were(tmp_path):
    configs = [config | {"norm": True} for config in old_record(tmp_path)]
    table = grid(configs, pytest.fail, folder=tmp_path, defaults={"norm": True})
    assert table.norm.all()
    lines = [line.split(",") for line in (tmp_path / "grid.csv").read_text().splitlines()]
    assert [[*line[:2], *line[3:]] for line in lines] == [line.split(",") for line in OLD.splitlines()]
    assert [entry["runs"] for entry in entries(tmp_path) if entry["runs"]] == [1, 2]


@pytest.mark.filterwarnings("ignore:grid.json. rows of other commits")
def test_new_column_has_its_default_in_old_rows(tmp_path):
    configs = [config | {"norm": True} for config in old_record(tmp_path)]
    configs += [{"depth": 8, "seed": 0, "norm": False}]
    with pytest.raises(ValueError, match=r"\['norm'\] are new; give old rows a value with defaults="):
        grid(configs, pytest.fail, folder=tmp_path)

    def only_the_new(depth, seed, norm):
        assert not norm
        return [{"epoch": 1, "loss": 2.5}]
    table = grid(configs, only_the_new, folder=tmp_path, defaults={"norm": True, "processor": "a, b"})
    assert table.norm.tolist() == [True] * 4 + [False]
    assert table.processor.tolist()[:4] == ["a, b"] * 4
    assert table.processor.isna().tolist() == [False] * 4 + [True]
    assert table.loss.tolist() == [0.5, 0.4, 1, 3, 2.5]
    assert table.entry.tolist() == [0, 0, 1, 1, 2]
    assert list(table) == ["depth", "seed", "norm", "epoch", "loss", "processor", "diverged", "entry"]
    assert grid(configs, pytest.fail, folder=tmp_path, defaults={"norm": True}).equals(table)


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
    with pytest.raises(ValueError, match=r"configs must have the keys of grid\.csv: \['lr'\] are new"):
        grid([{**CONFIGS[0], "lr": 0.1}], pytest.fail, folder=tmp_path)


def test_second_grid_is_refused_while_one_writes_to_the_record(tmp_path):
    refused = []

    def meanwhile(**config):
        with pytest.raises(RuntimeError, match=r"another grid writes to .*grid\.csv: let it end first"):
            grid(CONFIGS[1:2], pytest.fail, folder=tmp_path)
        refused.append(config)
        return run(**config)
    grid(CONFIGS[:1], meanwhile, folder=tmp_path)
    assert refused == CONFIGS[:1]
    assert_complete(grid(CONFIGS[:2], run, folder=tmp_path), tmp_path, CONFIGS[:2])


def test_complete_grid_needs_neither_lock_nor_a_writable_folder(tmp_path):
    table = grid(CONFIGS[:1], run, folder=tmp_path)
    with filelock.FileLock(tmp_path / ".grid.lock"):
        assert grid(CONFIGS[:1], pytest.fail, folder=tmp_path).equals(table)


@pytest.mark.parametrize("value", [(16, 32), [1], {"a": 1}, np.ones(2), torch.ones(2), 1j])
def test_configuration_that_is_no_scalar_is_refused_before_any_run(tmp_path, value):
    with pytest.raises(TypeError, match=r"widths must be a number, a text, True, False or None, got"):
        grid([{"widths": 1, "seed": 0}, {"widths": value, "seed": 0}], pytest.fail, folder=tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("seed", [0.5, "0", None])
def test_seed_that_is_no_whole_number_is_refused(tmp_path, seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        grid([{"seed": seed}], pytest.fail, folder=tmp_path)


@pytest.mark.parametrize("result", [None, {"epoch": 1}, [], [1], "rows", ({"epoch": 1}, {}), pd.DataFrame(), 3.0])
@pytest.mark.parametrize("threads", [0, 2])
def test_result_that_is_no_rows_is_an_error_that_keeps_what_others_gave(tmp_path, result, threads):
    made = []

    def some(depth, shortcut, seed):
        made.append(seed)
        return result if seed == 1 else run(depth, shortcut, seed)
    error = pytest.raises(TypeError, match=r"run must return rows .*at least one")
    with ThreadPoolExecutor(threads or 1) as pool, error:
        grid(CONFIGS, some, pool if threads else None, tmp_path)
    assert sorted(made)[:5] == [0, 0, 0, 0, 1]
    assert threads or len(made) == 5                                    # found after the first such run
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


@pytest.mark.parametrize(("cell", "message"), [([1, 2], "loss must be a number, .* got \\[1, 2\\]"),
                                               (np.ones(3), "loss must be a number")])
def test_cell_that_is_no_scalar_is_an_error(tmp_path, cell, message):
    with pytest.raises(TypeError, match=message):
        grid([{"seed": 0}], lambda seed: [{"loss": cell}], folder=tmp_path)
    with pytest.raises(TypeError, match=r"arrays of numbers, got something else as \['net'\]"):
        grid([{"seed": 0}], lambda seed: ([{"loss": 1}], {"net": object()}), folder=tmp_path)


def test_unwritable_folder_is_refused_before_any_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"folder must be one that can be written to, got '.*below'"):
        grid(CONFIGS, pytest.fail, folder=tmp_path / "file" / "below")


# Killed, interrupted, failing

def killed(scenario):
    """Run `scenario()` in a child process, which must end by kill -9."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # torch has threads; the child uses none of them
        child = os.fork()
    if child == 0:
        try:
            scenario()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def with_arrays(depth, shortcut, seed, note=None):
    return run(depth, shortcut, seed, note=note), {"weights": np.full(3, 100 * depth + seed), "bias": np.zeros(seed)}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
def test_grid_killed_before_or_after_any_of_its_writes_loses_nothing_and_repeats_nothing(tmp_path, number, late):
    """Two runs write their entry, then arrays, count and rows each: 7 files put in their places."""
    note, configs, replace, calls = tmp_path / "starts", CONFIGS[:2], os.replace, []

    def deadly(*paths):
        calls.append(paths)
        if len(calls) == number and not late:
            kill()
        replace(*paths)
        if len(calls) == number:
            kill()

    def scenario():
        os.replace = deadly
        grid(configs, partial(with_arrays, note=note), folder=tmp_path)
    killed(scenario)
    kept = (tmp_path / "grid.csv").read_text() if (tmp_path / "grid.csv").exists() else ""
    table = grid(configs, partial(with_arrays, note=note), folder=tmp_path)
    assert_complete(table, tmp_path, configs)
    assert (tmp_path / "grid.csv").read_text().startswith(kept)
    assert len(note.read_text().splitlines()) <= len(configs) + 1       # at most the run under way is done again
    for config in configs:
        weights = recorded_array("grid", "weights", tmp_path, **config)
        assert weights.tolist() == [100 * config["depth"] + config["seed"]] * 3
    with np.load(tmp_path / "grid.npz") as file:
        assert len(file.files) == 4
    assert not list(tmp_path.glob(".*.part"))


def test_grid_killed_in_a_run_makes_that_run_again_and_frees_its_lock(tmp_path):
    def deadly(depth, shortcut, seed):
        if seed == 1:
            kill()
        return run(depth, shortcut, seed)
    killed(lambda: grid(CONFIGS, deadly, folder=tmp_path))
    before = (tmp_path / "grid.csv").read_text()
    assert len(before.splitlines()) == 1 + 2 * 4
    table = grid(CONFIGS, run, folder=tmp_path)
    assert_complete(table, tmp_path)
    assert (tmp_path / "grid.csv").read_text().startswith(before)
    assert [entry["runs"] for entry in entries(tmp_path)] == [4, 8]
    assert (table.entry == (table.seed > 0)).all()


@pytest.mark.parametrize("stop_after", [1, len(CONFIGS)])
def test_interrupt_before_a_run_is_counted_costs_that_run_alone(tmp_path, monkeypatch, stop_after):
    count, real = [], json.dumps

    def stopped(*arguments, **options):
        count.append(1)
        if len(count) == 1 + stop_after:                                # the first call writes the entry itself
            raise KeyboardInterrupt
        return real(*arguments, **options)
    with monkeypatch.context() as patch:
        patch.setattr(grids.json, "dumps", stopped)
        with pytest.raises(KeyboardInterrupt):
            grid(CONFIGS, run, folder=tmp_path)
    assert sum(entry["runs"] for entry in entries(tmp_path)) == stop_after - 1
    assert (tmp_path / "grid.csv").exists() == (stop_after > 1)
    assert stop_after == 1 or len(d2l.recorded("grid", tmp_path)) == 2 * (stop_after - 1)
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


def test_finished_grid_is_left_as_it_is(tmp_path):
    grid(CONFIGS, run, folder=tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("grid.csv", "grid.json")]
    grid(CONFIGS, pytest.fail, folder=tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("grid.csv", "grid.json")] == before


def test_grid_can_grow_and_start_afresh(tmp_path):
    grid(CONFIGS[:3], run, folder=tmp_path)
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)
    assert [entry["runs"] for entry in entries(tmp_path)] == [3, 9]
    (tmp_path / "grid.csv").unlink()
    assert_complete(grid(CONFIGS, run, folder=tmp_path), tmp_path)


def test_rows_of_another_commit_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "old")
    grid(CONFIGS[:3], run, folder=tmp_path)
    monkeypatch.setattr(provenance, "commit", lambda: "new")
    with pytest.warns(UserWarning, match=r"grid\.json: rows of other commits are there already \(old\)"):
        grid(CONFIGS, run, folder=tmp_path)
    assert [entry["commit"] for entry in entries(tmp_path)] == ["old", "new"]


def test_commit_says_whether_files_differ_from_it_and_nothing_of_a_foreign_repository(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                       capture_output=True)
    script = tmp_path / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(script))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    script.write_text("1")
    assert provenance.commit() == "unknown"
    (tmp_path / "theirs.py").touch()
    git("init", "-q")
    git("add", "theirs.py")
    git("commit", "-qm", "theirs: ours is installed inside their repository")
    assert provenance.commit() == "unknown"
    git("add", ".")
    git("commit", "-qm", "ours")
    assert len(provenance.commit()) == 40
    script.write_text("2")
    assert provenance.commit().endswith("+changes")


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
    monkeypatch.setattr(grids, "as_completed", interrupted)
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

"""run_grid() makes a recorded experiment, run by run, and survives `kill -9`."""

import csv
import io
import time
from collections.abc import Mapping
from concurrent.futures import as_completed
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from tqdm import tqdm

from ..engine.files import whole
from .provenance import Provenance
from .records import RECORDED, array_name, as_written, recorded

NOT_FINITE = {"nan", "inf", "-inf"}


def run_grid(name, configs, run, executor=None, folder=None, data_sha256=None, threads=None, defaults=None):
    """Run `run(**config)` for every config that NAME.csv lacks, and append its rows; return the whole DataFrame.

    `configs`: dicts of the same keys with scalar values, a whole number `seed` among them; lower seeds run first.
    `run` returns rows (a DataFrame or a list of dicts) or (rows, {name: array}): the arrays go to NAME.npz. What does
    not apply to a run is left out or None. A FloatingPointError or a number that is not finite is a result, too: the
    run's rows say diverged=True. A row's `entry` is its invocation's place in NAME.json. `executor`: any
    concurrent.futures.Executor. `defaults={column: value}`: what a new column says of the rows that are there.

    Before any run: ValueError or TypeError for bad configs, PermissionError for a `folder` that cannot be written to,
    RuntimeError where another grid writes to NAME. A TypeError for a result that is no rows, and any other exception
    of `run`, stops the grid after the runs under way have been kept.
    """
    keys, folder = check_configs(configs), Path(folder or RECORDED)
    record = Record(folder, name, keys, defaults or {})
    if not record.lacking(configs) and not record.mended:
        return recorded(name, folder)
    with alone(folder, name):
        record = Record(folder, name, keys, defaults or {})             # again: another grid may just have ended
        todo = sorted(record.lacking(configs), key=lambda config: config["seed"])
        if record.mended:                   # a run that was not counted, old rows without entry, a new column
            record.log.write()
            record.write_rows()
        if todo:
            record.log.begin(data_sha256, threads)
        with tqdm(total=len(configs), initial=len(configs) - len(todo), desc=name, unit="run", mininterval=1) as bar:
            for config, result in outcomes(todo, run, executor):
                record.add(config, *result)
                bar.update()
                bar.set_postfix_str(" ".join(f"{key}={as_written(config[key])}" for key in keys))
    return recorded(name, folder)


def check_configs(configs):
    """The keys that every config has; ValueError where they differ, lack a whole seed, or two configs are written
    alike; TypeError where a value is no scalar."""
    if not configs:
        raise ValueError("configs must hold at least one configuration, got none")
    keys, seen = list(configs[0]), set()
    for config in configs:
        if set(config) != set(keys) or "seed" not in keys:
            raise ValueError(f"configs must all have the same keys, seed among them, got {config!r}")
        if not isinstance(config["seed"], Integral):
            raise ValueError(f"seed must be a whole number, got {config!r}")
        if label(config, keys) in seen:
            raise ValueError(f"configs must differ from each other, got {config!r} twice (as it is written)")
        seen.add(label(config, keys))
    return keys


def label(config, keys):
    """What tells a configuration from the others: its values as they are written."""
    return tuple(as_written(config[key], key) for key in keys)


@contextmanager
def alone(folder, name):
    """One grid at a time, in a folder that can be written to; the system frees the lock whatever ends this process."""
    lock = filelock.FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"another grid writes to {folder / name}.csv: let it end first") from None
    except OSError as error:
        raise PermissionError(f"folder must be one that can be written to, got {str(folder)!r} ({error}); "
                              "pass folder=... to put the results elsewhere") from error
    try:
        for part in folder.glob(f".{name}.*.part"):                     # a killed grid's
            part.unlink()
        yield
    finally:
        lock.release()


class Record:
    """NAME.csv as text, cell by cell, so that what is there stays as it was written; with NAME.json and NAME.npz."""

    def __init__(self, folder, name, keys, defaults):
        self.path, self.keys, self.columns, self.rows = folder / f"{name}.csv", keys, list(keys), []
        if self.path.exists():
            with open(self.path, encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                self.rows, self.columns = list(reader), list(reader.fieldnames)
        new = [column for column in [*keys, *defaults] if column not in self.columns]
        if missing := [key for key in new if key not in defaults]:
            raise ValueError(f"configs must have the keys of {self.path.name}: {missing} are new; give old rows a "
                             "value with defaults={...}, or move that file away first")
        for row in self.rows:
            row.update({column: as_written(defaults[column]) for column in new})
        runs = dict.fromkeys(label(row, keys) for row in self.rows)
        self.log = Provenance(self.path.with_suffix(".json"), len(runs))
        self.mended = bool(self.rows and (new or self.log.mended or "entry" not in self.columns))
        if self.rows and "entry" not in self.columns:
            entries = dict(zip(runs, self.log.numbers(len(runs)), strict=True))
            for row in self.rows:
                row["entry"] = entries[label(row, keys)]
        self.order(defaults)
        self.done = set(runs)

    def order(self, new):
        """Take `new` columns in: keys first, then what was measured, then how it went."""
        last = ["diverged", "entry"]
        self.columns = [column for column in dict.fromkeys([*self.keys, *self.columns, *new]) if column not in last]
        self.columns += last

    def lacking(self, configs):
        """The configs whose runs are not there."""
        return [config for config in configs if label(config, self.keys) not in self.done]

    def add(self, config, rows, arrays):
        """Keep a run: arrays, rows, count, in this order, so that one that is half there when the process is killed is
        made again, or counted later."""
        if arrays:
            self.write_arrays({array_name(config, name): array for name, array in arrays.items()})
        own = {key: as_written(config[key]) for key in self.keys} | {"entry": str(self.log.number)}
        self.rows += [row | own for row in rows]
        self.order(column for row in rows for column in row)
        self.write_rows()
        self.log.add_run()

    def write_rows(self):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with whole(self.path) as file:
            file.write(text.getvalue().encode())

    def write_arrays(self, new):
        path, old = self.path.with_suffix(".npz"), {}
        if path.exists() and self.rows:
            with np.load(path) as file:
                old = dict(file)
        with whole(path) as file:
            np.savez_compressed(file, **old | new)


def outcomes(todo, run, executor):
    """(config, result of attempt) for every run as it ends, in this process or in the executor's."""
    if executor is None:
        yield from ((config, attempt(run, config)) for config in todo)
        return
    futures = [executor.submit(attempt, run, config) for config in todo]
    config_of, failed = dict(zip(futures, todo, strict=True)), None
    try:
        for future in as_completed(futures):
            if future.cancelled():
                continue
            if future.exception() is None:
                yield config_of[future], future.result()
            elif failed is None:
                failed = future.exception()
                cancel(futures)
    finally:
        cancel(futures)                       # an interrupted grid does not wait for runs that have not begun
    if failed:
        raise failed


def cancel(futures):
    for future in futures:
        future.cancel()


def attempt(run, config):
    """One run's rows as they are written, with `diverged`, and its arrays."""
    start, diverged = time.perf_counter(), False
    try:
        result = run(**config)
    except FloatingPointError as error:
        diverged, result = True, getattr(error, "history", ())
        if not len(result):
            result = [{"epoch": 0, "seconds": time.perf_counter() - start}]
    rows, arrays = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(f"run must return rows (a DataFrame or a list of dicts, at least one), got {rows!r:.200} for "
                        f"{config}")
    rows = [{str(column): as_written(value, column) for column, value in row.items()
             if value is not None and value is not pd.NA} for row in rows]
    diverged = diverged or any(text in NOT_FINITE for row in rows for text in row.values())
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype == object]:
        raise TypeError(f"run must return arrays of numbers, got something else as {objects} for {config}")
    return [row | {"diverged": str(diverged)} for row in rows], arrays

"""run_grid() makes a recorded experiment, run by run, and survives `kill -9`."""

import json
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import as_completed
from numbers import Integral
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from tqdm import tqdm

from ..engine.files import whole
from . import provenance
from .records import RECORDED, as_words, as_written, recorded


def run_grid(name, configs, run, executor=None, folder=None, data_sha256=None, threads=None, defaults=None):
    """Run `run(**config)` for every config that NAME.csv lacks, append its rows, and return the whole DataFrame.

    `configs`: dicts of the same keys with scalar values, a whole number `seed` among them; lower seeds run first.
    `run` returns rows (a DataFrame or a list of dicts) or (rows, {name: array}) for NAME.npz; what does not apply is
    left out or None. A FloatingPointError and a number that is not finite are results: the rows say diverged=True.
    `executor`: any concurrent.futures.Executor. `defaults={column: value}`: what new columns say of old rows.

    Before any run: ValueError or TypeError for bad configs, PermissionError for a `folder` that cannot be written to,
    RuntimeError where another grid writes to NAME. Exceptions of `run`, and TypeError for a result that is no rows,
    come when the runs under way have been kept.
    """
    keys, folder = check_configs(configs), Path(folder or RECORDED)
    record = Record(folder, name, keys, defaults or {})
    if not record.lacking(configs) and not record.new:
        return recorded(name, folder)
    with locked(folder, name):
        record = Record(folder, name, keys, defaults or {})             # again: another grid may just have ended
        todo = record.lacking(configs)
        record.begin(provenance.entry(data_sha256, threads))
        with tqdm(total=len(configs), initial=len(configs) - len(todo), desc=name, unit="run", mininterval=1) as bar:
            for config, result in outcomes(todo, run, executor):
                record.add(config, *result)
                bar.update()
                bar.set_postfix_str(" ".join(as_words(config)))
    return recorded(name, folder)


def label(config, keys):
    """What tells a configuration from the others: its values as they are written."""
    return tuple(as_written(config[key], key) for key in keys)


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


def locked(folder, name):
    """The lock of the one grid that writes to NAME, as a context; the system frees it whatever ends this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f".{name}.lock").acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"another grid writes to {folder / name}.csv: let it end first") from None
    except OSError as error:
        raise PermissionError(f"folder must be one that can be written to, got {str(folder)!r} ({error}); "
                              "pass folder=... to put the results elsewhere") from error
    for part in folder.glob(f".{name}.*.part"):                         # a killed grid's
        part.unlink()
    return lock


class Record:
    """NAME.csv as a table of texts, so that what is there stays as it was written, and NAME.json as a list of entries,
    one for each time that runs were added: a row's `entry` is its place there. `new` are the columns that the file has
    yet to get."""

    def __init__(self, folder, name, keys, defaults):
        self.path, self.keys, self.entries = folder / f"{name}.csv", keys, []
        self.table = pd.DataFrame(columns=[*keys, "entry"])
        if self.path.exists():
            self.table = pd.read_csv(self.path, dtype=str, keep_default_na=False)
            self.entries = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        self.new = [key for key in (*keys, *defaults) if key not in self.table]
        if missing := [key for key in self.new if key not in defaults]:
            raise ValueError(f"configs must have the keys of {self.path.name}: {missing} are new; give old rows a "
                             "value with defaults={...}, or move that file away first")
        for key in self.new:
            self.table[key] = as_written(defaults[key], key)

    def lacking(self, configs):
        """The configs whose runs are not there, lower seeds first."""
        there = set(self.table[self.keys].itertuples(index=False, name=None))
        return sorted((config for config in configs if label(config, self.keys) not in there),
                      key=lambda config: config["seed"])

    def begin(self, entry):
        """Write the entry of the runs that follow, and new columns; warn where other commits have made runs."""
        self.start = time.perf_counter()
        if others := {old["commit"] for old in self.entries if old["runs"]} - {entry["commit"]}:
            warnings.warn(f"{self.path.stem}.json: rows of other commits are there already "
                          f"({', '.join(sorted(others))})", stacklevel=3)
        self.entries.append(entry)
        self.write()

    def add(self, config, rows, arrays):
        """Keep a run: its arrays, its count, and last its rows, without which it is made again."""
        if arrays:
            path, run = self.path.with_suffix(".npz"), ", ".join(as_words(config))
            arrays = {f"{run}: {name}": array for name, array in arrays.items()}
            if path.exists() and len(self.table):
                with np.load(path) as file:
                    arrays = dict(file) | arrays
            with whole(path) as file:
                np.savez_compressed(file, **arrays)
        own = {key: as_written(config[key]) for key in self.keys} | {"entry": str(len(self.entries) - 1)}
        self.table = pd.concat([self.table, pd.DataFrame(rows).assign(**own)])
        self.entries[-1]["seconds"] = round(time.perf_counter() - self.start, 1)
        self.write()

    def write(self):
        """The entries with their counts, then the table: keys, what was measured, and how it went, in this order."""
        made = self.table.drop_duplicates(self.keys)["entry"].value_counts()
        for place, entry in enumerate(self.entries):
            entry["runs"] = int(made.get(str(place), 0))
        with whole(self.path.with_suffix(".json")) as file:
            file.write(json.dumps(self.entries, indent=1).encode() + b"\n")
        if len(self.table):
            measured = self.table.columns.difference([*self.keys, "diverged", "entry"], sort=False)
            table = self.table[[*self.keys, *measured, "diverged", "entry"]]
            with whole(self.path) as file:
                file.write(table.to_csv(index=False, na_rep="nan", lineterminator="\n").encode())


def outcomes(todo, run, executor):
    """(config, result of attempt) for every run as it ends, in this process or in the executor's."""
    if executor is None:
        yield from ((config, attempt(run, config)) for config in todo)
        return
    def cancel():
        for future in config_of:
            future.cancel()

    config_of = {executor.submit(attempt, run, config): config for config in todo}
    try:
        for future in as_completed(config_of):
            if not future.cancelled() and future.exception() is None:
                yield config_of[future], future.result()
            else:
                cancel()
    finally:
        cancel()                              # an interrupted grid does not wait for runs that have not begun
    for future in config_of:
        if not future.cancelled():
            future.result()                   # raises what stopped the grid


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
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype == object]:
        raise TypeError(f"run must return arrays of numbers, got something else as {objects} for {config}")
    rows = [{str(column): as_written(value, column) for column, value in row.items()
             if value is not None and value is not pd.NA} for row in rows]
    diverged = diverged or any(text in ("nan", "inf", "-inf") for row in rows for text in row.values())
    return [row | {"diverged": str(diverged)} for row in rows], arrays

"""Recorded experiments: recorded() loads one, run_grid() makes one, run by run, and survives `kill -9`."""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from concurrent.futures import as_completed
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from ..engine.hardware import choose_device

RECORDED = Path(__file__).parent.parent / "recorded"
FLOATS = "%.6g"                     # how the CSV writes them


def recorded(name, folder=None):
    """The recorded experiment `name` as a DataFrame, a row per (configuration, seed, epoch). Raises FileNotFoundError
    with the names there are."""
    folder = Path(folder or RECORDED)
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.csv"))) or "none"
        raise FileNotFoundError(f"name must be a recorded experiment ({known}), got {name!r}; "
                                f"experiments/{name}.py would make it")
    return pd.read_csv(path, keep_default_na=False, na_values=["nan"])


def plain(value):
    """A configuration's value as the CSV has it: None is written "none"."""
    return "none" if value is None else value


def canonical(value):
    """A configuration's value as text that is the same before and after a trip through the CSV (1, 1.0 and "1.0";
    1/3 and 0.333333)."""
    try:
        number = float(FLOATS % value if isinstance(value, float) else value)
    except (TypeError, ValueError):
        return str(plain(value))
    if isinstance(value, bool):
        return str(value)
    return str(int(number)) if number.is_integer() else FLOATS % number


def label(config, keys):
    """What tells a configuration from the others: its canonical values."""
    return tuple(canonical(config[key]) for key in keys)


def write_atomically(path, text):
    """Write text so that `path` holds the old content or the new, whole, whatever happens meanwhile."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def commit():
    """The commit of this source tree, with "+changes" where files differ from it; "unknown" outside a repository."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no", "--", ":(top)*.py"], cwd=here,
                                 capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + "+changes" * bool(changed.stdout)


def processor():
    """The processor's name, or the GPU's where that is what computes."""
    if choose_device().type == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def run_grid(name, configs, run, executor=None, folder=None, data_sha256=None, threads=None):
    """Run `run(**config)` for every config that NAME.csv lacks; append its rows, and NAME.json says where from.

    `configs`: dicts of the same keys, `seed` among them. `run` returns a DataFrame or a list of dicts, one per row;
    a FloatingPointError of it (a loss that is not a number) is a result: its rows, or one without numbers, say
    diverged=True. `executor`: any concurrent.futures.Executor. Returns the whole DataFrame. Raises ValueError for bad
    configs, PermissionError before any training where `folder` cannot be written to, RuntimeError where another grid
    writes to the same file; another exception of `run` stops the grid after the other runs under way have been kept.
    Lower seeds run first.
    """
    keys = check_configs(configs)
    folder = Path(folder or RECORDED)
    path = folder / f"{name}.csv"
    rows, done = load_rows(path, keys)
    log = Provenance(folder / f"{name}.json", len(done), data_sha256, threads)
    todo = sorted((config for config in configs if label(config, keys) not in done), key=lambda config: config["seed"])
    if todo or log.repaired:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log.write()
        except OSError as error:
            raise PermissionError(f"folder must be one that can be written to, got {str(folder)!r} ({error}); "
                                  "pass folder=... to put the results elsewhere") from error
    with tqdm(total=len(configs), initial=len(configs) - len(todo), desc=name, unit="run", mininterval=1) as bar:
        for config, table in outcomes(todo, run, executor):
            table = table.assign(**{key: plain(config[key]) for key in keys})
            table = table[keys + [column for column in table if column not in keys]]
            if len(load_rows(path, keys)[0]) != len(rows):
                raise RuntimeError(f"{path} has changed since this grid's last run: let one grid at a time write to it")
            rows = pd.concat([rows, table], ignore_index=True) if len(rows) else table
            write_atomically(path, rows.to_csv(index=False, float_format=FLOATS, na_rep="nan"))
            log.add_run()
            bar.update()
            bar.set_postfix_str(" ".join(f"{key}={plain(config[key])}" for key in keys))
    return recorded(name, folder)


def check_configs(configs):
    """The keys that every config has; ValueError where they differ, lack a seed, or two configs are the same."""
    if not configs:
        raise ValueError("configs must hold at least one configuration, got none")
    keys, seen = list(configs[0]), set()
    for config in configs:
        if set(config) != set(keys) or "seed" not in keys:
            raise ValueError(f"configs must all have the same keys, seed among them, got {config!r}")
        if label(config, keys) in seen:
            raise ValueError(f"configs must differ from each other, got {config!r} twice")
        seen.add(label(config, keys))
    return keys


def load_rows(path, keys):
    """The rows that are there and the set of configurations they cover."""
    if not path.exists():
        return pd.DataFrame(), set()
    rows = recorded(path.stem, path.parent)
    if missing := [key for key in keys if key not in rows]:
        raise ValueError(f"configs must have the keys of {path.name}: {missing} are new; move that file away first")
    return rows, {label(row, keys) for row in rows[keys].to_dict("records")}


def outcomes(todo, run, executor):
    """(config, rows) of every run as it ends, in this process or in the executor's."""
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
    """The rows of one run, with `diverged`; a FloatingPointError becomes rows, so that the grid goes on."""
    start = time.perf_counter()
    try:
        return pd.DataFrame(run(**config)).assign(diverged=False)
    except FloatingPointError as error:
        history = pd.DataFrame(getattr(error, "history", ()))
        if not len(history):
            history = pd.DataFrame({"epoch": [0], "seconds": [time.perf_counter() - start]})
        return history.assign(diverged=True)


class Provenance:
    """NAME.json: an entry per invocation with commit, date, torch, processor, threads, seconds, data_sha256, runs."""

    def __init__(self, path, runs_there, data_sha256, threads):
        self.path, self.start, here = path, time.perf_counter(), commit()
        self.entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if not runs_there:                    # the CSV was moved away: a new one begins
            self.entries = [entry for entry in self.entries if not entry["runs"]]
        uncounted = runs_there - sum(entry["runs"] for entry in self.entries)
        self.repaired = bool(self.entries and uncounted)
        if self.repaired:                     # killed after a run's rows were written, before it was counted
            self.entries[-1]["runs"] += uncounted
        others = {entry["commit"] for entry in self.entries if entry["runs"]} - {here}
        if others:
            warnings.warn(f"{path.name}: rows of other commits are there already ({', '.join(sorted(others))})",
                          stacklevel=3)
        self.entry = {"command": " ".join([Path(sys.executable).name, *sys.argv]), "commit": here,
                      "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                      "torch": torch.__version__, "processor": processor(),
                      "threads": threads or torch.get_num_threads(), "seconds": 0, "data_sha256": data_sha256,
                      "runs": 0}

    def add_run(self):
        self.entry["runs"] += 1
        self.entry["seconds"] = round(time.perf_counter() - self.start, 1)
        self.write()

    def write(self):
        write_atomically(self.path, json.dumps([*self.entries, self.entry], indent=1) + "\n")

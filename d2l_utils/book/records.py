"""Recorded experiments, as the chapters use them: tables, arrays, nets, and where they come from."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from safetensors import safe_open

from .. import resnet
from . import Words, fill

RECORDED = Path(__file__).parent.parent / "recorded"
REPOSITORY = "https://github.com/OWNER/residual-networks"
MACHINE = {"precision", "processor"}            # a script takes these from the machine that it runs on


def as_written(value, name="value"):
    """A scalar as the CSV has it: None is "none", floats have six digits (whole ones all), so two values are the same
    exactly if they are written alike. Raises TypeError for what is no scalar."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value         # NumPy's and torch's
    if value is None:
        return "none"
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{name} must be a number, a text, True, False or None, got {value!r}")
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else f"{value:.6g}"


def as_words(config):
    """["depth=56", "shortcut=none"]: a configuration in the command line and in the names of arrays."""
    return [f"{key}={as_written(value, key)}" for key, value in config.items()]


def find(name, suffix, kind, folder):
    """The file of a recorded experiment or net; FileNotFoundError with the names there are."""
    path = Path(folder or RECORDED) / f"{name}{suffix}"
    if not path.is_file():
        known = ", ".join(sorted(there.stem for there in path.parent.glob(f"*{suffix}"))) or "none"
        raise FileNotFoundError(f"name must be a recorded {kind} ({known}), got {name!r}; "
                                f"experiments/{name}.py would make it")
    return path


def recorded(name, folder=None):
    """The recorded experiment `name` as a DataFrame, a row per (configuration, seed, epoch). Whole numbers and truth
    values stay such where some are missing. Raises FileNotFoundError with the names there are."""
    path, options = find(name, ".csv", "experiment", folder), {"keep_default_na": False, "na_values": ["nan"]}
    table, nullable = pd.read_csv(path, **options), pd.read_csv(path, dtype_backend="numpy_nullable", **options)
    kept = nullable.loc[:, table.isna().any()].select_dtypes(["Int64", "boolean"])
    return table.assign(**kept)


def keys_of(table):
    """The columns that tell one run of a record from another: those up to `seed`."""
    return list(table)[:list(table).index("seed") + 1]


def recorded_array(experiment, name, folder=None, **where):
    """The array `name` of the one run of a recorded experiment with the values `where`; KeyError if it is not one."""
    wanted = [re.escape(f", {word},") + r"( \w+=|$)" for word in as_words(where)]
    with np.load(find(experiment, ".npz", "experiment with arrays", folder)) as file:
        run_of = {key: f", {key.removesuffix(f': {name}')}," for key in file.files if key.endswith(f": {name}")}
        found = [key for key, run in run_of.items() if all(re.search(part, run) for part in wanted)]
        if len(found) != 1:
            raise KeyError(f"one run must have left {name!r} with {where}, got {len(found)} of {len(file.files)}")
        return file[found[0]]


def by_seed(table, column, x="epoch", **where):
    """The values of `column` in the rows with the values `where` (None is "none"): a row per seed, a column per `x` (or
    per combination of a list). Raises ValueError where there are none, or several for one seed and x."""
    for key, value in where.items():
        there = table[key].unique().tolist()
        table = table[table[key] == ("none" if value is None else value)]
        if table.empty:
            raise ValueError(f"{key} must be one of {there} here, got {value!r}")
    index = ["seed", *([x] if isinstance(x, str) else x)]
    if table.duplicated(index).any():
        several = [key for key in keys_of(table) if key not in index and table[key].nunique() > 1]
        raise ValueError(f"{column} must have one value for each seed and {x}: choose one each of {several}")
    return table.pivot(index="seed", columns=x, values=column)


def spread(values, percent=True, digits=None):
    """Mean and range over seeds as a part of a sentence: "7.6 % (7.1 to 8.0 over 5 seeds)"; `values` are shares if
    `percent`. Raises ValueError for no values, and for one that is not finite: with a failed run there is no mean."""
    values = np.asarray(values, float) * (100 if percent else 1)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"values must be finite numbers, at least one, got {values.tolist()}")
    digits = (1 if percent else 3) if digits is None else digits
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    seeds = f"{low} to {high} over {values.size} seeds" if values.size > 1 else "one seed"
    return mean + "\N{NO-BREAK SPACE}%" * percent + f" ({seeds})"


def main_precision(table):
    """The rows of the precision that most rows have (of the first one, in a tie); the others are a control."""
    return table[table["precision"] == table["precision"].value_counts(sort=False).idxmax()]


def build(facts):
    """The untrained net that `facts` describe: "net" is a function of resnet.py (small_resnet unless it is given),
    and those that it takes are its arguments."""
    function = getattr(resnet, facts.get("net", "small_resnet"))
    names = {*inspect.signature(function).parameters, "shortcut", "norm", "zero_init"}
    arguments = {key: value for key, value in facts.items() if key in names}
    if "block" in arguments:
        arguments["block"] = getattr(resnet, arguments["block"])
    with torch.random.fork_rng(devices=[]):             # its weights will be replaced: nobody's seed is disturbed
        return function(**arguments)


def stored(name, folder=None):
    """The recorded net `name` on the CPU, in eval mode; `net.facts` says what it is. Raises FileNotFoundError with the
    names there are."""
    def value(text):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    with safe_open(find(name, ".safetensors", "net", folder), "pt") as file:
        facts = {key: value(text) for key, text in file.metadata().items()}
        net = build(facts).eval()
        net.load_state_dict({key: file.get_tensor(key) for key in file.keys()})
    net.facts = facts
    return net


def source(name, folder=None, **point):
    """Show, as a line under a figure, which record it draws, its script, machine, minutes, commits, and the command
    that makes one point again: `point` (depth=56, seed=0, ...), completed from the record's first row."""
    table = recorded(name, folder)
    first = (main_precision(table) if "precision" in table else table).iloc[0]
    point = {key: first[key] for key in keys_of(table) if key not in MACHINE} | point
    made = pd.read_json(find(name, ".json", "experiment", folder), dtype=False).query("runs > 0")
    display(Words(fill("source", name=name, script=f"experiments/{name}.py", repository=REPOSITORY,
                       again=shlex.join(as_words(point)), runs=made["runs"].sum(), commits=made["commit"].unique(),
                       processors=made["processor"].unique(), minutes=f"{made['seconds'].sum() / 60:.0f}")))

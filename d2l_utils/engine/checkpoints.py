"""The settings of a run, checked, and its checkpoint file: written whole or not at all, read back only into the same
run."""

import hashlib
import io
import os
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from pathlib import Path

import torch

SCHEDULES = ("one-cycle", "cosine", "step", "constant")
RULES = {  # argument: (what it must be, its kind, what holds for it)
    "epochs": ("a whole number from 1", Integral, lambda value: value >= 1),
    "lr": ("a number above 0", Real, lambda value: 0 < value < inf),
    "batch_size": ("a whole number from 1", Integral, lambda value: value >= 1),
    "seed": ("a whole number from 0", Integral, lambda value: value >= 0),
    "schedule": (", ".join(map(repr, SCHEDULES)), str, SCHEDULES.__contains__),
    "warmup": ("a share of the steps, from 0 to below 1", Real, lambda value: 0 <= value < 1),
    "momentum": ("a number from 0 to below 1", Real, lambda value: 0 <= value < 1),
    "weight_decay": ("a number from 0", Real, lambda value: 0 <= value < inf),
    "clip": ("None or a number above 0", Real, lambda value: value > 0),
    "augment": ("True or False", bool, lambda value: True),
    "validation": ("a whole number from 0, below the number of training images", Integral, lambda value: value >= 0),
    "test": ("True or False", bool, lambda value: True),
}


@dataclass
class Settings:
    """What decides a run's result, as `fit` takes it. Raises ValueError that names the first bad one."""

    epochs: int
    lr: float
    batch_size: int
    seed: int
    schedule: str
    warmup: float
    momentum: float
    weight_decay: float
    clip: float | None
    augment: bool
    validation: int
    test: bool
    precision: str

    def __post_init__(self):
        for name, (allowed, kind, holds) in RULES.items():
            value = getattr(self, name)
            if name == "clip" and value is None:
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not holds(value):
                raise ValueError(f"{name} must be {allowed}, got {value!r}")
            setattr(self, name, {Integral: int, Real: float}.get(kind, kind)(value))    # NumPy's become Python's

    def images(self, data):
        """How many training images are trained on; ValueError where images, labels and `validation` do not fit."""
        n, sets = len(data.X_train), [("training", data.X_train, data.y_train), ("test", data.X_test, data.y_test)]
        for kind, X, y in sets[:1 + self.test]:
            if len(X) != len(y) or not len(X):
                raise ValueError(f"data must have as many labels as images, at least 1, got {len(X)} {kind} images "
                                 f"and {len(y)} labels")
        if self.validation >= n:
            raise ValueError(f"validation must be below the number of training images, {n}, got {self.validation}")
        return n - self.validation


def fingerprint(net):
    """Twelve letters that differ between nets of different modules or shapes, whatever their weights."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in net.state_dict().items()]
    return hashlib.sha256(f"{net}{shapes}".encode()).hexdigest()[:12]


def describe(settings, net, data, processes):
    """Everything that two calls must have in common for one to go on where the other stopped."""
    return vars(settings) | {"net": fingerprint(net), "data": data.sha256(), "processes": processes}


def save_checkpoint(path, net, optimizer, run, rows):
    """Write the run so far: description, weights, momentum and the history's rows, whose number is the epoch. Schedule
    and random state follow from seed and epoch. `path` holds the old content or the new, whole, at any moment."""
    state = {"run": run, "rows": rows, "net": net.state_dict(), "optimizer": optimizer.state_dict()["state"]}
    with open(f"{path}.part", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.part", path)


def load_checkpoint(path, net, optimizer, run):
    """Restore net and optimiser, return the history's rows. ValueError, with net and file left as they were, where the
    file is not a whole checkpoint or `run` is another run."""
    content = Path(path).read_bytes()
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        saved, rows, weights, momentum = (state[key] for key in ("run", "rows", "net", "optimizer"))
    except Exception as error:
        raise ValueError(f"checkpoint {str(path)!r} is no whole checkpoint of fit (truncated, or another file): "
                         "it is left as it is; remove it or name another path") from error
    for name, value in run.items():
        if saved.get(name) != value:
            raise ValueError(f"checkpoint {str(path)!r} was made with {name}={saved.get(name)!r}, "
                             f"this call has {name}={value!r}: use the same {name} or another path")
    net.load_state_dict(weights)
    optimizer.load_state_dict({"state": momentum, "param_groups": optimizer.state_dict()["param_groups"]})
    return rows

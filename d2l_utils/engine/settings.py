"""The settings of a run: each with its rule, in one place."""

from dataclasses import dataclass, field, fields
from math import inf
from numbers import Integral, Real


def obey(name, value, must, kind, holds=lambda value: True):
    """`value` as Python's own number; ValueError that says what it must be where it is not of that kind."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not holds(value):
        raise ValueError(f"{name} must be {must}, got {value!r}")
    number = int if isinstance(value, Integral) else float
    return number(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def rule(*rule):
    """A field with what it must be in words, its kind, and what holds for it."""
    return field(metadata={"rule": rule})


COUNT = "a whole number from 1", Integral, lambda value: value >= 1
NATURAL = "a whole number from 0", Integral, lambda value: value >= 0


def check_counts(**arguments):
    """ValueError for the first argument that is not a whole number from 1."""
    for name, value in arguments.items():
        obey(name, value, *COUNT)


@dataclass(kw_only=True)
class Settings:
    """What decides a run's result, as `fit` takes it. Raises ValueError that names the first bad one."""

    epochs: int = rule(*COUNT)
    lr: float = rule("a number above 0", Real, lambda value: 0 < value < inf)
    batch_size: int = rule(*COUNT)
    seed: int = rule(*NATURAL)
    schedule: str                                               # one of training.SCHEDULES: fit has looked
    warmup: float = rule("a share of the steps, from 0 to below 1", Real, lambda value: 0 <= value < 1)
    momentum: float = rule("a number from 0 to below 1", Real, lambda value: 0 <= value < 1)
    weight_decay: float = rule("a number from 0", Real, lambda value: 0 <= value < inf)
    clip: float | None = rule("None or a number above 0", Real | None, lambda value: value is None or value > 0)
    augment: bool = rule("True or False", bool)
    validation: int = rule("a whole number from 0, below the number of training images", Integral,
                           lambda value: value >= 0)
    test: bool = rule("True or False", bool)
    precision: str                                              # hardware.choose_precision has looked

    def __post_init__(self):
        for each in fields(self):
            if "rule" in each.metadata:
                setattr(self, each.name, obey(each.name, getattr(self, each.name), *each.metadata["rule"]))

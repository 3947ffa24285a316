"""The settings of a run: one rule each, said in one place. test_training asks `fit` for each of them."""

import inspect
from dataclasses import asdict, fields
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_training import SETTINGS

import d2l_utils as d2l
from d2l_utils.engine.settings import Settings, check_counts, obey


def test_every_setting_is_an_argument_of_fit_and_has_a_rule_or_was_checked_before():
    names = {each.name for each in fields(Settings)}
    assert names < set(inspect.signature(d2l.fit).parameters)
    assert {each.name for each in fields(Settings) if "rule" not in each.metadata} == {"schedule", "precision"}


def test_settings_are_given_by_name():
    with pytest.raises(TypeError):
        Settings(*asdict(SETTINGS).values())


def test_numpys_numbers_become_pythons_which_can_be_saved():
    given = {"epochs": np.int64(2), "lr": np.float32(0.5), "clip": np.float64(1), "validation": np.uint8(3)}
    settings = Settings(**asdict(SETTINGS) | given)
    assert [type(getattr(settings, name)) for name in given] == [int, float, float, int]
    assert settings.lr == 0.5
    assert Settings(**asdict(SETTINGS) | {"lr": 1}).lr == 1.0
    quarter = Settings(**asdict(SETTINGS) | {"lr": Fraction(1, 4)}).lr
    assert (type(quarter), quarter) == (float, 0.25)


@pytest.mark.parametrize("value", [torch.tensor(0.1), "0.1", None, True, 0.1j])
def test_what_is_no_number_is_no_rate(value):
    with pytest.raises(ValueError, match=r"^lr must be a number above 0, got"):
        Settings(**asdict(SETTINGS) | {"lr": value})


def test_the_rules_alone():
    assert obey("augment", False, "True or False", bool) is False
    with pytest.raises(ValueError, match=r"^shape must be a or b, got \['a'\]"):
        obey("shape", ["a"], "a or b", str, {"a": 1, "b": 2}.__contains__)
    check_counts(width=np.int64(1), depth=20)
    with pytest.raises(ValueError, match=r"^depth must be a whole number from 1, got 1\.0"):
        check_counts(width=1, depth=1.0)

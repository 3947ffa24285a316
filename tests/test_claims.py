"""claim(): what counts as true, what is refused, what the reader sees."""

import numpy as np
import pandas as pd
import pytest
import torch

import d2l_utils as d2l
from d2l_utils.book import claims

TRUE = [True, 2 > 1, np.bool_(True), np.float64(2) > 1, torch.tensor(True), torch.tensor(2.0) > 1, np.array(True)]
FALSE = [False, np.bool_(False), torch.tensor(False), torch.tensor(float("nan")) > 0]
NO_TRUTH_VALUE = [None, 1, 0, "yes", "", 1.0, np.float64(1), np.array([True]), np.array([True, True]), [True], [],
                  torch.tensor([True]), torch.tensor([True, False]), torch.tensor(1), pd.Series([True]),
                  pd.DataFrame({"holds": [True]}), pd.NA, float("nan"), lambda: True, all, {"holds": True}]


@pytest.mark.parametrize("holds", TRUE, ids=repr)
def test_true_claim_is_shown_ticked(holds, capsys):
    assert d2l.claim("Two is more than one.", holds) is None
    assert capsys.readouterr().out == "\N{CHECK MARK} Two is more than one.\n"


@pytest.mark.parametrize("holds", FALSE, ids=repr)
def test_false_claim_raises_with_its_text_and_shows_no_tick(holds, capsys):
    with pytest.raises(AssertionError, match=r"^One is more than two\.$"):
        d2l.claim("One is more than two.", holds)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("holds", NO_TRUTH_VALUE, ids=lambda holds: type(holds).__name__)
def test_what_is_not_one_truth_value_is_refused(holds):
    with pytest.raises(TypeError, match="holds must be True or False"):
        d2l.claim("This should not count.", holds)


@pytest.mark.parametrize("text", ["", "  ", None, True])
def test_text_must_be_a_sentence(text):
    with pytest.raises(TypeError, match="text must be a sentence"):
        d2l.claim(text, True)


def test_html_is_escaped(monkeypatch):
    shown = []
    monkeypatch.setattr(claims, "display", shown.append)
    d2l.claim("error < 5 and & falling", True)
    assert "error &lt; 5 and &amp; falling" in shown[0]._repr_html_()


@pytest.mark.parametrize(("text", "unbroken"), [
    ("At most 5 % of 30 ms", "At most 5_% of 30_ms"), ("2 s, 3 MB.", "2_s, 3_MB."), ("0.4 MiB kept", "0.4_MiB kept"),
    ("11.7 M parameters", "11.7_M parameters"), ("21.4 dB, 5 %.", "21.4_dB, 5_%."), ("5 to 85 %;", "5 to 85_%;"),
    ("in 5 seeds 20 layers", "in 5 seeds 20 layers"), ("the 3 MSE losses", "the 3 MSE losses"), ("a %", "a %"),
    ("2 shapes, 4 minutes", "2 shapes, 4 minutes")])
def test_a_number_is_not_parted_from_its_unit(text, unbroken, capsys):
    d2l.claim(text, True)
    assert capsys.readouterr().out == f"\N{CHECK MARK} {unbroken}\n".replace("_", "\N{NO-BREAK SPACE}")

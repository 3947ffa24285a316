"""The chapters keep the rules of tools/chapter_rules.py, and their recorded claims hold, also without each seed."""

import nbformat
import pytest
from chapter_rules import Chapter, pages, problems

import d2l_utils as d2l


def test_pages_keep_the_rules():
    assert len(pages()) > 1
    assert problems() == []


@pytest.mark.parametrize("path", pages()[1:], ids=lambda path: path.stem)
def test_recorded_claims_hold_also_without_each_seed(path, monkeypatch):
    assert_claims_hold(Chapter(nbformat.read(path, as_version=4), path), monkeypatch)


def assert_claims_hold(chapter, monkeypatch):
    """Run the recorded claims, all cells in one namespace, on all rows and then with each seed left out in turn."""
    recorded, seeds, left_out = d2l.recorded, set(), None

    def partly(name):
        table = recorded(name)
        seeds.update(table.seed)
        return table[table.seed != left_out].reset_index(drop=True)

    def claim():
        names = {"d2l": d2l}
        for cell in chapter.tagged("recorded-claims"):
            exec(cell.source, names)
    monkeypatch.setattr(d2l, "recorded", partly)
    claim()
    for left_out in sorted(seeds):
        try:
            claim()
        except AssertionError as error:
            raise AssertionError(f"does not hold without seed {left_out}: {error}") from error

"""Figures' looks: the book's own, whatever the reader's matplotlib is set to, and the other way round."""

import io
import itertools
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_build import build

from d2l_utils import plots
from d2l_utils.engine.labels import apart

INKS = {plots.PLAIN, plots.RESIDUAL, plots.NEUTRAL, plots.ACCENT, *plots.COLOURS.values()}
GROUNDS = {"light": "#ffffff", "dark": "#14181e"}                    # the theme's
SEEN_BY = {                                     # Machado et al. 2009, in linear RGB: full vision and three ways without
    "all": np.eye(3),
    "protanopes": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopes": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopes": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]]}
SETTINGS = "import matplotlib; before = dict(matplotlib.rcParams); "


def test_importing_and_drawing_change_none_of_the_readers_settings():
    code = SETTINGS + ("import d2l_utils; from d2l_utils import plots; from d2l_utils.book.svg import to_svg; "
                       "to_svg(plots.figure()[0], 'Axes.'); assert dict(matplotlib.rcParams) == before")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_the_readers_settings_do_not_reach_the_book(tmp_path, monkeypatch):
    (tmp_path / "own").write_text("text.color: white\naxes.labelcolor: white\nxtick.color: white\nytick.color: white\n"
                                  "lines.linewidth: 9\nlegend.frameon: True\nfont.size: 30\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "own"))
    cell = ("from d2l_utils import plots\nfig, ax = plots.figure()\n"
            "ax.plot([1, 2], [1, 2], color=plots.PLAIN, label='a')\n"
            "ax.set(xlabel='epoch', title='A title')\nax.text(1, 1, 'word')\nax.legend()\nd2l.show(fig, 'A line.')")
    book = tmp_path / "book"
    book.mkdir()
    status, said = build(book, cell)
    assert status == 0, said
    [svg] = re.findall("<svg role.*?</svg>", (book / "_build" / "html" / "index.html").read_text(), re.S)
    assert ">word</text>" in svg
    assert not re.search("<text[^>]*fill:", svg), "words in a colour of their own"
    assert "figure-paper" not in svg, "a legend's frame, or white words"
    assert re.search(rf"stroke: var\(--ink-{plots.PLAIN[1:]}[^;]*; stroke-width: 1.5", svg)
    assert not re.search("font-size: calc\\((30|36)px", svg)


def shades(theme):
    """The style sheet's variables for the colours of plots, {"#d55e00": "#b34000", ...}, in one theme."""
    light, dark = (dict(re.findall("--ink-([0-9a-f]{6}): (#[0-9a-f]{6});", part)) for part in
                   (ROOT / "_static" / "book.css").read_text().split('html[data-theme="dark"] {', 1))
    return {f"#{name}": shade for name, shade in (light if theme == "light" else dark).items()}


def linear(colour):
    """Linear RGB of "#rrggbb"."""
    values = np.array([int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG's contrast of two colours, from 1 to 21."""
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    """Linear RGB in Oklab, where distances are as they look."""
    cones = np.cbrt(np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
                    @ np.clip(rgb, 0, 1))
    return np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]) @ cones


def test_the_contrast_is_right():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", GROUNDS)
def test_every_colour_has_a_shade_that_is_read_on_the_pages_ground(theme):
    assert set(shades(theme)) == INKS
    assert min(contrast(shade, GROUNDS[theme]) for shade in shades(theme).values()) >= 4.5


@pytest.mark.parametrize("theme", GROUNDS)
@pytest.mark.parametrize("eyes", SEEN_BY)
def test_colours_are_told_apart(eyes, theme):
    def apart(*colours):
        seen = [oklab(SEEN_BY[eyes] @ linear(shades(theme)[colour])) for colour in colours]
        return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))

    assert apart(plots.PLAIN, plots.RESIDUAL) > 0.2
    assert apart(plots.PLAIN, plots.RESIDUAL, plots.NEUTRAL, plots.ACCENT) > 0.05
    assert apart(*plots.COLOURS.values()) > 0.05


def test_colours_without_the_pages_shades_are_seen_on_both_grounds():
    assert min(contrast(ink, ground) for ink in INKS for ground in GROUNDS.values()) >= 3


# ---------------------------------------------------------------------------------------------------------------------
# Runs and their labels

TABLE = pd.DataFrame([[0.5, 0.3, 0.1], [0.4, 0.2, 0.2], [0.6, 0.7, 0.9]], columns=[1, 2, 3])


def test_runs_are_thin_lines_with_their_mean_on_top_and_no_filled_range():
    _, ax = plots.figure()
    assert plots.runs(TABLE, ax, plots.PLAIN, "plain") is ax
    *thin, mean = ax.lines
    assert [list(line.get_ydata()) for line in thin] == TABLE.to_numpy().tolist()
    assert list(mean.get_ydata()) == pytest.approx([0.5, 0.4, 0.4])
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in ax.lines)
    assert mean.get_linewidth() > 2 * thin[0].get_linewidth()
    assert not ax.collections
    assert {line.get_color() for line in ax.lines} == {plots.PLAIN}
    assert {line.get_alpha() for line in ax.lines} == {None}
    [label] = ax.texts
    assert (label.get_text(), label.get_color()) == ("plain", plots.PLAIN)
    assert label.xy == (3, pytest.approx(0.4))


def test_the_median_is_drawn_where_runs_stray():
    _, ax = plots.figure()
    plots.runs(TABLE, ax, plots.PLAIN, median=True, marker="", linestyle=":")
    assert list(ax.lines[-1].get_ydata()) == [0.5, 0.3, 0.2]
    assert (ax.lines[-1].get_marker(), ax.lines[-1].get_linestyle()) == ("", ":")
    assert not ax.texts


@pytest.mark.parametrize("median", [False, True])
def test_no_mean_is_drawn_over_a_missing_run(median):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"table must have every number of every run, .* missing in \[1\]"):
        plots.runs(TABLE.mask(TABLE == 0.2), ax, plots.PLAIN, "plain", median=median)
    assert not ax.lines


@pytest.mark.parametrize(("heights", "expected"), [
    ([0, 30, 60], [0, 30, 60]), ([5, 5], [0, 10]), ([5, 5, 5], [-5, 5, 15]), ([8, 0, 100], [9, -1, 100]),
    ([0, 1, 12], [-17 / 3, 13 / 3, 43 / 3]), ([7], [7])])
def test_labels_move_apart_as_little_as_needed(heights, expected):
    assert apart(heights, 10) == pytest.approx(expected)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("ends", [[0.2] * 4, [0.2, 0.21, 0.5, 0.9], [0.001, 0.002, 0.9, 0.91]])
def test_labels_at_lines_ends_are_in_the_picture_and_do_not_overlap(scale, ends):
    fig, ax = plots.figure()
    for end, (kind, colour) in zip(ends, plots.COLOURS.items(), strict=True):
        plots.runs(pd.DataFrame([[0.5, end]], columns=[1, 4]), ax, colour, plots.NAMES[kind])
    ax.set(yscale=scale, ylim=(1e-3, 1))
    fig.savefig(io.StringIO(), format="svg")
    boxes = [label.get_window_extent() for label in ax.texts]
    assert len(boxes) == 4
    for box in boxes:
        assert box.x0 > ax.transData.transform((4, 1))[0]
        assert fig.bbox.x0 <= box.x0 <= box.x1 <= fig.bbox.x1 + 1
        assert fig.bbox.y0 - 1 <= box.y0 <= box.y1 <= fig.bbox.y1 + 1
    assert not any(a.overlaps(b) for a, b in itertools.combinations([box.shrunk(0.9, 0.9) for box in boxes], 2))


def test_pictures_are_panels_with_their_titles():
    panels = plots.pictures(np.zeros((3, 28, 28)), ["one", "two\nlines", "three"])
    assert [fig.axes[0].get_title() for fig in panels] == ["one", "two\nlines", "three"]
    assert not any(fig.axes[0].axison for fig in panels)
    assert len(plots.pictures(np.zeros((2, 8, 8)))) == 2
    with pytest.raises(ValueError, match="zip"):
        plots.pictures(np.zeros((3, 28, 28)), ["one"])

"""to_svg(): well-formed, small, the page's own colours and fonts, and nothing lost of what the figure shows."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from d2l_utils import plots
from d2l_utils.book.svg import restyled, to_svg


def drawn(fig, alt="A figure.", prefix="a"):
    """The figure's SVG, parsed."""
    return ElementTree.fromstring(to_svg(fig, alt, prefix))


def texts(svg):
    return ["".join(text.itertext()) for text in svg.iter("text")]


@pytest.fixture
def axes():
    return plots.figure(4, 3)


def test_real_text_and_the_alt_text_also_when_hostile(axes):
    fig, ax = axes
    ax.plot([1, 2, 3], [3, 1, 2], marker="o", label="a < b")
    ax.set(xlabel="epoch", title="20 & none")
    ax.legend()
    svg = drawn(fig, 'A line that "falls" & <b>')
    assert (svg.get("role"), svg.get("aria-label")) == ("img", 'A line that "falls" & <b>')
    assert {"epoch", "20 & none", "a < b"} <= set(texts(svg))
    assert not [element.tag for element in svg.iter() if element.tag in ("style", "metadata")]
    assert to_svg(fig, "x", "a").startswith("<svg ")


def test_numbers_in_texts_are_not_shortened_and_white_space_between_words_stays(axes):
    fig, ax = axes
    ax.set_title("loss 1.234567\nand rotate(-0 1) #d55e00 fill: none")
    assert {"loss 1.234567", "and rotate(-0 1) #d55e00 fill: none"} <= set(texts(drawn(fig)))


def test_black_follows_the_page_and_colours_are_its_variables(axes):
    fig, ax = axes
    ax.plot([1, 2, 4], color=plots.PLAIN)
    ax.plot([2, 1, 4], color="black")
    ax.text(1, 1, "word", color=plots.RESIDUAL)
    picture = to_svg(fig, "Two lines")
    assert "stroke: currentColor" in picture
    assert f"stroke: var(--ink-{plots.PLAIN[1:]}, {plots.PLAIN})" in picture
    assert f"fill: var(--ink-{plots.RESIDUAL[1:]}, {plots.RESIDUAL})" in picture
    assert not re.search("#000000|#ffffff|fill: white", picture)


@pytest.mark.parametrize(("css", "expected"), [
    ("font-size: 11px; font-family: 'DejaVu Sans', sans-serif; text-anchor: middle",
     "font-size: calc(11px * var(--figure-text, 1)); text-anchor: middle"),
    ("font: 11px 'DejaVu Sans', 'Arial', sans-serif; fill: #0072b2",
     "font: calc(11px * var(--figure-text, 1)) var(--figure-font, sans-serif); fill: var(--ink-0072b2, #0072b2)"),
    ("font: italic 700 7.7px 'DejaVu Sans Mono', monospace",
     "font: italic 700 calc(7.7px * var(--figure-text, 1)) monospace"),
    ("font-size: 9px; font-family: 'DejaVu Sans Mono', monospace; fill: #000000",
     "font-size: calc(9px * var(--figure-text, 1)); font-family: monospace; fill: currentColor"),
    ("fill: none; stroke-opacity: 0.2", "fill: none; stroke-opacity: 0.2"),
    ("fill: url(#h0072b2)", "fill: url(#h0072b2)")])
def test_fonts_and_colours_are_the_pages_in_both_ways_that_matplotlib_writes_them(css, expected):
    assert restyled(css) == expected


def test_ticks_and_grid_lines_are_one_path_an_axis_and_powers_of_ten_plain_text():
    fig = Figure()
    ax = fig.subplots()
    ax.semilogy([1, 2, 3], [1e-6, 1e-2, 1e12])
    ax.set(xticks=(1, 2, 3), yticks=(1e-6, 1, 1e12), ylim=(1e-7, 1e13))
    ax.grid(visible=True)
    ax.minorticks_off()
    picture = to_svg(fig, "A line", "a")
    assert "<use" not in picture
    paths = re.findall('<path d="([^"]+)"', picture)
    assert [path.count("M") for path in paths if "l 0 3.5" in path] == [3]
    assert [path.count("M") for path in paths if "l -3.5 0" in path] == [3]
    assert re.findall(r">(10[^<]*)<", picture) == ["10⁻⁶", "10⁰", "10¹²"]
    assert "tspan" not in picture


def test_other_maths_stays_as_matplotlib_sets_it(axes):
    fig, ax = axes
    ax.set_title("$x^2$")
    assert "x2" in texts(drawn(fig))
    ax.set_title("over $x^2$ it")
    assert sorted("overx2it") in [sorted("".join(text.split())) for text in texts(drawn(fig))]     # spaces are letters


def test_every_reference_has_its_id_and_equal_figures_have_none_in_common(axes):
    fig, ax = axes
    ax.plot([1, 2, 3], [3, 1, 2], marker="o")
    ax.fill_between([1, 2, 3], [1, 2, 3], hatch="/")
    once, again = (to_svg(fig, "A line") for _ in range(2))
    for picture in (once, again):
        ids = re.findall(r'\sid="([^"]+)"', picture)
        assert ids
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', picture)) == set(ids)
    assert not set(re.findall(r'\sid="([^"]+)"', once)) & set(re.findall(r'\sid="([^"]+)"', again))
    assert to_svg(fig, "A line", "a") == to_svg(fig, "A line", "a")


def test_a_script_finds_the_data_by_box_limits_and_scales(axes):
    fig, ax = axes
    ax.plot([1, 3], [1e-2, 1e2], "o-", color=plots.PLAIN)
    ax.set(xlim=(0, 4), ylim=(1e-3, 1e3), yscale="log")
    svg = drawn(fig)
    x, y, width, height = map(float, svg.get("data-box").split())
    assert (svg.get("data-xlim"), svg.get("data-ylim")) == ("0 4", "0.001 1000")
    assert (svg.get("data-xscale"), svg.get("data-yscale")) == ("linear", "log")
    [line] = [path.get("d").split() for path in svg.iter("path") if "l" not in path.get("d")
              and f"stroke: var(--ink-{plots.PLAIN[1:]}" in path.get("style") and path.get("id") is None]
    assert [float(line[i]) for i in (1, 2, 4, 5)] == pytest.approx(
        [x + width / 4, y + height * 5 / 6, x + width * 3 / 4, y + height / 6], abs=0.02)


def test_limits_are_in_per_cent_where_the_labels_are(axes):
    fig, ax = axes
    ax.set(xlim=(0, 50), ylim=(0, 0.4))
    ax.xaxis.set_major_formatter(PercentFormatter())
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    assert (drawn(fig).get("data-xlim"), drawn(fig).get("data-ylim")) == ("0 50", "0 40")


def test_a_line_beyond_the_axes_is_not_seen_and_does_no_harm(axes):
    fig, ax = axes
    ax.plot([1, 2, 3], [1e-8, 1e-9, 1e-8])
    ax.plot([1, 2, 3], [0.1, 1, 10])
    ax.set(yscale="log", ylim=(1e-2, 1e2))
    paths = [path.get("d") for path in drawn(fig).iter("path")]
    assert None in paths                                        # the line beyond
    assert any(path and path.count("L") == 2 for path in paths)


def test_a_picture_or_several_axes_have_no_scales():
    fig, ax = plots.figure(2, 2)
    plots.picture(np.eye(3), ax)
    assert "data-box" not in to_svg(fig, "A picture")
    assert "data-box" not in to_svg(plots.figure(4, 2, ncols=2)[0], "Two axes")


def test_the_readers_own_settings_do_not_reach_the_picture(monkeypatch):
    def picture():
        fig, ax = plots.figure(4, 3)
        ax.set(xlabel="epoch", xticks=(0, 1))
        return to_svg(fig, "Axes", "a")

    expected = picture()
    for name, value in {"text.color": "white", "xtick.color": "red", "font.size": 30, "axes.grid": False,
                        "svg.fonttype": "path", "savefig.bbox": "tight"}.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert picture() == expected

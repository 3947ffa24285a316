"""explore() and show(): both forms, and what they refuse."""

import json
import re

import ipywidgets as widgets
import matplotlib
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

import d2l_utils as d2l
from d2l_utils import plots
from d2l_utils.book import explorer


def curves(depth, shortcut):
    fig, ax = plots.figure(4, 3)
    ax.plot([1, 2, 3], [depth, 1, 2], marker="o", label="a < b")
    ax.set(xlabel="epoch", title=f"{depth} & {shortcut}")
    ax.legend()
    return fig, f"Depth {depth}, shortcut {shortcut}."


AXES = {"depth": [8, 20, 32, 56], "shortcut": ["none", "identity"]}


@pytest.fixture
def book(monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setenv("D2L_COLAB", "https://colab.example/main/")


def parsed(output):
    """The HTML of what was displayed."""
    return BeautifulSoup(output.data, "html.parser")


def test_the_page_has_a_figure_with_labelled_controls(book, shown):
    d2l.explore(curves, **AXES)
    page = parsed(shown[0])
    assert page.select("figure.explorer#curves")
    [slider] = page.select("input")
    assert [slider[key] for key in ("type", "min", "max", "step", "value")] == ["range", "0", "3", "1", "0"]
    assert slider["aria-valuetext"] == "8"
    assert page.select(f"label[for={slider['id']}]")
    assert [button["aria-pressed"] for button in page.select("button")] == ["true", "false"]
    assert [button.text for button in page.select("button")] == ["none", "identity"]
    [group] = page.select("div[role=group]")
    assert page.select(f"span#{group['aria-labelledby']}")
    assert [child.name for child in page.select_one("div.explorer-frame").children] == ["svg"]
    assert page.select_one("figcaption[aria-live=polite]").text == "Depth 8, shortcut none."


def test_the_first_frame_is_html_and_the_others_are_json_in_order(book, shown):
    d2l.explore(curves, **AXES)
    page = parsed(shown[0])
    [data] = page.select("script[type='application/json']")
    others = json.loads(data.string)
    assert [caption for _, caption in others] == [f"Depth {depth}, shortcut {shortcut}." for depth in AXES["depth"]
                                                  for shortcut in AXES["shortcut"]][1:]
    assert "8 & none" in page.select_one(".explorer-frame").text
    depths = [8, 20, 20, 32, 32, 56, 56]
    assert all(f"{depth} &amp; " in picture for (picture, _), depth in zip(others, depths, strict=True))


def test_ids_are_unique_in_all_frames_and_every_reference_has_its_id(book, shown):
    d2l.explore(curves, **AXES)
    frames = explorer.Frames(curves, AXES)
    pictures = [frames[i, j][0] for i in range(4) for j in range(2)]
    ids = [name for picture in pictures for name in re.findall(r'\sid="([^"]+)"', picture)]
    used = {name for picture in pictures for name in re.findall(r'(?:href="|url\()#([^")]+)', picture)}
    assert ids
    assert len(ids) == len(set(ids))
    assert used == set(ids)


def test_a_frame_is_svg_with_its_caption_as_alt():
    picture, caption = explorer.Frames(curves, AXES)[1, 0]
    svg = BeautifulSoup(picture, "html.parser").svg
    assert (svg["role"], svg["aria-label"]) == ("img", caption)


def test_captions_keep_numbers_and_units_together(shown):
    def shares(n):
        return plots.figure()[0], f"{n} % in 3 s."

    picture, caption = explorer.Frames(shares, {"n": [1, 2]})[0,]
    assert caption == BeautifulSoup(picture, "html.parser").svg["aria-label"] == "1\u00a0% in 3\u00a0s."
    d2l.show(plots.figure()[0], "Below 5 % of it.")
    page = parsed(shown[0])
    assert page.figcaption.text == page.svg["aria-label"] == "Below 5\u00a0% of it."


def test_the_same_frame_gives_the_same_bytes():
    once, again = (explorer.Frames(curves, AXES)[2, 1] for _ in range(2))
    assert once == again


def test_the_readers_own_settings_do_not_reach_a_frame(monkeypatch):
    expected = explorer.Frames(curves, AXES)[0, 0]
    for name, value in {"lines.linewidth": 9, "text.color": "white", "font.size": 30, "legend.frameon": True}.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert explorer.Frames(curves, AXES)[0, 0] == expected
    assert matplotlib.rcParams["font.size"] == 30


def test_html_frames_are_written_as_they_are(book, shown):
    def cells(block):
        return f"<table><tr><td>{block}</td></tr></table>", f"Block {block} removed."

    d2l.explore(cells, block=range(5))
    assert parsed(shown[0]).select_one(".explorer-frame").decode_contents() == "<table><tr><td>0</td></tr></table>"


def test_a_script_end_in_a_frame_does_not_end_the_json(book, shown):
    def hostile(n):
        return f"<table><tr><td>&lt;{n}</td></tr></table>", f"</script><b>{n}"

    d2l.explore(hostile, n=[1, 2])
    [data] = parsed(shown[0]).select("script")
    assert json.loads(data.string)[0][1] == "</script><b>2"


def test_captions_have_an_unseen_longest_copy(book, shown):
    def words(n):
        return "<table></table>", "x" * n

    d2l.explore(words, n=[3, 90, 7])
    assert 'data-longest="' + "x" * 90 + '"' in shown[0].data


def test_with_a_kernel_controls_are_widgets_and_frames_are_made_once(shown):
    asked = []

    def counted(depth, shortcut):
        asked.append((depth, shortcut))
        return curves(depth, shortcut)

    d2l.explore(counted, **AXES)
    slider, buttons, frame, _ = shown[0].children
    assert isinstance(slider, widgets.SelectionSlider)
    assert isinstance(buttons, widgets.ToggleButtons)
    assert isinstance(frame, widgets.HTML)
    assert asked == [(8, "none")]
    slider.value = 56
    buttons.value = "identity"
    slider.value = 8
    buttons.value = "none"
    slider.value = 56
    assert asked == [(8, "none"), (56, "none"), (56, "identity"), (8, "identity")]
    assert "Depth 56, shortcut none." in frame.value
    assert "<svg" in frame.value


def test_with_a_kernel_a_failing_choice_is_said_in_the_frame(shown):
    def fails_later(n):
        if n == 3:
            raise ZeroDivisionError("no such net")
        return "<table></table>", f"Number {n}."

    d2l.explore(fails_later, n=[1, 2, 3])
    buttons, frame, _ = shown[0].children
    with pytest.raises(RuntimeError, match=r"fails_later\(n=3\) failed: ZeroDivisionError: no such net"):
        buttons.value = 3
    assert "fails_later(n=3) failed" in frame.value
    buttons.value = 2
    assert "Number 2." in frame.value


@pytest.mark.parametrize(("axes", "error", "message"), [
    ({}, ValueError, "axes must have at least one"),
    ({"depth": []}, ValueError, r"depth must be at least 2, all different and none empty, got \[\]"),
    ({"depth": [8]}, ValueError, r"depth must be at least 2, all different and none empty, got \[8\]"),
    ({"depth": [8, 8]}, ValueError, "depth must be at least 2"),
    ({"depth": [8, "8"]}, ValueError, "depth must be at least 2"),
    ({"depth": 8}, TypeError, "depth must be a list of options, got 8"),
    ({"depth": "20"}, TypeError, "depth must be a list of options, got '20'")])
def test_bad_axes_are_refused(axes, error, message):
    with pytest.raises(error, match=message):
        d2l.explore(curves, **axes)


def test_render_needs_a_name():
    with pytest.raises(ValueError, match="render must be a function with a name"):
        d2l.explore(lambda n: ("<table></table>", str(n)), n=[1, 2])


@pytest.mark.parametrize(("result", "error", "message"), [
    (None, TypeError, r"bad\(n=2\) must return \(Figure, list of Figures or HTML string, caption\), got None"),
    (Figure(), TypeError, r"bad\(n=2\) must return \(Figure, list of Figures or HTML string, caption\)"),
    ((Figure(), ""), TypeError, r"bad\(n=2\) must return a caption of one sentence, got ''"),
    (([], "None."), TypeError, r"bad\(n=2\) must return \(Figure, list of Figures"),
    (([Figure(), "b"], "Two."), TypeError, r"bad\(n=2\) must return \(Figure, list of Figures"),
    ((3, "Three."), TypeError, r"bad\(n=2\) must return \(Figure, list of Figures or HTML string"),
    (("plain text", "Text."), ValueError, r"bad\(n=2\) must return HTML that is one <svg>"),
    (('<img src="a.png">', "No alt."), ValueError, r"bad\(n=2\) must return HTML that is one <svg>"),
    (("<table></table>", "Number 1."), ValueError, r"bad\(n=2\) has the same caption as bad\(n=1\): 'Number 1.'")])
def test_bad_frames_name_the_choice(book, shown, result, error, message):
    def bad(n):
        return result if n == 2 else ("<table></table>", f"Number {n}.")

    with pytest.raises(error, match=message):
        d2l.explore(bad, n=[1, 2, 3])
    assert not shown


def test_a_failing_render_names_the_choice(book):
    def broken(depth, shortcut):
        if (depth, shortcut) == (32, "identity"):
            raise KeyError("no such run")
        return curves(depth, shortcut)

    with pytest.raises(RuntimeError, match=r"broken\(depth=32, shortcut='identity'\) failed: KeyError: 'no such run'"):
        d2l.explore(broken, **AXES)


def test_figures_of_two_sizes_are_refused(book):
    def sizes(n):
        return Figure(figsize=(n, 2)), f"Width {n}."

    with pytest.raises(ValueError, match=r"sizes\(n=4\) must be as large as the other figures"):
        d2l.explore(sizes, n=[3, 4])


def test_options_may_be_numpy_numbers(book, shown):
    d2l.explore(curves, depth=np.array([8, 20, 32, 56]), shortcut=["none", "identity"])
    assert json.loads(parsed(shown[0]).select_one("input")["data-options"]) == ["8", "20", "32", "56"]


def test_options_may_come_from_a_generator():
    assert explorer.Frames(curves, {"depth": (n for n in (8, 20))}).axes == {"depth": [8, 20]}


def test_show_displays_a_figure_with_its_text_as_caption_and_alt(shown):
    fig, _ = curves(8, "none")
    d2l.show(fig, 'A line that "falls" <b>')
    [figure] = parsed(shown[0]).select("figure.picture")
    [svg] = figure.select("svg")
    assert (svg["role"], svg["aria-label"]) == ("img", 'A line that "falls" <b>')
    assert figure.figcaption.text == 'A line that "falls" <b>'


def two_panels(n):
    left, right = (plots.figure(2, 1.5) for _ in range(2))
    right[1].set_title(f"right {n}")
    return [left[0], right[0]], f"Two panels, {n}."


def test_panels_are_pictures_of_their_own_side_by_side(book, shown):
    d2l.show(*two_panels(1))
    d2l.explore(two_panels, n=[1, 2])
    for output, frame in zip(shown, (".panels", ".explorer-frame"), strict=True):
        frame = parsed(output).select_one(frame)
        assert [child.name for child in frame.children] == ["svg", "svg"]
        assert [svg["aria-label"] for svg in frame.select("svg")] == ["Two panels, 1.", "right 1"]
        assert "minmax(min(100%,192px),1fr)" in frame["style"]
    [data] = parsed(shown[1]).select("script")
    assert json.loads(data.string)[0][0].count("<svg") == 2


@pytest.mark.parametrize(("options", "slider"), [
    ([8, 20, 32, 56], True), ([0.1, 1, np.float64(2), np.int64(3)], True), ([8, 20, 32], False),
    (["none", "A", "B", "C", "identity"], False), ([1, 2, 3, "all"], False), ([True, False], False)])
def test_words_have_buttons_and_four_numbers_a_slider(book, shown, options, slider, monkeypatch):
    def cells(n):
        return "<table></table>", f"{n} chosen."

    d2l.explore(cells, n=options)
    page = parsed(shown[0])
    assert len(page.select("input")) == slider
    assert len(page.select("button")) == (0 if slider else len(options))
    monkeypatch.delenv("D2L_BOOK")
    d2l.explore(cells, n=options)
    assert isinstance(shown[1].children[0], widgets.SelectionSlider if slider else widgets.ToggleButtons)


def test_an_explorer_starts_where_it_is_told(book, shown, monkeypatch):
    d2l.explore(curves, start={"depth": 56}, **AXES)
    page = parsed(shown[0])
    assert page.figcaption.text == page.svg["aria-label"] == "Depth 56, shortcut none."
    assert (page.input["value"], page.input["aria-valuetext"], page.output.text) == ("3", "56", "56")
    others = [caption for _, caption in json.loads(page.script.string)]
    assert others == [f"Depth {depth}, shortcut {shortcut}." for depth in AXES["depth"]
                      for shortcut in AXES["shortcut"] if (depth, shortcut) != (56, "none")]
    monkeypatch.delenv("D2L_BOOK")
    d2l.explore(curves, start={"depth": 56, "shortcut": "identity"}, **AXES)
    slider, buttons, frame, _ = shown[1].children
    assert (slider.value, buttons.value) == (56, "identity")
    assert "Depth 56, shortcut identity." in frame.value


@pytest.mark.parametrize("start", [{"depth": 21}, {"width": 8}, {"depth": "8"}])
def test_a_start_that_is_no_choice_is_refused(start):
    with pytest.raises(ValueError, match="start must have options of the axes"):
        d2l.explore(curves, start=start, **AXES)


def test_the_numbers_are_folded_under_the_explorer(book, shown, monkeypatch):
    table = pd.DataFrame({"plain <": [0.193421, np.nan]}, index=pd.Index([8, 56], name="depth"))
    d2l.explore(curves, table=table, **AXES)
    monkeypatch.delenv("D2L_BOOK")
    d2l.explore(curves, table=table, **AXES)
    for html in (shown[0].data, shown[1].children[-1].value):
        [folded] = BeautifulSoup(html, "html.parser").select("details.data-table")
        assert not folded.has_attr("open")
        assert [cell.text for cell in folded.select("td")] == ["0.1934", ""]
        assert "plain <" in [cell.text for cell in folded.select("th")]


def test_two_shown_figures_share_no_id(shown):
    for _ in range(2):
        d2l.show(curves(8, "none")[0], "A line")              # equal figures
    first, second = (set(re.findall(r'\sid="([^"]+)"', output.data)) for output in shown)
    assert first
    assert not first & second


@pytest.mark.parametrize(("arguments", "message"), [
    ((3, "Three"), "fig must be a matplotlib Figure or a list of them, got 3"),
    (([], "None"), r"fig must be a matplotlib Figure or a list of them, got \[\]"),
    (([Figure(), 3], "Two"), "fig must be a matplotlib Figure or a list of them, got"),
    ((Figure(), " "), "alt must be a sentence, got ' '"),
    ((Figure(), None), "alt must be a sentence, got None")])
def test_show_refuses_what_it_cannot_show(arguments, message):
    with pytest.raises(TypeError, match=message):
        d2l.show(*arguments)

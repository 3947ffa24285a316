"""explore() and show(): both forms, and what they refuse."""

import importlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import ipywidgets as widgets
import numpy as np
import pytest
from matplotlib.figure import Figure

import d2l_utils as d2l
from d2l_utils import plots

explore = importlib.import_module("d2l_utils.book.explorer")       # the module: d2l.explore is the function


def curves(depth, shortcut):
    fig, ax = plots.figure(4, 3)
    ax.plot([1, 2, 3], [depth, 1, 2], marker="o", label="a < b")
    ax.set(xlabel="epoch", title=f"{depth} & {shortcut}")
    ax.legend()
    return fig, f"Depth {depth}, shortcut {shortcut}."


AXES = {"depth": [8, 20, 32, 56], "shortcut": ["none", "identity"]}


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in order."""
    seen = []
    monkeypatch.setattr(explore, "display", seen.append)
    return seen


@pytest.fixture
def book(monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setenv("D2L_COLAB", "https://colab.example/main/")


class Elements(HTMLParser):
    """The elements of a piece of HTML: (tag, attributes), and the text of the elements named in `texts`."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.path = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.path.append(tag)

    def handle_endtag(self, tag):
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, text):
        if self.path:
            self.texts.setdefault(self.path[-1], []).append(text)

    def all(self, tag, **wanted):
        return [found for name, found in self.found
                if name == tag and all(found.get(key.strip("_")) == value for key, value in wanted.items())]


def test_the_page_has_a_figure_with_labelled_controls(book, shown):
    d2l.explore(curves, **AXES)
    page = Elements(shown[0].data)
    assert page.all("figure", class_="explorer", id="curves")
    [slider] = page.all("input")
    assert [slider[key] for key in ("type", "min", "max", "step", "value")] == ["range", "0", "3", "1", "0"]
    assert slider["aria-valuetext"] == "8"
    assert page.all("label", for_=slider["id"])
    assert [button["aria-pressed"] for button in page.all("button")] == ["true", "false"]
    assert page.texts["button"] == ["none", "identity"]
    [group] = page.all("div", role="group")
    assert page.all("span", id=group["aria-labelledby"])
    assert page.all("div", class_="explorer-frame")
    assert page.all("figcaption", **{"aria-live": "polite"})
    assert page.texts["figcaption"] == ["Depth 8, shortcut none."]


def test_the_first_frame_is_html_and_the_others_are_json_in_order(book, shown):
    d2l.explore(curves, **AXES)
    html = shown[0].data
    [data] = re.findall(r'<script type="application/json">(.*?)</script>', html)
    others = json.loads(data)
    assert [caption for _, caption in others] == [f"Depth {depth}, shortcut {shortcut}." for depth in AXES["depth"]
                                                  for shortcut in AXES["shortcut"]][1:]
    assert "8 &amp; none" in html.split("<script")[0]
    depths = [8, 20, 20, 32, 32, 56, 56]
    assert all(f"{depth} &amp; " in picture for (picture, _), depth in zip(others, depths, strict=True))


def test_ids_are_unique_in_all_frames_and_every_reference_has_its_id(book, shown):
    d2l.explore(curves, **AXES)
    frames = explore.Frames(curves, AXES)
    pictures = [frames[position][0] for position in frames.positions()]
    ids = [name for picture in pictures for name in re.findall(r'\sid="([^"]+)"', picture)]
    used = {name for picture in pictures for name in re.findall(r'(?:href="|url\()#([^")]+)', picture)}
    assert ids
    assert len(ids) == len(set(ids))
    assert used == set(ids)


def test_a_figure_is_well_formed_svg_with_real_text_and_its_caption_as_alt():
    picture, caption = explore.Frames(curves, AXES)[1, 0]
    svg = ElementTree.fromstring(picture)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == caption
    texts = [text.text for text in svg.iter("text")]
    assert {"epoch", "20 & none", "a < b"} <= set(texts)
    assert picture.startswith("<svg")
    assert not re.search(r"<\?xml|<!DOCTYPE|<metadata|dc:date|<style", picture)


def test_black_follows_the_page_and_colours_stay():
    fig, ax = plots.figure()
    ax.plot([1, 2], color=plots.PLAIN)
    ax.plot([2, 1], color="black")
    picture = explore.to_svg(fig, "Two lines", "a")
    assert "#000000" not in picture
    assert "stroke: currentColor" in picture
    assert f"stroke: {plots.PLAIN}" in picture
    assert not re.search("#ffffff|fill: white", picture)


def test_the_same_figure_gives_the_same_bytes():
    once, again = (explore.Frames(curves, AXES)[2, 1] for _ in range(2))
    assert once == again


def test_numbers_in_texts_are_not_shortened():
    fig, ax = plots.figure()
    ax.set_title("loss 1.234567")
    assert "loss 1.234567" in explore.to_svg(fig, "A title", "a")


def test_ticks_are_one_path_an_axis_and_powers_of_ten_plain_text():
    fig = Figure()
    ax = fig.subplots()
    ax.semilogy([1, 2, 3], [1e-6, 1e-2, 1e12])
    ax.set(xticks=(1, 2, 3), yticks=(1e-6, 1, 1e12), ylim=(1e-7, 1e13))
    ax.minorticks_off()
    picture = explore.to_svg(fig, "A line", "a")
    assert "<use" not in picture
    assert [len(re.findall("M ", path)) for path in re.findall(r'<path d="([^"]* l 0 3.5[^"]*)"', picture)] == [3]
    assert [len(re.findall("M ", path)) for path in re.findall(r'<path d="([^"]* l -3.5 0[^"]*)"', picture)] == [3]
    assert re.findall(r">(10[^<]*)<", picture) == ["10⁻⁶", "10⁰", "10¹²"]
    assert "tspan" not in picture


def test_html_frames_are_written_as_they_are(book, shown):
    def cells(block):
        return f"<table><tr><td>{block}</td></tr></table>", f"Block {block} removed."

    d2l.explore(cells, block=range(5))
    assert '<div class="explorer-frame"><table><tr><td>0</td>' in shown[0].data


def test_a_script_end_in_a_frame_does_not_end_the_json(book, shown):
    def hostile(n):
        return f"<table><tr><td>&lt;{n}</td></tr></table>", f"</script><b>{n}"

    d2l.explore(hostile, n=[1, 2])
    [data] = re.findall(r'<script type="application/json">(.*?)</script>', shown[0].data)
    assert json.loads(data)[0][1] == "</script><b>2"


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
    slider, buttons, frame = shown[0].children
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
    buttons, frame = shown[0].children
    with pytest.raises(RuntimeError, match=r"fails_later\(n=3\) failed: ZeroDivisionError: no such net"):
        buttons.value = 3
    assert "fails_later(n=3) failed" in frame.value
    buttons.value = 2
    assert "Number 2." in frame.value


@pytest.mark.parametrize(("axes", "error", "message"), [
    ({}, ValueError, "axes must have at least one"),
    ({"depth": []}, ValueError, r"depth must have at least two options, all different, got \[\]"),
    ({"depth": [8]}, ValueError, r"depth must have at least two options, all different, got \[8\]"),
    ({"depth": [8, 8]}, ValueError, "depth must have at least two"),
    ({"depth": [8, "8"]}, ValueError, "depth must have at least two"),
    ({"depth": 8}, TypeError, "depth must be a list of options, got 8"),
    ({"depth": "20"}, TypeError, "depth must be a list of options, got '20'")])
def test_bad_axes_are_refused(axes, error, message):
    with pytest.raises(error, match=message):
        d2l.explore(curves, **axes)


def test_render_needs_a_name():
    with pytest.raises(ValueError, match="render must be a function with a name"):
        d2l.explore(lambda n: ("<table></table>", str(n)), n=[1, 2])


@pytest.mark.parametrize(("result", "error", "message"), [
    (None, TypeError, r"bad\(n=2\) must return \(Figure or HTML string, caption\), got None"),
    (Figure(), TypeError, r"bad\(n=2\) must return \(Figure or HTML string, caption\)"),
    ((Figure(), ""), TypeError, r"bad\(n=2\) must return a caption of one sentence, got ''"),
    ((3, "Three."), TypeError, r"bad\(n=2\) must return \(Figure or HTML string"),
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
    assert '["8", "20", "32", "56"]' in Elements(shown[0].data).all("input")[0]["data-options"]


def test_show_displays_a_figure_with_its_alt_text(shown):
    fig, _ = curves(8, "none")
    d2l.show(fig, 'A line that "falls"')
    [svg] = Elements(shown[0].data).all("svg")
    assert (svg["role"], svg["aria-label"]) == ("img", 'A line that "falls"')


def test_two_shown_figures_share_no_id(shown):
    for depth in (8, 20):
        d2l.show(curves(depth, "none")[0], "A line")
    first, second = (set(re.findall(r'\sid="([^"]+)"', output.data)) for output in shown)
    assert first
    assert not first & second


@pytest.mark.parametrize(("arguments", "message"), [
    ((3, "Three"), "fig must be a matplotlib Figure, got 3"),
    ((Figure(), " "), "alt must be a sentence, got ' '"),
    ((Figure(), None), "alt must be a sentence, got None")])
def test_show_refuses_what_it_cannot_show(arguments, message):
    with pytest.raises(TypeError, match=message):
        d2l.show(*arguments)

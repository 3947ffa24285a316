"""Explorers and figures in Chromium, on small pages of their own: what the page says, keeps and looks like."""

import functools

import numpy as np
import pytest
from conftest import ROOT

import d2l_utils as d2l
from d2l_utils import plots
from d2l_utils.book import explorer

THEME = """:root { --pst-color-background: #ffffff; --pst-color-text-base: #222832; --pst-color-text-muted: #48566b;
    --pst-color-border: #d1d5da; --pst-color-primary: #176de8; --pst-color-surface: #f3f4f5; }
html[data-theme=dark] { --pst-color-background: #14181e; --pst-color-text-base: #ced6dd;
    --pst-color-text-muted: #9ca4af; --pst-color-border: #48566b; --pst-color-primary: #3fb1c5;
    --pst-color-surface: #29313d; }
body { margin: 0 1rem; font: 16px sans-serif; background: var(--pst-color-background);
    color: var(--pst-color-text-base); }"""


@pytest.fixture
def visit(open_page):
    """visit(body, head=..., **settings) opens a page of this body, by default with the book's script and style."""
    static = [f"<style>{THEME}</style>", ROOT / "_static" / "book.css", ROOT / "_static" / "explorer.js"]
    return lambda body, head=static, **settings: open_page(body, head, **settings)


def two_axes(depth, shortcut):
    fig, ax = plots.figure(3, 2)
    ax.plot([1, 2, 3], [depth, 1, 2], marker="o", color=plots.PLAIN)
    return fig, f"</script> depth {depth}, {shortcut}."


def html(render, **axes):
    """The built page's form of an explorer."""
    return explorer.page(explorer.Frames(render, axes))


def state(page):
    """What the reader sees: what the controls say, the caption, the picture."""
    return [page.locator("output").text_content(), page.locator("button[aria-pressed=true]").text_content(),
            page.locator("figcaption").text_content(), page.locator(".explorer-frame svg").get_attribute("aria-label"),
            page.locator(".explorer-frame").inner_html()]


def test_a_saved_page_opened_again_is_right_and_keeps_every_frame(visit):
    page = visit(html(two_axes, depth=[8, 20, 32, 56], shortcut=["none", "identity"]))
    seen = {}

    def walk(page):
        for key, steps in [("Home", 0), ("ArrowRight", 3)]:
            page.locator("input").press(key)
            for i in range(steps + 1):
                for button in page.locator("button").all():
                    button.click()
                    told = state(page)
                    assert told[2] == told[3] == f"</script> depth {told[0]}, {told[1]}."
                    assert seen.setdefault(told[2], told[4]) == told[4]
                if i < steps:
                    page.locator("input").press("ArrowRight")

    first = state(page)
    page.locator("input").press("End")
    for _ in range(2):                                             # saved once, and saved again
        shown = state(page)
        assert shown[0] == "56"
        page = visit(page.inner_html("body"), page.inner_html("head"))
        assert state(page) == shown
        page.locator("button").last.click()
    walk(page)
    assert len(seen) == 8
    assert seen[first[2]] == first[4]


def test_another_frame_says_so_to_other_scripts(visit):
    page = visit(html(two_axes, depth=[8, 20, 32, 56], shortcut=["none", "identity"]))
    page.evaluate("document.title = ''")
    page.evaluate("addEventListener('explorer-frame', event => { document.title += event.target.id })")
    page.locator("input").press("End")
    assert page.title() == "two_axes"


def test_d2l_explore_is_what_these_pages_are(monkeypatch):
    seen = []
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setattr(explorer, "display", seen.append)
    d2l.explore(two_axes, depth=[8, 20], shortcut=["none", "identity"])
    assert seen[0].data == html(two_axes, depth=[8, 20], shortcut=["none", "identity"])


# ---------------------------------------------------------------------------------------------------------------------
# Looks

def words(schedule, epochs):
    """Every colour as a line and as a word, in two panels."""
    panels = []
    for title in ("left", "right"):
        fig, ax = plots.figure(3, 2)
        for i, colour in enumerate(plots.COLOURS.values()):
            ax.plot([0, 1], [i, i + len(schedule)], color=colour, label="line")
            plots.end_label(title, 1, i, ax, colour)
        ax.plot([0, 1], [9, 9], color=plots.NEUTRAL)
        ax.axhline(3, color=plots.ACCENT)
        ax.set(title=title, xlabel="epoch", ylabel="error")
        panels.append(fig)
    return panels, f"Schedule {schedule}, {epochs} epochs."


SCHEDULES = ["one-cycle", "constant", "steps", "a schedule with a name of many words in it"]
PICTURE = """<figure class="picture"><div class="panels">{}</div><figcaption>A picture.</figcaption></figure>"""


@functools.cache
def figures():
    """An explorer of words in two panels, one of a single figure, and a lone figure."""
    return (html(words, schedule=SCHEDULES, epochs=[1, 10, 100, 1000])
            + html(two_axes, depth=[8, 20], shortcut=["none", "A"])
            + PICTURE.format(explorer.draw([plots.figure()[0]], "A picture.")))


CONTRASTS = """(name) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(name)].map((e) => getComputedStyle(e)).map((style) => {
    const ink = light(name.endsWith("text") ? style.fill : style.stroke);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_words_are_seen_on_the_pages_ground(visit, scheme):
    page = visit(figures(), color_scheme=scheme)
    lines = page.evaluate(CONTRASTS, "svg path[style*='stroke: var(--ink']:not([style*=opacity])")
    assert len(lines) >= 12
    assert min(lines) >= 3
    assert min(page.evaluate(CONTRASTS, "svg text")) >= 4.5


@pytest.mark.parametrize("width", [390, 768, 1200, 1920])
def test_words_in_figures_are_at_least_11_px(visit, width):
    page = visit(figures(), viewport={"width": width, "height": 900})
    sizes = page.evaluate("""[...document.querySelectorAll("svg text")].map((text) => parseFloat(
        getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))""")
    assert len(sizes) > 20
    assert min(sizes) >= 11
    assert max(sizes) <= 20


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_lies_past_the_edge_and_targets_can_be_touched(visit, width):
    page = visit(figures(), viewport={"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.locator("figure.explorer").all():
        right = figure.bounding_box()["x"] + figure.bounding_box()["width"]
        for part in figure.locator("button, input, output, label, svg, figcaption").all():
            box = part.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= right + 0.5
        for target in figure.locator("button, input").all():
            assert min(target.bounding_box()["height"], target.bounding_box()["width"]) >= 24


def test_panels_stand_side_by_side_where_there_is_room(visit):
    def places(width):
        boxes = [svg.bounding_box() for svg in visit(figures(), viewport={"width": width, "height": 700}).locator(
            "#words svg").all()]
        assert boxes[0]["width"] == pytest.approx(boxes[1]["width"])
        return [(box["x"] > boxes[0]["x"], box["y"] > boxes[0]["y"]) for box in boxes]

    assert places(1200) == places(720) == [(False, False), (True, False)]
    assert places(390) == [(False, False), (False, True)]


def test_figures_are_numbered_and_no_caption_moves_the_page(visit):
    page = visit(figures(), viewport={"width": 390, "height": 700})
    numbers = page.evaluate("""[["figure.explorer figcaption > span", 2], [".picture figcaption", 1]].map(([name]) =>
        [...document.querySelectorAll(name)].map((e) => getComputedStyle(e, "::before").content))""")
    assert numbers == [['"Figure " counter(figure) ". "'] * 2, ['"Figure " counter(figure) ". "']]
    assert page.evaluate("""[...document.querySelectorAll("figure")].every((e) =>
        getComputedStyle(e).counterIncrement === "figure 1")""")
    height = page.evaluate("document.documentElement.scrollHeight")
    for button in page.locator("#words button").all():
        button.click()
        assert page.evaluate("document.documentElement.scrollHeight") == height


def test_in_forced_colours_the_pressed_button_differs_and_ink_is_the_readers(visit):
    page = visit(figures(), forced_colors="active")
    pressed, other = page.evaluate("""["true", "false"].map((value) => getComputedStyle(document.querySelector(
        `button[aria-pressed=${value}]`))).map((style) => [style.backgroundColor, style.color])""")
    assert pressed[0] != other[0]
    assert pressed[1] != other[1]
    ground, ink = page.evaluate("""[getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector("svg text")).fill]""")
    assert ground != ink


def test_a_dark_page_is_printed_on_white(visit):
    code = """<div class="bd-content"><div class="highlight"><pre style="color: #eee">
        <span style="color: #ffd900">1</span></pre></div></div>"""
    page = visit(figures() + code, color_scheme="dark")
    page.emulate_media(media="print")
    for name, least in {"svg text": 4.5, "svg path[style*='stroke: var(--ink-0072b2']": 3}.items():
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert min(page.evaluate(CONTRASTS, name)) >= least
    colours = page.evaluate("""["body", "figcaption", "pre", "pre > span"].map((e) =>
        getComputedStyle(document.querySelector(e)).color)""")
    assert np.max([[int(value) for value in colour[4:-1].split(",")] for colour in colours]) < 100
    assert not page.locator(".explorer-controls").first.is_visible()

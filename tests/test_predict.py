"""predict() and predict_curve(): what they refuse, what the widgets say; and in Chromium what a reader does."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, axe
from test_build import build

import d2l_utils as d2l

predict, explorer = (importlib.import_module(f"d2l_utils.book.{name}") for name in ("predict", "explorer"))
DEPTHS, PLAIN, RESIDUAL = [8, 20, 56], [6, 5, 20], [6, 4, 2]
REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"


def data_of(html):
    return json.loads(re.search(r"<script[^>]*>(.*)</script>", html)[1])


# What is asked, and what is refused

def test_the_form_has_a_question_options_and_two_buttons(shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    d2l.predict("Is 1 < 2?", ["yes", "no & never"], "yes")
    html = shown[0].data
    assert '<form class="predict" id="predict-is-1-2"' in html
    assert "<legend>Is 1 &lt; 2?</legend>" in html
    assert len(re.findall('<input type="radio" name="guess"', html)) == 2
    assert "no &amp; never</label>" in html
    assert re.findall('<button type="(submit|button)"', html) == ["submit", "button"]
    assert data_of(html)["answer"] == 0


def test_no_widget_is_made_for_the_built_page(shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setattr(predict, "widgets", None)
    d2l.predict("Which?", ["a", "b"], "b")
    d2l.predict("How many?", (0, 10), 3)
    d2l.predict_curve("How?", DEPTHS, (0, 40), PLAIN)
    assert len(shown) == 3


@pytest.mark.parametrize(("limits", "options", "first", "last", "n"), [
    ((0, 100), {"unit": "%"}, "0\u00a0%", "100\u00a0%", 101),
    ((1e-4, 1e4), {"log": True}, "0.0001", "10,000", 161),
    (range(0, 13), {}, "0", "12", 13),
    (range(10, 60, 10), {"unit": "s"}, "10\u00a0s", "50\u00a0s", 5),
    ((0.5, 1.5), {"steps": 4}, "0.5", "1.5", 5)])
def test_a_slider_has_levels_from_low_to_high(shown, monkeypatch, limits, options, first, last, n):
    monkeypatch.setenv("D2L_BOOK", "1")
    d2l.predict("How many?", limits, limits[1], **options)
    data = data_of(shown[0].data)
    assert [data["texts"][0], data["texts"][-1], len(data["texts"])] == [first, last, n]
    assert len(set(data["texts"])) == n


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (19.3, "19.3"), (21, "21"), (3526, "3,526"), (-2.5, "-2.5"),
                                             (0.00012, "0.00012"), (1e6, "1,000,000"), (0.1 + 0.2, "0.3")])
def test_numbers_in_words(value, text):
    assert predict.number(value) == text
    assert predict.number(value, "%") == f"{text}\u00a0%"


@pytest.mark.parametrize(("call", "reason"), [
    (lambda: d2l.predict("Q?", ["a", "b"], "c"), r"answer must be one of \['a', 'b'\] or its index, got 'c'"),
    (lambda: d2l.predict("Q?", ["a", "b"], 2), "answer must be one of"),
    (lambda: d2l.predict("Q?", ["a", "b"], -1), "answer must be one of"),
    (lambda: d2l.predict("Q?", ["a", "b"], True), "answer must be one of"),
    (lambda: d2l.predict("Q?", ["a"], "a"), "options must be at least 2"),
    (lambda: d2l.predict("Q?", ["a", "a"], "a"), "all different"),
    (lambda: d2l.predict("Q?", [1, "1"], 1), "all different"),
    (lambda: d2l.predict("Q?", ["a", " "], "a"), "none empty"),
    (lambda: d2l.predict("Q?", ["a", "b"], "a", replies={"a": "x"}), "replies must have one for each"),
    (lambda: d2l.predict("Q?", ["a", "b"], "a", replies={"a": "x", "b": "y", "c": "z"}), "replies must have one"),
    (lambda: d2l.predict("Q?", (0, 10), 11), "answer must lie in the range from 0 to 10, got 11"),
    (lambda: d2l.predict("Q?", (0, 10), float("nan")), "answer must lie"),
    (lambda: d2l.predict("Q?", (10, 0), 5), "low < high"),
    (lambda: d2l.predict("Q?", (0, 10), 5, log=True), "low > 0"),
    (lambda: d2l.predict("Q?", (0, float("inf")), 5), "low < high"),
    (lambda: d2l.predict("Q?", (0, 10), 5, replies={"low": "x"}), "replies must have one for each"),
    (lambda: d2l.predict("Q?", (0, 10), 5, within=0), "within must be above 0, got 0"),
    (lambda: d2l.predict("Q?", (1, 10), 5, within=1, log=True), "within must be a factor above 1, got 1"),
    (lambda: d2l.predict_curve("Q?", [8, 20], (0, 40), [1, 2, 3]), "answer must have 2 values a series"),
    (lambda: d2l.predict_curve("Q?", [20, 8], (0, 40), [1, 2]), "rising"),
    (lambda: d2l.predict_curve("Q?", [8], (0, 40), [1]), "at least two"),
    (lambda: d2l.predict_curve("Q?", [0, 8], (0, 40), [1, 2], xlog=True), "above zero"),
    (lambda: d2l.predict_curve("Q?", [8, 20], (0, 40), {"a": [1, 2], "b": [1, 50]}), "got 50")])
def test_what_cannot_be_asked_is_refused(shown, call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
    assert not shown


@pytest.mark.parametrize("question", [None, "  "])
def test_a_question_is_a_text(shown, question):
    with pytest.raises(TypeError, match=f"question must be a text, got {question!r}"):
        d2l.predict(question, ["a", "b"], "a")


def test_a_text_is_no_list_of_options(shown):
    with pytest.raises(TypeError, match="options must be a list of options, got 'ab'"):
        d2l.predict("Q?", "ab", "a")


def test_numbers_of_numpy_and_pandas_will_do(shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    table = pd.Series([6.0, 5.0, 20.0], index=DEPTHS)
    d2l.predict("How many?", (np.int64(0), np.int64(10)), np.float64(3))
    d2l.predict("Which?", [np.int64(8), np.int64(20)], np.int64(20))
    d2l.predict_curve("How?", table.index, (0, 40), {"plain": table})
    number, choice, curve = (data_of(piece.data) for piece in shown)
    assert (number["truth"], choice["answer"], curve["x"], curve["answers"]) == ([30], 1, DEPTHS, [6, 5, 20])
    assert curve["ticks"][1] == [10, "10"]


# With a kernel

def parts(box, kind):
    found = [box] if isinstance(box, kind) else []
    return found + [part for child in getattr(box, "children", ()) for part in parts(child, kind)]


def say(box, button, *places):
    """Choose these indices, press this button; what is said."""
    for control, place in zip(parts(box, (widgets.RadioButtons, widgets.SelectionSlider)), places, strict=False):
        control.index = place
    next(b for b in parts(box, widgets.Button) if b.description == button).click()
    return parts(box, widgets.HTML)[-1].value.strip()


def test_widgets_ask_the_same_and_answer_a_guess(shown):
    d2l.predict("Which?", {"a.": "Because.", "b": "No: <c>."}, "a.")
    d2l.predict("How large?", (0, 100), 19.3, unit="%", within=5, replies={"low": "L.", "right": "R.", "high": "H."})
    d2l.predict("How long?", (1e-4, 1e4), 3500, log=True, within=3)
    d2l.predict_curve("How?", DEPTHS, (0, 40), {"plain": PLAIN, "residual": RESIDUAL}, unit="%", within=2)
    choice, number, log, curve = shown
    assert say(choice, "Commit") == "Choose first."
    assert say(choice, "Commit", 1) == "You said “b”; measured: “a”. No: &lt;c&gt;."
    assert say(choice, "Commit", 0) == "Right. You said “a”; measured: “a”. Because."
    assert say(choice, "Just show me") == "Measured: “a”. Because."
    assert say(number, "Commit", 21) == "Right. You said 21\u00a0%; measured: 19.3\u00a0%. R."
    assert say(number, "Commit", 14) == "You said 14\u00a0%; measured: 19.3\u00a0%. L."
    assert say(number, "Commit", 25) == "You said 25\u00a0%; measured: 19.3\u00a0%. H."
    assert say(number, "Just show me") == "Measured: 19.3\u00a0%."
    assert say(log, "Commit", 160) == "Right. You said 10,000; measured: 3,500."
    assert say(log, "Commit", 141) == "You said 1,100; measured: 3,500."
    assert len(parts(curve, widgets.SelectionSlider)) == 6
    assert say(curve, "Commit", 15, 12, 50, 15, 10, 5).startswith("Right. You said plain 6\u00a0%, 4.8\u00a0%, ")
    assert not say(curve, "Commit", 15, 12, 50, 15, 10, 100).startswith("Right")


COLAB = """
import ipywidgets, sys
assert ipywidgets.__version__ == "7.7.1", ipywidgets.__version__
sys.path.insert(0, {tests!r})
import test_predict, test_quiz
seen = []
test_predict.predict.display = seen.append
test_predict.test_widgets_ask_the_same_and_answer_a_guess(seen)
seen.clear()
test_quiz.test_widgets_answer_as_the_checker_does(seen)
print("fine")
"""


def test_the_widgets_work_with_the_versions_of_colab():
    overlay = Path(sys.prefix) / "colab"
    if not (overlay / ".ready").is_file():
        pytest.fail("Colab's packages are not there: run `make .venv/colab/.ready` (as `make test` does) first.")
    code = f"import sys; sys.path[:0] = [{str(overlay)!r}, {str(ROOT)!r}]" + COLAB.format(tests=str(ROOT / "tests"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "fine", done.stderr


# In Chromium, on a page that has Sphinx's markup

def cell(*outputs):
    """A cell of the built page: its code and its outputs."""
    inner = "".join(f'<div class="output text_html">{output}</div>' for output in outputs)
    return (f'<div class="cell docutils container"><div class="cell_input"><pre>code</pre></div>'
            f'<div class="cell_output docutils container">{inner}</div></div>')


def table(n):
    return f"<table><tr><td>{n}</td></tr></table>", f"Row {n}."


FIGURE = """<figure id="figure"><svg id="picture" role="img" aria-label="lines" viewBox="0 0 200 100" width="200"
 data-box="50 10 100 80" data-xlim="0 100" data-ylim="1 100" data-xscale="linear" data-yscale="log"></svg>
<figcaption>Figure 1. Lines.</figcaption></figure>"""


@pytest.fixture
def body(shown, monkeypatch):
    """A page of four predictions."""
    monkeypatch.setenv("D2L_BOOK", "1")
    d2l.predict("Which one?", {"first": "No, second.", "second": "Indeed."}, "second", name="which")
    d2l.explore(table, n=[1, 2, 3, 4, 5])
    d2l.predict("How long?", (1e-2, 1e2), 20, log=True, within=2, unit="s", name="long")
    d2l.predict("How many?", (0, 100), 50, name="many")
    d2l.predict_curve("Draw it.", DEPTHS, (0, 40), {"plain": PLAIN, "residual": RESIDUAL}, unit="%", within=3,
                      xlabel="depth", ylabel="error", name="draw")
    which, explored, long, many, draw = (piece.data for piece in shown)
    return f"""<section id="top"><h1>A page</h1><p>Before.</p>
      <section id="one"><h2>One</h2><p>Before.</p>{cell(which)}<p>It is second.</p>
        {cell(explored, '<p class="claim">Second.</p>')}<ul><li>Second</li></ul></section>
      <section id="two"><h2>Two</h2>{cell(long)}<p>20 s.</p>{cell(many)}<p>50.</p><h3>A heading</h3><p>After.</p>
      </section>
      <section id="three"><h2>Three</h2>{cell(draw)}{cell(FIGURE)}<p>So.</p></section></section>"""


@pytest.fixture
def visit(open_page):
    """visit(body, fragment, **settings) opens a page with the book's scripts and styles."""
    static = [path for kind in ("css", "js") for path in sorted((ROOT / "_static").glob(f"*.{kind}"))]

    def visit(body, fragment="", **settings):
        return open_page(f'<main><article class="bd-article">{body}</article></main>', static, fragment, **settings)
    return visit


def covered(page, name):
    """What a prediction covers and whether it is covered, in order: (text, covered and inert)."""
    return page.evaluate("""(name) => document.getElementById(name).dataset.covers.split(" ").map((id) => {
        const element = document.getElementById(id);
        return [element.innerText.trim() || element.textContent.trim().slice(0, 8),
                element.inert && element.classList.contains("covered")];
    })""", name)


def hidden(page, name):
    return [state for _, state in covered(page, name)]


def said(page, name):
    return page.locator(f"#{name} .predict-reply").inner_text().strip()


def focused(page):
    return page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim().slice(0, 9)")


def tally(page):
    return page.locator(".predict-tally p").inner_text()


def commit(page, name):
    page.locator(f"#{name} button[type=submit]").click()


def test_a_prediction_covers_all_up_to_the_next_heading_or_prediction(visit, body):
    page = visit(body)
    texts = page.evaluate("""() => Object.fromEntries([...document.querySelectorAll("form.predict")].map((form) => [
        form.id, form.dataset.covers.split(" ").map((id) => document.getElementById(id).textContent.trim().slice(0, 6))
    ]))""")
    assert texts["which"][0] == "It is "
    assert texts["which"][2:] == ["Second", "Second"]
    assert [texts["long"], texts["many"]] == [["20 s."], ["50."]]
    assert texts["draw"] == ["Figure", "So."]
    assert all(all(hidden(page, name)) for name in texts)
    assert page.evaluate("[...document.querySelectorAll('.covered')].length") == 8
    assert page.locator("#which .predict-covers").inner_text() == "Covered until you have guessed: " \
        "2 paragraphs, 1 figure and 1 claim."
    for text in ("Before.", "After.", "A heading"):
        assert page.get_by_text(text).first.is_visible()
    assert not page.get_by_text("It is second.").is_visible()
    assert not page.locator("#table input").is_visible()


def test_a_choice_uncovers_what_follows_and_stays_beside_what_was_measured(visit, body):
    page = visit(body)
    height = page.locator("#table").bounding_box()["height"]
    commit(page, "which")                                     # nothing was chosen
    assert all(hidden(page, "which"))
    page.locator("#which input").first.check()
    commit(page, "which")
    assert not any(hidden(page, "which"))
    assert said(page, "which") == "You said “first”; measured: “second”. No, second."
    assert focused(page) == "FIGCAPTION Row 1."
    assert page.locator("#table figcaption").get_attribute("aria-describedby") == "which-reply"
    assert page.locator("#table").bounding_box()["height"] == height
    assert page.locator("#which input").first.is_disabled()
    assert page.locator("#which label.measured").inner_text().startswith("second")
    assert all(hidden(page, "long"))
    page.locator("#table input").press("ArrowRight")          # it can be moved now
    assert page.locator("#table td").inner_text() == "2"
    page.reload()
    assert not any(hidden(page, "which"))
    assert said(page, "which").startswith("You said “first”")
    assert page.locator("#which input").first.is_checked()


def test_a_number_is_right_within_its_range_and_must_be_moved_first(visit, body):
    page = visit(body)
    commit(page, "long")
    assert said(page, "long") == "Move the slider first."
    assert all(hidden(page, "long"))
    slider = page.locator("#long input")
    assert slider.get_attribute("aria-valuetext") == "1\u00a0s"
    for _ in range(20):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "10\u00a0s"
    assert page.locator("#long .predict-slider output").inner_text() == "10\u00a0s"
    assert page.locator("#long .predict-rule").inner_text() == "Counts as right within a factor of 2."
    commit(page, "long")
    assert said(page, "long") == "✓ Right. You said 10\u00a0s; measured: 20\u00a0s." or \
        said(page, "long") == "Right. You said 10\u00a0s; measured: 20\u00a0s."
    assert focused(page).startswith("OUTPUT")
    assert all(hidden(page, "many"))


def test_just_show_me_uncovers_and_counts_as_no_guess(visit, body):
    page = visit(body)
    page.locator("#many .predict-show").click()
    assert not any(hidden(page, "many"))
    assert said(page, "many") == "Measured: 50."
    assert tally(page).startswith("Shown without a guess: 1. Still to be guessed on this page: 3.")
    page.reload()
    assert said(page, "many") == "Measured: 50."


def spot(page, x, level):
    """Where on the screen a value of the pad lies."""
    svg = page.locator("#draw svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    scale = box["width"] / 340
    return box["x"] + scale * (62 + 256 * (x - 8) / 48), box["y"] + scale * (186 - 162 * level / 40)


def drag(page, levels):
    for i, (x, level) in enumerate(zip(DEPTHS, levels, strict=True)):
        page.mouse.move(*spot(page, x, level), steps=3)
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def handles(page):
    return page.locator("#draw circle").evaluate_all("all => all.map((one) => one.getAttribute('aria-valuetext'))")


def points(page, selector):
    """Points of the lines of a drawing."""
    lines = page.locator(selector).evaluate_all("all => all.map((line) => line.getAttribute('points'))")
    return [[[round(float(n), 1) for n in pair.split(",")] for pair in line.split()] for line in lines]


def test_a_curve_is_drawn_by_mouse_one_stroke_a_series_and_stays_in_the_figure(visit, body):
    page = visit(body)
    commit(page, "draw")
    assert said(page, "draw") == "Draw all points first, one line each for plain and residual."
    assert handles(page) == ["not drawn yet"] * 6
    drag(page, [10, 10, 20])
    assert handles(page) == ["10\u00a0%", "10\u00a0%", "20\u00a0%", *["not drawn yet"] * 3]
    assert page.locator("#draw button[aria-pressed=true]").inner_text() == "residual"
    drag(page, [8, 4, 2])
    assert handles(page)[3:] == ["8\u00a0%", "4\u00a0%", "2\u00a0%"]
    commit(page, "draw")
    assert said(page, "draw").replace("\u00a0", " ").endswith(
        "Right. You said plain 10 %, 10 %, 20 %; residual 8 %, 4 %, 2 %; "
        "measured: plain 6 %, 5 %, 20 %; residual 6 %, 4 %, 2 %.")
    assert focused(page) == "FIGCAPTION Figure 1."
    # the figure's x goes from 0 to 100 over 50 to 150, its y from 1 to 100, in powers, over 90 to 10
    assert points(page, "#picture .guess polyline") == [
        [[58, 50], [70, 50], [106, 38]], [[58, 53.9], [70, 65.9], [106, 78]]]
    assert len(points(page, "#draw .measured polyline")) == 2
    assert page.locator("#picture .guess polyline").first.evaluate("e => getComputedStyle(e).strokeDasharray") != "none"
    drag(page, [0, 0, 0])                                     # too late
    assert handles(page)[0] == "10\u00a0%"
    page.reload()
    assert handles(page)[0] == "10\u00a0%"
    assert len(points(page, "#picture .guess polyline")) == 2


def test_a_curve_is_drawn_by_keyboard(visit, body):
    page = visit(body)
    for i, keys in enumerate([["ArrowUp"], ["ArrowDown"], ["End"], ["Home"], ["PageUp"], [" "]]):
        page.locator("#draw circle").nth(i).focus()
        for key in keys:
            page.keyboard.press(key)
    assert handles(page) == ["20.4\u00a0%", "19.6\u00a0%", "40\u00a0%", "0\u00a0%", "24\u00a0%", "20\u00a0%"]
    handle = page.locator("#draw circle").nth(4)
    assert handle.get_attribute("aria-label") == "residual, depth 20"
    assert handle.get_attribute("role") == "slider"
    page.locator("#draw circle").nth(2).focus()
    page.keyboard.press("ArrowUp")                            # no higher than the range
    assert handles(page)[2] == "40\u00a0%"
    commit(page, "draw")
    assert not any(hidden(page, "draw"))
    assert not said(page, "draw").startswith("Right")


def test_a_curve_is_drawn_by_finger(visit, body):
    page = visit(body, viewport={"width": 390, "height": 844}, has_touch=True)
    for levels in (PLAIN, RESIDUAL):
        for x, level in zip(DEPTHS, levels, strict=True):
            page.touchscreen.tap(*spot(page, x, level))
    assert handles(page) == [f"{n}\u00a0%" for n in ("6", "5.2", "20", "6", "4", "2")] or \
        handles(page) == [f"{n}\u00a0%" for n in ("6", "4.8", "20", "6", "4", "2")]
    assert page.locator("#draw svg").evaluate("e => getComputedStyle(e).touchAction") == "none"


def test_the_guess_is_drawn_in_every_frame_of_an_explorer(visit, shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")

    def picture(n):
        svg = re.search("<svg.*</svg>", FIGURE, flags=re.S)[0]
        return svg.replace(' id="picture"', f' data-n="{n}"'), f"Frame {n}."

    d2l.predict_curve("Draw it.", DEPTHS, (0, 40), PLAIN, name="draw", target="picture")
    d2l.explore(picture, n=[1, 2, 3, 4])
    page = visit(f"<section>{cell(shown[0].data)}<p>So.</p>{cell(shown[1].data)}</section>")
    assert page.locator("#draw .predict-series button").count() == 0
    drag(page, [10, 10, 20])
    commit(page, "draw")
    for n in (1, 2, 3):
        assert points(page, f"#picture svg[data-n='{n}'] .guess polyline") == [[[58, 50], [70, 50], [106, 38]]]
        page.locator("#picture input").press("ArrowRight")
        page.wait_for_timeout(50)


def test_the_tally_counts_and_start_over_clears_this_pages_guesses_alone(visit, body):
    page = visit(body, viewport={"width": 1000, "height": 800})
    page.evaluate("localStorage.setItem('other', '1')")
    assert tally(page) == "Still to be guessed on this page: 4."
    page.locator("#which input").last.check()
    commit(page, "which")
    page.locator("#many input").press("Home")
    commit(page, "many")
    assert tally(page) == ("You were right in 1 of 2. Still to be guessed on this page: 2. "
                           "A number or a curve is right within the range given with its question.")
    page.locator("#table input").press("ArrowRight")
    assert page.evaluate("location.hash") == "#table?n=2"
    page.reload()
    assert tally(page).startswith("You were right in 1 of 2.")
    page.locator(".predict-tally button").click()
    assert tally(page) == "Still to be guessed on this page: 4."
    assert all(hidden(page, "which") + hidden(page, "many"))
    assert said(page, "which") == ""
    assert not page.locator("#which input").last.is_checked()
    assert page.locator("#many input").input_value() == "50"
    assert page.evaluate("document.activeElement.name") == "guess"
    page.reload()
    assert all(hidden(page, "which"))
    assert page.evaluate("localStorage.getItem('other')") == "1"


def test_a_guess_at_what_was_another_question_is_forgotten(visit, body):
    page = visit(body)
    page.locator("#which .predict-show").click()
    page.locator("#many .predict-show").click()
    file = Path(url2pathname(urlparse(page.url).path))
    version = page.locator("#which script").get_attribute("data-version")
    file.write_text(file.read_text().replace(f'data-version="{version}"', 'data-version="1"'))
    page.reload()
    assert all(hidden(page, "which"))
    assert not any(hidden(page, "many"))


def test_a_link_into_an_explorers_state_uncovers_that_explorer_alone(visit, body):
    page = visit(body, "#table?n=3")
    assert page.locator("#table td").inner_text() == "3"
    assert page.locator("#table").is_visible()
    assert hidden(page, "which") == [True, False, True, True]
    assert page.locator("#which .predict-covers").inner_text().endswith(": 2 paragraphs and 1 claim.")
    assert all(hidden(page, "long") + hidden(page, "many") + hidden(page, "draw"))
    other = visit(body)
    other.evaluate("location.hash = '#table?n=2'")
    other.wait_for_timeout(100)
    assert hidden(other, "which") == [True, False, True, True]
    for fragment in ("#table", "#nothing?n=1", "#which?n=1", "#%E0%A4%A?x", "?n=1"):
        assert all(hidden(visit(body, fragment), "which"))


def test_a_link_to_a_run_of_the_trainer_uncovers_it_alone(visit, body):
    body = body.replace('<figure class="explorer" id="table"', '<figure class="trainer" id="train"', 1)
    assert hidden(visit(body, "#train?depth=8&seed=1"), "which") == [True, False, True, True]
    for fragment in ("#train", "#table?n=3"):
        assert all(hidden(visit(body, fragment), "which"))


def test_where_storage_is_refused_a_guess_holds_for_this_visit(visit, body):
    page = visit(body, init=REFUSED)
    page.locator("#which input").last.check()
    commit(page, "which")
    assert not any(hidden(page, "which"))
    assert tally(page).startswith("You were right in 1 of 1.")
    page.evaluate("location.hash = '#table?n=2'")             # updates everything
    page.wait_for_timeout(50)
    assert not any(hidden(page, "which"))
    page.locator(".predict-tally button").click()
    assert all(hidden(page, "which"))
    page.locator("#which .predict-show").click()
    page.goto(page.url.split("#")[0])
    page.reload()
    assert all(hidden(page, "which"))


def test_storage_that_holds_nonsense_does_no_harm(visit, body):
    page = visit(body, init="""for (const id of ["which", "long", "many", "draw"])
        localStorage.setItem(`${location.pathname}#${id}`, id === "long" ? "{" : '{"version": "1", "guess": [99]}')""")
    assert all(hidden(page, "which") + hidden(page, "long"))


def test_nothing_is_covered_without_javascript_or_on_paper(visit, body):
    page = visit(body, java_script_enabled=False)
    for text in ("It is second.", "20 s.", "So.", "Figure 1. Lines."):
        assert page.get_by_text(text).is_visible()
    assert page.locator("#table td").is_visible()
    assert page.locator("#which button").first.is_disabled()
    assert page.get_by_text("Guessing needs JavaScript").first.is_visible()
    page = visit(body)
    page.emulate_media(media="print")
    for text in ("It is second.", "20 s.", "So.", "Figure 1. Lines."):
        assert page.get_by_text(text).is_visible()
    assert not page.locator("#which button").first.is_visible()
    assert page.get_by_text("Which one?").is_visible()


def test_a_page_that_was_saved_as_it_stood_works_again(visit, body):
    page = visit(body)
    page.locator("#which .predict-show").click()
    saved = page.locator("article").inner_html()
    again = visit(saved)
    assert again.locator(".predict-tally").count() == 1
    assert again.locator("#draw svg").count() == 1
    assert again.locator("#draw .predict-series button").count() == 2
    assert all(hidden(again, "which") + hidden(again, "draw"))


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_no_sideways_scrolling_and_no_small_targets(visit, body, width):
    page = visit(body, viewport={"width": width, "height": 700})
    page.locator(".predict-show").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for target in page.locator("form label, form button, .predict-tally button, form input[type=range]").all():
        if target.is_visible():
            assert target.bounding_box()["height"] >= 24
    if width == 390:
        text = page.locator("#draw text").first
        assert text.evaluate("e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a") >= 11


# In a built book

CELLS = [
    """def check_one(n):\n    return "Right." if n == 1 else "It is not."\nd2l.quiz(check_one, {"one": 1, "two": 2})""",
    """d2l.predict("Which one?", ["first", "second"], "second", name="which")""",
    """d2l.explore(pictures, n=[0, 1, 2])\nd2l.claim("One is one.", True)\nprint("printed")""",
    """d2l.predict("How many?", (0, 100), 50, name="many")""",
    """d2l.predict_curve("Draw it.", [8, 20, 56], (0, 40), {"plain": [6, 5, 20], "residual": [6, 4, 2]}, unit="%",
    xlabel="depth", ylabel="error", name="draw")\nd2l.claim("Two is two.", True)"""]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    status, said = build(folder, *CELLS)
    assert status == 0, said
    return folder / "_build" / "html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_built_page_is_covered_rightly_and_axe_finds_nothing(browser, book, scheme):
    asked, context = [], browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((book / "index.html").as_uri())
    assert len(covered(page, "which")) == 4        # the explorer, the claim and its code, what was printed
    assert all(hidden(page, "which"))
    assert page.locator("#which .predict-covers").inner_text().endswith("1 figure, 1 claim and 1 output.")
    assert page.locator("#many").get_attribute("data-covers") == ""
    assert hidden(page, "draw") == [True]
    assert page.get_by_text("d2l.predict(").first.is_visible()      # code that makes no claim
    assert not page.get_by_text("d2l.explore(").is_visible()
    findings = axe(page)
    for name in ("which", "many", "draw"):
        page.locator(f"#{name} .predict-show").click()
    page.locator("#check_one input").first.check()
    page.locator("#check_one button").click()
    assert page.locator("#check_one > output").inner_text().endswith("Right.")
    assert page.locator("article .predict-tally").is_visible()
    findings += axe(page)
    context.close()
    assert not findings
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


def test_two_predictions_of_one_name_fail_the_build(tmp_path):
    status, said = build(tmp_path, CELLS[1], CELLS[1])
    assert status != 0, said
    assert "2 things are named 'which'" in said

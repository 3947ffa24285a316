"""quiz(): fair exercises alone, and the checker's own replies, in widgets and in Chromium."""

import importlib
import json
import re

import ipywidgets as widgets
import pytest
from conftest import ROOT

import d2l_utils as d2l

predict = importlib.import_module("d2l_utils.book.predict")


def check_blocks(answer):
    return {18: "Right: 6n + 2 with n = 18.", 54: "That is all three <stages>.", 110: "Those are the layers."}[answer]


def check_tie(answer):
    if isinstance(answer, dict):
        answer = answer["depth"], answer["t"]
    depth, t = answer
    return "Right: here it ties." if (depth, t) == (4, 1) else f"No: {t} is too near." if t < 1 else "No: too deep."


FIELDS = {"depth": [4, 20], "t": [0, 0.5, 1]}


def replies(html):
    return json.loads(re.search(r"<script[^>]*>(.*)</script>", html)[1])


def test_the_checker_has_replied_to_every_choice(shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setattr(predict, "widgets", None)                # no widget is made for the built page
    d2l.quiz(check_blocks, [18, 54, 110], "How many blocks?")
    d2l.quiz(check_blocks, {"eighteen": 18, "all & more": 54})
    d2l.quiz(check_tie, FIELDS)
    d2l.quiz(check_tie, FIELDS, kind=dict)
    single, labelled, pair, as_dict = (piece.data for piece in shown)
    assert '<form class="quiz" id="check_blocks"' in single
    assert "<legend>How many blocks?</legend>" in single
    assert single.count('type="radio" name="answer"') == 3
    assert replies(single) == [check_blocks(n) for n in (18, 54, 110)]
    assert "all &amp; more" in labelled
    assert replies(labelled) == [check_blocks(n) for n in (18, 54)]
    assert replies(pair) == replies(as_dict) == [check_tie((depth, t)) for depth in (4, 20) for t in (0, 0.5, 1)]
    assert re.findall("<legend>(.*?)</legend>", pair) == ["Your answer", "depth", "t"]
    assert "Right" not in re.sub("<script.*?</script>", "", single + pair)
    assert "</stages" not in single


@pytest.mark.parametrize(("check", "choices", "error", "reason"), [
    (check_blocks, [54, 110], ValueError, "must have a right one, but check_blocks says 'Right' to none"),
    (check_blocks, [18, 54, 99], ValueError, r"check_blocks\(99\) failed: KeyError: 99"),
    (check_blocks, [18], ValueError, "choices must be at least 2"),
    (check_blocks, [], ValueError, "choices must be at least 2"),
    (check_blocks, {}, ValueError, "choices must be at least 2"),
    (check_blocks, [18, 18], ValueError, "all different"),
    (check_tie, {"depth": [4, 4], "t": [0, 1]}, ValueError, "all different"),
    (check_tie, {"depth": [4], "t": [0, 1]}, ValueError, "at least 2"),
    (check_tie, {"depth": [20, 8], "t": [0, 1]}, ValueError, "must have a right one"),
    (lambda n: "Right.", [1, 2], ValueError, "function with a name")])
def test_an_exercise_that_is_not_fair_is_refused(shown, check, choices, error, reason):
    with pytest.raises(error, match=reason):
        d2l.quiz(check, choices)
    assert not shown


def test_every_wrong_choice_has_a_reply_of_its_own(shown):
    def alike(n):
        return "Right." if n == 1 else "No."

    def silent(n):
        return "Right." if n == 1 else None

    def empty(n):
        return "Right." if n == 1 else " "

    d2l.quiz(alike, [1, 2])
    with pytest.raises(ValueError, match="reply of their own"):
        d2l.quiz(alike, [1, 2, 3])
    for check in (silent, empty):
        with pytest.raises(TypeError, match=r"\(2\) must return a sentence"):
            d2l.quiz(check, [1, 2])
    with pytest.raises(TypeError, match="question must be a text, got ' '"):
        d2l.quiz(alike, [1, 2], " ")


def test_widgets_answer_as_the_checker_does(shown):
    d2l.quiz(check_blocks, [18, 54, 110], "How many <blocks>?")
    d2l.quiz(check_tie, FIELDS)
    blocks, tie = shown
    for box, labels, reply in [(blocks, ["54"], "That is all three &lt;stages&gt;."),
                               (blocks, ["18"], check_blocks(18)),
                               (tie, ["4", "1"], "Right: here it ties."), (tie, ["20", "1"], "No: too deep.")]:
        controls = [part for part in box.children if isinstance(part, widgets.RadioButtons)]
        [button] = next(part for part in box.children if isinstance(part, widgets.HBox)).children
        if len(controls) == len(labels) and controls[0].value is None:
            button.click()
            assert box.children[-1].value == "Choose first."
        for control, label in zip(controls, labels, strict=True):
            control.value = label
        button.click()
        assert box.children[-1].value == reply
    assert "&lt;blocks&gt;" in shown[0].children[0].value


@pytest.fixture
def page(open_page, shown, monkeypatch):
    """An open page with two exercises."""
    monkeypatch.setenv("D2L_BOOK", "1")
    d2l.quiz(check_blocks, [18, 54, 110], "How many blocks?")
    d2l.quiz(check_tie, FIELDS)
    return open_page(f'<main>{"".join(piece.data for piece in shown)}</main>',
                     [ROOT / "_static" / "predict.css", ROOT / "_static" / "predict.js"])


def test_the_page_answers_with_the_checkers_replies(page):
    form = page.locator("#check_blocks")
    for i, reply in enumerate([check_blocks(n) for n in (18, 54, 110)]):
        form.locator("input").nth(i).check()
        assert form.locator("output").inner_text() == ""      # a new choice takes the old reply away
        form.locator("button").click()
        assert form.locator("output").text_content() == reply
        assert ("right" in form.get_attribute("class")) == (i == 0)
    pair = page.locator("#check_tie")
    for i, depth in enumerate(FIELDS["depth"]):
        for j, t in enumerate(FIELDS["t"]):
            pair.locator("input[name=depth]").nth(i).check()
            pair.locator("input[name=t]").nth(j).check()
            pair.locator("button").click()
            assert pair.locator("output").text_content() == check_tie((depth, t))
    assert page.locator(".predict-tally").count() == 0


def test_the_page_waits_for_an_answer_and_works_by_keyboard(page):
    page.locator("#check_blocks button").click()
    assert page.locator("#check_blocks output").inner_text() == ""
    page.locator("#check_blocks input").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#check_blocks output").inner_text() == check_blocks(54)


def test_without_javascript_the_question_stands_there(page, browser):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(page.url)
    assert plain.get_by_text("How many blocks?").is_visible()
    assert plain.get_by_text("110").is_visible()
    assert plain.get_by_text("Answering here needs JavaScript").first.is_visible()
    assert plain.locator("#check_blocks button").is_disabled()
    assert "Right" not in plain.locator("body").inner_text()
    context.close()

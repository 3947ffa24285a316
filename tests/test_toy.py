"""toy(): what is played with in the page computes what the chapters' own code computes."""

import importlib
import json

import numpy as np
import pages
import pytest
import torch
from conftest import ROOT, axe

import d2l_utils as d2l
from d2l_utils.anatomy import layer_table

module = importlib.import_module("d2l_utils.book.toy")
NBSP = "\N{NO-BREAK SPACE}"
NETS = [{"title": "net 1", "rows": [["conv1", "64x112", "64x112"], ["a<b", "64x56", "64x28"], ["fc", "10", "11"]],
         "reply": "A stride too many."}, {"title": "net 2", "rows": [["conv1", "1", "1"]], "reply": "It is ResNet-18."}]
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
LESIONS = {"classes": ["bag", "shirt", "coat"], "pictures": [[DOT, 0], [DOT, 1], [DOT, 2], [DOT, 1]], "each": 200,
           "right": [[(mask * k) % 201 for k in (1, 3, 7)] for mask in range(512)],
           "answers": [f"{mask % 3}{mask // 3 % 3}{mask // 9 % 3}1" for mask in range(512)]}


@pytest.fixture
def play(open_page, monkeypatch):
    """play(name, data, **settings) opens a page with that toy."""
    def play(name, data=None, **settings):
        shown = []
        monkeypatch.setattr(module, "display", shown.append)
        d2l.toy(name, "Play with it.", **(data or {}))
        context = {"body": f"<main><h1>A page</h1>{shown[0].data}</main>"}
        pages.shorten_toys(None, "page", "page.html", context, None)           # as the built book has it
        return open_page(context["body"], [ROOT / "_static" / "toys.css"],
                         **{"reduced_motion": "reduce", **settings})
    return play


def caption(page):
    return page.locator("figcaption").inner_text()


def chapter_02():
    """The functions with which chapter 02 descends."""
    book = json.loads((ROOT / "chapters" / "02_identity.ipynb").read_text(encoding="utf-8"))
    names = {"torch": torch}
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith(("def loss_of", "def descend", "def path")):
            exec(source, names)
    return names


def drop(page, w1, w2):
    for slider, value in zip(page.locator("input").all(), (w1, w2), strict=True):
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", str(value))
    page.get_by_text("Drop a ball").click()


def ball(page):
    points = page.locator(".toy-path").get_attribute("points")
    return np.array([[float(n) for n in pair.split(",")] for pair in points.split()]) * [1, -1]


@pytest.mark.parametrize("origin", [0, 1], ids=["plain", "with shortcuts"])
def test_a_ball_takes_the_chapters_path(play, origin):
    page, chapter = play("descent", {"steps": 60, "lr": 0.08}), chapter_02()
    if origin:
        page.get_by_text("Move the origin").click()
    for start in [(0.1, 0.2), (0.2, -0.1), (-0.3, 0.1), (-0.1, -0.2), (0, 0), (1.5, -0.5)]:
        drop(page, *start)
        there = chapter["path"](start, origin).numpy()
        np.testing.assert_allclose(ball(page), there, rtol=1e-9, atol=1e-12)
        product = (origin + there[-1]).prod()
        assert ("it arrives" in caption(page)) == ((product - 1) ** 2 < 0.01)
        assert f"product is {product:.2f}" in caption(page).replace("-0.00", "0.00")


def test_moving_the_origin_drops_the_same_ball_again(play):
    page = play("descent", {"steps": 60, "lr": 0.08})
    page.get_by_text("Move the origin").click()               # no ball yet
    assert caption(page) == "Play with it."
    page.get_by_text("Move the origin").click()
    drop(page, 0.1, 0.2)
    plain = caption(page)
    button = page.get_by_text("Move the origin")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert plain.startswith("From (0.10, 0.20), plain: after 60 steps")
    assert caption(page).startswith("From (0.10, 0.20), with shortcuts: after 60 steps it arrives")
    assert len(ball(page)) == 61
    page.keyboard.press("Enter")
    assert caption(page) == plain


def test_a_click_on_the_surface_drops_the_ball_there(play):
    page = play("descent", {"steps": 60, "lr": 0.08})
    box = page.locator("svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] * (1 + 2.3) / 4.6, box["y"] + box["height"] * (0.5 + 2.3) / 4.6)
    assert ball(page)[0] == pytest.approx([1, -0.5], abs=0.03)
    assert page.locator("output").first.inner_text() == "1.00"


def test_a_ball_rolls_and_ends_where_it_should(play):
    page = play("descent", {"steps": 60, "lr": 0.08}, reduced_motion="no-preference")
    drop(page, 0.1, 0.2)
    page.wait_for_function("document.querySelector('.toy-path').getAttribute('points').split(' ').length === 61")
    assert ball(page)[-1] == pytest.approx(chapter_02()["path"]((0.1, 0.2), 0)[-1].numpy())


def build(page, pieces, shortcut="identity", change="same"):
    while page.locator("button[value=undo]").is_enabled():
        page.locator("button[value=undo]").click()
    for value in (*pieces, shortcut, change):
        page.locator(f"button[value='{value}']").click()
    return caption(page)


def costs(block):
    table = layer_table(block, 64, 56, 56)
    return f"{table.parameters.sum():,} parameters, {table.multiply_adds.sum() / 1e6:.1f} M multiply-adds."


@pytest.mark.parametrize(("pieces", "shortcut", "change", "name", "block"), [
    ("cnrcn+r", "identity", "same", "The original block (v1), He et al. 2015.", lambda: d2l.Residual(64, 64)),
    ("cnrcn+r", "projection", "half", "The original block (v1), He et al. 2015, option B.",
     lambda: d2l.Residual(64, 128, strides=2, shortcut="B")),
    ("cnrcn+r", "zeros", "half", "The original block (v1), He et al. 2015, option A.",
     lambda: d2l.Residual(64, 128, strides=2, shortcut="A")),
    ("cnrcn+r", "projection", "same", "The original block (v1), He et al. 2015, option C.",
     lambda: d2l.Residual(64, 64, shortcut="C")),
    ("cnrcnr", "identity", "half", "The plain block.", lambda: d2l.Residual(64, 128, strides=2, shortcut=None)),
    ("nrcnrc+", "identity", "same", "The pre-activation block (v2), He et al. 2016.",
     lambda: d2l.PreActResidual(64, 64)),
    ("nrcnrc+", "bare", "half", "The pre-activation block (v2), He et al. 2016, option B.",
     lambda: d2l.PreActResidual(64, 128, strides=2, shortcut="B")),
    ("knrcnrkn+r", "identity", "same", "The bottleneck of ResNet-50, with the stride in its 3x3 (v1.5).",
     lambda: d2l.Bottleneck(64, 16)),
    ("knrcnrkn+r", "projection", "half", "The bottleneck of ResNet-50, with the stride in its 3x3 (v1.5), option B.",
     lambda: d2l.Bottleneck(64, 32, True, 2)),
    ("nrknrcnrk+", "identity", "same", "The pre-activation bottleneck, He et al. 2016.",
     lambda: d2l.PreActBottleneck(64, 16))])
def test_a_block_has_its_name_and_the_costs_of_the_librarys_block(play, pieces, shortcut, change, name, block):
    page = play("block")
    assert build(page, pieces, shortcut, change) == f"{name} {costs(block())}"


def test_other_blocks_raise_or_are_different_nets(play):
    page = play("block")
    assert build(page, "cnrcn+r", "identity", "half") == "Raises at the sum: 128x28x28 and 64x56x56 cannot be added."
    assert build(page, "knrcn+r") == "Raises at the sum: 16x56x56 and 64x56x56 cannot be added."
    for pieces, shortcut, why in [("cnrcnr+", "identity", "behind a ReLU"), ("cnrcn+", "identity", "no ReLU"),
                                  ("crc+r", "identity", "without norm"), ("cnrcn+r", "bare", "has a norm"),
                                  ("nrcnrc+", "projection", "has no norm"), ("ncr+", "identity", "net."),
                                  ("r+cn", "identity", "before the sum")]:
        assert "Trains, and is a different net" in build(page, pieces, shortcut)
        assert why in caption(page)
    assert "a plain stack" in build(page, "cc")
    assert build(page, "").startswith("Nothing yet")
    build(page, "cnrcn+r", "projection", "half")
    shapes = page.locator(".toy-block small").all_inner_texts()
    assert shapes == ["128x28x28"] * 7
    build(page, "cccccccccc")
    assert page.locator("button[value=c]").is_disabled()
    build(page, "c+")
    assert page.locator("button[value='+']").is_disabled()


def test_the_first_wrong_row_is_found(play):
    page = play("first_wrong_row", {"nets": NETS})
    rows = page.locator("td button")
    for i, reply in [(0, "No: this row is as it should be."), (1, "Right. A stride too many."),
                     (2, "No: this row is wrong, but an earlier one was wrong first.")]:
        rows.nth(i).click()
        assert caption(page) == reply
    assert page.locator("[data-net]").all_inner_texts() == ["net 1 ✓", "net 2"]
    page.get_by_text("Every row is right").click()
    assert caption(page) == "No: one of them is not."
    page.get_by_text("net 2").click()
    assert caption(page) == "Play with it."
    rows.first.click()
    assert caption(page) == "No: this row is as it should be."
    page.get_by_text("Every row is right").focus()
    page.keyboard.press("Enter")
    assert caption(page) == "Right. It is ResNet-18."
    assert page.locator("[data-net]").all_inner_texts() == ["net 1 ✓", "net 2 ✓"]


def remove(page, mask):
    """Take out the blocks of the mask, and no others."""
    for i, button in enumerate(page.locator("[aria-label^=block]").all()):
        if (button.get_attribute("aria-pressed") == "true") == bool(mask >> i & 1):
            button.click()


@pytest.mark.parametrize(("mask", "said"), [
    (0, "All nine blocks"), (1, "Without block 1"), (256, "Without block 9"), (0b10100, "Without blocks 3 and 5"),
    (0b100010010, "Without blocks 2, 5 and 9"), (0b11111110, "Without blocks 2, 3, 4, 5, 6, 7 and 8"),
    (511, "No block at all")])
def test_a_net_without_blocks_answers_as_was_measured(play, mask, said):
    page, classes = play("lesions", LESIONS), LESIONS["classes"]
    remove(page, mask)
    right, answers = LESIONS["right"][mask], [int(answer) for answer in LESIONS["answers"][mask]]
    labels = [label for _, label in LESIONS["pictures"]]
    good = [answer == label for answer, label in zip(answers, labels, strict=True)]
    share, rest = caption(page).removeprefix(f"{said}: ").split(NBSP)
    assert float(share) == pytest.approx(100 * sum(right) / 600, abs=0.051)
    assert rest == f"% of 600 test pictures right, and {sum(good)} of these 4."
    assert page.locator("li span").all_inner_texts() == [
        f"{'' if right else '✗ '}{classes[answer]}" for right, answer in zip(good, answers, strict=True)]
    assert [item.get_attribute("class") == "toy-wrong" for item in page.locator("li").all()] == [not ok for ok in good]
    assert [image.get_attribute("alt") for image in page.locator("img").all()] == [
        f"picture: {classes[label]}" for label in labels]
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    assert [name for name, _ in rows] == classes
    for (_, recall), n in zip(rows, right, strict=True):
        assert float(recall.removesuffix(f"{NBSP}%")) == pytest.approx(n / 2, abs=0.51)


def test_blocks_are_removed_and_put_back_by_keyboard(play):
    page = play("lesions", LESIONS)
    first, back = page.get_by_label("block 1"), page.get_by_text("all in")
    whole = caption(page)
    assert back.is_disabled()
    first.focus()
    page.keyboard.press("Space")
    assert first.get_attribute("aria-pressed") == "false"
    assert caption(page).startswith("Without block 1:")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert caption(page).startswith("Without blocks 1 and 2:")
    back.focus()
    page.keyboard.press("Enter")
    assert caption(page) == whole
    assert first.evaluate("e => e === document.activeElement"), "the focus is not lost with the button"


@pytest.mark.parametrize(("name", "data"), [("descent", {"steps": 60, "lr": 0.08}), ("block", {}),
                                            ("first_wrong_row", {"nets": NETS}), ("lesions", LESIONS)])
def test_every_toy_fits_a_phone_and_is_accessible(play, name, data):
    page = play(name, data, viewport={"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert all(button.bounding_box()["height"] >= 24 for button in page.locator("button").all())
    assert axe(page) == []
    assert name in module.TOYS


def test_without_javascript_a_toy_says_so(play):
    page = play("block", java_script_enabled=False)
    assert page.get_by_text("needs JavaScript").is_visible()
    assert caption(page) == "Play with it."


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of \['block', 'descent', .*'lesions'\], got 'ball'"):
        d2l.toy("ball", "Play.")

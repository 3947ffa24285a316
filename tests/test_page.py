"""Explorers and figures in Chromium, on small pages of their own: what the page says, keeps and looks like."""

import pytest
from conftest import ROOT
from playwright.sync_api import sync_playwright

import d2l_utils as d2l
from d2l_utils import plots
from d2l_utils.book import explorer

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser, tmp_path):
    """visit(body, **settings) opens a page of this body with the book's script and style; errors fail the test."""
    contexts, wrong = [], []

    def visit(body, head=None, **settings):
        head = f"""<link rel="stylesheet" href="{(ROOT / "_static" / "book.css").as_uri()}">
                   <script src="{(ROOT / "_static" / "explorer.js").as_uri()}"></script>""" if head is None else head
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(f"<!DOCTYPE html><html lang=en data-theme={settings.get('color_scheme', 'light')}><head>"
                        f"<meta charset=utf-8>{head}</head><body>{body}</body></html>")
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


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
    page.evaluate("addEventListener('explorer-frame', event => { document.title += event.target.id })")
    page.locator("input").press("End")
    assert page.title() == "two_axes"


def test_d2l_explore_is_what_these_pages_are(monkeypatch):
    seen = []
    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setattr(explorer, "display", seen.append)
    d2l.explore(two_axes, depth=[8, 20], shortcut=["none", "identity"])
    assert seen[0].data == html(two_axes, depth=[8, 20], shortcut=["none", "identity"])

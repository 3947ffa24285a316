"""Sphinx extension: what a page has in the book and not in its notebook: the number of its file's name before its
title, folds that say what they hide, scripts as short as they may be."""

import json
import re
from pathlib import Path

from docutils import nodes
from rjsmin import jsmin

FOLDED = {"tag_setup": "the set-up", "tag_exercise-check": "the checker", "tag_solution": "a solution"}
TOY = re.compile(r'(<figure class="toy".*?<script>)(.*?)(?=</script>)', re.S)


def number_of(page):
    """The number in a page's file name, "1" of chapters/01_degradation and "A" of chapters/A_fair_race, or None."""
    match = re.match(r"0*(\d+|[A-Z])_", page.rpartition("/")[2])
    return match and match[1]


def number_title(app, docname, content):
    """The number of its file's name before a chapter's title: sidebar, links and browser tabs show the title too."""
    if (number := number_of(docname)) and str(app.env.doc2path(docname)).endswith(".ipynb"):
        book = json.loads(content[0])
        first = book["cells"][0]
        first["source"] = re.sub(r"^# (?:Appendix \w: )?(\w)", lambda start: f"# {number}. {start[1].upper()}",
                                 "".join(first["source"]), count=1)
        content[0] = json.dumps(book)


def label_folds(app, doctree):
    """Say on a folded cell what it hides. The set-up cell is folded too: a reader of the page does not need to see it;
    in Jupyter and Colab it stays open."""
    for cell in doctree.findall(nodes.container):
        kind = next((FOLDED[name] for name in cell["classes"] if name in FOLDED), "the code")
        if "tag_setup" in cell["classes"]:
            cell.setdefault("hide_mode", "input")
        if cell.get("hide_mode"):
            cell["prompt_show"], cell["prompt_hide"] = f"Show {kind}", f"Hide {kind.replace('a sol', 'the sol')}"


def say_title_once(app, pagename, templatename, context, doctree):
    """The first page's title is the book's: its tab would say it twice."""
    if pagename == app.config.root_doc:
        context["docstitle"] = ""


def shorten_toys(app, pagename, templatename, context, doctree):
    """The toys' scripts, which stand in the page itself, without comments and needless white space."""
    context["body"] = TOY.sub(lambda found: found[1] + jsmin(found[2]), context.get("body", ""))


def shorten_scripts(app, exception):
    """The book's other scripts likewise. (rjsmin takes what stands in a template inside a template for code: its white
    space must mean nothing. tests/test_book.py sees where it does.)"""
    if exception is None and app.builder.name == "html":
        for source, target in {"_static": "_static", "web": "trainer"}.items():
            for path in (Path(app.srcdir) / source).glob("*.js"):
                if (copy := Path(app.outdir) / target / path.name).is_file():
                    copy.write_text(jsmin(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app):
    """Connect the above."""
    app.connect("source-read", number_title)
    app.connect("doctree-read", label_folds)
    app.connect("html-page-context", say_title_once)
    app.connect("html-page-context", shorten_toys)
    app.connect("build-finished", shorten_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

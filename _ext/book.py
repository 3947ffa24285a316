"""Sphinx extension of this book: the build flag, the cache's key, local maths, explorers with names of their own."""

import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from previews import site_address
from sphinx.errors import ExtensionError
from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math

RENDER_MATHS = r"""document.addEventListener("DOMContentLoaded", () => {
  for (const node of document.querySelectorAll(".math")) {
    const tex = node.textContent.trim().match(/^\\([([])([^]*)\\[)\]]$/);
    if (tex) katex.render(tex[2], node, {displayMode: tex[1] === "[", throwOnError: false});
  }
});"""


RECORD = Path("d2l_utils", "recorded", "train_here.csv")
PICTURES = 2048                             # what its runs were trained on, as many as web/pictures.js has


LOST = """<h1>This page is not here</h1>
<p>It may have moved. The <a href="index.html">first page</a> has a card for each chapter, and the
<a href="search.html">search</a> finds words in all of them.</p>"""

MOVED = {                                   # {page: {what it had: where that is now}}; "" is the whole page
    "chapters/05_training": {
        "time-to-92": "B_speed.html#time-to-92", "recipe_step": "B_speed.html#ladder",
        "the-pictures-changed": "#pictures-that-change", "one-step": "#a-step-and-momentum",
        "the-way-of-the-rate": "#a-rate-that-falls", "the-loop": "#the-whole-loop",
        "the-run": "#a-run-and-its-error-bar"},
    "chapters/06_scaling_out": {
        "": "C_scaling_out.html",
        "on-a-gpu-the-same-cells": "C_scaling_out.html#one-line-for-many-processes",
        "on-two-the-same-file": "C_scaling_out.html#one-line-for-many-processes",
        "thirty-two-processes-without-thirty-two-processors": "C_scaling_out.html#is-it-the-same-gradient",
        "second_process": "C_scaling_out.html#what-does-a-second-process-buy",
        "eight-and-sixty-four": "C_scaling_out.html#what-does-a-second-process-buy",
        "extrapolation": "C_scaling_out.html#what-does-a-second-process-buy"}}
FOLLOW = """<script>{
  const moved = %s;
  const follow = () => {
    const name = location.hash.slice(1).split("?")[0];
    if (Object.hasOwn(moved, name)) location.replace(moved[name]);
    else if (moved[""]) location.replace(moved[""] + location.hash);
  };
  addEventListener("hashchange", follow);
  follow();
}</script>"""


def cache_key(package):
    """A hash of all that a cell's output depends on besides the cell: `package` with its recorded results and its style
    sheet, the versions of the libraries that compute and draw, the book's address."""
    digest = hashlib.sha256(os.environ["D2L_COLAB"].encode())
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.name[0] != "." and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)} {path.stat().st_size} ".encode() + path.read_bytes())
    for name in ("torch", "torchvision", "numpy", "pandas", "matplotlib"):
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()[:16]


def configure(app, config):
    """Tell the kernels that a book is built, with the book's own matplotlib settings and not those of whoever builds
    it, and keep their outputs under a key that changes when results may."""
    package = Path(importlib.util.find_spec("d2l_utils").origin).parent
    os.environ["D2L_BOOK"], os.environ["MATPLOTLIBRC"] = "1", str(package / "book.mplstyle")
    theme = config.html_theme_options
    repository = theme.get("repository_url", "").removeprefix("https://github.com/")
    branch = theme.get("repository_branch", "main")
    os.environ["D2L_COLAB"] = f"https://colab.research.google.com/github/{repository}/blob/{branch}/"
    config.templates_path.append(str(Path(__file__).parent / "templates"))
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / cache_key(package))


def add_katex(app, pagename, templatename, context, doctree):
    """KaTeX, from the book itself, on pages with maths."""
    if app.env.get_domain("math").has_equations(pagename):
        app.add_css_file("../katex/katex.min.css")
        app.add_js_file("../katex/katex.min.js", defer="defer")
        app.add_js_file(None, body=RENDER_MATHS)


def recorded_pairs(path):
    """The record `train_here` as trainer.js draws it: each run's training errors by epoch, by net and depth."""
    runs, rate = {}, None
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["diverged"] == "False":
                rate, error = float(row["lr"]), round(float(row["train_error"]), 3)
                runs.setdefault((row["shortcut"], row["depth"], row["seed"]), []).append(error)
    pairs = {"rate": rate, "pictures": PICTURES, "plain": {}, "residual": {}}
    for (shortcut, depth, _), errors in runs.items():
        pairs["plain" if shortcut == "none" else "residual"].setdefault(depth, []).append(errors)
    return pairs


def recorded_table(path):
    """The medians of those runs as a folded table, for who cannot see the pale lines."""
    record = pd.read_csv(path).query("not diverged").replace({"shortcut": {"none": "plain", "A": "residual"}})
    record["train_error"] *= 100
    table = record.pivot_table("train_error", ["shortcut", "depth"], "epoch", "median").rename_axis(["net", "depth"])
    return ('<details class="data-table"><summary>The recorded runs as a table</summary><div tabindex="0"><p>Training '
            f'error in % after each epoch at rate {record.lr.iloc[0]:g} on {PICTURES:,} pictures, median of '
            f'{record.seed.nunique()} runs.</p>{table.to_html(border=0, float_format="{:.1f}".format)}</div></details>')


def inside(kind, source):
    """What stands in a live figure of this kind: its controls, and the recorded runs that the trainer draws."""
    controls, record = (source / "web" / f"{kind}.html").read_text(encoding="utf-8"), source / RECORD
    if kind == "trainer" and record.is_file():
        runs = json.dumps(recorded_pairs(record), separators=(",", ":"))
        return f'<script type="application/json">{runs}</script>\n{controls}{recorded_table(record)}'
    return controls


def add_live_figures(app, pagename, templatename, context, doctree):
    """Controls, scripts and styles of the page's live figures, on pages with one: Jupyter Book puts every file of
    _static/ on every page."""
    start, scripts = '<figure class="%s"', []
    for kind in ("trainer", "hands"):
        if start % kind in context.get("body", ""):
            figure, more = f"({start % kind}.*?)(</figure>)", inside(kind, Path(app.srcdir))
            context["body"] = re.sub(figure, lambda found, more=more: found[1] + more + found[2], context["body"],
                                     flags=re.S)
            scripts += ["trainer", kind]                    # trainer.js has the module, also for hands.js
            app.add_css_file(f"../trainer/{kind}.css")
    for name in dict.fromkeys(scripts):
        app.add_js_file(f"../trainer/{name}.js")


def copy_live_figures(app, exception):
    """What those pages load: scripts and styles, and the pictures and weights that their buttons fetch."""
    web, folder = Path(app.srcdir) / "web", Path(app.outdir) / "trainer"
    if exception is None and app.builder.name == "html" and web.is_dir():
        folder.mkdir(exist_ok=True)
        for file in (*web.glob("*.css"), *web.glob("*.js")):
            shutil.copy(file, folder)


def drop_thebe(app, pagename, templatename, context, doctree):
    """sphinx-thebe puts its files on every page, where they do nothing but raise an error: leave them out."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind]
                         if "thebe" not in f"{file.filename} {file.attributes.get('body')}".lower()]


def mend_tables(app, pagename, templatename, context, doctree):
    """pandas gives the index's name a row of its own, and writes a header cell without words over the index: put the
    name there, or a plain cell, which says the same and confuses nobody."""
    body = re.sub(r"<th></th>((?:\s*<th>[^<]*</th>)+\s*</tr>\s*)<tr>\s*<th>([^<]+)</th>(?:\s*<th></th>)+\s*</tr>",
                  r"<th>\2</th>\1", context.get("body", ""))
    context["body"] = body.replace("<th></th>", "<td></td>")


def add_lost_page(app):
    """404.html, which a server shows at any address: its links start from the book's own."""
    base = f'<base href="{urlsplit(site_address(app)).path}">'
    title = "This page is not here"
    yield "404", {"title": title, "pagetitle": title, "body": LOST, "metatags": base}, "page.html"


def add_moved_pages(app):
    """A page at the old address of each that has moved as a whole."""
    for old, places in MOVED.items():
        new, title = places.get("", ""), "This page has moved"
        if f"{old.rpartition('/')[0]}/{new.removesuffix('.html')}" in app.env.found_docs:
            body = f'<h1>{title}</h1>\n<p><a href="{new}">It is here now.</a></p>'
            yield old, {"title": title, "pagetitle": title, "body": body}, "page.html"


def follow_moves(app, pagename, templatename, context, doctree):
    """Old addresses lead to the new ones: by a script, which knows the anchor; without scripts to the page's start."""
    if pagename in MOVED:
        places, tags = MOVED[pagename], context.get("metatags", "") + FOLLOW % json.dumps(MOVED[pagename])
        if "" in places:
            tags += f'<noscript><meta http-equiv="refresh" content="0; url={places[""]}"></noscript>'
        context["metatags"] = tags


def check_explorers(app, pagename, templatename, context, doctree):
    """Every explorer's name is an id of the page: no other explorer, heading or picture may have it."""
    body = context.get("body", "")
    count = Counter(re.findall(r'\sid="([^"]+)"', body))
    kinds = 'figure class="(?:explorer|toy|trainer|hands)|form class="(?:predict|quiz)'
    for name in re.findall(f'<(?:{kinds})" id="([^"]+)"', body):
        if count[name] > 1:
            raise ExtensionError(f"{pagename}: {count[name]} things are named {name!r}; "
                                 "rename the explorer's render function, the quiz's checker or the prediction")


def check_index(app, exception):
    """A build that leaves no index.html has failed, whatever else it made."""
    if exception is None and app.builder.name == "html" and not (Path(app.outdir) / "index.html").is_file():
        raise ExtensionError(f"the build left no {app.outdir}/index.html")


def setup(app):
    """Connect the above."""
    app.add_html_math_renderer("katex", (html_visit_math, None), (html_visit_displaymath, None))
    app.connect("config-inited", configure, priority=100)
    app.connect("html-page-context", add_katex, priority=400)
    app.connect("html-page-context", add_live_figures, priority=400)
    app.connect("html-page-context", mend_tables)
    app.connect("html-page-context", check_explorers)
    app.connect("html-page-context", follow_moves)
    app.connect("html-collect-pages", add_lost_page)
    app.connect("html-collect-pages", add_moved_pages)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_live_figures)
    app.connect("build-finished", check_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

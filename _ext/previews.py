"""Sphinx extension: what a link to a page shows elsewhere: title, sentence, and a picture made at build."""

import html
import re
import textwrap
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SIZE = 1200, 630                                         # what the networks show, in pixels
INK, GREY, BLUE = "#222832", "#5c5f63", "#0a4fa3"


def site_address(app):
    """The address of the published book: html.baseurl of _config.yml, by default GitHub Pages of its repository."""
    repository = app.config.html_theme_options.get("repository_url", "").removeprefix("https://github.com/")
    owner, _, name = repository.strip("/").partition("/")
    return app.config.html_baseurl or f"https://{owner}.github.io/{name}/"


def add_preview(app, pagename, templatename, context, doctree):
    """Say what a link to the page shows: its title, its first sentences, its picture."""
    if doctree is None or doctree.next_node(nodes.paragraph) is None:
        return
    words = " ".join(doctree.next_node(nodes.paragraph).astext().split())
    title = html.unescape(re.sub("<[^>]+>", "", context["title"]))
    facts = {"og:type": "article", "og:title": title, "og:description": words, "og:image:alt": title,
             "og:image:width": SIZE[0], "og:image:height": SIZE[1], "og:url": f"{site_address(app)}{pagename}.html",
             "og:image": f"{site_address(app)}previews/{pagename}.png", "twitter:card": "summary_large_image"}
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta property="{name}" content="{html.escape(str(value))}">' for name, value in facts.items())


def drawings(index):
    """{page: the small drawing of its card} of the built first page, which itself has the first one."""
    cards = BeautifulSoup(index.read_text(encoding="utf-8"), "html.parser").select("a.page-card")
    found = {card["href"].removesuffix(".html"): card.svg for card in cards}
    return {"index": next(iter(found.values()), None), **found}


def draw(drawing, ax):
    """A card's lines and boxes, in its field of 60 by 40."""
    ax.set(xlim=(0, 60), ylim=(40, 0), aspect="equal")
    ax.axis("off")
    for shape in drawing.select("polyline, rect") if drawing else []:
        ink = (re.search("#[0-9a-f]{6}", shape.get("stroke", "")) or [BLUE])[0]
        if shape.name == "rect":
            x, y, width, height = (float(shape[name]) for name in ("x", "y", "width", "height"))
            ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=ink, linewidth=6, joinstyle="round"))
        else:
            ax.plot(*zip(*(map(float, point.split(",")) for point in shape["points"].split()), strict=True),
                    color=ink, linewidth=7, solid_capstyle="round", solid_joinstyle="round")


def picture(title, words, book, drawing):
    """A page's picture as a Figure: its title, its sentence, its card's drawing."""
    with style.context("default", after_reset=True):
        fig = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
        fig.patches.append(Rectangle((0, 0), 0.012, 1, color=BLUE, transform=fig.transFigure))
        lines = textwrap.wrap(title, 22)[:4]
        fig.text(0.06, 0.87, "\n".join(lines), fontsize=40, weight="bold", color=INK, va="top", linespacing=1.15)
        if words != title:
            below = textwrap.shorten(words, 150, placeholder=" …")
            fig.text(0.06, 0.8 - 0.105 * len(lines), textwrap.fill(below, 40), fontsize=22, color=INK, va="top",
                     linespacing=1.35)
        if book != title:
            fig.text(0.06, 0.07, book, fontsize=19, color=GREY)
        draw(drawing, fig.add_axes((0.62, 0.2, 0.33, 0.6)))
    return fig


def draw_previews(app, exception):
    """Write the pictures that the built pages name."""
    if exception is None and app.builder.name == "html":
        site = Path(app.outdir)
        drawn = drawings(site / "index.html")
        for page in app.env.found_docs:
            text = (site / f"{page}.html").read_text(encoding="utf-8")
            facts = {name: html.unescape(value)
                     for name, value in re.findall('<meta property="og:([a-z]+)" content="([^"]*)">', text)}
            if "image" in facts:
                path = site / f"previews/{page}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(facts["title"], facts["description"], app.config.html_title or app.config.project,
                        drawn.get(page)).savefig(path)


def setup(app):
    """Connect the above."""
    app.connect("html-page-context", add_preview)
    app.connect("build-finished", draw_previews)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

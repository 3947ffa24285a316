"""A matplotlib Figure as small, accessible inline SVG: real text, colours and fonts that the page decides.

What matplotlib draws in black takes the page's text colour and every other colour can be given another shade by a
variable of the style sheet (`--ink-0072b2`), so that one picture reads well on light and on dark.
"""

import io
import itertools
import re
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.ticker import PercentFormatter

from ..plots import STYLE

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
INKS = {"#000000": "currentColor", "#ffffff": "var(--figure-paper, #fff)"}
RAISED = str.maketrans("\u22120123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
GROWTH = 1.6                                  # a figure is laid out for a phone, and grows with the page up to this
FIGURES = itertools.count(1)                  # of this process: two equal figures on a page need ids of their own


def restyled(css):
    """A style attribute in which the page decides on fonts, text size and colours."""
    css = re.sub("'[^;]*monospace", "monospace", css)
    css = re.sub("; font-family: '[^;]*", "", css)                          # the SVG's own
    css = re.sub("'[^;]*", "var(--figure-font, sans-serif)", css)          # in the one "font" of matplotlib up to 3.10
    css = re.sub(r"([\d.]+px)", r"calc(\1 * var(--figure-text, 1))", css)
    return re.sub("(?<=: )#[0-9a-f]{6}", lambda ink: INKS.get(ink[0], f"var(--ink-{ink[0][1:]}, {ink[0]})"), css)


def tidied(element, used):
    """One element of matplotlib's SVG: plain names, ids that are `used`, two decimals, no white space between tags."""
    element.tag, element.tail = element.tag.rpartition("}")[2], None
    if element.tag != "tspan":                  # of maths, which may be a space
        element.text = (element.text or "").strip() or None
    for name, value in list(element.items()):
        del element.attrib[name]
        if name == "style":
            value = restyled(value)
        elif name in ("d", "x", "y", "width", "height"):
            value = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
        if not value.startswith("rotate(-0 ") and (name != "id" or value in used):
            element.set(name.rpartition("}")[2], value)


def draw_ticks(root):
    """Marks that are one stroke, such as ticks, become lines where they are used."""
    strokes = {}
    for defs in root.iter("defs"):
        for mark in list(defs):
            words = mark.get("d", "").split()
            if words[:4] == ["M", "0", "0", "L"] and len(words) == 6:
                strokes["#" + mark.get("id")] = " ".join(words[4:])
                defs.remove(mark)
    for use in root.iter("use"):
        if use.get("href") in strokes:
            path = f"M {use.get('x')} {use.get('y')} l {strokes[use.get('href')]}"
            use.tag, use.attrib = "path", {"d": path, "style": use.get("style")}


def ungroup(parent):
    """Drop what draws nothing and groups without attributes, half of all elements; lines that look alike become one
    path: a browser's time goes with the number of elements."""
    children, alike = [], {}
    for child in parent:
        ungroup(child)
        children += child if child.tag == "g" and not child.attrib else [child]
    parent[:] = []
    for child in children:
        look = {name: value for name, value in child.items() if name != "d"}
        if child.tag == "path" and len(child.get("d", "").split()) == 6 and "id" not in look:
            first = alike.setdefault(str(look), child)
            if first is not child:
                first.set("d", f"{first.get('d')} {child.get('d')}")
                continue
        if child.tag != "style" and (len(child) or child.tag not in ("g", "defs")) and look != {"style": "fill: none"}:
            parent.append(child)


def write_powers(root):
    """Powers of ten, of which matplotlib places every digit by itself, become plain text."""
    for text in root.iter("text"):
        level = text[0].get("y") if len(text) else ""
        words = "".join(part.text if part.get("y") == level else part.text.translate(RAISED) for part in text)
        if re.fullmatch("[\u2212\u00d7.\\d]+[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", words):
            text.attrib |= {"y": level, "style": text[0].get("style")}
            text.text, text[:] = words, []


def as_read(axis):
    """The limits of an axis as its labels say them: in per cent where they do."""
    form = axis.get_major_formatter()
    return axis.get_view_interval() * (100 / form.xmax if isinstance(form, PercentFormatter) else 1)


def scales(fig):
    """Where the axes of a figure with one lie in its SVG (x, y, width, height) and what they measure, for scripts."""
    shown = [ax for ax in fig.axes if ax.axison]
    if len(shown) != 1:
        return {}
    (width, height), (x0, y0, x1, y1) = 72 * fig.get_size_inches(), shown[0].get_position().extents
    found = {"box": (x0 * width, (1 - y1) * height, (x1 - x0) * width, (y1 - y0) * height),
             "xlim": as_read(shown[0].xaxis), "ylim": as_read(shown[0].yaxis)}
    return {**{f"data-{name}": " ".join(f"{value:.6g}" for value in values) for name, values in found.items()},
            "data-xscale": shown[0].get_xscale(), "data-yscale": shown[0].get_yscale()}


def to_svg(fig, alt, prefix=None):
    """A Figure as inline SVG with text alternative `alt`. Its ids are those that something refers to: they derive from
    `prefix`, by default one of the figure's own, so that no two pictures of a page share one."""
    file, salt = io.StringIO(), prefix or f"figure {next(FIGURES)}"
    with style.context([STYLE, {"svg.hashsalt": salt}], after_reset=True):
        fig.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', file.getvalue()))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        tidied(element, used)
    draw_ticks(root)
    ungroup(root)
    write_powers(root)
    width, height = fig.get_size_inches()
    root.attrib = {"role": "img", "aria-label": alt, "viewBox": f"0 0 {72 * width:g} {72 * height:g}",
                   "stroke-linejoin": "round", "fill": "currentColor", **scales(fig),
                   "style": f"width:100%;max-width:{GROWTH * 96 * width:.0f}px;height:auto;"
                            "font-family:var(--figure-font, sans-serif)"}
    return ElementTree.tostring(root, encoding="unicode")

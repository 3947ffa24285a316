"""What makes the pages alive and their numbers true."""

import html
import json
import os
import re
from pathlib import Path

from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup


class Words(HTML):
    """HTML to display; where there is none, its text."""

    def __repr__(self):
        return html.unescape(re.sub("<[^>]*>", "", self.data))


def building():
    """Whether this kernel runs for the build of the book (the Sphinx extension sets D2L_BOOK), and not for a reader."""
    return bool(os.environ.get("D2L_BOOK"))


def unbroken(text):
    """`text` with no-break spaces between its numbers and their units or %."""
    return re.sub(r"(?<=\d) (?=[%‰]|(?:[kMGT]i?B?|dB|px|[mµn]?s|min|h)\b)", "\N{NO-BREAK SPACE}", text)


def check_text(text, demand):
    """TypeError, which says what is demanded ("alt must be a sentence"), where `text` is no text or an empty one."""
    if not isinstance(text, str) or not text.strip():
        raise TypeError(f"{demand}, got {text!r}")


def distinct(name, values):
    """The values as a list. TypeError for what is none, ValueError where there are fewer than two, or where one reads
    like another or is empty."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list of options, got {values!r}")
    values = list(values)
    texts = {str(value) for value in values}
    if len(texts) < max(2, len(values)) or not all(text.strip() for text in texts):
        raise ValueError(f"{name} must be at least 2, all different and none empty, got {values!r}")
    return values


def to_json(data):
    """JSON that may stand in a script of a page."""
    return Markup(json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/"))


TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True,
                        trim_blocks=True, lstrip_blocks=True)
TEMPLATES.globals["to_json"] = to_json


def fill(template, **facts):
    """The HTML of templates/TEMPLATE.html, filled in with these facts."""
    return TEMPLATES.get_template(f"{template}.html").render(facts)

"""What makes the pages alive and their numbers true."""

import html
import json
import os
import re

from IPython.display import HTML


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


def to_json(data):
    """JSON that may stand in a script of a page."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")

"""toy(): a small figure that is played with in the page itself, by plain JavaScript that comes with it."""

import html
from pathlib import Path

from IPython.display import HTML, display

from . import to_json

TOYS = {file.stem: file for file in sorted(Path(__file__).with_name("toys").glob("*.js"))}


def toy(name, caption, **data):
    """Show the toy `name`, of book/toys/NAME.js, above a `caption` of one sentence, which it rewrites when it is played
    with; `data` are its settings, in JSON. It plays with a kernel and in the built page. ValueError for other names."""
    if name not in TOYS:
        raise ValueError(f"name must be one of {list(TOYS)}, got {name!r}")
    display(HTML(f'<figure class="toy" id="{name}"><div class="toy-body"><p>To play with it needs JavaScript.</p>'
                 f'</div><figcaption aria-live="polite">{html.escape(caption)}</figcaption></figure><script>(\n'
                 f'{TOYS[name].read_text("utf-8")})(...document.getElementById("{name}").children, {to_json(data)});'
                 '</script>'))

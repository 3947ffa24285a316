"""toy(): a small figure that is played with in the page itself, by plain JavaScript that comes with it."""

from pathlib import Path

from IPython.display import HTML, display

from . import fill

TOYS = {file.stem: file for file in sorted(Path(__file__).with_name("toys").glob("*.js"))}


def toy(name, caption, **data):
    """Show the toy `name`, of book/toys/NAME.js, above a `caption` of one sentence, which it rewrites when it is played
    with; `data` are its settings, in JSON. It plays with a kernel and in the built page. ValueError for other names."""
    if name not in TOYS:
        raise ValueError(f"name must be one of {list(TOYS)}, got {name!r}")
    display(HTML(fill("toy", name=name, caption=caption, script=TOYS[name].read_text("utf-8"), data=data)))

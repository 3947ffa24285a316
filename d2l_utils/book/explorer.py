"""explore(): controls over real runs, alive with a kernel and in the built page; show(): figures with their caption.

In the built book all frames are written into the page, where _static/explorer.js brings them to life.
"""

import html
import itertools
import re
from numbers import Real

import ipywidgets as widgets
from IPython.display import HTML, display
from matplotlib import style
from matplotlib.figure import Figure

from ..plots import STYLE
from . import building, check_text, distinct, fill, unbroken
from .svg import to_svg


def panels(picture):
    """The Figures of a Figure or of a list of them; none for anything else."""
    figures = picture if isinstance(picture, list) else [picture]
    return figures if all(isinstance(figure, Figure) for figure in figures) else []


def draw(figures, caption, prefix=None):
    """The sizes of Figures, and these as SVG: the first says the caption, panels beside it their titles."""
    titles = [ax.get_title().strip() for fig in figures[1:] for ax in fig.axes[:1]]
    alts = [caption, *(title or f"panel {i}" for i, title in enumerate(titles, 2))]
    return ([tuple(fig.get_size_inches()) for fig in figures],
            "".join(to_svg(fig, alt, prefix and f"{prefix} {i}")
                    for i, (fig, alt) in enumerate(zip(figures, alts, strict=True))))


def show(fig, alt):
    """Display a Figure, or a list of Figures side by side where there is room, as inline SVG over its numbered caption:
    `alt` says in a sentence what is to be seen, to readers who see it and to those who do not."""
    if not panels(fig):
        raise TypeError(f"fig must be a matplotlib Figure or a list of them, got {fig!r}")
    check_text(alt, "alt must be a sentence")
    alt = unbroken(alt)
    sizes, picture = draw(panels(fig), alt)
    display(HTML(fill("picture", sizes=sizes, picture=picture, caption=alt)))


class Frames(dict):
    """{position: (HTML, caption)} of what `render` returns: each frame is made and checked when it is first asked for.
    A position is a tuple of indices, one for each axis; `start` is the first one with these options."""

    def __init__(self, render, axes, start=None):
        self.render, self.name = render, getattr(render, "__name__", "")
        self.sizes, self.calls = [], {}                        # of the figures; of `render`, by caption, for messages
        if not self.name.isidentifier():
            raise ValueError(f"render must be a function with a name (the figure's id), got {render!r}")
        if not axes:
            raise ValueError(f"axes must have at least one, such as depth=[8, 20]: {self.name} has none")
        self.axes = {axis: distinct(axis, values) for axis, values in axes.items()}
        first = {axis: options[0] for axis, options in self.axes.items()} | (start or {})
        if len(first) > len(axes) or any(first[axis] not in options for axis, options in self.axes.items()):
            raise ValueError(f"start must have options of the axes {self.axes}, got {start}")
        self.start = tuple(options.index(first[axis]) for axis, options in self.axes.items())

    def __missing__(self, position):
        choice = {axis: options[i] for (axis, options), i in zip(self.axes.items(), position, strict=True)}
        call = f"{self.name}({', '.join(f'{axis}={value!r}' for axis, value in choice.items())})"
        try:
            with style.context(STYLE, after_reset=True):
                result = self.render(**choice)
        except Exception as error:
            raise RuntimeError(f"{call} failed: {type(error).__name__}: {error}") from error
        if not isinstance(result, tuple) or len(result) != 2 or not (isinstance(result[0], str) or panels(result[0])):
            raise TypeError(f"{call} must return (Figure, list of Figures or HTML string, caption), got {result!r}")
        picture, caption = result
        check_text(caption, f"{call} must return a caption of one sentence")
        caption = unbroken(caption)
        if self.calls.setdefault(caption, call) != call:
            raise ValueError(f"{call} has the same caption as {self.calls[caption]}: {caption!r}")
        if not isinstance(picture, str):
            sizes, picture = draw(panels(picture), caption, f"{self.name} {position}")
            if sizes != (self.sizes or sizes):
                raise ValueError(f"{call} must be as large as the other figures, {self.sizes} inches, got {sizes}")
            self.sizes = sizes
        elif not re.match(r"<(svg|table)\b|<img\b[^>]*\balt=", picture):
            raise ValueError(f"{call} must return HTML that is one <svg>, <table> or <img alt>, got {picture[:60]!r}")
        self[position] = picture, caption
        return self[position]


def is_slider(options):
    """From four options on numbers have a slider; words have buttons."""
    return len(options) > 3 and all(isinstance(option, Real) and not isinstance(option, bool) for option in options)


def live(frames, table):
    """The widgets of an explorer: frames are made when they are asked for."""
    def update(_=None):
        try:
            picture, caption = frames[tuple(control.index for control in controls)]
        except Exception as error:                     # a widget's callback has no cell to fail in: say it here
            frame.value = f"<pre>{html.escape(str(error))}</pre>"
            raise
        frame.value = fill("frame", sizes=frames.sizes, picture=picture, caption=caption)

    frame, controls = widgets.HTML(), []
    for (axis, options), index in zip(frames.axes.items(), frames.start, strict=True):
        kind = widgets.SelectionSlider if is_slider(options) else widgets.ToggleButtons
        controls.append(kind(options=[(str(option), option) for option in options], index=index,
                             description=axis.replace("_", " "), style={"description_width": "initial"}))
        controls[-1].observe(update, "index")
    update()
    return widgets.VBox([*controls, frame, widgets.HTML(fill("numbers", table=table))])


def page(frames, table=None):
    """The HTML of an explorer in the built page: controls, the frame shown first, and the others as JSON."""
    positions = itertools.product(*(range(len(options)) for options in frames.axes.values()))       # the last fastest
    others = {position: frames[position] for position in positions}
    longest = max((caption for _, caption in others.values()), key=len)
    picture, caption = others.pop(frames.start)
    return fill("explorer", frames=frames, is_slider=is_slider, sizes=frames.sizes, picture=picture,
                caption=caption, longest=longest, others=[*others.values()], table=table)


def explore(render, *, start=None, table=None, **axes):
    """Show `render(**choice)`, which returns a Figure (or a list of them, or an HTML string) and a caption of one
    sentence, over all choices of `axes`: each a list of options, with a slider from four numbers on, otherwise buttons.
    No two captions may be the same. `start`, {axis: option}, is shown first; `table`, a DataFrame, folded under it.

    With a kernel these are ipywidgets; in the built book, plain HTML with every frame. Raises ValueError or TypeError
    for bad axes and frames, RuntimeError that names the choice where `render` fails.
    """
    frames = Frames(render, axes, start)
    display(HTML(page(frames, table)) if building() else live(frames, table))

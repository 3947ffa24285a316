"""explore(): controls over real runs, alive with a kernel and in the built page; show(): figures with their caption.

In the built book all frames are written into the page, where _static/explorer.js brings them to life.
"""

import html
import itertools
import json
import re
from numbers import Real

import ipywidgets as widgets
from IPython.display import HTML, display
from matplotlib import style
from matplotlib.figure import Figure

from ..plots import STYLE
from . import building
from .svg import to_svg


def panels(picture):
    """The Figures of a Figure or of a list of them; none for anything else."""
    figures = picture if isinstance(picture, list) else [picture]
    return figures if all(isinstance(figure, Figure) for figure in figures) else []


def draw(figures, caption, prefix=None):
    """Figures as SVG: the first says the caption, panels beside it their titles."""
    titles = [ax.get_title() for fig in figures[1:] for ax in fig.axes[:1]]
    alts = [caption, *(title.strip() or f"panel {i}" for i, title in enumerate(titles, 2))]
    return "".join(to_svg(fig, alt, prefix and f"{prefix}-{i}")
                   for i, (fig, alt) in enumerate(zip(figures, alts, strict=True)))


def grid(figures):
    """The style of an element that has these figures side by side, as many as there is room for, all growing alike."""
    width = max((96 * fig.get_size_inches()[0] for fig in figures), default=336)
    return (f"display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,{width:.0f}px),1fr));"
            "justify-items:center;gap:.25rem 1rem")


def show(fig, alt):
    """Display a Figure, or a list of Figures side by side where there is room, as inline SVG over its numbered caption:
    `alt` says in a sentence what is to be seen, to readers who see it and to those who do not."""
    if not panels(fig):
        raise TypeError(f"fig must be a matplotlib Figure or a list of them, got {fig!r}")
    if not isinstance(alt, str) or not alt.strip():
        raise TypeError(f"alt must be a sentence, got {alt!r}")
    display(HTML(f'<figure class="picture"><div class="panels" style="{grid(panels(fig))}">'
                 f'{draw(panels(fig), alt)}</div><figcaption>{html.escape(alt)}</figcaption></figure>'))


class Frames:
    """What `render` returns over its axes, as (HTML, caption): each frame made once, and checked when it is made. The
    one shown first is at the options of `start`, the first ones where it names none."""

    def __init__(self, render, axes, start=()):
        self.render, self.name = render, getattr(render, "__name__", "")
        if not self.name.isidentifier():
            raise ValueError(f"render must be a function with a name (the figure's id), got {render!r}")
        if not axes:
            raise ValueError(f"axes must have at least one, such as depth=[8, 20]: {self.name} has none")
        self.axes = {axis: self.options(axis, values) for axis, values in axes.items()}
        start = {axis: options[0] for axis, options in self.axes.items()} | dict(start)
        if any(option not in self.axes.get(axis, []) for axis, option in start.items()):
            raise ValueError(f"start must have options of the axes {self.axes}, got {start}")
        self.start = tuple(options.index(start[axis]) for axis, options in self.axes.items())
        self.made, self.sizes, self.grid = {}, None, ""

    def options(self, axis, values):
        """The options of an axis as a list; ValueError where there are too few or two look the same."""
        if isinstance(values, str) or not hasattr(values, "__iter__"):
            raise TypeError(f"{axis} must be a list of options, got {values!r}")
        values = list(values)
        if len({str(value) for value in values}) < max(2, len(values)):
            raise ValueError(f"{axis} must have at least two options, all different, got {values!r}")
        return values

    def positions(self):
        """Every choice as a tuple of indices, the last axis fastest."""
        return itertools.product(*(range(len(options)) for options in self.axes.values()))

    def call(self, position):
        """The arguments of `render` at a tuple of indices, and its call as text for messages."""
        choice = {axis: options[i] for (axis, options), i in zip(self.axes.items(), position, strict=True)}
        return choice, f"{self.name}({', '.join(f'{axis}={value!r}' for axis, value in choice.items())})"

    def __getitem__(self, position):
        if position not in self.made:
            choice, call = self.call(position)
            try:
                with style.context(STYLE, after_reset=True):
                    result = self.render(**choice)
            except Exception as error:
                raise RuntimeError(f"{call} failed: {type(error).__name__}: {error}") from error
            self.made[position] = self.checked(position, call, result)
        return self.made[position]

    def checked(self, position, call, result):
        """The frame as (HTML, caption). Raises TypeError or ValueError that names the choice."""
        if not isinstance(result, tuple) or len(result) != 2 or not (isinstance(result[0], str) or panels(result[0])):
            raise TypeError(f"{call} must return (Figure, list of Figures or HTML string, caption), got {result!r}")
        picture, caption = result
        if not isinstance(caption, str) or not caption.strip():
            raise TypeError(f"{call} must return a caption of one sentence, got {caption!r}")
        for other, (_, known) in self.made.items():
            if known == caption:
                raise ValueError(f"{call} has the same caption as {self.call(other)[1]}: {caption!r}")
        if isinstance(picture, str):
            if not re.match(r"<(svg|table)\b|<img\b[^>]*\balt=", picture):
                raise ValueError(f"{call} must return HTML that is one <svg>, <table> or <img alt=...>, "
                                 f"got {picture[:60]!r}")
            return picture, caption
        sizes = [tuple(fig.get_size_inches()) for fig in panels(picture)]
        if sizes != (self.sizes or sizes):
            raise ValueError(f"{call} must be as large as the other figures, {self.sizes} inches, got {sizes}")
        self.sizes, self.grid = sizes, grid(panels(picture))
        return draw(panels(picture), caption, "-".join(map(str, (self.name, *position)))), caption


def is_slider(options):
    """From four options on numbers have a slider; words have buttons."""
    return len(options) > 3 and all(isinstance(option, Real) and not isinstance(option, bool) for option in options)


def live(frames, table):
    """The widgets of an explorer: frames are made when they are asked for."""
    def control(axis, options, index):
        kind = widgets.SelectionSlider if is_slider(options) else widgets.ToggleButtons
        return kind(options=[(str(option), option) for option in options], index=index,
                    description=axis.replace("_", " "), style={"description_width": "initial"})

    def update(_=None):
        try:
            picture, caption = frames[tuple(control.index for control in controls)]
        except Exception as error:                     # a widget's callback has no cell to fail in: say it here
            frame.value = f"<pre>{html.escape(str(error))}</pre>"
            raise
        frame.value = f'<div style="{frames.grid}">{picture}</div><p>{html.escape(caption)}</p>'

    controls = [control(*axis, index) for axis, index in zip(frames.axes.items(), frames.start, strict=True)]
    frame = widgets.HTML()
    for widget in controls:
        widget.observe(update, "index")
    update()
    return widgets.VBox([*controls, frame, *([widgets.HTML(folded(table))] if table is not None else [])])


def folded(table):
    """A DataFrame as a folded table, for readers who cannot see the curve and those who want the numbers."""
    rows = table.to_html(border=0, float_format="{:.4g}".format, na_rep="")
    return f'<details class="data-table"><summary>The numbers as a table</summary><div>{rows}</div></details>'


def control_html(name, axis, options, index):
    """The HTML of one axis in the built page, at its option `index`: a slider or buttons."""
    label, texts = html.escape(axis.replace("_", " ")), [html.escape(str(option)) for option in options]
    here, group = f"{name}-{axis}", f'<div class="explorer-axis" data-axis="{axis}"'
    if not is_slider(options):
        buttons = "".join(f'<button type="button" aria-pressed="{str(i == index).lower()}">{text}</button>'
                          for i, text in enumerate(texts))
        return (f'{group} role="group" aria-labelledby="{here}"><span class="explorer-label" id="{here}">{label}</span>'
                f'<span class="explorer-buttons">{buttons}</span></div>')
    listed = html.escape(json.dumps([str(option) for option in options]))
    return (f'{group}><label class="explorer-label" for="{here}">{label}</label>'
            f'<input type="range" id="{here}" min="0" max="{len(options) - 1}" step="1" value="{index}" '
            f'autocomplete="off" aria-valuetext="{texts[index]}" data-options="{listed}">'
            f'<output for="{here}" style="min-width:{max(map(len, texts)) + 1}ch">{texts[index]}</output></div>')


def page(frames, table=None):
    """The HTML of an explorer in the built page: controls, the frame shown first, and the others as JSON."""
    others = {position: frames[position] for position in frames.positions()}
    longest = max((caption for _, caption in others.values()), key=len)
    picture, caption = others.pop(frames.start)
    controls = "".join(control_html(frames.name, *axis, index)
                       for axis, index in zip(frames.axes.items(), frames.start, strict=True))
    data = json.dumps(list(others.values()), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (f'<figure class="explorer" id="{frames.name}"><div class="explorer-controls">{controls}</div>'
            f'<div class="explorer-frame" style="{frames.grid}">{picture}</div><figcaption aria-live="polite" '
            f'data-longest="{html.escape(longest)}"><span>{html.escape(caption)}</span></figcaption>'
            f'<noscript><p>One of {len(frames.made)} frames: the controls need JavaScript.</p></noscript>'
            f'<script type="application/json">{data}</script>{folded(table) if table is not None else ""}</figure>')


def explore(render, *, start=None, table=None, **axes):
    """Show `render(**choice)`, which returns a Figure (or a list of them, or an HTML string) and a caption of one
    sentence, over all choices of `axes`: each a list of options, with a slider from four numbers on, otherwise buttons.
    No two captions may be the same. `start`, {axis: option}, is shown first; `table`, a DataFrame, folded under it.

    With a kernel these are ipywidgets; in the built book, plain HTML with every frame. Raises ValueError or TypeError
    for bad axes and frames, RuntimeError that names the choice where `render` fails.
    """
    frames = Frames(render, axes, start or {})
    display(HTML(page(frames, table)) if building() else live(frames, table))

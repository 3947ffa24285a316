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
from . import building, check_text, to_json, unbroken
from .svg import to_svg


def panels(picture):
    """The Figures of a Figure or of a list of them; none for anything else."""
    figures = picture if isinstance(picture, list) else [picture]
    return figures if all(isinstance(figure, Figure) for figure in figures) else []


def draw(figures, caption, prefix=None):
    """Figures as SVG: the first says the caption, panels beside it their titles."""
    titles = [ax.get_title().strip() for fig in figures[1:] for ax in fig.axes[:1]]
    alts = [caption, *(title or f"panel {i}" for i, title in enumerate(titles, 2))]
    return "".join(to_svg(fig, alt, prefix and f"{prefix} {i}")
                   for i, (fig, alt) in enumerate(zip(figures, alts, strict=True)))


def sizes_of(figures):
    return [tuple(fig.get_size_inches()) for fig in figures]


def grid(sizes):
    """The style of an element with figures of these (width, height) side by side where there is room, growing alike."""
    width = max((96 * width for width, _ in sizes), default=336)
    return (f"display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,{width:.0f}px),1fr));"
            "justify-items:center;gap:.75rem 1rem")


def show(fig, alt):
    """Display a Figure, or a list of Figures side by side where there is room, as inline SVG over its numbered caption:
    `alt` says in a sentence what is to be seen, to readers who see it and to those who do not."""
    if not panels(fig):
        raise TypeError(f"fig must be a matplotlib Figure or a list of them, got {fig!r}")
    check_text(alt, "alt must be a sentence")
    alt = unbroken(alt)
    display(HTML(f'<figure class="picture"><div class="panels" style="{grid(sizes_of(panels(fig)))}">'
                 f'{draw(panels(fig), alt)}</div><figcaption>{html.escape(alt)}</figcaption></figure>'))


class Frames(dict):
    """{position: (HTML, caption)} of what `render` returns: each frame is made and checked when it is first asked for.
    `choices` are the arguments of `render` at each position, a tuple of indices, one for each axis, the last fastest;
    `start` is the first position with these options."""

    def __init__(self, render, axes, start=None):
        self.render, self.name, self.sizes = render, getattr(render, "__name__", ""), []
        if not self.name.isidentifier():
            raise ValueError(f"render must be a function with a name (the figure's id), got {render!r}")
        if not axes:
            raise ValueError(f"axes must have at least one, such as depth=[8, 20]: {self.name} has none")
        self.axes = {axis: options_of(axis, values) for axis, values in axes.items()}
        positions = itertools.product(*(range(len(options)) for options in self.axes.values()))
        self.choices = {position: dict(zip(axes, choice, strict=True))
                        for position, choice in zip(positions, itertools.product(*self.axes.values()), strict=True)}
        there = [position for position, choice in self.choices.items() if (start or {}).items() <= choice.items()]
        if not there:
            raise ValueError(f"start must have options of the axes {self.axes}, got {start}")
        self.start = there[0]

    def call(self, position):
        """The call of `render`, for messages."""
        return f"{self.name}({', '.join(f'{axis}={value!r}' for axis, value in self.choices[position].items())})"

    def __missing__(self, position):
        call = self.call(position)
        try:
            with style.context(STYLE, after_reset=True):
                result = self.render(**self.choices[position])
        except Exception as error:
            raise RuntimeError(f"{call} failed: {type(error).__name__}: {error}") from error
        if not isinstance(result, tuple) or len(result) != 2 or not (isinstance(result[0], str) or panels(result[0])):
            raise TypeError(f"{call} must return (Figure, list of Figures or HTML string, caption), got {result!r}")
        picture, caption = result
        check_text(caption, f"{call} must return a caption of one sentence")
        caption = unbroken(caption)
        if same := [other for other, (_, known) in self.items() if known == caption]:
            raise ValueError(f"{call} has the same caption as {self.call(same[0])}: {caption!r}")
        if not isinstance(picture, str):
            sizes = sizes_of(panels(picture))
            if sizes != (self.sizes or sizes):
                raise ValueError(f"{call} must be as large as the other figures, {self.sizes} inches, got {sizes}")
            self.sizes, picture = sizes, draw(panels(picture), caption, f"{self.name} {position}")
        elif not re.match(r"<(svg|table)\b|<img\b[^>]*\balt=", picture):
            raise ValueError(f"{call} must return HTML that is one <svg>, <table> or <img alt>, got {picture[:60]!r}")
        self[position] = picture, caption
        return self[position]


def options_of(axis, values):
    """The options of an axis as a list; ValueError where there are too few or two look the same."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{axis} must be a list of options, got {values!r}")
    values = list(values)
    if len({str(value) for value in values}) < max(2, len(values)):
        raise ValueError(f"{axis} must have at least two options, all different, got {values!r}")
    return values


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
        frame.value = f'<div style="{grid(frames.sizes)}">{picture}</div><p>{html.escape(caption)}</p>'

    frame, controls = widgets.HTML(), []
    for (axis, options), index in zip(frames.axes.items(), frames.start, strict=True):
        kind = widgets.SelectionSlider if is_slider(options) else widgets.ToggleButtons
        controls.append(kind(options=[(str(option), option) for option in options], index=index,
                             description=axis.replace("_", " "), style={"description_width": "initial"}))
        controls[-1].observe(update, "index")
    update()
    return widgets.VBox([*controls, frame, widgets.HTML(folded(table))])


def folded(table):
    """A DataFrame as a folded table, for readers who cannot see the curve and those who want the numbers."""
    if table is None:
        return ""
    rows = table.to_html(border=0, float_format="{:.4g}".format, na_rep="")
    return ('<details class="data-table"><summary>The numbers as a table</summary>'
            f'<div tabindex="0">{rows}</div></details>')


def control(name, axis, options, index):
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
    others = {position: frames[position] for position in frames.choices}
    longest = max((caption for _, caption in others.values()), key=len)
    picture, caption = others.pop(frames.start)
    controls = "".join(control(frames.name, *axis, index)
                       for axis, index in zip(frames.axes.items(), frames.start, strict=True))
    return (f'<figure class="explorer" id="{frames.name}"><div class="explorer-controls">{controls}</div>'
            f'<div class="explorer-frame" style="{grid(frames.sizes)}">{picture}</div><figcaption aria-live="polite" '
            f'data-longest="{html.escape(longest)}"><span>{html.escape(caption)}</span></figcaption>'
            f'<noscript><p>One of {len(frames)} frames: the controls need JavaScript.</p></noscript>'
            f'<script type="application/json">{to_json([*others.values()])}</script>{folded(table)}</figure>')


def explore(render, *, start=None, table=None, **axes):
    """Show `render(**choice)`, which returns a Figure (or a list of them, or an HTML string) and a caption of one
    sentence, over all choices of `axes`: each a list of options, with a slider from four numbers on, otherwise buttons.
    No two captions may be the same. `start`, {axis: option}, is shown first; `table`, a DataFrame, folded under it.

    With a kernel these are ipywidgets; in the built book, plain HTML with every frame. Raises ValueError or TypeError
    for bad axes and frames, RuntimeError that names the choice where `render` fails.
    """
    frames = Frames(render, axes, start)
    display(HTML(page(frames, table)) if building() else live(frames, table))

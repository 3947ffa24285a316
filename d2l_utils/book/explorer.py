"""explore(): controls over real runs, alive with a kernel and in the built page; show(): one figure.

In the built book all frames are written into the page, where _static/explorer.js brings them to life.
"""

import html
import itertools
import json
import re

import ipywidgets as widgets
from IPython.display import HTML, display
from matplotlib import style
from matplotlib.figure import Figure

from ..plots import STYLE
from . import building
from .svg import to_svg


def show(fig, alt):
    """Display one Figure as inline SVG; `alt` says in a sentence what it shows, for readers who do not see it."""
    if not isinstance(fig, Figure):
        raise TypeError(f"fig must be a matplotlib Figure, got {fig!r}")
    if not isinstance(alt, str) or not alt.strip():
        raise TypeError(f"alt must be a sentence, got {alt!r}")
    display(HTML(f'<div class="picture">{to_svg(fig, alt)}</div>'))


class Frames:
    """What `render` returns over its axes, as (HTML, caption): each frame made once, and checked when it is made."""

    def __init__(self, render, axes):
        self.render, self.name = render, getattr(render, "__name__", "")
        if not self.name.isidentifier():
            raise ValueError(f"render must be a function with a name (the figure's id), got {render!r}")
        if not axes:
            raise ValueError(f"axes must have at least one, such as depth=[8, 20]: {self.name} has none")
        self.axes = {axis: self.options(axis, values) for axis, values in axes.items()}
        self.made, self.size = {}, None

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

    def choice(self, position):
        """The arguments of `render` at a tuple of indices."""
        return {axis: options[i] for (axis, options), i in zip(self.axes.items(), position, strict=True)}

    def call(self, position):
        """The call of `render` at a tuple of indices, for messages."""
        return f"{self.name}({', '.join(f'{axis}={value!r}' for axis, value in self.choice(position).items())})"

    def __getitem__(self, position):
        if position not in self.made:
            try:
                with style.context(STYLE, after_reset=True):
                    result = self.render(**self.choice(position))
            except Exception as error:
                raise RuntimeError(f"{self.call(position)} failed: {type(error).__name__}: {error}") from error
            self.made[position] = self.checked(position, result)
        return self.made[position]

    def checked(self, position, result):
        """The frame as (HTML, caption). Raises TypeError or ValueError that names the choice."""
        call = self.call(position)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], Figure | str):
            raise TypeError(f"{call} must return (Figure or HTML string, caption), got {result!r}")
        picture, caption = result
        if not isinstance(caption, str) or not caption.strip():
            raise TypeError(f"{call} must return a caption of one sentence, got {caption!r}")
        for other, (_, known) in self.made.items():
            if known == caption:
                raise ValueError(f"{call} has the same caption as {self.call(other)}: {caption!r}")
        if isinstance(picture, Figure):
            size = tuple(picture.get_size_inches())
            if size != (self.size or size):
                raise ValueError(f"{call} must be as large as the other figures, {self.size} inches, got {size}")
            self.size = size
            picture = to_svg(picture, caption, "-".join(map(str, (self.name, *position))))
        elif not re.match(r"<(svg|table)\b|<img\b[^>]*\balt=", picture):
            raise ValueError(f"{call} must return HTML that is one <svg>, <table> or <img alt=...>, "
                             f"got {picture[:60]!r}")
        return picture, caption


def live(frames):
    """The widgets of an explorer: frames are made when they are asked for."""
    def control(axis, options):
        kind = widgets.ToggleButtons if len(options) <= 3 else widgets.SelectionSlider
        return kind(options=[(str(option), option) for option in options], description=axis.replace("_", " "),
                    style={"description_width": "initial"})

    def update(_=None):
        try:
            picture, caption = frames[tuple(control.index for control in controls)]
        except Exception as error:                     # a widget's callback has no cell to fail in: say it here
            frame.value = f"<pre>{html.escape(str(error))}</pre>"
            raise
        frame.value = f"{picture}<p>{html.escape(caption)}</p>"

    controls = [control(axis, options) for axis, options in frames.axes.items()]
    frame = widgets.HTML()
    for widget in controls:
        widget.observe(update, "index")
    update()
    return widgets.VBox([*controls, frame])


def control_html(name, axis, options):
    """The HTML of one axis in the built page: a slider, or up to three buttons."""
    label, texts = html.escape(axis.replace("_", " ")), [html.escape(str(option)) for option in options]
    here = f"{name}-{axis}"
    if len(options) <= 3:
        buttons = "".join(f'<button type="button" aria-pressed="{"false" if i else "true"}">{text}</button>'
                          for i, text in enumerate(texts))
        return (f'<div class="explorer-axis" data-axis="{axis}" role="group" aria-labelledby="{here}">'
                f'<span class="explorer-label" id="{here}">{label}</span>'
                f'<span class="explorer-buttons">{buttons}</span></div>')
    listed = html.escape(json.dumps([str(option) for option in options]))
    longest = max(len(str(option)) for option in options) + 1
    return (f'<div class="explorer-axis" data-axis="{axis}"><label class="explorer-label" for="{here}">{label}</label>'
            f'<input type="range" id="{here}" min="0" max="{len(options) - 1}" step="1" value="0" autocomplete="off" '
            f'aria-valuetext="{texts[0]}" data-options="{listed}">'
            f'<output for="{here}" style="min-width:{longest}ch">{texts[0]}</output></div>')


def page(frames):
    """The HTML of an explorer in the built page: controls, the first frame, and the other frames as JSON."""
    (picture, caption), *others = [frames[position] for position in frames.positions()]
    longest = max((text for _, text in frames.made.values()), key=len)
    controls = "".join(control_html(frames.name, *axis) for axis in frames.axes.items())
    data = json.dumps(others, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (f'<figure class="explorer" id="{frames.name}"><div class="explorer-controls">{controls}</div>'
            f'<div class="explorer-frame">{picture}</div>'
            f'<figcaption aria-live="polite" data-longest="{html.escape(longest)}">{html.escape(caption)}</figcaption>'
            f'<noscript><p>The first of {len(frames.made)} frames: the controls need JavaScript.</p></noscript>'
            f'<script type="application/json">{data}</script></figure>')


def explore(render, **axes):
    """Show `render(**choice)`, which returns a Figure or an HTML string and a caption of one sentence, over all choices
    of `axes`: each a list of options, buttons up to three and a slider from four. No two captions may be the same.

    With a kernel these are ipywidgets; in the built book, plain HTML with every frame. Raises ValueError or TypeError
    for bad axes and frames, RuntimeError that names the choice where `render` fails.
    """
    frames = Frames(render, axes)
    display(HTML(page(frames)) if building() else live(frames))

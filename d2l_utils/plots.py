"""Figures: functions of (data, ax) that return ax. They neither compute nor print."""

from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import IdentityTransform

from .engine.labels import EndLabel

# Okabe and Ito's colours, told apart by colour-blind readers; the page has a light and a dark shade of each
PLAIN, RESIDUAL, NEUTRAL, ACCENT = "#d55e00", "#0072b2", "#767676", "#009e73"
COLOURS = {"none": PLAIN, "A": RESIDUAL, "B": "#8f6fe8", "C": "#cc79a7"}
NAMES = {"none": "plain", "A": "residual", "B": "residual, option B", "C": "residual, option C"}

STYLE = Path(__file__).with_name("book.mplstyle")     # how the book's figures look; the reader's own stay as they are


def figure(width=3.5, height=2.2, **subplots):
    """A Figure outside pyplot and its axes, `subplots` as in `Figure.subplots`; in inches, of which a phone shows 3.5.
    Panels are Figures of their own: show() and explore() take lists."""
    with style.context(STYLE, after_reset=True):
        fig = Figure(figsize=(width, height))
        return fig, fig.subplots(**subplots)


def end_label(text, x, y, ax, colour):
    """`text` beside the last point (x, y) of a line, clear of the labels of other lines. Returns ax."""
    ax.add_artist(EndLabel(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=colour,
                           annotation_clip=False, clip_on=False, transform=IdentityTransform()))
    return ax


def runs(table, ax, colour, label=None, percent=True, median=False, **line):
    """Runs as thin lines and their mean, or median, on top, with `label` at its end: `table` has a row per run and a
    column per x. Returns ax. Raises ValueError where a number is missing."""
    missing = table.index[table.isna().any(axis=1)].tolist()
    if missing:
        raise ValueError(f"table must have every number of every run, but some are missing in {missing}: leave these "
                         "runs out and say what became of them")
    middle = table.median() if median else table.mean()
    ax.plot(table.columns, table.T, color=colour, linewidth=0.6)
    ax.plot(table.columns, middle, color=colour, **{"marker": "o", "linewidth": 1.8, **line})
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return end_label(label, table.columns[-1], middle.iloc[-1], ax, colour) if label else ax


def picture(image, ax):
    """One grey image (H, W), without axes. Returns ax."""
    ax.imshow(image, cmap="gray", interpolation="nearest")
    ax.axis("off")
    return ax


def pictures(images, titles=None, size=1.05):
    """A list of Figures, one for each grey image (H, W), with its title over it: show() and explore() let them wrap."""
    panels = []
    for image, title in zip(images, titles if titles is not None else [""] * len(images), strict=True):
        fig, ax = figure(size, size + 0.12 * bool(title) * (1 + title.count("\n")))
        picture(image, ax).set_title(title, pad=3)
        panels.append(fig)
    return panels


def layer_box(label, x, y, ax, colour=NEUTRAL):
    """A layer's name in a box, thick where most weights are; the input has none, the sum is a circle. Returns ax."""
    if label == "+":
        ax.plot([x], [y], marker="o", markersize=14, markerfacecolor=colour + "1a", markeredgecolor="black")
    elif label != "X":
        ax.add_patch(Rectangle((x - 1.5, y - 0.31), 3, 0.62, facecolor=colour + "1a", edgecolor=colour,
                               linewidth=1.8 if "conv" in label else 0.6))
    ax.text(x, y - 0.02, label, ha="center", va="center")
    return ax


def block_diagram(graph, ax, title=""):
    """A block from top to bottom and its shortcut on the right in blue, with the shape of what flows wherever it
    changes; `graph` is that of `anatomy.block_graph`. Returns ax."""
    before, branch, shortcut, after = (graph[part] for part in ("before", "branch", "shortcut", "after"))
    chain, side = [*before, *branch, *after], 3.2
    for i, (label, shape) in enumerate(chain):
        layer_box(label, 0, -i, ax)
        ax.plot([0, 0], [-i - 0.31, -i - (0.69 if i + 1 < len(chain) else 0.8)], color="black", linewidth=1)
        if i == 0 or i + 1 == len(chain) or shape != chain[i - 1][1]:
            ax.text(-0.12, -i - 0.52, "x".join(map(str, shape)), ha="right", va="center")
    if shortcut is not None:
        fork, total = 0.5 - len(before), -len(before) - len(branch)
        first = (fork + total + len(shortcut) - 1) / 2
        boxes = [first - j for j in range(len(shortcut))]
        ax.plot([0, side], [fork, fork], [side, 0.35], [total, total], color=RESIDUAL, linewidth=2.2)
        ax.vlines([side] * (len(boxes) + 1), [fork, *(y - 0.31 for y in boxes)], [*(y + 0.31 for y in boxes), total],
                  RESIDUAL, linewidth=2.2, capstyle="projecting")
        for y, (label, _) in zip(boxes, shortcut, strict=True):
            layer_box(label, side, y, ax, colour=RESIDUAL)
        if not shortcut:
            ax.text(side + 0.15, first, "identity", va="center", color=RESIDUAL)
    ax.set(xlim=(-1.6, 4.8), ylim=(-len(chain), 0.5), title=title)
    ax.axis("off")
    return ax

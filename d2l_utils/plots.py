"""Figures: functions of (data, ax) that return ax. They neither compute nor print."""

from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's colours, told apart by colour-blind readers. The page has a shade of each for light and one for dark.
PLAIN, RESIDUAL, NEUTRAL, ACCENT = "#d55e00", "#0072b2", "#767676", "#009e73"
COLOURS = {"none": PLAIN, "A": RESIDUAL, "B": "#8f6fe8", "C": "#cc79a7"}
NAMES = {"none": "plain", "A": "residual", "B": "residual, option B", "C": "residual, option C"}

STYLE = Path(__file__).with_name("book.mplstyle")     # how the book's figures look; the reader's own stay as they are


def figure(width=6.4, height=3.8, **subplots):
    """A Figure outside pyplot and its axes: `subplots` are those of `Figure.subplots`."""
    with style.context(STYLE, after_reset=True):
        fig = Figure(figsize=(width, height))
        return fig, fig.subplots(**subplots)


def band(runs, ax, colour, label=None, percent=True, **line):
    """Mean and range over seeds: `runs` has a row per seed and a column per x. Returns ax."""
    ax.fill_between(runs.columns, runs.min(), runs.max(), color=colour, alpha=0.2, linewidth=0)
    ax.plot(runs.columns, runs.mean(), color=colour, label=label, **{"marker": "o", "markersize": 4, **line})
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return ax


def picture(image, ax):
    """One grey image (H, W), without axes. Returns ax."""
    ax.imshow(image, cmap="gray", interpolation="nearest")
    ax.axis("off")
    return ax


def layer_box(label, x, y, ax, width=3.0, colour=NEUTRAL):
    """A layer's name in a box, thick where most weights are; the input has none, the sum is a circle. Returns ax."""
    if label == "+":
        ax.plot([x], [y], marker="o", markersize=16, markerfacecolor=colour + "1a", markeredgecolor="black")
    elif label != "X":
        ax.add_patch(Rectangle((x - width / 2, y - 0.31), width, 0.62, facecolor=colour + "1a", edgecolor=colour,
                               linewidth=1.8 if "conv" in label else 0.6))
    ax.text(x, y - 0.02, label, ha="center", va="center", fontsize=10)
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
            ax.text(-0.12, -i - 0.52, "x".join(map(str, shape)), ha="right", va="center", fontsize=8)
    if shortcut is not None:
        fork, total = 0.5 - len(before), -len(before) - len(branch)
        first = (fork + total + len(shortcut) - 1) / 2
        ys = [fork, *[y for j in range(len(shortcut)) for y in (first - j + 0.31, first - j - 0.31)], total]
        ax.plot([0, side], [fork, fork], [side, 0.35], [total, total], color=RESIDUAL, linewidth=2.2)
        for start, end in zip(ys[::2], ys[1::2], strict=True):
            ax.plot([side, side], [start, end], color=RESIDUAL, linewidth=2.2)
        for j, (label, _) in enumerate(shortcut):
            layer_box(label, side, first - j, ax, colour=RESIDUAL)
        if not shortcut:
            ax.text(side + 0.15, first, "identity", va="center", color=RESIDUAL)
    ax.set(xlim=(-1.6, 4.8), ylim=(-len(chain), 0.5), title=title)
    ax.axis("off")
    return ax

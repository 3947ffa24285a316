"""Figures: functions of (data, ax) that return ax. They neither compute nor print."""


import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's colours, told apart by colour-blind readers and readable on white and on dark grey.
PLAIN, RESIDUAL, NEUTRAL, ACCENT = "#d55e00", "#0072b2", "#767676", "#009e73"
COLOURS = {"none": PLAIN, "A": RESIDUAL, "B": "#56b4e9", "C": "#cc79a7"}
NAMES = {"none": "plain", "A": "residual", "B": "residual, option B", "C": "residual, option C"}

matplotlib.rcParams.update({
    "svg.fonttype": "none", "font.size": 11, "font.family": "sans-serif", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#8886", "grid.linewidth": 0.6,
    "legend.frameon": False, "figure.constrained_layout.use": True})


def figure(width=6.4, height=3.8, **subplots):
    """A Figure outside pyplot and its axes: `subplots` are those of `Figure.subplots`."""
    fig = Figure(figsize=(width, height), layout="constrained")
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

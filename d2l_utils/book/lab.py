"""train_lab(): settings, Run and Stop. With a kernel it trains; in the built book it shows what was recorded."""

import html
import itertools
import os
import threading

import ipywidgets as widgets
import torch
from IPython.display import HTML, display

from .. import plots
from ..data import fashion_mnist
from ..resnet import small_resnet
from ..training import Diverged, fit
from . import building
from .explorer import explore
from .records import recorded
from .svg import to_svg

DASHES = "-", "--", ":", "-."


class Stopped(Exception):
    """The reader pressed Stop."""


class Lab:
    """The controls, the curves of all runs so far, and the thread that trains the present one on `data`."""

    def __init__(self, data):
        self.data, self.runs, self.thread, self.stopping = data, [], None, threading.Event()
        self.settings = {
            "depth": widgets.SelectionSlider(options=[8, 14, 20, 32, 44, 56], description="depth"),
            "shortcut": widgets.ToggleButtons(options=[("plain", None), ("residual", "A")], description="shortcut"),
            "norm": widgets.ToggleButtons(options=[("on", True), ("off", False)], description="batch norm"),
            "lr": widgets.SelectionSlider(options=[0.01, 0.03, 0.1, 0.3], value=0.1, description="rate"),
            "epochs": widgets.IntSlider(min=1, max=10, value=3, description="epochs"),
            "seed": widgets.BoundedIntText(min=0, max=10**6, value=0, description="seed")}
        self.run_button = widgets.Button(description="Run", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.message, self.picture = widgets.HTML(), widgets.HTML()
        self.run_button.on_click(lambda _: self.run())
        self.stop_button.on_click(lambda _: self.stopping.set())
        buttons = widgets.HBox([self.run_button, self.stop_button, self.message])
        self.box = widgets.VBox([*self.settings.values(), buttons, self.picture])

    def run(self):
        """Start a run with the present settings; one at a time."""
        if self.thread is not None and self.thread.is_alive():
            return
        self.stopping.clear()
        self.run_button.disabled, self.stop_button.disabled = True, False
        choice = {name: control.value for name, control in self.settings.items()}
        name = f"{plots.NAMES[str(choice['shortcut']).replace('None', 'none')]} {choice['depth']}"
        label = f"{name}{'' if choice['norm'] else ' without norm'}, rate {choice['lr']:g}, seed {choice['seed']}"
        self.runs.append({"label": label, "shortcut": choice["shortcut"], "errors": []})
        self.thread = threading.Thread(target=self.train, kwargs=choice, daemon=True)
        self.thread.start()

    def train(self, depth, shortcut, norm, lr, epochs, seed):
        """Train one net and draw its curve as it goes; whatever ends the run is said beside the buttons."""
        run = self.runs[-1]

        def draw(history):
            run["errors"] = list(history["train_error"])
            self.say(f"{run['label']}: epoch {len(history)} of {epochs}, training error {run['errors'][-1]:.1%}")
            self.draw()

        def check(*_):
            if self.stopping.is_set():
                raise Stopped

        self.say(f"{run['label']}: the first epoch is running")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = small_resnet(depth, shortcut, norm)
            net.register_forward_pre_hook(check)                  # before every batch: Stop need not wait for an epoch
            fit(net, self.data, epochs, lr=lr, seed=seed, progress=False, on_epoch=draw)
        except Stopped:
            self.say(f"{run['label']}: stopped after {len(run['errors'])} of {epochs} epochs")
        except Diverged as error:
            self.say(f"{run['label']}: {error}")
        except Exception as error:                                # a thread has no cell to fail in: say it here
            self.say(f"{run['label']}: {type(error).__name__}: {error}")
            raise
        finally:
            self.run_button.disabled, self.stop_button.disabled = False, True

    def say(self, text):
        self.message.value = html.escape(text)

    def draw(self):
        """The training error of every run so far."""
        fig, ax = plots.figure()
        dashes = {colour: itertools.cycle(DASHES) for colour in plots.COLOURS.values()}
        for run in self.runs:
            colour = plots.COLOURS[run["shortcut"] or "none"]
            ax.plot(range(1, len(run["errors"]) + 1), run["errors"], next(dashes[colour]), marker="o", color=colour,
                    label=run["label"])
        ax.set(xlabel="epoch", ylabel="training error", ylim=(0, None))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter(plots.PercentFormatter(1, decimals=0))
        ax.legend()
        self.picture.value = to_svg(fig, f"Training error of {len(self.runs)} runs, epoch by epoch.", "lab")


def recorded_lab(notebook, table):
    """The lab of the built book: recorded runs through explore(), and the way to a kernel."""
    table = table[table.precision == table.precision.mode()[0]]          # the float32 runs are a control

    kinds = {plots.NAMES[kind]: kind for kind in sorted(table.shortcut.unique(), reverse=True)}

    def lab(depth, net):
        fig, ax = plots.figure()
        for name, kind in kinds.items():
            runs = table[(table.depth == depth) & (table.shortcut == kind)]
            runs = runs.pivot(index="seed", columns="epoch", values="train_error")
            plots.runs(runs, ax, plots.COLOURS[kind] if name == net else plots.NEUTRAL, name)
            if name == net:
                caption = (f"{net.capitalize()} {depth}: training error {runs.iloc[:, -1].mean():.1%} after "
                           f"{runs.columns[-1]} epochs, the mean of {len(runs)} seeds.")
        ax.set(xlabel="epoch", ylabel="training error", ylim=(0, table.train_error.max()), xticks=runs.columns)
        return fig, caption

    explore(lab, depth=sorted(table.depth.unique()), net=list(kinds))
    link = html.escape(os.environ.get("D2L_COLAB", "") + notebook)
    display(HTML(f'<p class="lab-link">These runs were recorded. To train your own, with any depth, rate and seed, '
                 f'<a href="{link}">open this chapter in Colab</a> and press Run.</p>'))


def train_lab(data=None, notebook="chapters/01_degradation.ipynb"):
    """Choose depth, shortcut, norm, rate, epochs and seed, press Run, and watch a real net train on `data` (default:
    the bundled images at 14x14); earlier curves stay. In the built book: the recorded runs, and a link to Colab."""
    if building():
        recorded_lab(notebook, recorded("degradation"))
    else:
        display(Lab(data if data is not None else fashion_mnist(size=14)).box)

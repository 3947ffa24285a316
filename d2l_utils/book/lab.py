"""train_lab(): settings, Run and Stop. With a kernel it trains; in the built book it shows what was recorded.

A run is a process of its own: the notebook's random numbers, figures and cores are left alone; Stop ends it at once.
"""

import contextlib
import html
import multiprocessing
import os
import pickle
import signal
import threading

import ipywidgets as widgets
import torch
from IPython.display import HTML, display
from matplotlib.ticker import PercentFormatter

from .. import plots
from ..data import FashionMNIST, fashion_mnist
from ..resnet import small_resnet
from ..training import Diverged, fit
from . import building, fill
from .explorer import explore
from .svg import to_svg

DASHES = "-", "--", ":", "-."
spawned = multiprocessing.get_context("spawn")


def picture(runs):
    """The training errors of the `runs` that have some, epoch by epoch, as SVG; nothing while there are none."""
    runs = [run for run in runs if run["errors"]]
    if not runs:
        return ""
    fig, ax = plots.figure()
    for i, run in enumerate(runs):
        ax.plot(range(1, len(run["errors"]) + 1), run["errors"], DASHES[i % 4], marker="o", color=run["colour"],
                label=run["label"])
    ax.set(xlabel="epoch", ylabel="training error", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend()
    return to_svg(fig, f"Training error of {len(runs)} runs, epoch by epoch.", "lab")


def train(sender, pickled, runs, depth, shortcut, norm, lr, epochs, seed):
    """What a run's process does: it trains the net of the last of `runs` on the data and sends, after each epoch and
    where it fails, that run's errors, the picture of all runs, and what there is to say. Without a kernel to send to
    it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                  # interrupting a cell does not mean this run
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))    # the notebook keeps a core

    def send(text):
        sender.send((runs[-1]["errors"], picture(runs), text))

    def report(history):
        runs[-1]["errors"] = list(history["train_error"])
        send(f"epoch {len(history)} of {epochs}, training error {runs[-1]['errors'][-1]:.1%}")

    try:
        data = pickle.loads(pickled)
        torch.manual_seed(seed)
        fit(small_resnet(depth, shortcut, norm), data, epochs, lr=lr, seed=seed, progress=False, on_epoch=report)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:                                    # a process has no cell to fail in: say it
        send(str(error) if isinstance(error, Diverged) else f"{type(error).__name__}: {error}")


class Lab:
    """The controls, the curves of all runs so far, and the process that trains the present one on `data`."""

    def __init__(self, data):
        self.data = pickle.dumps(data)      # multiprocessing would move the notebook's tensors into shared memory
        self.runs = []
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
        self.run_button.on_click(self.run)
        self.stop_button.on_click(lambda button: self.process.terminate())
        buttons = widgets.HBox([self.run_button, self.stop_button, self.message])
        self.box = widgets.VBox([*self.settings.values(), buttons, self.picture])

    def run(self, _=None):
        """Start a run with the present settings; one at a time."""
        if self.run_button.disabled:
            return
        choice = {name: control.value for name, control in self.settings.items()}
        kind, norm = choice["shortcut"] or "none", "" if choice["norm"] else " without norm"
        label = f"{plots.NAMES[kind]} {choice['depth']}{norm}, rate {choice['lr']:g}, seed {choice['seed']}"
        run = {"label": label, "colour": plots.COLOURS[kind], "errors": []}
        self.runs.append(run)
        receiver, sender = spawned.Pipe(duplex=False)
        self.process = spawned.Process(target=train, args=(sender, self.data, self.runs), kwargs=choice, daemon=True)
        self.process.start()
        sender.close()                                     # the process has the only other end: its end ends the pipe
        self.run_button.disabled, self.stop_button.disabled = True, False
        self.say(run, "the first epoch is running")
        self.follower = threading.Thread(target=self.follow, args=(receiver, run, choice["epochs"]), daemon=True)
        self.follower.start()

    def follow(self, receiver, run, epochs):
        """Show what the run's process sends, and say so where it was ended."""
        with contextlib.suppress(EOFError, OSError):       # the pipe's end
            while True:
                run["errors"], self.picture.value, text = receiver.recv()
                self.say(run, text)
        self.process.join()
        if code := self.process.exitcode:
            ended = "stopped" if code == -signal.SIGTERM else f"its process ended with exit code {code}"
            self.say(run, f"{ended} after {len(run['errors'])} of {epochs} epochs")
        self.run_button.disabled, self.stop_button.disabled = False, True

    def say(self, run, text):
        self.message.value = html.escape(f"{run['label']}: {text}")


def train_lab(data=None, recorded=None, notebook="chapters/01_degradation.ipynb", **axes):
    """Choose depth, shortcut, norm, rate, epochs and seed, press Run, and watch a real net train on `data` (default:
    the bundled images at 14x14); earlier curves stay. In the built book: web/trainer.js, which trains in the reader's
    browser, `explore(recorded, **axes)`, also with its `table`, if there is a `recorded`, and a link to Colab."""
    if data is not None and not isinstance(data, FashionMNIST):
        raise TypeError(f"data must be a FashionMNIST or None, got {type(data).__name__}")
    if not building():
        display(Lab(fashion_mnist(size=14) if data is None else data).box)
        return
    display(HTML(fill("trainer")))
    if recorded is not None:
        explore(recorded, **axes)
    display(HTML(fill("lab_link", address=os.environ.get("D2L_COLAB", "") + notebook)))

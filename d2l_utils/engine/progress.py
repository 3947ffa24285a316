"""What a run shows and leaves behind: History, the progress bar, the error of a loss that is no number."""

import os
import sys

import pandas as pd
import torch
from tqdm import tqdm

from .distributed import position


class History(pd.DataFrame):
    """A row per epoch: epoch, train_loss, train_error, (val_*, test_*), lr at its end, seconds of training."""

    @property
    def _constructor(self):
        return History


def table(rows):
    """The History of these rows; with no row, it still has its columns."""
    return History(rows) if rows else History(columns=["epoch", "train_loss", "train_error", "lr", "seconds"])


class Diverged(FloatingPointError):
    """The loss was no finite number at `step` (the first is 0), at the rate `lr`; `history` has the epochs before."""

    def __init__(self, step, lr, history):
        super().__init__(step, lr, history)
        self.step, self.lr, self.history = step, lr, history

    def __str__(self):
        return (f"the loss is not a finite number at step {self.step}, at rate {self.lr:.3g}: "
                "try a lower lr, a longer warmup, norm=True, or clip=1.0")


class Watch:
    """Follows the steps of a run: one progress bar, and Diverged at the first loss that is not a finite number."""

    def __init__(self, epochs, steps, rows, progress):
        self.epochs, self.rows, self.losses, self.rates = epochs, rows, [], []
        self.show = progress and position()[0] == 0
        self.bar = tqdm(total=epochs * steps, initial=len(rows) * steps, unit="step", file=sys.stdout,
                        disable=not self.show or bool(os.environ.get("D2L_BOOK")), mininterval=0.5, ncols=100)

    def step(self, lr, loss):
        """Note a step's rate and loss; the loss stays on its device."""
        self.losses.append(loss)
        self.rates.append(lr)
        self.bar.update()

    def look(self, done):
        """Look at the losses noted since the last look, when `done` steps are done. This waits for the device."""
        bad = (~torch.isfinite(torch.stack(self.losses))).nonzero().flatten().tolist()
        if bad:
            raise Diverged(done - len(self.losses) + bad[0], self.rates[bad[0]], table(self.rows))
        error = f", error {self.rows[-1]['train_error']:.1%}" if self.rows else ""
        self.bar.set_postfix_str(f"epoch {len(self.rows) + 1}/{self.epochs}, loss {self.losses[-1]:.3f}{error}")
        self.losses, self.rates = [], []

    def interrupted(self, checkpoint):
        """Say where the run stopped and how to go on."""
        print(f"Stopped after {len(self.rows)} of {self.epochs} epochs; the net keeps the weights it has now. "
              + ("Called again, fit starts anew from them; with checkpoint=PATH it would go on." if checkpoint is None
                 else f"Call fit again with the same arguments to go on after epoch {len(self.rows)}."))

    def close(self):
        """End the bar and print one final line, which is all that the built book shows."""
        self.bar.close()
        if self.rows and self.show:
            row, seconds = self.rows[-1], sum(row["seconds"] for row in self.rows)
            print(f"{len(self.rows)} epochs, {seconds:.0f} s: training loss {row['train_loss']:.3f}, "
                  f"error {row['train_error']:.1%}")

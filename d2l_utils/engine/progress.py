"""How a run goes: a progress bar, the losses noted step by step and looked at now and then, one line at the end."""

import os
import sys

import torch
from tqdm import tqdm

from .distributed import rank

CHECK_EVERY = 20                    # steps between looks at the loss: a look waits for the device


class Progress:
    """A bar over all steps of a run whose history has `rows` (only process 0 shows it, the built book never), which
    raises `error(step, lr)` at the first loss that is no finite number."""

    def __init__(self, epochs, steps, rows, show, error):
        self.epochs, self.steps, self.rows, self.error = epochs, steps, rows, error
        self.show, self.done, self.losses, self.rates = show and rank() == 0, len(rows) * steps, [], []
        self.bar = tqdm(total=epochs * steps, initial=self.done, unit="step", file=sys.stdout,
                        disable=not self.show or bool(os.environ.get("D2L_BOOK")), mininterval=0.5, ncols=100)

    def step(self, lr, loss):
        """Note a step's rate and loss, which stays on its device until the next look."""
        self.losses.append(loss)
        self.rates.append(lr)
        self.done += 1
        self.bar.update()
        if self.done % CHECK_EVERY == 0 or self.done % self.steps == 0:
            self.check_finite()

    def check_finite(self):
        """Look at the losses noted since the last look. This waits for the device."""
        for bad in (~torch.isfinite(torch.stack(self.losses))).nonzero().flatten().tolist()[:1]:
            raise self.error(self.done - len(self.losses) + bad, self.rates[bad])
        error = f", error {self.rows[-1]['train_error']:.1%}" if self.rows and "train_error" in self.rows[-1] else ""
        self.bar.set_postfix_str(f"epoch {len(self.rows) + 1}/{self.epochs}, loss {self.losses[-1]:.3f}{error}")
        self.losses, self.rates = [], []

    def interrupted(self, checkpoint):
        """Say where the run stopped and how to go on."""
        print(f"Stopped after {len(self.rows)} of {self.epochs} epochs; the net keeps the weights it has now.\n"
              + ("Called again, fit starts anew from them; checkpoint=PATH would go on." if checkpoint is None
                 else f"Call fit again with the same arguments to go on after epoch {len(self.rows)}."))

    def close(self):
        """End the bar and print one final line, which is all that the built book shows."""
        self.bar.close()
        if self.rows and self.show:
            row, seconds = self.rows[-1], sum(row["seconds"] for row in self.rows)
            error = f", error {row['train_error']:.1%}" if "train_error" in row else ""
            print(f"{len(self.rows)} epochs, {seconds:.0f} s: training loss {row['train_loss']:.3f}{error}")

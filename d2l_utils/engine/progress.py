"""What a run shows: one progress bar while it trains, one line when it ends."""

import os
import sys

from tqdm import tqdm

from .distributed import rank


class ProgressBar:
    """A bar over all steps of a run whose history has `rows`; only process 0 shows it, and the built book never."""

    def __init__(self, epochs, steps, rows, show=True):
        self.epochs, self.rows, self.show = epochs, rows, show and rank() == 0
        self.bar = tqdm(total=epochs * steps, initial=len(rows) * steps, unit="step", file=sys.stdout,
                        disable=not self.show or bool(os.environ.get("D2L_BOOK")), mininterval=0.5, ncols=100)

    def update(self):
        """One step more."""
        self.bar.update()

    def say(self, loss):
        """Beside the bar: epoch, the loss of the last step, the last measured error."""
        error = self.rows[-1].get("train_error") if self.rows else None
        self.bar.set_postfix_str(f"epoch {len(self.rows) + 1}/{self.epochs}, loss {loss:.3f}"
                                 + ("" if error is None else f", error {error:.1%}"))

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
            error = f", error {row['train_error']:.1%}" if "train_error" in row else ""
            print(f"{len(self.rows)} epochs, {seconds:.0f} s: training loss {row['train_loss']:.3f}{error}")

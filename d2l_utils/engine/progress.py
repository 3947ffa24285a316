"""How a run goes: a progress bar, the losses noted step by step and looked at now and then, one line at the end."""

import math
import os
import sys

from tqdm import tqdm

from .distributed import rank

CHECK_EVERY = 20                    # steps between looks at the loss: a look waits for the device


class Diverged(FloatingPointError):
    """A loss was no finite number: at `step` (the first is 0) and the rate `lr` of a run whose `history` has the
    epochs before; all three are None where a net was evaluated."""

    def __init__(self, step=None, lr=None, history=None):
        super().__init__(step, lr, history)
        self.step, self.lr, self.history = step, lr, history

    def __str__(self):
        return "the loss is not a finite number" + ("" if self.step is None else (
            f" at step {self.step}, at rate {self.lr:.3g}: try a lower lr, a longer warmup, norm=True, or clip=1.0"))


class Progress:
    """A bar over all steps of a run whose history has `rows` (only process 0 shows it, the built book never), which
    raises Diverged at the first loss that is no finite number."""

    def __init__(self, epochs, steps, rows, show):
        self.epochs, self.steps, self.rows = epochs, steps, rows
        self.show, self.done, self.noted = show and rank() == 0, len(rows) * steps, []
        self.bar = tqdm(total=epochs * steps, initial=self.done, unit="step", file=sys.stdout,
                        disable=not self.show or bool(os.environ.get("D2L_BOOK")), mininterval=0.5, ncols=100)

    def step(self, lr, loss):
        """Note a step's rate and loss, which stays on its device until the next look."""
        self.noted.append((lr, loss))
        self.done += 1
        self.bar.update()
        if self.done % CHECK_EVERY == 0 or self.done % self.steps == 0:
            self.check_finite()

    def check_finite(self):
        """Look at the losses noted since the last look. This waits for the device."""
        for step, (lr, loss) in enumerate(self.noted, self.done - len(self.noted)):
            if not math.isfinite(loss):
                raise Diverged(step, lr)
        self.bar.set_postfix_str(f"epoch {len(self.rows) + 1}/{self.epochs}, loss {loss:.3f}{self.last_error()}")
        self.noted = []

    def last_error(self):
        """The last epoch's training error in words, if it has one."""
        return f", error {self.rows[-1]['train_error']:.1%}" if self.rows and "train_error" in self.rows[-1] else ""

    def interrupted(self, checkpoint):
        """Say where the run stopped and how to go on."""
        print(f"Stopped after {len(self.rows)} of {self.epochs} epochs; the net keeps the weights it has now.\n"
              + ("Called again, fit starts anew from them; checkpoint=PATH would go on." if checkpoint is None
                 else f"Call fit again with the same arguments to go on after epoch {len(self.rows)}."))

    def close(self):
        """End the bar and print one final line, which is all that the built book shows (without seconds)."""
        self.bar.close()
        if self.rows and self.show:
            took = "" if os.environ.get("D2L_BOOK") else f", {sum(row['seconds'] for row in self.rows):.0f} s"
            print(f"{len(self.rows)} epochs{took}: "
                  f"training loss {self.rows[-1]['train_loss']:.3f}{self.last_error()}")

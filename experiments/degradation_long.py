"""Chapter 01, slower or worse?: 20 and 56 layers, three times the epochs of `degradation`, all 60,000 images, 14x14."""

from _grid import PRECISION, main
from degradation import run as degradation_run

EPOCHS = 12


def run(depth, shortcut, precision, seed, full=True, epochs=EPOCHS):
    """As in `degradation`, with a cycle of rates three times as long."""
    return degradation_run(depth, shortcut, precision, seed, full=full, epochs=epochs)


CONFIGS = [{"depth": depth, "shortcut": shortcut, "precision": PRECISION, "seed": seed}
           for seed in range(3) for depth in (56, 20) for shortcut in (None, "A")]

if __name__ == "__main__":
    main("degradation_long", CONFIGS, run, CONFIGS[2:4], {"full": True, "size": 14}, full=False, epochs=1)

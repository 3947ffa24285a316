"""Chapter 08: slices of the loss around trained nets, plain and residual, 20 and 56 layers, 2 seeds, two sets of random
filter-normalised directions each; 21 x 21 points from -1 to 1 on 1,000 training images at 14x14, in float32. The norms
take the images' own statistics (`statistics` batch); for seed 0 also the running averages. A row a slice: the loss in
the centre, the lowest, median and highest; an array "DIRECTIONS STATISTICS": float32 (21, 21).

Seed 1 and directions 1 draw the same numbers: there the first direction is the net's own start. The page says so."""

import numpy as np
from _nets import trained_net
from common import PRECISION, main

import d2l_utils as d2l

PICTURES, DIRECTIONS = 1000, (1, 2)


def run(depth, shortcut, precision, seed, n=None, points=21):
    """One net's slices; fewer points, around a net trained on `n` images, if that is given."""
    net, data = trained_net(depth, shortcut, seed, n)
    X, y, rows, surfaces = data.X_train[:PICTURES], data.y_train[:PICTURES], [], {}
    for statistics in ("batch", "running") if seed == 0 else ("batch",):
        for directions in DIRECTIONS:
            losses = d2l.loss_surface(net, X, y, points=points, seed=directions, train=statistics == "batch")
            losses = surfaces[f"{directions} {statistics}"] = losses.to_numpy(np.float32)
            rows.append({"directions": directions, "statistics": statistics,
                         "centre_loss": losses[points // 2, points // 2], "lowest": losses.min(),
                         "median": np.median(losses), "highest": losses.max()})
    return rows, surfaces


CONFIGS = [{"depth": depth, "shortcut": shortcut, "precision": PRECISION, "seed": seed}
           for seed in (0, 1) for depth in (56, 20) for shortcut in (None, "A")]

if __name__ == "__main__":
    main("landscape", CONFIGS, run, CONFIGS[3:4], {"full": True, "size": 14}, {"n": 300, "points": 3})

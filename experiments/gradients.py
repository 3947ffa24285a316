"""Chapter 06: depth x shortcut x norm x seed, measured at the start and after 1, 10 and 100 steps at a constant rate
(the first 6,528 images at 14x14, batch 128): gradients, relative gradients and their agreement layer by layer,
variance, rank, likeness. For nets without norm also three other starts, measured before any step: He's fan-in scale
instead of fan-out, circular padding instead of zeros, both.

Arrays of a run: "layers" (measurements, layers, LAYERS) and "blocks" (measurements, blocks, BLOCKS), in the order of
its rows."""

import numpy as np
from _kinds import Kind, batch_loss, likeness, measure, settled
from common import PRECISION, few, images, main
from torch import nn

import d2l_utils as d2l
from d2l_utils.probes import blocks_of

STEPS, BATCH, IMAGES = (0, 1, 10, 100), 128, 51 * 128             # two epochs are 102 steps
RATES = {"batch": 0.03, "none": 0.001}
LAYERS = ("gradient", "weight", "input", "relative", "product", "agreement", "fixed_agreement")
BLOCKS = ("std", "rank", "likeness")
STARTS = ("he", "fan-in", "circular", "fan-in, circular")


def start_(net, start):
    """He's start with the scale of fan-in, or convolutions that pad a picture with its other side."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            if "fan-in" in start:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if "circular" in start:
                module.padding_mode = "circular"


def by_layer(net, data):
    """An array (layers, LAYERS)."""
    X, y = data.X_train[:4 * BATCH], data.y_train[:4 * BATCH]
    table = d2l.gradient_norms(net, X[:BATCH], y[:BATCH])
    table["agreement"] = d2l.gradient_agreement(net, X, y, BATCH).cosine[:-1]
    fixed = settled(net, data.X_train[:1000])
    table["fixed_agreement"] = d2l.gradient_agreement(fixed, X, y, BATCH, train=False).cosine[:-1]
    return table[list(LAYERS)].to_numpy(np.float32)


def by_block(net, data):
    """An array (blocks, BLOCKS), from 256 pictures: each block's deviation, rank and likeness of what enters it."""
    X, names = data.X_train[:256], list(blocks_of(net))
    std = d2l.response_std(net, X, names)["std"]
    table = [(std[k], d2l.effective_rank(net, X, name), likeness(net, X, name)) for k, name in enumerate(names)]
    return np.array(table, np.float32)


def run(depth, shortcut, norm, start, rate, precision, seed, n=IMAGES):
    """Measurements of one net as it trains: rows and arrays. `lost_at`: the step at which its loss was no number."""
    data, rows, arrays = few(images(size=14), n), [], {"layers": [], "blocks": []}
    net = Kind(shortcut, norm=norm == "batch").make(seed, data, depth)
    start_(net, start)

    def look(step, loss, net):
        if step in STEPS:
            layers = by_layer(net, data)
            means = dict(zip(("agreement", "fixed_agreement"), layers[:, -2:].mean(0).tolist(), strict=True))
            rows.append({"step": step, "batch_loss": batch_loss(net, data), **measure(net, data, False), **means})
            arrays["layers"].append(layers)
            arrays["blocks"].append(by_block(net, data))

    if start != "he":
        look(0, None, net)
    else:
        try:
            d2l.fit(net, data, 2, lr=rate, schedule="constant", seed=seed, batch_size=BATCH, precision=precision,
                    progress=False, on_step=look)
        except FloatingPointError as error:
            rows = [row | {"lost_at": error.step} for row in rows]
    return rows, {name: np.stack(found) for name, found in arrays.items()}


def config(depth, shortcut, norm, seed, start="he"):
    return {"depth": depth, "shortcut": shortcut, "norm": norm, "start": start, "rate": RATES[norm],
            "precision": PRECISION, "seed": seed}


CONFIGS = [config(depth, shortcut, norm, seed) for seed in range(5) for depth in (56, 20, 8)
           for norm in ("batch", "none") for shortcut in (None, "A")]
CONFIGS += [config(depth, shortcut, "none", seed, start) for seed in range(5) for start in STARTS[1:]
            for depth in (56, 20) for shortcut in (None, "A")]

if __name__ == "__main__":
    main("gradients", CONFIGS, run, [config(8, "A", "batch", 0)], {"full": False, "size": 14}, {"n": 600})

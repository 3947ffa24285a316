"""Chapter 11: does the order inside a block matter, and from which depth on? The 6n+2 nets of width 16 at 20 to 164
layers, 10,000 images at 14x14, 5 epochs, two rates each; and nets of 1,202 layers and width 4, one epoch.

`order`: "original" (He et al. 2015), "zero start" (the same, the scale of each branch's last norm 0 at the start), and
"pre-activation" (He et al. 2016). Rates are chosen by the error on 1,000 held-out training images."""

import torch
from common import PRECISION, few, images, main

import d2l_utils as d2l

ORDERS = {"original": {}, "zero start": {"zero_init": True}, "pre-activation": {"block": d2l.PreActResidual}}
HELD_OUT = 1000


def run(depth, width, order, lr, precision, seed, n=None):
    """A row per epoch: errors on the training, the held-out and the test images."""
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, width=width, **ORDERS[order])
    held_out = HELD_OUT if n is None else n // 10
    return d2l.fit(net, few(images(size=14), n), 5 if depth < 1202 and n is None else 1, lr=lr, seed=seed, test=True,
                   validation=held_out, precision=precision, progress=False)


def config(depth, width, order, lr, seed):
    return {"depth": depth, "width": width, "order": order, "lr": lr, "precision": PRECISION, "seed": seed}


CONFIGS = [config(depth, 16, order, lr, seed) for seed in range(3) for depth in (20, 56, 110, 164)
           for lr in (0.03, 0.1) for order in ORDERS]
CONFIGS += [config(1202, 4, order, lr, seed) for seed in range(3) for lr in (0.01, 0.03) for order in ORDERS]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if (config["depth"], config["lr"], config["seed"]) == (20, 0.03, 0)]
    main("preactivation", CONFIGS, run, smallest, {"full": False, "size": 14}, {"n": 500})

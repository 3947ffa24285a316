"""Chapter 11: does the order inside a block matter, and from which depth on? The 6n+2 nets of width 16 at 20 to 164
layers, 10,000 images at 14x14, 5 epochs, two rates each; and nets of 1,202 layers and width 4, one epoch.

`order`: "original" (He et al. 2015), "zero start" (the same, the scale of each branch's last norm 0 at the start), and
"pre-activation" (He et al. 2016). Each chooses its rate on seed 0, by the error on 1,000 held-out training images."""

import torch
from _kinds import at_best, race
from common import PRECISION, few, images, recorded

import d2l_utils as d2l

ORDERS = {"original": {}, "zero start": {"zero_init": True}, "pre-activation": {"block": d2l.PreActResidual}}
HELD_OUT = 1000
RATES = {16: (0.03, 0.1), 4: (0.01, 0.03)}


def run(depth, width, order, precision, lr, seed, n=None):
    """A row per epoch: errors on the training, the held-out and the test images."""
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, width=width, **ORDERS[order])
    held_out = HELD_OUT if n is None else n // 10
    return d2l.fit(net, few(images(size=14), n), 5 if depth < 1202 and n is None else 1, lr=lr, seed=seed, test=True,
                   validation=held_out, precision=precision, progress=False)


SIZES = [(20, 16), (56, 16), (110, 16), (164, 16), (1202, 4)]
NETS = [{"depth": depth, "width": width, "order": order, "precision": PRECISION}
        for depth, width in SIZES for order in ORDERS]


def configs(table):
    """Seed 0 of every net at both rates, seeds 1 and 2 at the better one."""
    return at_best(table, NETS, lambda net, errors: RATES[net["width"]], lambda net: (1, 2))


CONFIGS = configs(recorded("preactivation"))

if __name__ == "__main__":
    smallest = [NETS[i] | {"lr": 0.03, "seed": 0} for i in range(len(ORDERS))]
    race("preactivation", configs, run, smallest, {"full": False, "size": 14}, {"n": 500})

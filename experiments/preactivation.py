"""Chapter 11: does the order inside a block matter, and from which depth on? The 6n+2 nets of width 16 at 20 to 164
layers, 10,000 images at 14x14, 5 epochs, two rates each; and nets of 1,202 layers and width 4, one epoch.

`order`: "original" (He et al. 2015), "zero start" (the same, the scale of each branch's last norm 0 at the start), and
"pre-activation" (He et al. 2016). Each chooses its rate on seed 0, by the error on 1,000 held-out training images."""

import torch
from _kinds import race, recorded
from common import PRECISION, few, images

import d2l_utils as d2l

ORDERS = {"original": {}, "zero start": {"zero_init": True}, "pre-activation": {"block": d2l.PreActResidual}}
HELD_OUT = 1000
RATES = {16: (0.03, 0.1), 4: (0.01, 0.03)}


def run(depth, width, order, lr, precision, seed, n=None):
    """A row per epoch: errors on the training, the held-out and the test images."""
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, width=width, **ORDERS[order])
    held_out = HELD_OUT if n is None else n // 10
    return d2l.fit(net, few(images(size=14), n), 5 if depth < 1202 and n is None else 1, lr=lr, seed=seed, test=True,
                   validation=held_out, precision=precision, progress=False)


def config(depth, width, order, lr, seed):
    return {"depth": depth, "width": width, "order": order, "lr": lr, "precision": PRECISION, "seed": seed}


SIZES = [(20, 16), (56, 16), (110, 16), (164, 16), (1202, 4)]


def best_rate(table, depth, width, order):
    """The rate with which seed 0 ended best on the held-out images; None while one is missing. A run that diverged
    answers at random."""
    if not len(table):
        return None
    ended = table[(table.depth == depth) & (table.order == order) & (table.seed == 0)].groupby("lr").tail(1)
    errors = ended.set_index("lr").val_error.where(~ended.diverged.to_numpy(bool)).fillna(0.9)
    return errors.idxmin() if set(RATES[width]) <= set(errors.index) else None


def configs(table):
    """Seed 0 of every net at both rates; of those that have a best one, seeds 1 and 2 at that."""
    nets = [(*size, order) for size in SIZES for order in ORDERS]
    found = [config(*net, lr, 0) for net in nets for lr in RATES[net[1]]]
    best = {net: best_rate(table, *net) for net in nets}
    return found + [config(*net, best[net], seed) for seed in (1, 2) for net in nets if best[net] is not None]


CONFIGS = configs(recorded("preactivation"))

if __name__ == "__main__":
    smallest = [config(20, 16, order, 0.03, 0) for order in ORDERS]
    race("preactivation", configs, run, smallest, {"full": False, "size": 14}, {"n": 500})

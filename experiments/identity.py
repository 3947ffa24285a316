"""Chapter 02: stacks of 3x3 convolutions without norm learn the targets (1 - t) x + t g(x), g a shift by 3 pixels, from
four starts, at five rates. The nets of seed 0 leave pictures (identity.npz)."""

import math

import torch
import torch.nn.functional as F
from common import images, main
from torch import nn

import d2l_utils as d2l
from d2l_utils.training import learning_rate

STEPS, EVERY, BATCH, CHANNELS = 200, 25, 32, 8
SHOWN = [0, 1, 2, 18, 8, 13]                       # test images: ankle boot, pullover, trouser, bag, sandal, dress


def stack(depth, start):
    """`depth` 3x3 convolutions of 8 channels in blocks of two. "he": plain, He's random kernels. "delta": plain, delta
    kernels plus a tenth of He's. "residual": with shortcuts; the last kernels of each block a tenth of He's. "full":
    with shortcuts, all kernels He's."""
    shortcut = "A" if start in ("residual", "full") else None
    blocks = [d2l.Residual(CHANNELS, CHANNELS, shortcut=shortcut, norm=False) for _ in range(depth // 2)]
    for block in blocks:
        if start == "residual":
            block.conv2.weight.data *= 0.1
        elif start == "delta":
            for conv in (block.conv1, block.conv2):
                conv.weight.data = nn.init.dirac_(torch.empty(conv.weight.shape)) + 0.1 * conv.weight.data
    return nn.Sequential(*blocks)


def apply(net, X):
    """Pictures in, pictures out, (N, 1, H, W): in channel 0 of 8, the others empty, and out of channel 0."""
    return net(F.pad(X, (0, 0, 0, 0, 0, CHANNELS - 1)))[:, :1]


def target(X, t):
    """(1 - t) x + t g(x): the picture, and the picture moved 3 pixels to the right."""
    return (1 - t) * X + t * F.pad(X, (3, 0, 0, 0))[..., :-3]


def missed(y_hat, y):
    """The share of the target's variance that is missed: 0 is perfect, 1 is as good as one even grey."""
    return (F.mse_loss(y_hat, y) / y.var()).item()


def fit_stack(net, X, t, lr, seed, steps=STEPS, measure=None):
    """Train on the mean squared error, Adam at a rate that goes up to `lr` and back; `measure(step)` as it goes."""
    optimizer = torch.optim.Adam(net.parameters(), lr, fused=True)
    batches = torch.randint(0, len(X), (steps, BATCH), generator=torch.Generator().manual_seed(seed))
    for step, batch in enumerate(batches):
        if measure and step % EVERY == 0:
            measure(step)
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, lr, "cosine", 0.1)
        loss = F.mse_loss(apply(net, X[batch]), target(X[batch], t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if measure:
        measure(steps)
    return net


def run(depth, start, t, lr, precision, seed, steps=STEPS):
    """A row per measurement on 500 test images, the last one also on 500 others, by which a rate can be chosen: the
    share `missed`, and what copying would miss. Seed 0 leaves `pictures`, what its net makes of the six SHOWN: uint8
    (6, 14, 14)."""
    data, rows = images(size=14), []
    X, held_out, others = data.X_train / 255, data.X_test[:500] / 255, data.X_test[500:1000] / 255
    torch.manual_seed(seed)
    net = stack(depth, start).to(X.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def measure(step):
        y = target(held_out, t)
        rows.append({"step": step, "missed": missed(apply(net, held_out), y), "copying": missed(held_out, y)})
        if not math.isfinite(rows[-1]["missed"]):
            raise d2l.Diverged(step, lr, d2l.History(rows))

    fit_stack(net, X, t, lr, seed, steps, measure)
    with torch.no_grad():
        rows[-1]["missed_choosing"] = missed(apply(net, others), target(others, t))
        Y = apply(net, held_out[SHOWN])[:, 0].clamp(0, 1) * 255
    return rows, {"pictures": Y.round().to(torch.uint8).cpu().numpy()} if seed == 0 else {}


RATES = {20: (0.006, 0.002, 0.02, 0.06, 0.0006), 4: (0.006, 0.002, 0.02, 0.06, 0.2)}    # edges: residual, t = 0
CONFIGS = [{"depth": depth, "start": start, "t": t, "lr": lr, "precision": "float32", "seed": seed}
           for seed in range(5) for depth in (20, 4) for t in (0.0, 1.0, 0.5, 0.25, 0.75)
           for lr in RATES[depth] for start in ("he", "delta", "residual", "full")]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["depth"] == 4 and config["t"] == 0 and config["seed"] == 0
                and config["lr"] == 0.02]
    main("identity", CONFIGS, run, smallest, {"full": False, "size": 14}, smoke_options={"steps": 25})

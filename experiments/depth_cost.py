"""Chapter 11: what a training step costs at depth 20 to 1202: the 6n+2 nets of width 16, 14x14, batch 64; milliseconds
of a step (forward, backward, update) and its peak memory over what the process held before it had the net, each in a
fresh process. Repeats are `seed`; each goes through all.

`kept` says what the forward pass keeps for the backward pass: "all"; the stream before each "block", whose inside is
computed again; the stream before each of "sqrt" (the root of the number of blocks) runs of blocks."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from _fresh import forget_peak, in_fresh_process, memory, only_on_a_cpu, timed
from common import PRECISION, images, main
from torch.utils.checkpoint import checkpoint_sequential

import d2l_utils as d2l
from d2l_utils.book.provenance import processor
from d2l_utils.data import normalise
from d2l_utils.engine.hardware import autocast
from d2l_utils.training import sgd

BATCH, WIDTH = 64, 16


def segments(kept, blocks):
    """How many runs of blocks keep only what enters them: the last one of checkpoint_sequential keeps everything."""
    return {"block": blocks, "sqrt": round(math.sqrt(blocks))}[kept]


def forward(net, X, kept):
    """The net's answers (N, classes) to X; the same numbers whatever is kept. (What is computed again passes its norms
    twice, which moves their running averages twice.)"""
    if kept == "all":
        return net(X)
    blocks = [block for stage in net.stages for block in stage]
    H = torch.relu(net.bn1(net.conv1(X)))
    H = checkpoint_sequential(blocks, segments(kept, len(blocks)), H, use_reentrant=False)
    return net.fc(H.mean((2, 3)))


def cost(depth, kept, precision, seed, repeats, width=WIDTH):
    """Time and memory of a training step in this process."""
    data = images(size=14)
    X, y = normalise(data.X_train[:BATCH]).contiguous(memory_format=torch.channels_last), data.y_train[:BATCH]
    small = torch.nn.Linear(8, 8)                           # a step of it: the libraries are loaded
    small(torch.ones(8, 8)).sum().backward()
    before = memory("VmRSS")
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, width=width).to(memory_format=torch.channels_last)
    optimizer = sgd(net, 1e-4)
    weights = memory("VmRSS") - before

    def step():
        with autocast(X.device, precision):
            loss = F.cross_entropy(forward(net, X, kept).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    forget_peak()
    measured = timed(step, repeats)
    return measured | {"weights_MiB": weights, "peak_MiB": memory() - before}


def run(depth, kept, precision, processor, seed, repeats=3, fresh=True):
    """One row; `processor` is this one."""
    measured = partial(cost, depth, kept, precision, seed, repeats)
    return [{"parameters": d2l.parameter_count(d2l.small_resnet(depth, width=WIDTH).to("meta")),
             **(in_fresh_process(measured) if fresh else measured())}]


DEPTHS, KEPT = (20, 56, 110, 326, 650, 1202), ("all", "block", "sqrt")
CONFIGS = [{"depth": depth, "kept": kept, "precision": PRECISION, "processor": processor(), "seed": seed}
           for seed in range(3) for depth in DEPTHS for kept in KEPT]

if __name__ == "__main__":
    only_on_a_cpu()
    smallest = [config for config in CONFIGS if (config["depth"], config["seed"]) == (20, 0)]
    main("depth_cost", CONFIGS, run, smallest, {"full": False, "size": 14}, {"repeats": 1})

"""Chapter 08: nets with blocks removed, swapped, or their shortcuts scaled; measured on all 10,000 test images.

The stored residual-20 with all 2^9 subsets of its blocks removed; singles and pairs of the stored plain-20, of a
residual-56 and of two more residual-20. Single blocks, swaps and scaled shortcuts are measured with the norms' running
averages as they were (`statistics` kept) and as 2,000 training images give them in the changed net (estimated).

A row a change: `kind`, and `which`: blocks as stage.block, from 0, joined by "+"; "1.0~1.1" swapped; a factor. Arrays
of the stored residual-20, by `mask`, whose bit i is block i: "right", of each class (512, 10), and "answers" to the
pictures SHOWN (512, 12)."""

import copy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from _nets import bypass, estimate_, head, stem, stored_net, trained_net
from common import PRECISION, main

import d2l_utils as d2l
from d2l_utils.engine.hardware import autocast
from d2l_utils.probes import blocks_of

FACTORS = (0.5, 0.75, 0.9, 1.1, 1.25, 1.5)
ESTIMATED = 2000
STORED = {"stored residual-20": "fashion_mnist_residual20", "stored plain-20": "fashion_mnist_plain20"}
TRAINED = {"residual-20": (20, "A"), "residual-56": (56, "A")}


def shown(y):
    """Twelve pictures: the first of each class, the second shirt, the second coat."""
    return [int((y == c).nonzero()[i, 0]) for c, i in [*((c, 0) for c in range(10)), (6, 1), (4, 1)]]


def names(net):
    """The blocks as stage.block, from 0."""
    return [f"{int(stage) - 1}.{block}" for stage, block in
            (name.removeprefix("layer").split(".") for name in blocks_of(net))]


class Count:
    """Sums over the test images, a batch at a time."""

    def __init__(self):
        self.loss, self.right, self.answers = 0.0, np.zeros(10, np.int16), []

    def add(self, y_hat, y):
        answer = y_hat.argmax(1)
        self.loss += F.cross_entropy(y_hat, y, reduction="sum").item()
        self.right += torch.bincount(y[answer == y], minlength=10).cpu().numpy().astype(np.int16)
        self.answers.append(answer.to(torch.uint8).cpu())

    def row(self, n):
        return {"test_loss": self.loss / n, "test_error": 1 - int(self.right.sum()) / n}


@torch.no_grad()
def subsets(net, X, y, limit):
    """A `Count` for every set of at most `limit` blocks removed, a dict by mask: what comes before the first block in
    which two sets differ is computed once."""
    blocks, counts = list(blocks_of(net).values()), {}

    def walk(k, mask, H, labels):
        if k == len(blocks):
            counts.setdefault(mask, Count()).add(head(net, H), labels)
            return
        walk(k + 1, mask, blocks[k](H), labels)
        if mask.bit_count() < limit:
            walk(k + 1, mask | 1 << k, bypass(blocks[k], H), labels)

    for images, labels in zip(X.split(1000), y.split(1000), strict=True):
        with autocast(X.device, PRECISION):
            walk(0, 0, stem(net, images), labels)
    return counts


def scaled(factor, module, inputs, output):
    return factor * output


def changes(net):
    """(kind, which, changed copy): each block removed, neighbours of one shape swapped, shortcuts scaled."""
    for which, name in zip(names(net), blocks_of(net), strict=True):
        changed = copy.deepcopy(net)
        with d2l.lesion(changed, name):
            yield "removed", which, changed
    for s, stage in enumerate(net.stages):
        for i in range(s > 0, len(stage) - 1):              # the first block of a later stage changes the shape
            changed = copy.deepcopy(net)
            part = changed.stages[s]
            part[i], part[i + 1] = part[i + 1], part[i]
            yield "swapped", f"{s}.{i}~{s}.{i + 1}", changed
    for factor in FACTORS:
        changed = copy.deepcopy(net)
        shortcuts = [block.downsample for block in blocks_of(changed).values() if block.downsample is not None]
        for shortcut in shortcuts:
            shortcut.register_forward_hook(partial(scaled, factor))
        if shortcuts:
            yield "scaled", f"{factor:g}", changed


def run(net, limit, precision, seed, n=None):
    """Rows and arrays of one net."""
    name = net
    net, data = stored_net(STORED[name], n) if name in STORED else trained_net(*TRAINED[name], seed, n)
    net.to(data.X_test.device, memory_format=torch.channels_last)
    X, y, parts, rows = data.X_test, data.y_test, names(net), []
    counts = subsets(net, X, y, limit)
    for mask, count in sorted(counts.items()):
        which = "+".join(part for i, part in enumerate(parts) if mask >> i & 1) or "whole"
        rows.append({"kind": "subset", "which": which, "mask": mask, "statistics": "kept", **count.row(len(y))})
    for kind, which, changed in changes(net):
        for statistics in ("kept", "estimated"):
            if statistics == "estimated":
                estimate_(changed, data.X_train[:ESTIMATED])
            loss, error = d2l.evaluate(changed, X, y, precision=precision)
            rows.append({"kind": kind, "which": which, "statistics": statistics, "test_loss": loss,
                         "test_error": error})
    if limit < len(parts):
        return rows
    counts = [counts[mask] for mask in sorted(counts)]
    return rows, {"right": np.stack([count.right for count in counts]),
                  "answers": np.stack([torch.cat(count.answers)[shown(y)].numpy() for count in counts])}


def config(net, seed, limit=2):
    return {"net": net, "limit": limit, "precision": PRECISION, "seed": seed}


CONFIGS = [config("stored residual-20", 0, limit=9), config("stored plain-20", 0), config("residual-56", 0),
           config("residual-20", 1), config("residual-20", 2)]

if __name__ == "__main__":
    main("lesions", CONFIGS, run, [config("residual-20", 1)], {"full": True, "size": 14}, {"n": 200})

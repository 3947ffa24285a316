"""Chapter 08: does the answer form step by step? Residual-20 and plain-20, trained on 60,000 images at 14x14, 3 seeds.
A row a block: the test error of a linear probe (logistic regression on the block's pooled channels, fitted to the first
10,000 training images); in stage 3, where channels mean the same, the error of the net's own head there; and how like
each other what enters a block and what leaves it are (mean cosine; option A's shortcut where the shape changes)."""

import torch
import torch.nn.functional as F
from _nets import bypass, head, stem, trained_net
from common import PRECISION, main
from torch import nn

from d2l_utils.probes import blocks_of

FITTED, DECAY = 10_000, 1e-4


@torch.no_grad()
def streams(net, X):
    """For the stem and after each block: pooled channels (N, C), the head's answers (None before stage 3), the
    cosine with what entered (N,)."""
    blocks = list(blocks_of(net).values())
    found = [[] for _ in range(len(blocks) + 1)]
    for part in X.split(1000):
        H = stem(net, part)
        found[0].append((H.mean((2, 3)), None, None))
        for k, block in enumerate(blocks, start=1):
            plain = bypass(block, H)
            H = block(H)
            answer = head(net, H).argmax(1) if H.shape[1] == net.fc.in_features else None
            found[k].append((H.mean((2, 3)), answer, F.cosine_similarity(H.flatten(1), plain.flatten(1))))
    return [[None if parts[0] is None else torch.cat(parts) for parts in zip(*block, strict=True)] for block in found]


def linear_probe(H, y, H_test):
    """The answers of a logistic regression, fitted to H (N, C), y (N,), for H_test."""
    mean, deviation = H.mean(0), H.std(0) + 1e-6
    H, H_test = (H - mean) / deviation, (H_test - mean) / deviation
    probe = nn.Linear(H.shape[1], int(y.max()) + 1).to(H.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(H), y) + DECAY * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return probe(H_test).argmax(1)


def run(depth, shortcut, precision, seed, n=None):
    """A row per block, the stem first (block 0)."""
    net, data = trained_net(depth, shortcut, seed, n)
    y, y_test = data.y_train[:FITTED], data.y_test
    rows = []
    fitted, tested = streams(net, data.X_train[:FITTED]), streams(net, data.X_test)
    for block, ((H, *_), (H_test, answer, cosine)) in enumerate(zip(fitted, tested, strict=True)):
        rows.append({"block": block, "probe_error": (linear_probe(H, y, H_test) != y_test).float().mean().item(),
                     "exit_error": None if answer is None else (answer != y_test).float().mean().item(),
                     "likeness": None if cosine is None else cosine.mean().item()})
    return rows


CONFIGS = [{"depth": 20, "shortcut": shortcut, "precision": PRECISION, "seed": seed}
           for seed in range(3) for shortcut in (None, "A")]

if __name__ == "__main__":
    main("probes", CONFIGS, run, CONFIGS[1:2], {"full": True, "size": 14}, {"n": 500})

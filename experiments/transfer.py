"""Chapter 10: ten digits from 1, 5, 20 or 100 examples a class, by what chapter 05's net learned from clothes.

scikit-learn's digits (8x8, 1,797 of them; UCI, CC BY 4.0), enlarged to 24x24 (bilinear), with a black border of 2.
547 are for testing, 20 of each class for choosing a setting, 105 of each class are drawn from; a seed is a draw.

Arms. "pixels": logistic regression on the 64 pixels. "stage 1", "stage 2", "stage 3": on the pooled channels of the
frozen net; "untrained": on those of an untrained one's stage 3. "fine-tuned": the net with a new head, all of it
trained; "norm frozen": without its batch norms; "scratch": an untrained net. `setting` is a peak rate, of a logistic
regression its C (large: little decay)."""

import hashlib
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from common import PRECISION, main
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

import d2l_utils as d2l
from d2l_utils.data import normalise

EPOCHS = {1: 60, 5: 40, 20: 20, 100: 6}                 # by examples a class: 60, 80, 140, 192 steps
BATCH, CHOOSING, POOL = 32, 20, 105


@cache
def digits():
    """Images (N, 1, 28, 28) uint8 and labels; which of them are for testing (n,), for choosing (n,), and to draw from
    (10, n), a row a class."""
    bunch = load_digits()
    X = F.interpolate(torch.tensor(bunch.images * 255 / 16)[:, None], size=(24, 24), mode="bilinear")
    X, y = F.pad(X, (2, 2, 2, 2)).round().to(torch.uint8), torch.tensor(bunch.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(y), generator=generator)
    parts = [order[y[order] == c].split([CHOOSING, POOL, (y == c).sum() - CHOOSING - POOL]) for c in range(10)]
    choosing, pool, test = zip(*parts, strict=True)
    return X, y, torch.cat(test), torch.cat(choosing), torch.stack(pool)


def drawn(examples, seed):
    """Which digits (10 x examples,) are the training pictures of a draw."""
    pool = digits()[-1]
    picks = np.random.default_rng(seed).permuted(np.tile(np.arange(POOL), (10, 1)), axis=1)[:, :examples]
    return pool.gather(1, torch.tensor(picks)).flatten()


@cache
@torch.no_grad()
def features(arm, seed=None):
    """What the logistic regression of an arm sees of all digits (N, D): pixels, or channels pooled over the map; an
    untrained net follows from the seed."""
    if arm == "pixels":
        return torch.tensor(load_digits().data / 16).float()
    net, found = net_of(arm, seed).eval(), []
    for part in digits()[0].split(300):
        H = torch.relu(net.bn1(net.conv1(normalise(part))))
        for stage in net.stages[:3 if arm == "untrained" else int(arm.removeprefix("stage "))]:
            H = stage(H)
        found.append(H.mean((2, 3)))
    return torch.cat(found)


def probe(fitted, y, others, C):
    """The answers of a logistic regression, fitted to features (N, D) and labels, for each of `others`; features are
    centred and have mean square 1."""
    mean = fitted.mean(0)
    scale = (fitted - mean).square().mean().sqrt()
    model = LogisticRegression(C=C, max_iter=2000).fit(((fitted - mean) / scale).numpy(), y.numpy())
    return [torch.tensor(model.predict(((H - mean) / scale).numpy())) for H in others]


def net_of(arm, seed):
    """The net of an arm in train mode: the stored one with a new head, or an untrained one of the same kind."""
    torch.manual_seed(0 if seed is None else seed)
    if arm in ("untrained", "scratch"):
        return d2l.small_resnet(20)
    net = d2l.stored("fashion_mnist_residual20").train()
    net.fc = nn.Linear(net.fc.in_features, 10)
    if arm == "norm frozen":
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)                # fit leaves the statistics of what is frozen alone
    return net


def trained_errors(arm, train, others, epochs, setting, precision, seed):
    """The errors on `others` of a net that was trained on `train`: (X, y) each; no numbers where it diverged."""
    net, data = net_of(arm, seed), d2l.FashionMNIST(*train, *others[0], tuple("0123456789"))
    try:
        d2l.fit(net, data, epochs, lr=setting, batch_size=BATCH, seed=seed, precision=precision, progress=False)
        return [d2l.evaluate(net, X, y, precision=precision)[1] for X, y in others]
    except d2l.Diverged:
        return [float("nan")] * len(others)


def run(arm, examples, setting, precision, seed, few=False):
    """One row: the errors on the pictures for choosing and for testing."""
    X, y, test, choosing, _ = digits()
    train, piles = drawn(examples, seed), [choosing, test]
    if arm in NETS:
        errors = trained_errors(arm, (X[train], y[train]), [(X[pile], y[pile]) for pile in piles],
                                1 if few else EPOCHS[examples], setting, precision, seed)
    else:
        H = features(arm, seed if arm == "untrained" else None)
        answers = probe(H[train], y[train], [H[pile] for pile in piles], setting)
        errors = [(answer != y[pile]).float().mean().item() for answer, pile in zip(answers, piles, strict=True)]
    return [dict(zip(("choosing_error", "test_error"), errors, strict=True))]


PROBES, NETS = ("pixels", "untrained", "stage 1", "stage 2", "stage 3"), ("fine-tuned", "norm frozen", "scratch")
SETTINGS = dict.fromkeys(PROBES, (1.0, 0.01, 0.1, 10.0, 100.0))
SETTINGS |= {"fine-tuned": (0.03, 0.01, 0.1), "norm frozen": (0.003, 0.001, 0.01), "scratch": (0.1, 0.03, 0.3)}
DRAWS = {1: 20, 5: 20, 20: 5, 100: 5}
CONFIGS = [{"arm": arm, "examples": examples, "setting": setting, "precision": PRECISION, "seed": seed}
           for seed in range(20) for examples in DRAWS if seed < DRAWS[examples]
           for arm in SETTINGS for setting in SETTINGS[arm]]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["examples"] == 1 and config["seed"] == 0
                and config["setting"] == SETTINGS[config["arm"]][0]]
    X, y, *_ = digits()
    sha256 = hashlib.sha256(X.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    main("transfer", CONFIGS, run, smallest, sha256, {"few": True})

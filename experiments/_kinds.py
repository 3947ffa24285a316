"""What the experiments of chapters 06 and 07 share: kinds of nets, how each is trained, what is measured, and how each
gets the rate that suits it."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from common import PRECISION, main, recorded
from torch import nn

import d2l_utils as d2l
from d2l_utils.book.records import MACHINE
from d2l_utils.data import normalise
from d2l_utils.probes import mean_cosine, responses

DEPTH, EPOCHS, HELD_OUT = 56, 5, 1000
STEPS = (0, 10, 20, 100)                                    # updates made before a measurement
LADDER = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
NORM_RATE = 0.03                        # of norms and biases where the layers' steps are made equal


@dataclass(frozen=True)
class Kind:
    """A kind of net and its training. `change(net, X, y)` is done to the fresh net, in place; `options` are fit's;
    `rates` are the first three to be tried. With `equal_steps` a rate is the length of each layer's step, over that of
    its weights, at the schedule's peak and before momentum; norms and biases go at NORM_RATE."""

    shortcut: str | None = None
    change: Callable | None = None
    norm: bool = True
    block: type = d2l.Residual
    equal_steps: bool = False
    rates: tuple = (0.01, 0.03, 0.1)
    options: dict = field(default_factory=dict)

    def make(self, seed, data, depth=DEPTH):
        """The untrained net of a seed."""
        torch.manual_seed(seed)
        net = d2l.small_resnet(depth, self.shortcut, self.norm, self.block).to(data.X_train.device)
        if self.change is not None:
            self.change(net, data.X_train[:512], data.y_train[:512])
        return net

    def fit(self, net, data, rate, seed, epochs, on_step=None, **options):
        """Train; returns the history. `on_step(step, loss, net)` sees the gradients as they are."""
        def step(step, loss, net):
            if on_step is not None:
                on_step(step, loss, net)
            if self.equal_steps:
                equal_steps(net, rate)

        return d2l.fit(net, data, epochs, lr=NORM_RATE if self.equal_steps else rate, seed=seed, progress=False,
                       on_step=step, **self.options | options)


@torch.no_grad()
def equal_steps(net, length):
    """Scale the gradients so that each layer's step is as long as every other's, in lengths of its weights (after
    LARS, You et al. 2017, arXiv:1708.03888)."""
    for weight in net.parameters():
        if weight.dim() > 1:
            weight.grad.mul_(length / NORM_RATE * weight.norm() / weight.grad.norm().clamp_min(1e-30))


@torch.no_grad()
def delta_(net, keep):
    """Every 3x3 kernel behind the stem becomes a delta kernel plus `keep` times itself."""
    for stage in net.stages:
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(keep).add_(nn.init.dirac_(torch.empty_like(layer.weight)))


@torch.no_grad()
def match_norm_(net, X):
    """Give each norm, layer by layer, the scale and shift of what enters it, so that the net computes for X what it
    would without norm."""
    def match(norm, inputs):
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(match) for norm in norms]
    net.train()(normalise(X))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.reset_running_stats()


@torch.no_grad()
def equal_sizes_(net, X, y):
    """Enlarge the kernels until all have the relative gradient of the last: under norm the net stays the same."""
    relative = d2l.gradient_norms(net, X, y).set_index("layer").relative[:-1]           # without the head
    for name, value in relative.items():
        net.get_submodule(name).weight.mul_((value / relative.iloc[-1]) ** 0.5)


class Scale(nn.Module):
    """X times a number, which may be learned."""

    def __init__(self, factor, learned=False):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor])) if learned else factor

    def forward(self, X):
        return self.factor * X


def scale_shortcuts_(net, factor):
    """Put `factor` into every shortcut."""
    for stage in net.stages:
        for block in stage:
            block.downsample = nn.Sequential(block.downsample, Scale(factor))


@torch.no_grad()
def settled(net, X):
    """A copy of the net whose norms' running averages are the statistics of the pictures X."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()(normalise(X))
    return net.eval()


def likeness(net, X, layer):
    """The mean cosine of what enters a layer for two pictures of X."""
    H = responses(net, X, [layer])[layer][0].flatten(1)
    return mean_cosine(H @ H.T).item()


def measure(net, data, agreement=True, batch_size=128):
    """What the suspects are told apart by, on the first training pictures: `size_ratio`, the gradient's norm in the
    first layer over that in the last convolution, the same for relative norms and products (left out where the last is
    0); rank of what enters the head and the last block, and likeness of the latter; agreement of four batches and along
    four lines, with the batches' statistics and, `fixed_`, with those of 1,000 pictures."""
    X, y = data.X_train, data.y_train
    layers = d2l.gradient_norms(net, X[:batch_size], y[:batch_size])
    first, last = layers.iloc[0], layers.iloc[-2]
    block = f"layer3.{len(net.stages[-1]) - 1}"
    sizes = {"size": "gradient", "relative": "relative", "product": "product"}
    row = {f"{name}_ratio": first[size] / last[size] for name, size in sizes.items()
           if 0 < last[size] < math.inf}
    row |= {"rank": d2l.effective_rank(net, X[:256]),
           "block_rank": d2l.effective_rank(net, X[:256], block), "likeness": likeness(net, X[:256], block)}
    normed = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    for name, tried, train in [("", net, True)] + [("fixed_", settled(net, X[:1000]), False)] * normed:
        if agreement:
            cosine = d2l.gradient_agreement(tried, X[:4 * batch_size], y[:4 * batch_size], batch_size, train).cosine
            row |= {f"{name}agreement": cosine[:-1].mean(), f"{name}agreement_all": cosine.iloc[-1]}
        lines = [d2l.path_agreement(tried, X[i], X[i + 1], y[i], train=train) for i in range(0, 8, 2)]
        row[f"{name}path"] = sum(lines) / len(lines)
    return row


@torch.no_grad()
def batch_loss(net, data):
    """The loss on the first 1,000 training pictures with their own statistics."""
    X, y = data.X_train[:1000], data.y_train[:1000]
    return F.cross_entropy(settled(net, X)(normalise(X)), y).item()


def trained(kind, rate, seed, epochs, data, **options):
    """One net and its rows: measurements (`step`), then a row per epoch. Seed 0 chooses the rate and is not measured.
    A run that diverges keeps its measurements."""
    net, rows = kind.make(seed, data), []

    def look(step, loss, net):
        if seed and step in STEPS:
            row = {} if step == 20 else measure(net, data)
            rows.append({"step": step, "batch_loss": batch_loss(net, data), **row})

    try:
        held_out = min(HELD_OUT, len(data.X_train) // 6)
        history = kind.fit(net, data, rate, seed, epochs, look, **{"validation": held_out, "test": True} | options)
    except FloatingPointError as error:
        error.history = rows + d2l.History(getattr(error, "history", ())).to_dict("records")
        raise
    return net, rows + history.to_dict("records")


def final_errors(table, net, rate="rate", error=lambda rows: rows.val_error):
    """Of each rate that a net (a dict of settings) was tried at on seed 0, the error in the end; 1 where the run
    diverged or was not measured. Whatever machine made the runs."""
    if not len(table):
        return {}
    net = {key: value for key, value in net.items() if key not in MACHINE}
    ended = table[(table.seed == 0) & (table[list(net)] == list(net.values())).all(axis=1)].groupby(rate).tail(1)
    errors = error(ended).where(~ended.diverged.astype(bool)).fillna(1.0)
    return {float(f"{rate:.6g}"): error for rate, error in zip(ended[rate], errors, strict=True)}


def rates(first, errors):
    """(rates to try, the best of them): while the best of those tried is at an edge, one more beyond it; the best is
    None as long as a rate is to be tried."""
    tried = sorted(first)
    while all(rate in errors for rate in tried):
        best = min(tried, key=errors.get)
        lower, higher = LADDER.index(best) - 1, LADDER.index(best) + 1
        if best == tried[0] and lower >= 0:
            tried.insert(0, LADDER[lower])
        elif best == tried[-1] and higher < len(LADDER):
            tried.append(LADDER[higher])
        else:
            return tried, best
    return tried, None


def of_kind(name):
    """The settings that all runs of a kind of net share."""
    return {"kind": name, "epochs": EPOCHS, "precision": PRECISION}


def best_rate(name, kind, first, default=None):
    """The rate that the record `name` chose for a kind; `default` where it has not."""
    return rates(first, final_errors(recorded(name), of_kind(kind)))[1] or default


def at_best(table, nets, tried, seeds, rate="lr", **how):
    """The runs of `nets` (dicts of settings) that belong to a record of which `table` is there, by seed: each net at
    the rates `tried(net, errors)` on seed 0 and, once these all have an error, at the best of them on `seeds(net)`.
    `how` is for `final_errors`."""
    configs = []
    for net in nets:
        errors = final_errors(table, net, rate, **how)
        options = tried(net, errors)
        configs += [net | {rate: option, "seed": 0} for option in options]
        if set(options) <= set(errors):
            configs += [net | {rate: min(options, key=errors.get), "seed": seed} for seed in seeds(net)]
    return sorted(configs, key=lambda config: config["seed"])


def plan(table, kinds, seeds):
    """The runs of kinds of nets, {name: Kind}, each at its rates until the best lies between others, then on `seeds`,
    {name: those beyond 0}."""
    return at_best(table, map(of_kind, kinds), lambda net, errors: rates(kinds[net["kind"]].rates, errors)[0],
                   lambda net: seeds[net["kind"]], rate="rate")


def race(name, configs, run, smoke_configs, data, smoke_options):
    """`main` again and again, until `configs(table)` adds no run to what it has asked for. With --smoke or --only:
    once."""
    folder = sys.argv[sys.argv.index("--folder") + 1] if "--folder" in sys.argv else None
    asked = None
    while asked != (asked := configs(recorded(name, folder))):
        main(name, asked, run, smoke_configs, data, smoke_options)
        if {"--smoke", "--only"} & set(sys.argv):
            break


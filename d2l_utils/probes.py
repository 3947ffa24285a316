"""What a net does: its gradients, what flows through it, what each block is for.

A probe works on a copy of the net, in the weights' precision and on their device; uint8 pictures are normalised. With
`train=True` batch norm takes the statistics of the pictures it sees, as in training, with False its running averages.
Bad arguments raise ValueError.
"""

import contextlib

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from .blocks import make_shortcut
from .data import normalise
from .engine.checks import check_images, check_targets
from .engine.settings import NATURAL, check_counts, obey
from .engine.state import choose, silenced, watched


def ready(net, X, y=None):
    """Pictures X (N, C, H, W), normalised where they are uint8, and labels y (N,), on the net's device."""
    check_images("X", X)
    if y is not None:
        check_targets("y", y, len(X), labels=True)
    weight = next(net.parameters())
    return normalise(X.to(weight.device)).to(weight.dtype), None if y is None else y.to(weight.device)


def layer_names(net):
    """The names of the net's convolutions and linear layers, in their order."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def blocks_of(net):
    """The net's residual or plain blocks by name: layer1.0, layer1.1 and so on."""
    blocks = {name: module for name, module in net.named_modules() if hasattr(module, "downsample")}
    if not blocks:
        raise ValueError(f"net must have residual or plain blocks, got a {type(net).__name__} without")
    return blocks


def last_of_branch(block):
    """The name of the last module of a block's residual branch."""
    return [name for name, _ in block.named_children() if name != "downsample"][-1]


def gradients(net, X, y, train=True):
    """The gradients of the mean loss on X, y for each parameter, and for what enters each layer: two dicts by name."""
    X, y = ready(net, X, y)
    net, seen = watched(net, train, layer_names(net))
    weights = dict(net.requires_grad_().named_parameters())
    with torch.enable_grad():
        loss = F.cross_entropy(net(X.detach().requires_grad_()), y)
        sources = [*weights.values(), *(entering for entering, _ in seen.values())]
        found = torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=False)), dict(zip(seen, found[len(weights):], strict=True))


def gradient_norms(net, X, y, train=True):
    """The gradients of the mean loss on X (N, C, H, W), y (N,), a row per convolution and linear layer. Euclidean
    norms: `gradient` and `weight`, of its weights; `relative`, their quotient; their `product`; `input`, of the
    gradient at what enters the layer: at a block's first layer that is the stream."""
    weights, inputs = gradients(net, X, y, train)
    table = pd.DataFrame(
        [[name, *torch.stack([weights[f"{name}.weight"].norm(), net.get_parameter(f"{name}.weight").detach().norm(),
                              entering.norm()]).tolist()] for name, entering in inputs.items()],
        columns=["layer", "gradient", "weight", "input"])
    return table.assign(relative=table.gradient / table.weight, product=table.gradient * table.weight)


def mean_cosine(gram):
    """The mean cosine of all pairs of B vectors, from their inner products (B, B); zeros agree with nothing."""
    lengths = gram.diagonal().sqrt()
    cosines = gram / (lengths[:, None] * lengths).clamp_min(torch.finfo(gram.dtype).tiny)
    return (cosines.sum() - cosines.diagonal().sum()) / (len(gram) * (len(gram) - 1))


def gradient_agreement(net, X, y, batch_size=128, train=True):
    """How far gradients of different batches of X, y agree (gradient confusion, Sankararaman et al. 2019,
    arXiv:1904.06963): a row per layer, the mean `cosine` of its weights' gradients over all pairs of batches; in the
    last row, "all", of the whole gradients."""
    if len(X) < 2 * batch_size:
        raise ValueError(f"X must hold at least 2 batches of batch_size={batch_size}, got {len(X)} pictures")
    found = [gradients(net, X[i:i + batch_size], y[i:i + batch_size], train)[0]
             for i in range(0, len(X) - batch_size + 1, batch_size)]
    grams = {name: (rows := torch.stack([gradient[name].flatten() for gradient in found])) @ rows.T
             for name in found[0]}
    chosen = {name: grams[f"{name}.weight"] for name in layer_names(net)} | {"all": sum(grams.values())}
    return pd.DataFrame({"layer": list(chosen), "cosine": torch.stack([*map(mean_cosine, chosen.values())]).tolist()})


def path_agreement(net, start, end, label, points=128, train=True):
    """The mean cosine of the loss's gradients with respect to neighbours among `points` pictures on the line from
    `start` to `end` (C, H, W): near 1 where it changes slowly, near 0 where it is shattered (Balduzzi et al. 2017,
    arXiv:1702.08591)."""
    if start.shape != end.shape or points < 2:
        raise ValueError("start and end must be pictures of one shape and points at least 2, got "
                         f"{tuple(start.shape)}, {tuple(end.shape)} and {points!r}")
    (start, end), _ = ready(net, torch.stack([start, end]))
    X = start + torch.linspace(0, 1, points).to(start)[:, None, None, None] * (end - start)
    slopes, *_ = gradients(net, X, torch.full((points,), int(label)), train)[1].values()
    return F.cosine_similarity(slopes[1:].flatten(1), slopes[:-1].flatten(1), eps=1e-30).mean().item()


@torch.no_grad()
def responses(net, X, layers, train=True):
    """(What enters, what comes out of) each module called in `layers` for X (N, C, H, W), a dict by name."""
    X, _ = ready(net, X)
    net, seen = watched(net, train, layers)
    net(X)
    return choose(seen, layers)


def response_std(net, X, layers=None, train=True):
    """The standard deviation of what layers give for X, a row a layer: of the modules called `layers`, by default of
    the norms, before any ReLU (He et al. 2015 Fig. 7), without norms of the convolutions and linear layers."""
    norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    found = responses(net, X, layers or norms or layer_names(net), train)
    return pd.DataFrame({"layer": list(found), "std": [output.std().item() for _, output in found.values()]})


def branch_share(net, X, train=True):
    """How much each block adds, a row a block: `branch`, the mean variance of its branch's channels over pictures and
    pixels; `stream`, of its shortcut's, or in a plain block its input's; `share`, the one over the other (De and Smith
    2020, arXiv:2002.10444)."""
    blocks = {name: (block, f"{name}.{last_of_branch(block)}") for name, block in blocks_of(net).items()}
    shortcuts = [f"{name}.downsample" for name, (block, _) in blocks.items() if block.downsample is not None]
    seen, rows = responses(net, X, [*blocks, *(last for _, last in blocks.values()), *shortcuts], train), []
    for name, (block, last) in blocks.items():
        branch = seen[last][1]
        stream = seen[name][0] if block.downsample is None else seen[f"{name}.downsample"][1]
        rows.append([name, *(H.var((0, 2, 3), correction=0).mean().item() for H in (branch, stream))])
    table = pd.DataFrame(rows, columns=["block", "branch", "stream"])
    return table.assign(share=table.branch / table.stream)


def effective_rank(net, X, layer="fc", train=True):
    """How many directions pictures fill in what enters `layer`, by default the head: exp of the entropy of that
    matrix's singular values, scaled to sum to 1 (Roy and Vetterli 2007). 0 for zeros, NaN where not all is finite."""
    H = responses(net, X, [layer], train)[layer][0].flatten(1).double().cpu()
    if not H.isfinite().all() or not H.any():
        return float("nan") if H.any() else 0.0
    values = torch.linalg.svdvals(H)
    return torch.special.entr(values / values.sum()).sum().exp().item()


@contextlib.contextmanager
def lesion(net, *blocks):
    """Within `with lesion(net, "layer2.0"):` these blocks' residual branches give zero (Veit et al. 2016,
    arXiv:1605.06431); a plain block becomes option A's shortcut."""
    def bypass(block, inputs, Y):
        stride = max(layer.stride[0] for layer in block.children() if isinstance(layer, nn.Conv2d))
        return make_shortcut("A", inputs[0].shape[1], Y.shape[1], stride)(inputs[0])

    with contextlib.ExitStack() as hooks:
        for name, block in choose(blocks_of(net), blocks).items():
            hooks.enter_context(block.register_forward_hook(bypass) if block.downsample is None
                                else silenced(block, name, last_of_branch(block)))
        yield net


def filter_normalised(net, generator):
    """A random direction in the space of weights, a dict by name: each filter's part as long as the filter, norm and
    bias still (Li et al. 2018, arXiv:1712.09913). `generator` is a CPU generator."""
    direction = {name: torch.zeros_like(weight.detach()) for name, weight in net.named_parameters()}
    for name, weight in net.named_parameters():
        if weight.dim() > 1:
            d = torch.randn(weight.shape, generator=generator).to(direction[name])
            length = weight.detach().flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
            direction[name] = d * length.reshape(-1, *[1] * (weight.dim() - 1))
    return direction


@torch.no_grad()
def loss_surface(net, X, y, directions=None, extent=1.0, points=21, seed=0, train=True, batch_size=1000):
    """The mean loss on X, y at the weights w + a d + b e, `points` values each of a (the index) and b (the columns)
    from -extent to extent. `directions` d and e are dicts by parameter, by default `filter_normalised`, from `seed`
    (not the one that the net started with: it draws that start again)."""
    check_counts(points=points, batch_size=batch_size)
    X, y = ready(net, X, y)
    net, _ = watched(net, train)
    weights, generator = dict(net.named_parameters()), torch.Generator().manual_seed(obey("seed", seed, *NATURAL))
    directions = directions or [filter_normalised(net, generator) for _ in range(2)]
    shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (weights, *directions)]
    if shapes != 3 * shapes[:1]:
        raise ValueError("directions must be two dicts of a tensor for each parameter, by its name and in its shape")
    d, e = directions

    def loss(a, b):
        moved = {name: w + a * d[name] + b * e[name] for name, w in weights.items()}
        total = sum(F.cross_entropy(functional_call(net, moved, X_batch), y_batch, reduction="sum")
                    for X_batch, y_batch in zip(X.split(batch_size), y.split(batch_size), strict=True))
        return (total / len(X)).item()

    axis = torch.linspace(-extent, extent, points, dtype=torch.float64).tolist()
    return pd.DataFrame([[loss(a, b) for b in axis] for a in axis], index=axis, columns=axis)

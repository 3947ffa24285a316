"""What a net does: its gradients, what flows through it, what each block is for.

A probe leaves the net as it found it, also when interrupted, and computes in the weights' precision on their device;
uint8 pictures are normalised. With `train=True` batch norm takes the statistics of the pictures it sees, as in
training, with False its running averages. Bad arguments raise ValueError.
"""

import contextlib
import itertools
from functools import partial
from unittest import mock

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from .blocks import check_whole, make_shortcut
from .data import normalise


def ready(net, X, y=None, train=True):
    """Pictures X (N, C, H, W), normalised where they are uint8, and labels y (N,), on the net's device."""
    if X.dim() != 4 or not len(X):
        raise ValueError(f"X must have shape (N, C, H, W) with N at least 1, got {tuple(X.shape)}")
    if y is not None and (y.shape != X.shape[:1] or y.dtype != torch.int64):
        raise ValueError(f"y must be {len(X)} labels (int64), one a picture, got {y.dtype} {tuple(y.shape)}")
    if train and len(X) == 1 and any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError("X must hold at least 2 pictures where batch norm takes their statistics (train=True), got 1")
    weight = next(net.parameters())
    return normalise(X.to(weight.device)).to(weight.dtype), None if y is None else y.to(weight.device)


def layer_names(net):
    """The names of the net's convolutions and linear layers, in their order."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def blocks_of(net):
    """The net's residual or plain blocks, a dict by name: layer1.0, layer1.1 and so on."""
    blocks = {name: module for name, module in net.named_modules() if hasattr(module, "downsample")}
    if not blocks:
        raise ValueError(f"net must have residual or plain blocks, got a {type(net).__name__} without")
    return blocks


def last_of_branch(block):
    """The name and the last module of a block's residual branch."""
    return [child for child in block.named_children() if child[0] != "downsample"][-1]


def choose(modules, names):
    """Those of `modules`, a dict, that are called `names`."""
    for name in names:
        if name not in modules:
            raise ValueError(f"layer must be one of {', '.join(filter(None, modules))}, got {name!r}")
    return {name: modules[name] for name in names}


@contextlib.contextmanager
def watched(net, train, names=()):
    """call(X, weights) is the net's output on copies of its statistics; call.seen then has (input, output) of the
    modules `names`. Afterwards hooks are gone and modes are what they were."""
    chosen = choose(dict(net.named_modules()), names)

    def call(X, weights):
        copies = {name: buffer.clone() for name, buffer in net.named_buffers()}
        return functional_call(net, {**weights, **copies}, (X,))

    def note(name, module, inputs, output):
        call.seen[name] = inputs[0], output

    call.seen = {}
    with contextlib.ExitStack() as after:
        for name, module in chosen.items():
            after.callback(module.register_forward_hook(partial(note, name)).remove)
        for module in net.modules():
            after.callback(setattr, module, "training", module.training)
        net.train(train)
        yield call


def gradients(net, X, y, train=True):
    """The gradients of the mean loss on X, y: for each parameter (also a frozen one), and for what enters each layer;
    two dicts by name. The first layer's input is X."""
    weights = {name: weight.detach().requires_grad_() for name, weight in net.named_parameters()}
    with torch.enable_grad(), watched(net, train, layer_names(net)) as call:
        loss = F.cross_entropy(call(X.detach().requires_grad_(), weights), y)
        inputs = {name: seen[0] for name, seen in call.seen.items()}
        found = torch.autograd.grad(loss, [*weights.values(), *inputs.values()], allow_unused=True,
                                    materialize_grads=True)
    return dict(zip(weights, found, strict=False)), dict(zip(inputs, found[len(weights):], strict=True))


def gradient_norms(net, X, y, train=True):
    """The gradients of the mean loss on X (N, C, H, W), y (N,), a row per convolution and linear layer. Euclidean
    norms: `gradient` and `weight`, of its weights; `relative`, their quotient; `product`, which a rescaling under norm
    leaves as it is; `input`, of the gradient at what enters the layer: at a block's first layer that is the stream."""
    weights, inputs = gradients(net, *ready(net, X, y, train), train)
    names = [f"{name}.weight" for name in inputs]
    norms = [torch.stack([tensor.norm() for tensor in tensors]).tolist() for tensors in (
        [weights[name] for name in names], [net.get_parameter(name).detach() for name in names], inputs.values())]
    table = pd.DataFrame({"layer": list(inputs), "gradient": norms[0], "weight": norms[1], "input": norms[2]})
    return table.assign(relative=table.gradient / table.weight, product=table.gradient * table.weight)


def mean_cosine(gram):
    """The mean cosine of all pairs of B vectors, from their inner products (B, B); zeros agree with nothing."""
    lengths = gram.diagonal().sqrt()
    cosines = gram / (lengths[:, None] * lengths).clamp_min(torch.finfo(gram.dtype).tiny)
    return (cosines.sum() - cosines.diagonal().sum()) / (len(gram) * (len(gram) - 1))


def gradient_agreement(net, X, y, batch_size=128, train=True):
    """How far the gradients of different batches agree (gradient confusion, Sankararaman et al. 2019,
    arXiv:1904.06963). X, y are cut into batches, at least two; a row per layer: the mean `cosine` of its weights'
    gradients over all pairs of batches; in the last row, "all", of the whole gradients."""
    if len(X) < 2 * batch_size:
        raise ValueError(f"X must hold at least 2 batches of batch_size={batch_size}, got {len(X)} pictures")
    ends = range(batch_size, len(X) + 1, batch_size)
    batches = [ready(net, X[end - batch_size:end], y[end - batch_size:end], train) for end in ends]
    found = [gradients(net, *batch, train)[0] for batch in batches]
    rows = {name: torch.stack([gradient[name].flatten() for gradient in found]) for name in found[0]}
    grams = {name: row @ row.T for name, row in rows.items()}
    chosen = [*(grams[f"{name}.weight"] for name in layer_names(net)), sum(grams.values())]
    cosines = torch.stack([mean_cosine(gram) for gram in chosen]).tolist()
    return pd.DataFrame({"layer": [*layer_names(net), "all"], "cosine": cosines})


def path_agreement(net, start, end, label, points=128, train=True):
    """The mean cosine of the loss's gradients with respect to neighbouring ones of `points` pictures, on the line from
    `start` to `end` (C, H, W): near 1 where they change slowly, near 0 where they are shattered (Balduzzi et al. 2017,
    arXiv:1702.08591). With `train=True` norm takes the line's own statistics."""
    if start.dim() != 3 or start.shape != end.shape or points < 2:
        raise ValueError(f"start and end must be pictures of one shape (C, H, W) and points at least 2, got "
                         f"{tuple(start.shape)}, {tuple(end.shape)} and {points!r}")
    (start, end), _ = ready(net, torch.stack([start, end]))
    line = torch.linspace(0, 1, points).to(start)[:, None, None, None]
    X = start + line * (end - start)
    slopes = next(iter(gradients(net, X, torch.full_like(X[:, 0, 0, 0], int(label)).long(), train)[1].values()))
    return F.cosine_similarity(slopes[1:].flatten(1), slopes[:-1].flatten(1), eps=1e-30).mean().item()


@torch.no_grad()
def responses(net, X, layers, train=True):
    """(What enters, what comes out of) each module called in `layers` for X (N, C, H, W), a dict by name."""
    X, _ = ready(net, X, train=train)
    with watched(net, train, layers) as call:
        call(X, dict(net.named_parameters()))
    return call.seen


def response_std(net, X, layers=None, train=True):
    """The standard deviation of layers' responses to X, a row a layer, over pictures, channels and pixels: of the
    modules called `layers`, by default of the norms, before any ReLU (He et al. 2015 Fig. 7), or where there are none
    of the convolutions and linear layers."""
    if layers is None:
        norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
        layers = norms or layer_names(net)
    found = responses(net, X, layers, train)
    return pd.DataFrame({"layer": list(found), "std": [output.std().item() for _, output in found.values()]})


def branch_share(net, X, train=True):
    """How much each block adds, a row a block: `branch`, the variance of what its layers give; `stream`, of what its
    shortcut carries, or where there is none of what enters it; `share`, the one over the other (De and Smith 2020,
    arXiv:2002.10444). A variance is a channel's over pictures and pixels, averaged over the channels."""
    seen, rows = responses(net, X, [name for name, _ in net.named_modules() if name], train), []
    for name, block in blocks_of(net).items():
        branch = seen[f"{name}.{last_of_branch(block)[0]}"][1]
        stream = seen[name][0] if block.downsample is None else seen[f"{name}.downsample"][1]
        rows.append([name, *(H.var((0, 2, 3), correction=0).mean().item() for H in (branch, stream))])
    table = pd.DataFrame(rows, columns=["block", "branch", "stream"])
    return table.assign(share=table.branch / table.stream)


def effective_rank(net, X, layer="fc", train=True):
    """How many directions N pictures fill in what enters `layer`, by default the head: exp of the entropy of the
    singular values of that matrix (N, numbers), scaled to sum to 1 (Roy and Vetterli 2007). It is 1 where all are
    multiples of one vector, 0 where they are zero, NaN where they are not finite."""
    H = responses(net, X, [layer], train)[layer][0].flatten(1).double().cpu()
    if not H.isfinite().all() or not H.any():
        return float("nan") if H.any() else 0.0
    gram = H @ H.T if len(H) < H.shape[1] else H.T @ H          # its eigenvalues are the singular values' squares
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    return torch.special.entr(values / values.sum()).sum().exp().item()


@contextlib.contextmanager
def lesion(net, *blocks):
    """Within `with lesion(net, "layer2.0"):` these blocks' residual branches give zero (Veit et al. 2016,
    arXiv:1605.06431); a plain block becomes option A's shortcut."""
    with contextlib.ExitStack() as after:
        for block in choose(blocks_of(net), blocks).values():
            (_, last), instead = last_of_branch(block), torch.zeros_like
            if block.downsample is None:
                layers = [child for child in block.children() if isinstance(child, nn.Conv2d)]
                sizes = layers[0].in_channels, layers[-1].out_channels, max(layer.stride[0] for layer in layers)
                last, instead = block, make_shortcut("A", *sizes).forward
            after.enter_context(mock.patch.object(last, "forward", instead))
        yield net


def filter_normalised(net, generator):
    """A random direction in the space of weights, a dict by name: each filter's part as long as the filter, norm and
    bias still (Li et al. 2018, arXiv:1712.09913, section 4). `generator` is a CPU generator."""
    direction = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in net.named_parameters()}
    for name, weight in net.named_parameters():
        if weight.dim() > 1:
            d = torch.randn(weight.shape, generator=generator).to(direction[name])
            length = weight.detach().flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
            direction[name] = d * length.reshape(-1, *[1] * (weight.dim() - 1))
    return direction


@torch.no_grad()
def loss_surface(net, X, y, directions=None, extent=1.0, points=21, seed=0, train=True, batch_size=1000):
    """The mean loss on X, y at the weights w + a d + b e, `points` values each of a and b from -extent to extent: a
    DataFrame, a its index and b its columns. `directions` are d and e, dicts of a tensor a parameter in its shape; by
    default two of `filter_normalised`, from `seed`."""
    check_whole(points=points, batch_size=batch_size)
    X, y = ready(net, X, y, train)
    weights, generator = {name: w.detach() for name, w in net.named_parameters()}, torch.Generator().manual_seed(seed)
    directions = [filter_normalised(net, generator) for _ in range(2)] if directions is None else directions
    for name, w in weights.items():
        if len(directions) != 2 or any(name not in d or d[name].shape != w.shape for d in directions):
            raise ValueError(f"directions must be two dicts with a tensor of each parameter's shape, {tuple(w.shape)} "
                             f"for {name}, got something else")
    axis, losses = torch.linspace(-extent, extent, points, dtype=torch.float64).tolist(), []
    with watched(net, train) as call:
        for a, b in itertools.product(axis, axis):
            moved = {name: w + a * directions[0][name] + b * directions[1][name] for name, w in weights.items()}
            losses.append(sum(F.cross_entropy(call(X[i:i + batch_size], moved), y[i:i + batch_size], reduction="sum")
                              for i in range(0, len(X), batch_size)))
    table = (torch.stack(losses) / len(X)).reshape(points, points).tolist()
    return pd.DataFrame(table, index=axis, columns=axis)

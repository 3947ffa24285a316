"""What a network is: its parameters, shapes, multiply-adds and memory, read off forward passes that compute nothing."""

import copy
import operator
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from .blocks import PadShortcut


def parameter_count(net, trainable=False):
    """How many parameters a net has, each shared one counted once; with `trainable=True` only those that train."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not trainable)


def on_meta(net):
    """A copy of `net` in eval mode on the meta device, where shapes are computed and nothing else."""
    return copy.deepcopy(net).to("meta").eval()


def measured(net, modules, shape):
    """A row for each of `modules` (a dict), in the order in which a training pass of `net` calls them on the meta
    device, for one input of `shape`; `MiB` are the tensors that autograd saves, weights left out."""
    saved, rows = {p.untyped_storage()._cdata: 0 for p in net.parameters()}, []

    def keep(tensor):
        saved.setdefault(tensor.untyped_storage()._cdata, tensor.nbytes)
        return tensor

    def note(name, module, inputs, output):
        rows.append({"name": name, "kind": type(module).__name__, "output": tuple(output.shape[1:]),
                     "parameters": parameter_count(module), "multiply_adds": counter.get_total_flops() // 4,
                     "MiB": sum(saved.values()) / 2**21})

    for name, module in modules.items():
        module.register_forward_hook(partial(note, name))
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        net.train()(torch.empty(2, *shape, device="meta"))      # two: batch norm refuses a single one on a 1x1 map
    table = pd.DataFrame(rows)
    totals = table[["multiply_adds", "MiB"]]
    return table.assign(**(totals - totals.shift(fill_value=0)))


def layer_table(net, *shape):
    """A row per layer of `net` in the order of a forward pass of one input (C, H, W), of which only shapes are
    computed: name, kind, the output's shape, parameters, multiply-adds."""
    net = on_meta(net)
    layers = {name: layer for name, layer in net.named_modules() if not list(layer.children())}
    return measured(net, layers, shape).rename(columns={"name": "layer"}).drop(columns="MiB")


def part_table(parts, *shape):
    """A row per part of a net (a dict of modules that follow one another) for one input (C, H, W): the output's shape,
    parameters, multiply-adds, and the MiB that training keeps for the backward pass."""
    net = on_meta(nn.Sequential(*parts.values()))
    table = measured(net, dict(zip(parts, net, strict=True)), shape)
    return table.rename(columns={"name": "part"}).drop(columns="kind")


class BlockTracer(fx.Tracer):
    """Takes layers and option A's shortcut as one step each."""

    def is_leaf_module(self, module, name):
        return isinstance(module, PadShortcut) or super().is_leaf_module(module, name)


def step_name(step):
    """What a step of a block, a layer or a function, does in the words of He et al. 2015 Fig. 3: "/2" is stride 2."""
    match step:
        case nn.Conv2d(out_channels=channels, kernel_size=(side, _), stride=(stride, _)):
            return f"{side}x{side} conv, {channels}" + f", /{stride}" * (stride > 1)
        case PadShortcut(strides=stride):
            return "pad with zeros" + f", /{stride}" * (stride > 1)
        case nn.Module():
            return "batch norm" if isinstance(step, nn.BatchNorm2d) else type(step).__name__
    names = {F.relu: "ReLU", torch.relu: "ReLU", operator.add: "+", operator.iadd: "+"}
    if step not in names:
        raise ValueError(f"block must be made of layers, ReLUs and sums, got {step} in its forward pass")
    return names[step]


def block_graph(block, *shape):
    """A block's computation on one input (C, H, W), for `plots.block_diagram`: the steps `before` the fork, in the
    residual `branch`, in the `shortcut` (None if there is none) and `after` the sum, each (name, shape). ValueError for
    a block that computes something else."""
    block = on_meta(block)
    graph, layers = BlockTracer().trace(block), dict(block.named_modules())
    ShapeProp(fx.GraphModule(block, graph)).propagate(torch.empty(1, *shape, device="meta"))
    *nodes, _ = [n for n in graph.nodes if not isinstance(layers.get(n.target), nn.Identity)]

    def chain(node):
        """The nodes that lead to `node`, first to last, along first arguments."""
        return [*chain(node.args[0]), node] if node.args else [node]

    def steps(chosen):
        return [(step_name(layers.get(n.target, n.target)) if n.args else "X", tuple(n.meta["tensor_meta"].shape[1:]))
                for n in chosen if n in nodes]

    add = next((n for n in nodes if n.target in (operator.add, operator.iadd)), None)
    if add is None:
        return {"before": steps(nodes), "branch": [], "shortcut": None, "after": []}
    left, right = map(chain, add.args)
    fork = sum(a is b for a, b in zip(left, right, strict=False))
    return {"before": steps(left[:fork]), "branch": steps(left[fork:]), "shortcut": steps(right[fork:]),
            "after": steps(nodes[nodes.index(add):])}

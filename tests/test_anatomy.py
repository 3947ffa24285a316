"""Shapes, parameters and multiply-adds read off forward passes, and the diagrams made of them."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import d2l_utils as d2l
from d2l_utils.anatomy import block_graph, layer_table, part_table
from d2l_utils.plots import block_diagram, figure

CONV_BN = ["3x3 conv, 8", "batch norm"]
BRANCH = [*CONV_BN, "ReLU", *CONV_BN]


def names(graph):
    return {part: steps and [name for name, _ in steps] for part, steps in graph.items()}


@pytest.mark.parametrize(("block", "channels", "expected"), [
    (d2l.Residual(8, 8), 8, {"before": ["X"], "branch": BRANCH, "shortcut": [], "after": ["+", "ReLU"]}),
    (d2l.Residual(4, 8, True, 2), 4,
     {"before": ["X"], "branch": ["3x3 conv, 8, /2", *BRANCH[1:]], "shortcut": ["1x1 conv, 8, /2", "batch norm"],
      "after": ["+", "ReLU"]}),
    (d2l.Residual(4, 8, strides=2, shortcut="A", norm=False), 4,
     {"before": ["X"], "branch": ["3x3 conv, 8, /2", "ReLU", "3x3 conv, 8"], "shortcut": ["pad with zeros, /2"],
      "after": ["+", "ReLU"]}),
    (d2l.Residual(8, 8, shortcut=None), 8, {"before": ["X", *BRANCH, "ReLU"], "branch": [], "shortcut": None,
                                           "after": []}),
    (d2l.PreActResidual(8, 8), 8, {"before": ["X"], "branch": ["batch norm", "ReLU", "3x3 conv, 8", "batch norm",
                                                               "ReLU", "3x3 conv, 8"],
                                   "shortcut": [], "after": ["+"]}),
    (d2l.PreActResidual(4, 8, True), 4, {"before": ["X", "batch norm", "ReLU"],
                                         "branch": ["3x3 conv, 8", "batch norm", "ReLU", "3x3 conv, 8"],
                                         "shortcut": ["1x1 conv, 8"], "after": ["+"]}),
])
def test_block_graph_is_the_blocks_computation(block, channels, expected):
    graph = block_graph(block, channels, 6, 6)
    assert names(graph) == expected
    last = (graph["after"] or graph["before"])[-1]
    assert last[1] == tuple(block(torch.zeros(1, channels, 6, 6)).shape[1:])
    assert graph["before"][0] == ("X", (channels, 6, 6))


def test_block_graph_refuses_what_it_cannot_name():
    class Gated(nn.Module):
        def forward(self, X):
            return X + X * torch.sigmoid(X)

    with pytest.raises(ValueError, match=r"block must be made of layers, ReLUs and sums, got .*mul"):
        block_graph(Gated(), 4, 6, 6)


def test_block_diagram_shows_every_step_and_the_shapes():
    _, ax = figure()
    block_diagram(block_graph(d2l.Bottleneck(16, 8, True, 2), 16, 6, 6), ax, "bottleneck")
    texts = [text.get_text() for text in ax.texts]
    assert {"X", "+", "ReLU", "1x1 conv, 8", "3x3 conv, 8, /2", "1x1 conv, 32", "1x1 conv, 32, /2"} <= set(texts)
    assert [text for text in texts if text[0].isdigit() and "conv" not in text] == ["16x6x6", "8x6x6", "8x3x3",
                                                                                    "32x3x3", "32x3x3"]


@pytest.mark.parametrize("net", [d2l.resnet18(2, 5), d2l.small_resnet(8, "B", in_channels=2), d2l.resnet50(2)])
def test_layer_table_adds_up(net):
    X = torch.zeros(1, 2, 40, 40)
    with FlopCounterMode(display=False) as counter:
        net.eval()(X)
    table = layer_table(net.train(), *X.shape[1:])
    assert table.parameters.sum() == d2l.parameter_count(net)
    assert table.multiply_adds.sum() == counter.get_total_flops() // 2
    assert table.output.iloc[-1] == (net.fc.out_features,)
    assert net.training
    assert next(net.parameters()).device.type == "cpu"


def test_layer_table_counts_each_layer_for_itself():
    """Multiply-adds by hand: positions x output channels x weights of one output."""
    grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
    twice = nn.Linear(8, 8)
    net = nn.Sequential(grouped, nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(), nn.LazyLinear(8), twice, twice)
    net(torch.zeros(1, 4, 5, 6))
    table = layer_table(net, 4, 5, 6)
    assert list(table.multiply_adds) == [8 * 5 * 6 * 2 * 9, 8 * 5 * 6 * 4 * 4, 0, 4 * 10 * 12 * 8, 64, 64]
    assert list(table.output) == [(8, 5, 6), (4, 10, 12), (480,), (8,), (8,), (8,)]


def test_parameters_are_counted_once_and_those_that_train_apart():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3, bias=False))
    net.append(net[1])
    assert d2l.parameter_count(net) == 3 * 4 + 4 + 12
    net[0].requires_grad_(False)
    assert d2l.parameter_count(net) == 28
    assert d2l.parameter_count(net, trainable=True) == 12
    assert d2l.parameter_count(nn.ReLU()) == 0


def test_part_table_is_what_autograd_saves_and_the_layers_add_up():
    """By hand, in float32: a convolution keeps its input, a ReLU its output, a mean nothing; each tensor once."""
    body = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    table = part_table({"body": body, "head": head}, 2, 16, 16)
    assert list(table.part) == ["body", "head"]
    assert list(table.output) == [(4, 16, 16), (10,)]
    assert list(table.parameters) == [d2l.parameter_count(body), d2l.parameter_count(head)]
    assert list(table.multiply_adds) == [layer_table(body, 2, 16, 16).multiply_adds.sum(), 40]
    kept = 2 * 256 + 8 * 256                      # the picture, the ReLU's output: also the next convolution's input
    assert table.MiB[0] * 2**20 / 4 == kept
    assert table.MiB[1] * 2**20 / 4 == 4                          # the linear layer's input
    assert next(body.parameters()).device.type == "cpu"
    assert body.training


def test_part_table_of_a_net_adds_up():
    net = d2l.small_resnet(8, "B").eval()
    table = part_table(dict(list(net.named_children())[:-1]), 1, 28, 28)
    layers = layer_table(net, 1, 28, 28)
    assert table.multiply_adds.sum() == layers.multiply_adds.sum() - net.fc.weight.numel()
    assert table.parameters.sum() == d2l.parameter_count(net) - d2l.parameter_count(net.fc)
    assert (table.MiB >= 0).all()
    assert not net.training

"""Shapes, parameters and multiply-adds read off forward passes, and the diagrams made of them."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import d2l_utils as d2l
from d2l_utils.anatomy import block_graph, layer_table
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
    assert table.parameters.sum() == sum(p.numel() for p in net.parameters())
    assert table.multiply_adds.sum() == counter.get_total_flops() // 2
    assert table.output.iloc[-1] == (net.fc.out_features,)
    assert net.training
    assert next(net.parameters()).device.type == "cpu"

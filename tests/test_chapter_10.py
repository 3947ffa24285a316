"""Chapter 10's own code, from its cells: features, descendants of the residual block, the choice of a setting."""

import nbformat
import pandas as pd
import pytest
import torch
import torchvision
from conftest import ROOT
from torch import nn
from torchvision.models.convnext import CNBlock

import d2l_utils as d2l
from d2l_utils.anatomy import layer_table

CELLS = ("p10-features", "p10-wide", "p10-next", "p10-se-code", "p10-se-block", "p10-convnext-code", "p10-build",
         "p10-data", "p10-chosen", "p10-transformer")


@pytest.fixture(scope="module")
def page():
    """What the page's cells define."""
    names = {"d2l": d2l, "nn": nn, "torch": torch, "SEED": 0}
    book = nbformat.read(ROOT / "chapters" / "10_pretrained.ipynb", as_version=4)
    sources = {cell.id: cell.source for cell in book.cells}
    for cell in CELLS:
        exec(sources[cell], names)
    return names


@pytest.mark.parametrize(("block", "name"), [("Wide", "wide_resnet50_2"), ("NeXt", "resnext50_32x4d")])
@pytest.mark.parametrize("train", [False, True])
def test_wide_and_resnext_are_torchvisions(page, block, name, train):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).train(train)
    ours = page["fifty"](page[block]).train(train)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    X = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(X), theirs(X))
    entry = torchvision.models.get_model_weights(name).DEFAULT
    assert d2l.parameter_count(ours) == entry.meta["num_params"]


@pytest.mark.parametrize(("block", "name"), [("Wide", "wide_resnet50_2"), ("NeXt", "resnext50_32x4d")])
def test_their_multiply_adds_are_the_published_ones(page, block, name):
    with torch.device("meta"):
        net = page["fifty"](page[block])
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    assert layer_table(net, 3, 224, 224).multiply_adds.sum() / 1e9 == pytest.approx(published, abs=5e-4)


def test_gate_is_torchvisions_squeeze_and_excitation(page):
    torch.manual_seed(0)
    ours, theirs = page["Gate"](64), torchvision.ops.SqueezeExcitation(64, 4)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    X = torch.randn(2, 64, 7, 7)
    assert torch.equal(ours(X), theirs(X))


def test_squeeze_and_excitation_adds_what_the_paper_counts(page):
    """Hu et al. 2017 section 4: 2/r times the sum of N C^2 weights, r = 16; and the biases."""
    with torch.device("meta"):
        net, plain = page["fifty"](page["SqueezeExcite"]), d2l.resnet50()
    stages = [(3, 256), (4, 512), (6, 1024), (3, 2048)]
    weights, biases = sum(n * c * c * 2 // 16 for n, c in stages), sum(n * (c + c // 16) for n, c in stages)
    assert d2l.parameter_count(net) - d2l.parameter_count(plain) == weights + biases
    assert weights == 2_514_944


def test_convnext_block_is_torchvisions(page):
    torch.manual_seed(0)
    ours, theirs = page["ConvNeXt"](96), CNBlock(96, 1e-6, 0.0)
    assert d2l.parameter_count(ours) == d2l.parameter_count(theirs) == 79_296
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    for block in (ours, theirs):
        (block.scale if block is ours else block.layer_scale).data.fill_(0.5)
    X = torch.randn(2, 96, 7, 7)
    torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=0)


@pytest.mark.parametrize(("stage", "channels"), [("stage 1", 16), ("stage 2", 32), ("stage 3", 64)])
def test_features_are_what_the_net_computes_up_to_a_stage(page, stage, channels):
    net = d2l.stored("fashion_mnist_residual20")
    X, seen = torch.randn(3, 1, 28, 28), []
    net.stages[int(stage[-1]) - 1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    answers = net(X)
    found = page["features"](net, stage)(X)
    assert found.shape == (3, channels)
    assert torch.equal(found, nn.AdaptiveAvgPool2d(1)(seen[0]).flatten(1))
    if stage == "stage 3":
        assert torch.equal(net.fc(found), answers)
    with pytest.raises(ValueError, match="layer4"):
        page["features"](net, "stage 4")


def test_setting_is_chosen_on_held_out_digits_and_what_diverged_counts_as_a_guess(page):
    rows = [("scratch", 1, setting, seed, choosing, test)
            for setting, errors in {0.1: [(0.5, 0.1), (0.3, 0.2)], 0.3: [(0.2, 0.6), (0.1, 0.7)],
                                    0.9: [(0.0, 0.0), (None, None)]}.items()
            for seed, (choosing, test) in enumerate(errors)]
    table = pd.DataFrame(rows, columns=["arm", "examples", "setting", "seed", "choosing_error", "test_error"])
    assert page["chosen"](table.astype({"choosing_error": float})).test_error.tolist() == [0.6, 0.7]


def test_only_a_norm_that_comes_first_leaves_the_stream_alone(page):
    assert page["does_nothing"](True)
    assert not page["does_nothing"](False)

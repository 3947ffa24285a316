"""The blocks: shapes, initialisation, shortcuts, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import d2l_utils as d2l
from d2l_utils.blocks import PreActivation

BLOCKS = (d2l.Residual, d2l.Bottleneck, d2l.PreActResidual, d2l.PreActBottleneck)
properties = settings(max_examples=30, deadline=None, derandomize=True)


def test_he_initialisation_by_fan_out():
    torch.manual_seed(0)
    block = d2l.Residual(32, 128, use_1x1conv=True)
    for layer in (block.conv1, block.conv2, block.downsample[0]):
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert layer.bias is None


@properties
@given(st.sampled_from(BLOCKS), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.booleans(),
       st.sampled_from(["identity", "A", "B", "C", None]), st.booleans(), st.integers(3, 9), st.integers(3, 9))
def test_shapes_or_an_error_that_says_why(block, input_channels, width, strides, use_1x1conv, shortcut, norm, H, W):
    out = width * block.expansion
    changes = strides != 1 or input_channels != out
    impossible = ((use_1x1conv and shortcut in ("A", None))
                  or (shortcut == "identity" and changes and not use_1x1conv)
                  or (shortcut == "A" and input_channels > out))
    if impossible:
        with pytest.raises(ValueError, match=r"must be .*got"):
            block(input_channels, width, use_1x1conv, strides, shortcut=shortcut, norm=norm)
        return
    net = block(input_channels, width, use_1x1conv, strides, shortcut=shortcut, norm=norm)
    Y = net(torch.randn(2, input_channels, H, W))
    assert Y.shape == (2, out, math.ceil(H / strides), math.ceil(W / strides))
    assert Y.is_contiguous()
    assert all(tensor.is_contiguous() for tensor in net.state_dict().values())


@properties
@given(st.sampled_from(BLOCKS), st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_zero_init_makes_a_block_the_identity(block, width, norm, training, seed):
    torch.manual_seed(seed)
    channels = width * block.expansion
    net = block(channels, width, norm=norm, zero_init=True).train(training)
    X = torch.randn(2, channels, 5, 5)
    X = X if issubclass(block, PreActivation) else X.relu()     # the last ReLU is after the sum, or there is none
    assert torch.equal(net(X), X)


@properties
@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))
def test_option_A_picks_pixels_and_adds_zeros(channels, new, strides, side):
    assume(new or strides > 1)
    block = d2l.Residual(channels, channels + new, strides=strides, shortcut="A")
    assert sum(p.numel() for p in block.downsample.parameters()) == 0
    X = torch.randn(2, channels, side, side)
    Y = block.downsample(X)
    assert torch.equal(Y[:, :channels], X[:, :, ::strides, ::strides])
    assert Y[:, channels:].eq(0).all()


def test_no_input_is_changed_in_place():
    for block in BLOCKS:
        X = torch.randn(2, 4 * block.expansion, 5, 5)
        before = X.clone()
        block(4 * block.expansion, 4)(X)
        assert torch.equal(X, before)


def test_numpys_whole_numbers_are_whole_numbers():
    count = np.int64(3)
    assert d2l.Residual(count, count, strides=np.int64(1)).conv1.in_channels == 3
    assert len(d2l.small_resnet(np.int64(20)).stages[0]) == 3


@pytest.mark.parametrize(("call", "parts"), [
    (lambda: d2l.Residual(3, 6), ["use_1x1conv", "3 channels in, 6 out", "got use_1x1conv=False"]),
    (lambda: d2l.Residual(3, 3, strides=2), ["use_1x1conv", "strides=2", "False"]),
    (lambda: d2l.Residual(0, 3), ["input_channels", "whole number from 1", "got 0"]),
    (lambda: d2l.Residual(3, 3, strides=0), ["strides", "whole number from 1", "got 0"]),
    (lambda: d2l.Residual(6, 3, shortcut="A"), ["shortcut", '"B" or "C"', "6 channels in, 3 out", "'A'"]),
    (lambda: d2l.Residual(3, 3, shortcut="identical"), ["shortcut", '"identity", "A", "B", "C" or None']),
    (lambda: d2l.Residual(3, 3, True, shortcut=None), ["shortcut", "use_1x1conv=True", "got None"]),
])
def test_errors_name_argument_value_and_what_is_allowed(call, parts):
    with pytest.raises(ValueError, match="must ") as error:
        call()
    assert all(part in str(error.value) for part in parts), error.value


# What each net's start was at commit 3455fa0, from seed 3: a checksum of its state, and the next random number
STARTS = [
    (lambda: d2l.Bottleneck(16, 8, True, 2), 24, 5.3795, 0.681046),
    (lambda: d2l.small_resnet(8, None), 44, 17.9163, 0.020332),
    (lambda: d2l.small_resnet(20, "A"), 116, 27.2244, 0.215549),
    (lambda: d2l.small_resnet(20, "B"), 128, 31.7454, 0.215549),
    (lambda: d2l.small_resnet(20, "C", norm=False), 49, -5.3348, 0.215549),
    (lambda: d2l.small_resnet(20, "B", block=d2l.PreActResidual), 118, 28.8573, 0.215549),
    (lambda: d2l.small_resnet(20, "B", block=d2l.PreActBottleneck), 119, 52.8010, 0.847769),
    (lambda: d2l.resnet18(1, 10), 122, -22.2198, 0.981639),
    (lambda: d2l.resnet50(3, 10), 320, 134.9665, 0.383845),
]


@pytest.mark.parametrize(("build", "tensors", "checksum", "following"), STARTS)
def test_a_seed_gives_the_start_that_the_records_were_made_from(build, tensors, checksum, following):
    torch.manual_seed(3)
    state = build().state_dict()
    assert torch.rand(()).item() == pytest.approx(following, abs=1e-6)
    weighted = [tensor.double().flatten() @ torch.arange(1, tensor.numel() + 1).double().sin()
                for tensor in state.values()]
    assert len(state) == tensors
    assert sum(weighted).item() == pytest.approx(checksum, abs=1e-3)

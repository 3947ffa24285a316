"""Small maps side by side: the same numbers, and only where that pays."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import d2l_utils as d2l
from d2l_utils.engine import small_maps
from d2l_utils.engine.small_maps import SideBySide, conv_side_by_side, small_maps_side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def pays(monkeypatch):
    """A machine that gains by laying small maps side by side."""
    monkeypatch.setattr(small_maps, "side_by_side_pays", lambda device, precision: True)


@pytest.fixture
def calls(monkeypatch):
    """The shapes of what has been convolved side by side."""
    seen = []
    monkeypatch.setattr(small_maps, "conv_side_by_side", lambda X, weight, stride: (
        seen.append(tuple(X.shape)), conv_side_by_side(X, weight, stride))[1])
    return seen


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (7, 7), (3, 5), (6, 3)])
def test_pictures_side_by_side_convolve_as_they_do_alone(stride, height, width):
    generator = torch.Generator().manual_seed(0)
    X, W = (torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
            for shape in ((5, 6, height, width), (4, 6, 3, 3)))
    alone, together = F.conv2d(X, W, padding=1, stride=stride), conv_side_by_side(X, W, stride)
    assert together.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    G = torch.randn(alone.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(together, (X, W), G), torch.autograd.grad(alone, (X, W), G), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_resnet_computes_the_same_with_small_maps_side_by_side(pays, calls):
    torch.manual_seed(0)
    net, X = d2l.resnet18(1, 10), torch.randn(8, 1, 96, 96)
    plain = net(X)
    assert not calls
    with small_maps_side_by_side(net, CPU, "bfloat16"):
        together = net(X)                                   # no autocast: float32, so that rounding hides nothing
    torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-4)
    assert [shape[2] for shape in calls] == [12, 6, 6, 6, 6, 3, 3, 3]         # to maps of 6 and 3 pixels a side
    calls.clear()
    net(X)
    assert not calls


def test_its_numbers_are_those_of_the_convolution_it_calls(pays):
    """To the last bit, in bfloat16 too."""
    conv = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    X = torch.randn(4, 128, 6, 6)
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            expected = conv_side_by_side(X, conv.weight)
            with small_maps_side_by_side(conv, CPU, None):
                assert torch.equal(conv(X), expected)


def test_fit_and_evaluate_use_it_where_it_pays(pays, calls):
    """The same small run, with and without: the same table but for rounding."""
    X, y = torch.randn(20, 1, 32, 32), torch.arange(20) % 10
    data, rows = d2l.FashionMNIST(X, y, X, y), []
    for _ in range(2):
        torch.manual_seed(0)
        history = d2l.fit(d2l.resnet18(1, 10), data, 1, lr=1e-3, batch_size=10, precision="float32", progress=False)
        rows.append(history.train_loss.item())
        with pytest.MonkeyPatch.context() as patch:
            assert calls
            patch.setattr(small_maps, "side_by_side_pays", lambda device, precision: False)
            calls.clear()
            torch.manual_seed(0)
            history = d2l.fit(d2l.resnet18(1, 10), data, 1, lr=1e-3, batch_size=10, precision="float32",
                              progress=False)
            assert not calls
            assert history.train_loss.item() == pytest.approx(rows[-1], rel=1e-2)
    assert rows[0] == rows[1]


def test_only_plain_wide_3x3_convolutions_of_small_maps_are_chosen(calls):
    X = torch.randn(2, 128, 6, 6)
    with SideBySide():
        nn.Conv2d(128, 128, 3, padding=1, bias=False)(X)
        nn.Conv2d(128, 256, 3, stride=2, padding=1, bias=False)(torch.randn(2, 128, 14, 14))
        assert len(calls) == 2
        for other in (nn.Conv2d(128, 128, 3, padding=1), nn.Conv2d(128, 64, 3, padding=1, bias=False),
                      nn.Conv2d(128, 128, 1, bias=False), nn.Conv2d(128, 128, 3, bias=False),
                      nn.Conv2d(128, 256, 3, padding=1, groups=2, bias=False),
                      nn.Conv2d(128, 128, 3, padding=1, stride=3, bias=False),
                      nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False),
                      nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect", bias=False)):
            other(X)
        conv = nn.Conv2d(128, 128, 3, padding=1, bias=False)
        conv(X[:1])
        conv(X[0])                                                    # without a batch
        conv(torch.randn(2, 128, 8, 8))
    assert len(calls) == 2


@pytest.mark.parametrize(("build", "chosen"), [(lambda: d2l.resnet18(1, 10), SideBySide),
                                               (lambda: d2l.small_resnet(20), contextlib.nullcontext)])
def test_only_nets_that_have_such_convolutions_are_watched(pays, build, chosen):
    assert type(small_maps_side_by_side(build(), CPU, "bfloat16")) is chosen


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bfloat16"), ("mps", "bfloat16")])
def test_other_devices_and_float32_convolve_as_torch_does(device, precision):
    context = small_maps_side_by_side(d2l.resnet18(1, 10), torch.device(device), precision)
    assert type(context) is contextlib.nullcontext


def test_an_error_within_leaves_nothing_behind(pays, calls):
    net = d2l.resnet18(1, 10)
    with pytest.raises(ValueError, match="X must have shape"), small_maps_side_by_side(net, CPU, "bfloat16"):
        net(torch.zeros(1, 3, 96, 96))
    net(torch.zeros(2, 1, 96, 96))
    assert not calls

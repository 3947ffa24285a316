"""What the machine decides: precision, kept memory, small maps side by side. Devices: test_data, test_distributed."""

import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import d2l_utils as d2l
from d2l_utils.engine.hardware import (
    choose_precision,
    conv_side_by_side,
    fast_bfloat16,
    is_wide_3x3,
    small_maps_side_by_side,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("units", "chosen"), [((True, True), "bfloat16"), ((False, True), "bfloat16"),
                                               ((False, False), "float32")])
def test_precision_is_what_the_processor_is_fast_at_unless_told_otherwise(monkeypatch, units, chosen):
    cpu = torch.device("cpu")
    for name, answer in zip(("amx_tile", "avx512_bf16"), units, strict=True):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda answer=answer: answer, raising=False)
    assert choose_precision(cpu) == chosen
    assert choose_precision(cpu, "float32") == "float32"
    assert choose_precision(cpu, "bfloat16") == "bfloat16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: units[0])
    assert fast_bfloat16(torch.device("cuda")) == units[0]
    assert not fast_bfloat16(torch.device("mps"))



# Small maps side by side: the same numbers

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


def test_a_resnet_computes_the_same_with_small_maps_side_by_side():
    torch.manual_seed(0)
    net, X = d2l.resnet18(1, 10), torch.randn(8, 1, 96, 96)
    seen = []
    net.layer4[0].conv2.register_forward_hook(lambda conv, args, Y: seen.append("forward" in vars(conv)))
    plain = net(X)
    with small_maps_side_by_side(net, CPU, "bfloat16"):
        together = net(X)                                   # no autocast: float32, so that rounding hides nothing
    torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-4)
    assert seen == [False, True]
    assert not any("forward" in vars(module) for module in net.modules())


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bfloat16"), ("mps", "bfloat16")])
def test_other_devices_and_float32_convolve_as_torch_does(device, precision):
    net = d2l.resnet18(1, 10)
    with small_maps_side_by_side(net, torch.device(device), precision):
        assert not any("forward" in vars(module) for module in net.modules())


def test_only_plain_wide_3x3_convolutions_are_chosen():
    assert is_wide_3x3(nn.Conv2d(128, 128, 3, padding=1, bias=False))
    assert is_wide_3x3(nn.Conv2d(128, 256, 3, stride=2, padding=1, bias=False))
    for other in (nn.Conv2d(128, 128, 3, padding=1), nn.Conv2d(64, 128, 3, padding=1, bias=False),
                  nn.Conv2d(128, 128, 1, bias=False), nn.Conv2d(128, 128, 3, bias=False),
                  nn.Conv2d(128, 128, 3, padding=1, groups=2, bias=False),
                  nn.Conv2d(128, 128, 3, padding=1, stride=3, bias=False),
                  nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False),
                  nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect", bias=False), nn.Linear(128, 128)):
        assert not is_wide_3x3(other)


def test_an_error_within_leaves_the_net_as_it_was():
    net = d2l.resnet18(1, 10)

    def fail():
        with small_maps_side_by_side(net, CPU, "bfloat16"):
            assert "forward" in vars(net.layer4[0].conv2)
            net(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ValueError, match="X must have shape"):
        fail()
    assert not any("forward" in vars(module) for module in net.modules())


# Kept memory

FAULTS = """
import resource, sys, torch
from d2l_utils.engine.hardware import keep_memory
if "keep" in sys.argv:
    keep_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)          # 40 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_kept_memory_is_not_mapped_anew():
    pages = 5 * 40_000_000 // resource.getpagesize()
    faults = {how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True,
                                      check=True).stdout) for how in ("hand back", "keep")}
    if sys.platform == "linux":
        assert faults["keep"] < pages / 20, faults          # on other systems: keep_memory() is no error

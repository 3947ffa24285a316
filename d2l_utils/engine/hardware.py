"""What the machine has and how its time is best used: device, precision, memory, convolutions of small maps.

`fit` and `evaluate` ask here. Networks know nothing of it, and compute the same with and without.
"""

import contextlib
import ctypes
import os
import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

SMALL_MAP, MANY_CHANNELS = 7, 128       # convolutions of maps up to so many pixels a side, from so many channels


def devices():
    """The names of this machine's devices, the preferred one last: the CPU, MPS, CUDA."""
    names = ["cpu"] + ["mps"] * torch.backends.mps.is_available()
    if torch.cuda.is_available():
        names += [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cuda"]
    return names


def choose_device(device=None):
    """`device`, else `$D2L_DEVICE`, else CUDA, MPS or the CPU; under torchrun "cuda" is the process's own GPU.
    ValueError where this machine has none such."""
    name = "D2L_DEVICE" if device is None else "device"
    device = str((os.environ.get("D2L_DEVICE") or devices()[-1]) if device is None else device)
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device not in devices():
        raise ValueError(f"{name} must be one of {', '.join(devices())} on this machine, got {device!r}")
    return torch.device(device)


def fast_bfloat16(device):
    """Whether `device` computes bfloat16 faster than float32: recent GPUs, and CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = [getattr(torch.cpu, f"_is_{unit}_supported", lambda: False) for unit in ("amx_tile", "avx512_bf16")]
    return device.type == "cpu" and any(question() for question in ask)


def choose_precision(device, precision=None):
    """The precision of a forward pass: what is asked for, else bfloat16 where it is fast. ValueError for another."""
    if precision not in (None, "float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32', 'bfloat16' or None (the hardware decides), got {precision!r}")
    return precision or ("bfloat16" if fast_bfloat16(device) else "float32")


def autocast(device, precision=None):
    """The context of a forward pass: bfloat16 where it is safe, weights and updates in float32; or nothing."""
    if choose_precision(device, precision) == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def keep_memory():
    """Have this process keep freed memory for the next step instead of handing it back to the system, which clears and
    maps every page again: GNU/Linux (glibc's mallopt); elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        largest, trim, never = -3, -1, 2 ** 31 - 1          # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(largest, 2 ** 30)
        mallopt(trim, never)


def conv_side_by_side(X, weight, stride=1):
    """3x3 convolution, padding 1, of X (N, C, H, W) as one picture (1, C, H, N (W + gap)): the N pictures side by side
    with zeros between. The same sums, and rows long enough for the processor's matrix tiles."""
    n, channels, height, width = X.shape
    gap = stride - width % stride                           # at least 1, and W + gap a multiple of the stride
    X = F.pad(X.permute(2, 0, 3, 1), (0, 0, 0, gap))                            # (H, N, W + gap, C)
    X = X.reshape(1, height, n * (width + gap), channels).permute(0, 3, 1, 2)
    Y = F.conv2d(X, weight, padding=1, stride=stride)
    Y = Y.permute(2, 3, 0, 1).reshape(Y.shape[2], n, (width + gap) // stride, -1)[:, :, :(width - 1) // stride + 1]
    return Y.permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)


def conv_forward(conv, X):
    """The forward pass of a Conv2d, its small maps side by side."""
    if 0 < max(X.shape[-2:]) // conv.stride[0] <= SMALL_MAP and len(X) > 1:
        return conv_side_by_side(X, conv.weight, conv.stride[0])
    return type(conv).forward(conv, X)


def is_wide_3x3(conv):
    """Whether `conv` is a Conv2d with the 3x3 kernel, padding 1 and many channels of ResNet's later stages."""
    return (type(conv) is nn.Conv2d and "forward" not in vars(conv) and conv.bias is None and conv.groups == 1
            and conv.kernel_size == (3, 3) and conv.padding == conv.dilation == (1, 1)
            and conv.padding_mode == "zeros" and conv.stride in ((1, 1), (2, 2))
            and min(conv.in_channels, conv.out_channels) >= MANY_CHANNELS)


@contextlib.contextmanager
def small_maps_side_by_side(net, device, precision):
    """Within it, on a CPU in bfloat16, the net's 3x3 convolutions of small maps run as `conv_side_by_side`."""
    chosen = []
    if device.type == "cpu" and choose_precision(device, precision) == "bfloat16":
        chosen = [module for module in net.modules() if is_wide_3x3(module)]
    for conv in chosen:
        conv.forward = partial(conv_forward, conv)
    try:
        yield
    finally:
        for conv in chosen:
            del conv.forward

"""Convolutions of small maps, the pictures of a batch side by side, where that pays."""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from .hardware import side_by_side_pays

SMALL_MAP, MANY_CHANNELS = 7, 128       # convolutions to maps of up to so many pixels a side, from so many channels


def conv_side_by_side(X, weight, stride=1):
    """3x3 convolution, padding 1, of X (N, C, H, W) as one picture (1, C, H, N (W + gap)): the N pictures side by side,
    zeros between. The same sums, in rows long enough for the matrix unit's tiles."""
    n, channels, height, width = X.shape
    gap = stride - width % stride     # >= 1, W + gap a multiple of stride
    X = F.pad(X.permute(2, 0, 3, 1), (0, 0, 0, gap))  # (H, N, W + gap, C)
    X = X.reshape(1, height, n * (width + gap), channels)
    Y = F.conv2d(X.permute(0, 3, 1, 2), weight, padding=1, stride=stride)
    Y = Y.permute(2, 3, 0, 1)                      # (H', N W', 1, C')
    Y = Y.reshape(len(Y), n, (width + gap) // stride, len(weight))
    Y = Y[:, :, :(width - 1) // stride + 1]        # without the gaps
    Y = Y.permute(1, 3, 0, 2)
    return Y.contiguous(memory_format=torch.channels_last)


def is_wide_3x3(weight):
    """Whether a convolution's kernels (C_out, C_in, K, K) are 3x3 and its channels as many as in the later stages."""
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= MANY_CHANNELS


class SideBySide(TorchFunctionMode):
    """Within it, 3x3 convolutions of small maps from many channels run as `conv_side_by_side`, others as ever."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.conv2d and not kwargs and len(args) == 7:          # as nn.Conv2d calls it
            X, weight, bias, stride, padding, dilation, groups = args
            if (bias is None and groups == 1 and padding == dilation == (1, 1) and stride in ((1, 1), (2, 2))
                    and is_wide_3x3(weight) and X.dim() == 4 and len(X) > 1
                    and 0 < max(X.shape[2:]) // stride[0] <= SMALL_MAP):
                return conv_side_by_side(X, weight, stride[0])
        return function(*args, **kwargs or {})


def small_maps_side_by_side(net, device, precision):
    """The context of passes of `net`: SideBySide where the machine gains by it and the net has such convolutions."""
    wide = any(isinstance(module, nn.Conv2d) and is_wide_3x3(module.weight) for module in net.modules())
    return SideBySide() if wide and side_by_side_pays(device, precision) else contextlib.nullcontext()

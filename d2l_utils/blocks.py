"""Residual blocks of He et al. 2015 (arXiv:1512.03385) and 2016 (arXiv:1603.05027), and what they are made of.

A block maps X (N, C_in, H, W) to (N, C_out, H/strides, W/strides); C_out is `num_channels` times its `expansion`.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init

from .engine.settings import check_counts


def conv(input_channels, num_channels, kernel_size, strides=1, bias=False, generator=None):
    """A convolution that keeps the map's size, or divides it by `strides`: He et al.'s normal weights (fan-out), drawn
    on the CPU, so that a seed gives every device the same."""
    check_counts(input_channels=input_channels, num_channels=num_channels, strides=strides)
    layer = skip_init(nn.Conv2d, input_channels, num_channels, kernel_size, strides, kernel_size // 2, bias=bias,
                      device="cpu")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer.to(torch.get_default_device())


def batch_norm(channels, norm=True):
    """Batch norm, or the identity in a net without norm."""
    return nn.BatchNorm2d(channels) if norm else nn.Identity()


class PadShortcut(nn.Module):
    """Option A: every `strides`-th pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, new_channels, strides):
        super().__init__()
        self.new_channels, self.strides = new_channels, strides

    def forward(self, X):
        X = X[:, :, ::self.strides, ::self.strides]
        return F.pad(X, (0, 0, 0, 0, 0, self.new_channels))


def projection(input_channels, num_channels, strides=1, norm=True):
    """A 1x1 convolution and its norm. Its weights come from a generator of their own, seeded by what torch's would draw
    next and does not: one seed gives all other weights the same values whatever the shortcut."""
    seed = torch.randint(2**62, (), device="cpu", generator=torch.default_generator.clone_state())
    layer = conv(input_channels, num_channels, 1, strides, generator=torch.Generator().manual_seed(int(seed)))
    return nn.Sequential(layer, nn.BatchNorm2d(num_channels)) if norm else nn.Sequential(layer)


def make_shortcut(kind, input_channels, num_channels, strides=1, use_1x1conv=False, norm=True):
    """A block's shortcut. `kind`: "identity" (a projection if `use_1x1conv`), "A" (zeros for new channels), "B"
    (projection where the shape changes), "C" (projection always) or None (none). Raises ValueError."""
    if kind not in ("identity", "A", "B", "C", None) or (use_1x1conv and kind in ("A", None)):
        raise ValueError('shortcut must be "identity", "A", "B", "C" or None, neither "A" nor None with '
                         f"use_1x1conv=True, got {kind!r}")
    same = input_channels == num_channels and strides == 1
    if kind is None:
        return None
    if use_1x1conv or kind == "C" or (kind == "B" and not same):
        return projection(input_channels, num_channels, strides, norm)
    if same:
        return nn.Identity()
    if kind == "identity" or input_channels > num_channels:
        raise ValueError(f'use_1x1conv must be True, or shortcut "B" or "C" (or "A" unless channels are dropped), for '
                         f"{input_channels} channels in, {num_channels} out, strides={strides}; got "
                         f"use_1x1conv=False, shortcut={kind!r}")
    return PadShortcut(num_channels - input_channels, strides)


class Residual(nn.Module):
    """Basic residual block, He et al. 2015 Fig. 5 left: (N, C_in, H, W) -> (N, C_out, H/strides, W/strides). Raises
    ValueError where input and output cannot be added."""
    expansion = 1

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut="identity", norm=True, zero_init=False):
        super().__init__()
        self.conv1 = conv(input_channels, num_channels, 3, strides, bias=not norm)
        self.bn1 = batch_norm(num_channels, norm)
        self.conv2 = conv(num_channels, num_channels, 3, bias=not norm)
        self.bn2 = batch_norm(num_channels, norm)
        self.downsample = make_shortcut(shortcut, input_channels, num_channels, strides, use_1x1conv, norm)
        if zero_init:
            nn.init.zeros_(self.bn2.weight if norm else self.conv2.weight)

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))       # no ReLU yet: the sum comes first
        if self.downsample is None:            # a plain block
            return F.relu(Y)
        return F.relu(Y + self.downsample(X))


class Bottleneck(nn.Module):
    """Bottleneck block, He et al. 2015 Fig. 5 right: (N, C_in, H, W) -> (N, 4 num_channels, H/strides, W/strides). The
    3x3 convolution has the stride, as in torchvision ("v1.5")."""
    expansion = 4

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut="identity", norm=True, zero_init=False):
        super().__init__()
        self.conv1 = conv(input_channels, num_channels, 1, bias=not norm)
        self.bn1 = batch_norm(num_channels, norm)
        self.conv2 = conv(num_channels, num_channels, 3, strides, bias=not norm)
        self.bn2 = batch_norm(num_channels, norm)
        self.conv3 = conv(num_channels, 4 * num_channels, 1, bias=not norm)
        self.bn3 = batch_norm(4 * num_channels, norm)
        self.downsample = make_shortcut(shortcut, input_channels, 4 * num_channels, strides, use_1x1conv, norm)
        if zero_init:
            nn.init.zeros_(self.bn3.weight if norm else self.conv3.weight)

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = F.relu(self.bn2(self.conv2(Y)))
        Y = self.bn3(self.conv3(Y))
        if self.downsample is None:
            return F.relu(Y)
        return F.relu(Y + self.downsample(X))


class PreActivation(nn.Module):
    """A pre-activation block, He et al. 2016 Fig. 1b: norm and ReLU before each convolution (`kernels` are their sizes,
    the first 3x3 has the stride), nothing after the sum. A projection takes the activated input, as in the authors'
    code. Arguments and shapes as those of `Residual` and `Bottleneck`."""

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut="identity", norm=True, zero_init=False):
        super().__init__()
        channels, out = input_channels, num_channels * self.expansion
        for i, kernel in enumerate(self.kernels, 1):
            width = out if i == len(self.kernels) else num_channels
            stride = strides if i == self.kernels.index(3) + 1 else 1
            setattr(self, f"bn{i}", batch_norm(channels, norm))
            setattr(self, f"conv{i}", last := conv(channels, width, kernel, stride, bias=not norm))
            channels = width
        self.downsample = make_shortcut(shortcut, input_channels, out, strides, use_1x1conv, norm=False)
        if zero_init:
            nn.init.zeros_(last.weight)

    def forward(self, X):
        Z = F.relu(self.bn1(X))
        if self.downsample is None:
            return self.branch(Z)
        return self.branch(Z) + self.downsample(Z if isinstance(self.downsample, nn.Sequential) else X)


class PreActResidual(PreActivation):
    """The pre-activation block of two 3x3 convolutions."""
    expansion, kernels = 1, (3, 3)

    def branch(self, Z):
        return self.conv2(F.relu(self.bn2(self.conv1(Z))))


class PreActBottleneck(PreActivation):
    """The pre-activation bottleneck of the 164- and 1001-layer nets."""
    expansion, kernels = 4, (1, 3, 1)

    def branch(self, Z):
        Z = self.conv2(F.relu(self.bn2(self.conv1(Z))))
        return self.conv3(F.relu(self.bn3(Z)))

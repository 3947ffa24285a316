"""Residual networks of He et al. 2015 (arXiv:1512.03385) and 2016 (arXiv:1603.05027).

`small_resnet`, the 6n+2 nets of section 4.2, with CIFAR's 3 input channels and 10 classes:

    depth   blocks a stage   parameters (shortcut "A")   Table 6
       20                3                     269,722    0.27 M
       32                5                     464,154    0.46 M
       44                7                     658,586    0.66 M
       56                9                     853,018    0.85 M
      110               18                   1,727,962    1.7  M
     1202              200                  19,421,274   19.4  M

`resnet18` ... `resnet152`, the ImageNet nets of Table 1: attribute names and order of operations are torchvision's.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init

SHORTCUTS = ("A", "B", "C", None)


def he_init(layer, generator=None):
    """He et al.'s normal initialisation (fan-out) of a convolution, biases zero; returns the layer."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv(in_channels, out_channels, kernel_size, stride=1, bias=False):
    """A convolution, (N, in, H, W) -> (N, out, H/stride, W/stride), padded to keep the size, He-initialised."""
    return he_init(skip_init(nn.Conv2d, in_channels, out_channels, kernel_size, stride=stride,
                             padding=kernel_size // 2, bias=bias))


def batch_norm(channels, norm=True):
    """Batch norm, or the identity in a net without norm."""
    return nn.BatchNorm2d(channels) if norm else nn.Identity()


def projection(in_channels, out_channels, stride=1, norm=True, post_norm=True):
    """A 1x1 convolution and its norm. It draws its weights from a generator of its own, so that with
    the same seed all other weights are the same whatever the shortcut."""
    with torch.random.fork_rng(devices=[]):
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu")))
    layer = skip_init(nn.Conv2d, in_channels, out_channels, 1, stride=stride, bias=not norm)
    he_init(layer, generator)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels)) if norm and post_norm else nn.Sequential(layer)


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, new_channels, stride):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, X):
        return F.pad(X[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.new_channels))


def make_shortcut(kind, in_channels, out_channels, stride, use_1x1conv=False, norm=True, post_norm=True):
    """The shortcut of a block. `kind` is "A" (pad where the shape changes), "B" (project where it changes),
    "C" (project always), None (no shortcut) or ... (what the seed's `use_1x1conv` says)."""
    if kind is not ... and kind not in SHORTCUTS:
        raise ValueError(f'shortcut must be "A", "B", "C" or None, got {kind!r}')
    if use_1x1conv and kind in ("A", None):
        raise ValueError(f'use_1x1conv=True asks for a projection: shortcut must be "B", "C" or left out, got {kind!r}')
    changes = stride != 1 or in_channels != out_channels
    if kind is None:
        return None
    if use_1x1conv or kind == "C" or (kind == "B" and changes):
        return projection(in_channels, out_channels, stride, norm, post_norm)
    if not changes:
        return nn.Identity()
    if kind is ...:
        raise ValueError(f"use_1x1conv must be True where the shape changes: {in_channels} channels in, "
                         f"{out_channels} out, strides={stride}; or shortcut must be \"A\", \"B\" or \"C\"")
    if in_channels > out_channels:
        raise ValueError(f'shortcut must be "B" or "C" where channels shrink ({in_channels} to {out_channels}): '
                         f'zeros can only be added, got {kind!r}')
    return PadShortcut(out_channels - in_channels, stride)


class Residual(nn.Module):
    """Basic residual block, He et al. 2015 Fig. 5 left: (N, C_in, H, W) -> (N, C_out, H/strides, W/strides).
    Raises ValueError where input and output cannot be added."""

    expansion = 1

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut=..., norm=True, zero_init=False):
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
        Y = self.bn2(self.conv2(Y))            # no ReLU yet: the sum comes first
        if self.downsample is None:            # a plain block
            return F.relu(Y)
        return F.relu(Y + self.downsample(X))


class Bottleneck(nn.Module):
    """Bottleneck block, He et al. 2015 Fig. 5 right: (N, C_in, H, W) -> (N, 4 num_channels, H/strides, W/strides).
    The 3x3 convolution has the stride, as in torchvision ("v1.5")."""

    expansion = 4

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut=..., norm=True, zero_init=False):
        super().__init__()
        out_channels = self.expansion * num_channels
        self.conv1 = conv(input_channels, num_channels, 1, bias=not norm)
        self.bn1 = batch_norm(num_channels, norm)
        self.conv2 = conv(num_channels, num_channels, 3, strides, bias=not norm)
        self.bn2 = batch_norm(num_channels, norm)
        self.conv3 = conv(num_channels, out_channels, 1, bias=not norm)
        self.bn3 = batch_norm(out_channels, norm)
        self.downsample = make_shortcut(shortcut, input_channels, out_channels, strides, use_1x1conv, norm)
        if zero_init:
            nn.init.zeros_(self.bn3.weight if norm else self.conv3.weight)

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = F.relu(self.bn2(self.conv2(Y)))
        Y = self.bn3(self.conv3(Y))
        if self.downsample is None:
            return F.relu(Y)
        return F.relu(Y + self.downsample(X))


class PreActResidual(nn.Module):
    """Pre-activation block, He et al. 2016 Fig. 1b: norm and ReLU come before each convolution, nothing after the sum.
    A projection takes the activated input, as in the authors' code. Shapes as `Residual`."""

    expansion = 1
    kernel_sizes = (3, 3)

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut=..., norm=True, zero_init=False):
        super().__init__()
        out_channels = self.expansion * num_channels
        sizes = [input_channels] + [num_channels] * (len(self.kernel_sizes) - 1) + [out_channels]
        strided = self.kernel_sizes.index(3)
        for i, kernel_size in enumerate(self.kernel_sizes):
            setattr(self, f"bn{i + 1}", batch_norm(sizes[i], norm))
            setattr(self, f"conv{i + 1}", last := conv(sizes[i], sizes[i + 1], kernel_size,
                                                       strides if i == strided else 1, bias=not norm))
        self.downsample = make_shortcut(shortcut, input_channels, out_channels, strides, use_1x1conv, norm,
                                        post_norm=False)
        if zero_init:
            nn.init.zeros_(last.weight)

    def forward(self, X):
        Z = F.relu(self.bn1(X))
        Y = self.conv2(F.relu(self.bn2(self.conv1(Z))))
        if len(self.kernel_sizes) == 3:
            Y = self.conv3(F.relu(self.bn3(Y)))
        if self.downsample is None:
            return Y
        return Y + self.downsample(Z if isinstance(self.downsample, nn.Sequential) else X)


class PreActBottleneck(PreActResidual):
    """Pre-activation bottleneck of the 164- and 1001-layer nets: 1x1, 3x3, 1x1. Shapes as `Bottleneck`."""

    expansion = 4
    kernel_sizes = (1, 3, 1)


def resnet_block(input_channels, num_channels, num_residuals, first_block=False):
    """A stage as a list of `Residual`s; unless it is the first stage, its first block halves the map."""
    return [Residual(input_channels, num_channels, use_1x1conv=True, strides=2) if i == 0 and not first_block
            else Residual(num_channels, num_channels) for i in range(num_residuals)]


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear head: (N, in_channels, H, W) -> (N, num_classes).
    `stem` is "imagenet" (7x7 stride 2 and max-pooling) or "small" (3x3); stage i has width `widths[i]`."""

    def __init__(self, block, counts, widths, stem, *, shortcut="B", norm=True, zero_init=False,
                 in_channels=3, num_classes=1000):
        super().__init__()
        self.preact = issubclass(block, PreActResidual)
        imagenet = stem == "imagenet"
        self.conv1 = conv(in_channels, widths[0], 7 if imagenet else 3, 2 if imagenet else 1, bias=not norm)
        self.bn1 = batch_norm(widths[0], norm and not self.preact)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        self.num_stages, channels = len(counts), widths[0]
        for i, (count, width) in enumerate(zip(counts, widths, strict=True)):
            blocks = []
            for j in range(count):
                blocks.append(block(channels, width, strides=2 if i and not j else 1,
                                    shortcut=shortcut, norm=norm, zero_init=zero_init))
                channels = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.bn_last = batch_norm(channels, norm and self.preact)
        self.fc = nn.Linear(channels, num_classes)

    @property
    def stages(self):
        """The stages, a list of `Sequential`s of blocks."""
        return [getattr(self, f"layer{i + 1}") for i in range(self.num_stages)]

    def forward(self, X):
        if X.dim() != 4 or X.shape[1] != self.conv1.in_channels:
            raise ValueError(f"X must have shape (N, {self.conv1.in_channels}, H, W), got {tuple(X.shape)}")
        X = self.conv1(X)
        X = self.maxpool(X if self.preact else F.relu(self.bn1(X)))
        for stage in self.stages:
            X = stage(X)
        if self.preact:
            X = F.relu(self.bn_last(X))
        return self.fc(F.adaptive_avg_pool2d(X, 1).flatten(1))


def small_resnet(depth, shortcut="A", norm=True, block=Residual, width=16, in_channels=1, num_classes=10,
                 zero_init=False):
    """The nets of He et al. 2015 section 4.2: three stages of n blocks, widths (1, 2, 4) x `width`, depth 6n+2
    (9n+2 for bottlenecks). `shortcut` None gives the plain twin: same seed, same weights. Raises ValueError."""
    convs = 9 if block.expansion == 4 else 6
    if not isinstance(depth, int) or depth <= convs or depth > 1202 or (depth - 2) % convs:
        raise ValueError(f"depth must be {convs}n+2 ({convs + 2}, {2 * convs + 2}, {3 * convs + 2}, ... "
                         f"up to 1202) for {block.__name__}, got {depth!r}")
    for name, value in {"width": width, "in_channels": in_channels, "num_classes": num_classes}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    count = (depth - 2) // convs
    return ResNet(block, [count] * 3, [width, 2 * width, 4 * width], "small", shortcut=shortcut, norm=norm,
                  zero_init=zero_init, in_channels=in_channels, num_classes=num_classes)


COUNTS = {18: (Residual, (2, 2, 2, 2)), 34: (Residual, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3)),
          101: (Bottleneck, (3, 4, 23, 3)), 152: (Bottleneck, (3, 8, 36, 3))}


def _resnet(depth, in_channels, num_classes, zero_init=False):
    block, counts = COUNTS[depth]
    return ResNet(block, counts, (64, 128, 256, 512), "imagenet", in_channels=in_channels,
                  num_classes=num_classes, zero_init=zero_init)


def resnet18(in_channels=3, num_classes=1000, *, zero_init=False):
    """ResNet-18: He et al. 2015 Table 1, torchvision's layout."""
    return _resnet(18, in_channels, num_classes, zero_init)


def resnet34(in_channels=3, num_classes=1000, *, zero_init=False):
    """ResNet-34: He et al. 2015 Table 1, torchvision's layout."""
    return _resnet(34, in_channels, num_classes, zero_init)


def resnet50(in_channels=3, num_classes=1000, *, zero_init=False):
    """ResNet-50: He et al. 2015 Table 1, torchvision's layout."""
    return _resnet(50, in_channels, num_classes, zero_init)


def resnet101(in_channels=3, num_classes=1000, *, zero_init=False):
    """ResNet-101: He et al. 2015 Table 1, torchvision's layout."""
    return _resnet(101, in_channels, num_classes, zero_init)


def resnet152(in_channels=3, num_classes=1000, *, zero_init=False):
    """ResNet-152: He et al. 2015 Table 1, torchvision's layout."""
    return _resnet(152, in_channels, num_classes, zero_init)

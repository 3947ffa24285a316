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

import hashlib
from numbers import Integral
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init


def check_whole(**arguments):
    """ValueError for the first argument that is not a whole number of at least 1."""
    for name, value in arguments.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def conv(input_channels, num_channels, kernel_size, strides=1, bias=False, generator=None):
    """A convolution that keeps the map's size, or divides it by `strides`: He et al.'s normal weights (fan-out), drawn
    on the CPU, so that a seed gives every device the same."""
    check_whole(input_channels=input_channels, num_channels=num_channels, strides=strides)
    device = torch.get_default_device()
    layer = skip_init(nn.Conv2d, input_channels, num_channels, kernel_size, stride=strides, padding=kernel_size // 2,
                      bias=bias, device="meta" if device.type == "meta" else "cpu")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer.to(device)


def batch_norm(channels, norm=True):
    """Batch norm, or the identity in a net without norm."""
    return nn.BatchNorm2d(channels) if norm else nn.Identity()


class PadShortcut(nn.Module):
    """Option A: every `strides`-th pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, new_channels, strides):
        super().__init__()
        self.new_channels, self.strides = new_channels, strides

    def forward(self, X):
        return F.pad(X[:, :, ::self.strides, ::self.strides], (0, 0, 0, 0, 0, self.new_channels))


def projection(input_channels, num_channels, strides=1, norm=True):
    """A 1x1 convolution and its norm. Its weights come from a generator of their own, so that one seed gives all
    other weights the same values whatever the shortcut."""
    with torch.random.fork_rng(devices=[]):
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu")))
    layer = conv(input_channels, num_channels, 1, strides, generator=generator)
    return nn.Sequential(layer, nn.BatchNorm2d(num_channels)) if norm else nn.Sequential(layer)


def make_shortcut(kind, input_channels, num_channels, strides=1, use_1x1conv=False, norm=True):
    """A block's shortcut. `kind`: "identity" (a projection if `use_1x1conv`), "A" (zeros for new channels), "B"
    (projection where the shape changes), "C" (projection always) or None (none). Raises ValueError."""
    if kind not in ("identity", "A", "B", "C", None):
        raise ValueError(f'shortcut must be "identity", "A", "B", "C" or None, got {kind!r}')
    if use_1x1conv and kind in ("A", None):
        raise ValueError(f'shortcut must be "identity", "B" or "C" with use_1x1conv=True, got {kind!r}')
    change = f"{input_channels} channels in, {num_channels} out, strides={strides}"
    same = input_channels == num_channels and strides == 1
    if kind is None:
        return None
    if use_1x1conv or kind == "C" or (kind == "B" and not same):
        return projection(input_channels, num_channels, strides, norm)
    if same:
        return nn.Identity()
    if kind == "identity":
        raise ValueError(f'use_1x1conv must be True, or shortcut "A", "B" or "C", where input and output cannot be '
                         f"added: {change}, got use_1x1conv=False")
    if input_channels > num_channels:
        raise ValueError(f'shortcut must be "B" or "C" where channels are dropped: {change}, got {kind!r}')
    return PadShortcut(num_channels - input_channels, strides)


class Residual(nn.Module):
    """Basic residual block, He et al. 2015 Fig. 5 left: (N, C_in, H, W) -> (N, C_out, H/strides, W/strides).
    Raises ValueError where input and output cannot be added."""

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
        Y = self.bn2(self.conv2(Y))            # no ReLU yet: the sum comes first
        if self.downsample is None:            # a plain block
            return F.relu(Y)
        return F.relu(Y + self.downsample(X))


class Bottleneck(nn.Module):
    """Bottleneck block, He et al. 2015 Fig. 5 right: (N, C_in, H, W) -> (N, 4 num_channels, H/strides, W/strides).
    The 3x3 convolution has the stride, as in torchvision ("v1.5")."""

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


class PreActResidual(nn.Module):
    """Pre-activation block, He et al. 2016 Fig. 1b: norm and ReLU before each convolution, nothing after the sum.
    A projection takes the activated input, as in the authors' code. Shapes as `Residual`."""

    expansion = 1

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut="identity", norm=True, zero_init=False):
        super().__init__()
        self.bn1 = batch_norm(input_channels, norm)
        self.conv1 = conv(input_channels, num_channels, 3, strides, bias=not norm)
        self.bn2 = batch_norm(num_channels, norm)
        self.conv2 = conv(num_channels, num_channels, 3, bias=not norm)
        self.downsample = make_shortcut(shortcut, input_channels, num_channels, strides, use_1x1conv, norm=False)
        if zero_init:
            nn.init.zeros_(self.conv2.weight)

    def branch(self, Z):
        """The residual branch after its first norm and ReLU."""
        return self.conv2(F.relu(self.bn2(self.conv1(Z))))

    def forward(self, X):
        Z = F.relu(self.bn1(X))
        if self.downsample is None:
            return self.branch(Z)
        projects = isinstance(self.downsample, nn.Sequential)
        return self.branch(Z) + self.downsample(Z if projects else X)


class PreActBottleneck(PreActResidual):
    """Pre-activation bottleneck of the 164- and 1001-layer nets: 1x1, 3x3, 1x1. Shapes as `Bottleneck`."""

    expansion = 4

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1, *,
                 shortcut="identity", norm=True, zero_init=False):
        nn.Module.__init__(self)
        self.bn1 = batch_norm(input_channels, norm)
        self.conv1 = conv(input_channels, num_channels, 1, bias=not norm)
        self.bn2 = batch_norm(num_channels, norm)
        self.conv2 = conv(num_channels, num_channels, 3, strides, bias=not norm)
        self.bn3 = batch_norm(num_channels, norm)
        self.conv3 = conv(num_channels, 4 * num_channels, 1, bias=not norm)
        self.downsample = make_shortcut(shortcut, input_channels, 4 * num_channels, strides, use_1x1conv, norm=False)
        if zero_init:
            nn.init.zeros_(self.conv3.weight)

    def branch(self, Z):
        return self.conv3(F.relu(self.bn3(super().branch(Z))))


def resnet_block(input_channels, num_channels, num_residuals, first_block=False):
    """A stage as a list of `Residual`s; unless it is the first stage, its first block halves the map."""
    return [Residual(input_channels, num_channels, use_1x1conv=True, strides=2) if i == 0 and not first_block
            else Residual(num_channels, num_channels) for i in range(num_residuals)]


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear head: (N, in_channels, H, W) -> (N, num_classes).
    `stem` is "imagenet" (7x7 stride 2 and max-pooling) or "small" (3x3); stage i has `counts[i]` blocks of width
    `widths[i]`."""

    def __init__(self, block, counts, widths, stem, in_channels, num_classes, shortcut="B", norm=True,
                 zero_init=False):
        super().__init__()
        check_whole(in_channels=in_channels, num_classes=num_classes)
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
        X = F.relu(self.bn_last(X)) if self.preact else X
        return self.fc(F.adaptive_avg_pool2d(X, 1).flatten(1))


def small_resnet(depth, shortcut="A", norm=True, block=Residual, width=16, in_channels=1, num_classes=10,
                 zero_init=False):
    """The nets of He et al. 2015 section 4.2: three stages of n blocks, widths (1, 2, 4) x `width`, depth 6n+2
    (9n+2 for bottlenecks). `shortcut` None gives the plain twin: same seed, same weights. Raises ValueError."""
    convs = 9 if block.expansion == 4 else 6
    if not isinstance(depth, Integral) or not convs < depth <= 1202 or (depth - 2) % convs:
        raise ValueError(f"depth must be {convs}n+2 ({convs + 2}, {2 * convs + 2}, {3 * convs + 2}, ... "
                         f"up to 1202) for {block.__name__}, got {depth!r}")
    if shortcut not in ("A", "B", "C", None):
        raise ValueError(f'shortcut must be "A", "B", "C" or None, got {shortcut!r}')
    check_whole(width=width)
    return ResNet(block, [(depth - 2) // convs] * 3, [width, 2 * width, 4 * width], "small", in_channels, num_classes,
                  shortcut, norm, zero_init)


COUNTS = {18: (Residual, (2, 2, 2, 2)), 34: (Residual, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3)),
          101: (Bottleneck, (3, 4, 23, 3)), 152: (Bottleneck, (3, 8, 36, 3))}


def imagenet_resnet(depth, in_channels=3, num_classes=1000, **options):
    """A net of He et al. 2015 Table 1 in torchvision's layout; `options` are `shortcut`, `norm` and `zero_init`."""
    block, counts = COUNTS[depth]
    return ResNet(block, counts, (64, 128, 256, 512), "imagenet", in_channels, num_classes, **options)


def resnet18(in_channels=3, num_classes=1000, **options):
    """ResNet-18, see `imagenet_resnet`."""
    return imagenet_resnet(18, in_channels, num_classes, **options)


def resnet34(in_channels=3, num_classes=1000, **options):
    """ResNet-34, see `imagenet_resnet`."""
    return imagenet_resnet(34, in_channels, num_classes, **options)


def resnet50(in_channels=3, num_classes=1000, **options):
    """ResNet-50, see `imagenet_resnet`."""
    return imagenet_resnet(50, in_channels, num_classes, **options)


def resnet101(in_channels=3, num_classes=1000, **options):
    """ResNet-101, see `imagenet_resnet`."""
    return imagenet_resnet(101, in_channels, num_classes, **options)


def resnet152(in_channels=3, num_classes=1000, **options):
    """ResNet-152, see `imagenet_resnet`."""
    return imagenet_resnet(152, in_channels, num_classes, **options)


def published_state(depth):
    """torchvision's published V1 weights, from torch's cache or downloaded into it: verified by the hash in the file's
    name. Raises ValueError for a damaged file, ConnectionError where there is none and it cannot be fetched."""
    from torchvision.models import get_model_weights
    weights = get_model_weights(f"resnet{depth}").IMAGENET1K_V1
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[1])
    expected = path.stem.rsplit("-", 1)[1]
    if path.exists() and not (found := hashlib.sha256(path.read_bytes()).hexdigest()).startswith(expected):
        raise ValueError(f"{path} is damaged: its SHA-256 must begin with {expected}, got {found}; remove the file")
    try:
        return weights.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"the published weights of ResNet-{depth} could not be downloaded from {weights.url} "
                              f"({error}): use pretrained=False, or put the file at {path}") from error


def get_resnet(depth, pretrained=False):
    """ResNet-18, 34, 50, 101 or 152 in eval mode, with torchvision's IMAGENET1K_V1 weights if `pretrained`. Raises
    ValueError for another depth or a damaged file, ConnectionError offline."""
    if depth not in COUNTS:
        raise ValueError(f"depth must be one of {', '.join(map(str, COUNTS))}, got {depth!r}")
    net = imagenet_resnet(depth)
    if pretrained:
        net.load_state_dict(published_state(depth))
    return net.eval()

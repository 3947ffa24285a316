"""Residual networks of He et al. 2015 (arXiv:1512.03385) and 2016 (arXiv:1603.05027).

`small_resnet`, the 6n+2 nets of section 4.2, with CIFAR's 3 input channels and 10 classes:

    depth   blocks a stage   parameters (shortcut "A")   Table 6
       20                3                     269,722    0.27 M
       32                5                     464,154    0.46 M
       44                7                     658,586    0.66 M
       56                9                     853,018    0.85 M
      110               18                   1,727,962    1.7  M
     1202              200                  19,421,274   19.4  M

`resnet18` ... `resnet152`, the ImageNet nets of Table 1, are laid out as torchvision's: same names, same operations in
the same order; the children are what is computed, one after another (a flatten before the last).
"""

from numbers import Integral

from torch import nn

from .blocks import Bottleneck, PreActivation, Residual, batch_norm, conv
from .engine.checks import check_channels
from .engine.settings import check_counts
from .engine.sources import published_state, published_weights


def resnet_block(input_channels, num_channels, num_residuals, first_block=False):
    """A stage as a list of `Residual`s; unless it is the first stage, its first block halves the map."""
    blocks = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blocks.append(Residual(input_channels, num_channels, use_1x1conv=True, strides=2))
        else:
            blocks.append(Residual(num_channels, num_channels))
    return blocks


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear head: (N, in_channels, H, W) -> (N, num_classes).
    `stem` is "imagenet" (7x7 stride 2 and max-pooling) or "small" (3x3); stage i has `counts[i]` blocks of width
    `widths[i]`."""

    def __init__(self, block, counts, widths, stem, in_channels, num_classes, shortcut="B", norm=True,
                 zero_init=False):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes)
        self.preact, imagenet, channels = issubclass(block, PreActivation), stem == "imagenet", widths[0]
        self.conv1 = conv(in_channels, channels, 7 if imagenet else 3, 2 if imagenet else 1, bias=not norm)
        if not self.preact:
            self.bn1, self.relu = batch_norm(channels, norm), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        for i, (count, width) in enumerate(zip(counts, widths, strict=True)):
            blocks = []
            for j in range(count):
                blocks.append(block(channels, width, strides=2 if i and not j else 1,
                                    shortcut=shortcut, norm=norm, zero_init=zero_init))
                channels = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        if self.preact:
            self.bn_last, self.relu = batch_norm(channels, norm), nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.steps = [name for name, _ in self.named_children()]
        self.fc = nn.Linear(channels, num_classes)

    @property
    def stages(self):
        """The stages, a list of `Sequential`s of blocks."""
        return [getattr(self, name) for name in self.steps if name.startswith("layer")]

    def forward(self, X):
        check_channels(X, self.conv1)
        for name in self.steps:
            X = getattr(self, name)(X)
        return self.fc(X.flatten(1))                      # (N, C, 1, 1) -> (N, C)


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
    check_counts(width=width)
    return ResNet(block, [(depth - 2) // convs] * 3, [width, 2 * width, 4 * width], "small", in_channels, num_classes,
                  shortcut, norm, zero_init)


COUNTS = {18: (Residual, (2, 2, 2, 2)), 34: (Residual, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3)),
          101: (Bottleneck, (3, 4, 23, 3)), 152: (Bottleneck, (3, 8, 36, 3))}


def imagenet_resnet(depth):
    """The function that builds the net of He et al. 2015 Table 1 with `depth` layers."""
    def build(in_channels=3, num_classes=1000, **options):
        return ResNet(*COUNTS[depth], (64, 128, 256, 512), "imagenet", in_channels, num_classes, **options)

    build.__name__ = build.__qualname__ = f"resnet{depth}"
    build.__doc__ = f"ResNet-{depth} in torchvision's layout; `options` are `shortcut`, `norm` and `zero_init`."
    return build


resnet18, resnet34, resnet50, resnet101, resnet152 = map(imagenet_resnet, COUNTS)


def get_resnet(depth, pretrained=False, weights="V1"):
    """ResNet-18, 34, 50, 101 or 152 in eval mode. `pretrained=True` gives it torchvision's ImageNet weights of the
    generation `weights`, "V1" or (from 50 layers on) "V2", their `preprocess` (picture -> input) and `classes` (names).
    Raises ValueError for another depth or a damaged file, ConnectionError offline."""
    if depth not in COUNTS or not isinstance(depth, Integral):
        raise ValueError(f"depth must be one of {', '.join(map(str, COUNTS))}, got {depth!r}")
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained must be True or False, got {pretrained!r}")
    net, published = imagenet_resnet(depth)().eval(), published_weights(f"resnet{depth}", weights)
    if pretrained:
        net.load_state_dict(published_state(published.url))
        vars(net)["preprocess"] = published.transforms()           # beside the net's children, not among them
        net.classes = published.meta["categories"]
    return net

"""Chapter 07: what else trains 56 layers; 10,000 images at 14x14, the last 1,000 held out, 5 epochs. Each kind is tried
on seed 0 at three rates or more, until the best on the held-out images lies between others; other seeds are reported at
that rate. Plain, delta with matched norm and residual stand in `suspects`; here they have four times the steps, at the
rates found there. A RepVGG-style net is folded in the end, and both nets train on for two epochs."""

import copy
import math
import sys

import torch
import torch.nn.functional as F
from _kinds import Kind, Scale, best_rate, delta_, plan, race, trained
from common import PRECISION, few, images, recorded
from suspects import KINDS as SUSPECTS
from torch import nn

import d2l_utils as d2l
from d2l_utils.data import normalise
from d2l_utils.training import evaluate

LONG, AGAIN, LIKENESS = 20, 2, 0.9
LATER = ("plain", "delta, matched norm", "residual")


def skip_init_(net, X, y):
    """SkipInit (De and Smith 2020), in these nets also ReZero (Bachlechner et al. 2020): each residual branch times a
    learned number that starts at 0."""
    for stage in net.stages:
        for block in stage:
            block.bn2 = Scale(0.0, learned=True)


class FixupBlock(d2l.Residual):
    """Fixup (Zhang et al. 2019, arXiv:1901.09321): a number is added before and after each convolution and the branch
    is multiplied by one; the second convolution starts at zero, the first at He's times (number of blocks)^(-1/2)."""

    def __init__(self, *sizes, norm=False, **options):
        super().__init__(*sizes, norm=norm, **options)
        self.conv1.bias = self.conv2.bias = None
        self.shifts, self.scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(1))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, X):
        Y = F.relu(self.conv1(X + self.shifts[0]) + self.shifts[1])
        Y = self.scale * self.conv2(Y + self.shifts[2]) + self.shifts[3]
        return F.relu(Y + self.downsample(X))


@torch.no_grad()
def fixup_(net, X, y):
    blocks = [block for stage in net.stages for block in stage]
    for block in blocks:
        block.conv1.weight.mul_(len(blocks) ** -0.5)
    nn.init.zeros_(net.fc.weight)


def tailored_slope(layers, likeness=LIKENESS):
    """The slope of a leaky ReLU, so that two pictures without likeness have this one after so many layers (Zhang et al.
    2022, arXiv:2203.08120): by bisection, since a smaller slope makes pictures more alike."""
    def last(slope, c=0.0):
        for _ in range(layers):
            arc = math.sqrt(max(1 - c * c, 0)) - c * math.acos(min(c, 1))
            c += (1 - slope) ** 2 / (math.pi * (1 + slope ** 2)) * arc
        return c

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if last(middle) > likeness else (low, middle)
    return (low + high) / 2


class TailoredBlock(d2l.Residual):
    """Two convolutions, each followed by the tailored leaky ReLU, which keeps the mean square."""

    slope = tailored_slope(54)

    def forward(self, X):
        for layer in (self.conv1, self.conv2):
            X = math.sqrt(2 / (1 + self.slope ** 2)) * F.leaky_relu(layer(X), self.slope)
        return X


@torch.no_grad()
def delta_orthogonal_(net, X, y):
    """Kernels of zeros with a random orthogonal matrix in the middle (Xiao et al. 2018, arXiv:1806.05393), times
    sqrt(channels out / in), which keeps the mean square where channels double."""
    for stage in net.stages:
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
                nn.init.orthogonal_(middle := torch.empty(layer.weight.shape[:2]))
                layer.weight[:, :, 1, 1] = middle * math.sqrt(len(middle) / middle.shape[1])


@torch.no_grad()
def unit_variance_(net, X, y):
    """Divide each kernel, layer by layer, by the deviation of what it gives (Mishkin and Matas 2015,
    arXiv:1511.06422)."""
    def rescale(layer, inputs, output):
        deviation = output.std()
        layer.weight.div_(deviation)
        return output / deviation

    hooks = [module.register_forward_hook(rescale) for module in net.modules() if isinstance(module, nn.Conv2d)]
    net(normalise(X))
    for hook in hooks:
        hook.remove()


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution and, where shapes allow, the identity, each with its norm, added up (RepVGG, Ding et
    al. 2021, arXiv:2101.03697)."""

    def __init__(self, layer):
        super().__init__()
        channels, same = layer.out_channels, (layer.in_channels, layer.stride) == (layer.out_channels, (1, 1))
        self.conv3 = copy.deepcopy(layer)
        self.conv1 = nn.Conv2d(layer.in_channels, channels, 1, layer.stride, bias=False)
        self.conv3.bias = None
        self.bn3, self.bn1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.bn0 = nn.BatchNorm2d(channels) if same else None

    def forward(self, X):
        Y = self.bn3(self.conv3(X)) + self.bn1(self.conv1(X))
        return Y if self.bn0 is None else Y + self.bn0(X)

    @torch.no_grad()
    def folded(self):
        """The one 3x3 convolution, with bias, that gives the same in eval mode."""
        one = copy.deepcopy(self.conv3)
        kernels = [(self.bn3, self.conv3.weight), (self.bn1, F.pad(self.conv1.weight, (1, 1, 1, 1)))]
        if self.bn0 is not None:
            kernels.append((self.bn0, nn.init.dirac_(torch.empty_like(one.weight))))
        scales = [norm.weight / (norm.running_var + norm.eps).sqrt() for norm, _ in kernels]
        one.weight = nn.Parameter(sum(scale[:, None, None, None] * kernel
                                      for scale, (_, kernel) in zip(scales, kernels, strict=True)))
        one.bias = nn.Parameter(sum(norm.bias - scale * norm.running_mean
                                    for scale, (norm, _) in zip(scales, kernels, strict=True)))
        return one


def rep_vgg_(net, X, y):
    """Every convolution becomes a `RepConv`."""
    for parent in [net, *(block for stage in net.stages for block in stage)]:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, RepConv(child))


def folded(net):
    """A copy of the net with one convolution, and no norm, for each `RepConv`."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepConv):
                setattr(parent, name, child.folded())
    return net


KINDS = {
    "no norm: SkipInit": Kind("A", skip_init_, norm=False, rates=(0.03, 0.1, 0.3)),
    "no norm: Fixup": Kind("A", fixup_, norm=False, block=FixupBlock),
    "no norm: delta": Kind(None, lambda net, X, y: delta_(net, 0.1), norm=False, rates=(0.003, 0.01, 0.03)),
    "no norm: delta-orthogonal": Kind(None, delta_orthogonal_, norm=False, block=TailoredBlock,
                                      rates=(0.001, 0.003, 0.01)),
    "no norm: unit variance": Kind(None, unit_variance_, norm=False, rates=(0.003, 0.01, 0.03)),
    "RepVGG": Kind(None, rep_vgg_, norm=False),
}
SEEDS = dict.fromkeys(KINDS, (1, 2, 3)) | {"no norm: SkipInit": (1, 2, 3, 4, 5), "RepVGG": (1, 2, 3, 4, 5)}


def fold(net, data, rate, seed, precision):
    """Rows: how far the folded net is from the trained one, and what both are after two more epochs at a tenth of the
    rate. `equal`: share of test pictures with the same answer; `difference`: the largest one of outputs, in float64."""
    one, X = folded(net), data.X_test
    with torch.no_grad():
        equal = torch.cat([net.eval()(normalise(part)).argmax(1) == one.eval()(normalise(part)).argmax(1)
                           for part in X.split(500)]).float().mean().item()
        double = normalise(X[:200]).double()
        exact = copy.deepcopy(net).double()
        difference = (exact(double) - folded(exact)(double)).abs().max().item()
    rows = []
    for name, tried in (("trained", net), ("folded", one)):
        error = evaluate(tried, X, data.y_test, precision="float32")[1]
        rows.append({"net": name, "test_error": error, "equal": equal, "difference": difference})
        try:
            history = d2l.fit(tried.train(), data, AGAIN, lr=rate / 10, seed=seed + 100, progress=False, test=True,
                              validation=len(data.X_train) // 10, precision=precision)
            rows += [{"net": f"{name}, on"} | row for row in history.to_dict("records")]
        except FloatingPointError:
            rows.append({"net": f"{name}, on", "test_error": None})
    return rows


def run(kind, rate, epochs, precision, seed, n=None):
    """One net's measurements and epochs, on the first `n` images if that is given."""
    data = few(images(size=14), n)
    net, rows = trained((SUSPECTS | KINDS)[kind], rate, seed, epochs, data, precision=precision)
    return rows + (fold(net, data, rate, seed, precision) if kind == "RepVGG" and seed else [])


def configs(table):
    """The race over KINDS, and three suspects with four times the steps."""
    found = plan(table, KINDS, SEEDS)
    rate = {kind: best_rate("suspects", kind, SUSPECTS[kind].rates) for kind in LATER}
    return found + [{"kind": kind, "rate": rate[kind], "epochs": LONG, "precision": PRECISION, "seed": seed}
                    for kind in LATER for seed in (1, 2, 3) if rate[kind] is not None]


CONFIGS = configs(recorded("without_shortcuts"))

if __name__ == "__main__":
    if best_rate("suspects", "plain", SUSPECTS["plain"].rates) is None and "--smoke" not in sys.argv:
        sys.exit("Rates come from the record `suspects`: make that first.")
    smoke = [{"kind": "RepVGG", "rate": 0.01, "epochs": 1, "precision": PRECISION, "seed": 1}]
    race("without_shortcuts", configs, run, smoke, {"full": False, "size": 14}, {"n": 300})

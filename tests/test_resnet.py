"""The networks: the paper's numbers, and torchvision's layout in every use that is made of it."""

import copy
import functools
import inspect
import pickle
import re
import warnings

import pytest
import torch
from torch import fx, nn
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import d2l_utils as d2l
from d2l_utils import resnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)          # torch 2.11 uses what it has deprecated itself
    from torch.fx.experimental.optimization import fuse

DEPTHS = (18, 34, 50, 101, 152)
BLOCKS = (d2l.Residual, d2l.Bottleneck, d2l.PreActResidual, d2l.PreActBottleneck)


def multiply_adds(net, size=224):
    """Multiply-adds of one 3-channel picture; the net is on the meta device, where nothing is computed."""
    with FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


@functools.cache
def on_meta(build, **options):
    with torch.device("meta"):
        return build(**options)


def ours(depth):
    return getattr(d2l, f"resnet{depth}")


def reference(depth, in_channels, num_classes):
    """torchvision's net with random weights, and random batch-norm parameters so that no two layers are alike."""
    net = getattr(models, f"resnet{depth}")(num_classes=num_classes)
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return net


# --- parity with torchvision ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("depth", "in_channels", "num_classes", "height", "width"), [(18, 1, 7, 33, 70),
                                                                                     (50, 3, 10, 64, 64)])
def test_same_outputs_and_gradients_as_torchvision(depth, in_channels, num_classes, height, width):
    torch.manual_seed(depth)
    theirs, net = reference(depth, in_channels, num_classes), ours(depth)(in_channels, num_classes)
    net.load_state_dict(theirs.state_dict(), strict=True)
    assert d2l.parameter_count(net) == d2l.parameter_count(theirs)
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    X = torch.randn(2, in_channels, height, width)
    weight = torch.randn(2, num_classes)
    for training in (False, True):
        results = []
        for n in (theirs.train(training), net.train(training)):
            x = X.clone().requires_grad_()
            y = n(x)
            results.append((y.detach(), torch.autograd.grad((y * weight).sum(), x)[0]))
        for expected, found in zip(*results, strict=True):
            assert torch.isfinite(expected).all()
            assert expected.abs().max() > 0
            assert (found - expected).norm() <= 1e-5 * expected.norm()
    for expected, found in zip(theirs.buffers(), net.buffers(), strict=True):       # running statistics moved alike
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_parameters_and_multiply_adds_equal_torchvisions(depth):
    theirs, net = on_meta(getattr(models, f"resnet{depth}")), on_meta(ours(depth))
    meta = models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1.meta
    assert d2l.parameter_count(net) == d2l.parameter_count(theirs) == meta["num_params"]
    for size in (96, 224):
        assert multiply_adds(net, size) == multiply_adds(theirs, size)
    assert multiply_adds(net) / 1e9 == pytest.approx(meta["_ops"], abs=5e-4)


@pytest.mark.parametrize(("depth", "paper"), [(18, 1.8e9), (34, 3.6e9), (50, 3.8e9), (101, 7.6e9), (152, 11.3e9)])
def test_multiply_adds_of_table_1(depth, paper):
    with torch.device("meta"):
        net = ours(depth)()
    for block in net.modules():
        if isinstance(block, d2l.Bottleneck):        # the paper's stride is in the first 1x1, torchvision's in the 3x3
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    assert multiply_adds(net) == pytest.approx(paper, rel=0.02)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("size", "maps"), [(96, [24, 12, 6, 3]), (224, [56, 28, 14, 7])])
def test_map_sizes_of_table_1(depth, size, maps):
    net = on_meta(ours(depth))
    X = net.maxpool(net.conv1(torch.empty(1, 3, size, size, device="meta")))
    for stage, side, width in zip(net.stages, maps, (64, 128, 256, 512), strict=True):
        X = stage(X)
        assert X.shape == (1, width * stage[0].expansion, side, side)


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_function_has_its_name_and_arguments(depth):
    build = ours(depth)
    assert pickle.loads(pickle.dumps(build)) is build
    assert (build.__name__, f"ResNet-{depth} " in build.__doc__) == (f"resnet{depth}", True)
    assert list(inspect.signature(build).parameters) == ["in_channels", "num_classes", "options"]


def test_textbook_resnet18_in_torchvisions_layout():
    assert d2l.parameter_count(on_meta(d2l.resnet18, in_channels=1, num_classes=10)) == 11_175_370


# --- torchvision's layout ---------------------------------------------------------------------------------------------

def alike(depth):
    """torchvision's net and ours with its weights, in eval mode, and two pictures."""
    torch.manual_seed(depth)
    theirs = reference(depth, 3, 10).eval()
    net = ours(depth)(num_classes=10).eval()
    net.load_state_dict(theirs.state_dict())
    return theirs, net, torch.randn(2, 3, 48, 48)


@pytest.mark.parametrize("depth", DEPTHS)
def test_children_and_steps_have_torchvisions_names_in_torchvisions_order(depth):
    theirs, net = on_meta(getattr(models, f"resnet{depth}")), on_meta(ours(depth))
    assert [name for name, _ in net.named_children()] == [name for name, _ in theirs.named_children()]
    expected, found = (get_graph_node_names(n.eval())[1] for n in (theirs, net))
    assert [name for name in found if name in set(expected)] == expected
    extra = set(found) - set(expected)                           # torchvision has None where we have the identity
    assert {name.rsplit(".", 1)[-1] for name in extra} == {"downsample"}


@pytest.mark.parametrize("depth", [18, 50])
def test_head_cut_off_and_features_taken_out_as_with_torchvisions(depth):
    theirs, net, X = alike(depth)
    expected, found = (nn.Sequential(*list(n.children())[:-1])(X) for n in (theirs, net))
    assert torch.equal(found, expected)
    assert torch.equal(net.fc(found.flatten(1)), theirs(X))
    names = {"relu": "relu", "layer1.1.relu_1": "block", "layer3": "stage", "avgpool": "pooled", "flatten": "features"}
    expected, found = (create_feature_extractor(n, names)(X) for n in (theirs, net))
    assert all(torch.equal(found[name], expected[name]) for name in names.values())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shortcut", ["A", "B", None])
def test_children_of_every_net_are_its_computation(block, shortcut):
    net = d2l.small_resnet(11 if block.expansion == 4 else 8, shortcut, block=block, width=2).eval()
    X = torch.randn(2, 1, 14, 14)
    *body, head = net.children()
    assert head is net.fc
    assert torch.equal(nn.Sequential(*body, nn.Flatten(), head)(X), net(X))
    assert torch.equal(fx.symbolic_trace(net)(X), net(X))


def batch_norms(net):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


@pytest.mark.parametrize("depth", [18, 50])
def test_nets_are_traced_fused_and_exported(depth):
    _, net, X = alike(depth)
    expected = net(X)
    assert torch.equal(fx.symbolic_trace(net)(X), expected)
    inside = nn.Sequential(nn.Identity(), net)
    assert torch.equal(fx.symbolic_trace(inside)(X), expected)
    for fused in (fuse(net), fuse_fx(copy.deepcopy(net))):       # batch norm into convolutions, as before quantisation
        assert batch_norms(net) > batch_norms(fused) == 0
        torch.testing.assert_close(fused(X), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    exported = torch.export.export(net, (X,), dynamic_shapes=({0: torch.export.Dim("N", min=2)},)).module()
    torch.testing.assert_close(exported(torch.cat([X, X])), torch.cat([expected, expected]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [d2l.resnet18, lambda in_channels=3: d2l.small_resnet(8, in_channels=in_channels)])
def test_the_stem_can_be_wrapped_or_replaced(build):
    net, grey = build(3).eval(), torch.randn(2, 1, 32, 32)
    wanted = r"X must have shape \(N, 3, H, W\), got \(2, 1, 32, 32\)"
    with pytest.raises(ValueError, match=wanted):
        net(grey)
    with pytest.raises(ValueError, match=wanted):
        nn.Sequential(net)(grey)
    with pytest.raises(ValueError, match=r"got \(3, 32, 32\)"):
        net(torch.randn(3, 32, 32))
    old, to_colours = net.conv1, nn.Conv2d(1, 3, 1)
    net.conv1 = nn.Sequential(to_colours, old)
    found = net(grey)
    net.conv1 = old
    assert torch.equal(found, net(to_colours(grey)))
    net.conv1 = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding)
    assert net(grey).shape == (2, net.fc.out_features)


def test_a_head_can_be_replaced_and_a_part_added():
    net, X = d2l.resnet18(num_classes=10).eval(), torch.randn(2, 3, 32, 32)
    before = net(X)
    net.auxiliary = nn.Linear(3, 3)                              # a child that forward does not use
    assert torch.equal(net(X), before)
    net.fc = nn.Identity()
    assert net(X).shape == (2, 512)


# --- the 6n+2 nets ----------------------------------------------------------------------------------------------------

def test_table_of_parameter_counts_in_the_docstring():
    rows = re.findall(r"^ +(\d+) +(\d+) +([\d,]+) +([\d.]+) +M$", resnet.__doc__, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [20, 32, 44, 56, 110, 1202]
    for depth, blocks, parameters, paper in rows:
        net = on_meta(d2l.small_resnet, depth=int(depth), in_channels=3)
        assert [len(stage) for stage in net.stages] == [int(blocks)] * 3
        assert d2l.parameter_count(net) == int(parameters.replace(",", ""))
        decimals = len(paper.split(".")[1])
        assert f"{d2l.parameter_count(net) / 1e6:.{decimals}f}" == paper


@pytest.mark.parametrize(("depth", "block"), [(8, d2l.Residual), (110, d2l.Residual), (20, d2l.PreActResidual),
                                              (164, d2l.PreActBottleneck), (1001, d2l.PreActBottleneck)])
@pytest.mark.parametrize("shortcut", ["A", "B", None])
def test_depth_counts_the_weighted_layers(depth, block, shortcut):
    net = on_meta(d2l.small_resnet, depth=depth, block=block, shortcut=shortcut)
    layers = [name for name, layer in net.named_modules()
              if isinstance(layer, nn.Conv2d | nn.Linear) and "downsample" not in name]
    assert len(layers) == depth


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
def test_small_nets_compute_train_and_are_contiguous(block, norm, shortcut):
    depth = 11 if block.expansion == 4 else 8
    net = d2l.small_resnet(depth, shortcut, norm, block, width=2, in_channels=2, num_classes=5)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) == norm
    assert all(tensor.is_contiguous() for tensor in net.state_dict().values())
    y = net(torch.randn(3, 2, 10, 9))
    assert y.shape == (3, 5)
    y.logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("norm", [True, False])
def test_one_seed_gives_one_start_for_every_shortcut(block, norm):
    states = {}
    for shortcut in ("A", "B", "C", None):
        torch.manual_seed(7)
        states[shortcut] = d2l.small_resnet(20, shortcut, norm, block, width=2).state_dict()
    shared = [name for name in states["C"] if "downsample" not in name]
    assert set(states[None]) == set(states["A"]) == set(shared)
    for shortcut, state in states.items():
        assert all(torch.equal(state[name], states[None][name]) for name in shared), shortcut
    projections = [name for name in states["C"] if name.endswith("downsample.0.weight")]
    assert len({tuple(states["C"][name].flatten()[:2].tolist()) for name in projections}) == len(projections)
    assert not torch.equal(states["C"]["layer1.0.conv1.weight"], states["C"]["layer1.1.conv1.weight"])


@pytest.mark.parametrize("build", [d2l.resnet18, lambda: d2l.small_resnet(8, "C")])
def test_a_default_device_is_where_a_net_is_built(build):
    with torch.device("meta"):
        assert {tensor.device.type for tensor in build().state_dict().values()} == {"meta"}


# --- the seed texts ---------------------------------------------------------------------------------------------------

def test_signatures_of_the_seed_texts():
    X = torch.randn(4, 3, 6, 6)
    assert d2l.Residual(3, 3)(X).shape == (4, 3, 6, 6)
    assert d2l.Residual(3, 6, use_1x1conv=True, strides=2)(X).shape == (4, 6, 3, 3)
    assert d2l.Residual(3, 6, True, 2)(X).shape == (4, 6, 3, 3)
    b1 = nn.Sequential(nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3), nn.BatchNorm2d(64), nn.ReLU(),
                       nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    b2 = nn.Sequential(*d2l.resnet_block(64, 64, 2, first_block=True))
    b3 = nn.Sequential(*d2l.resnet_block(64, 128, 2))
    b4 = nn.Sequential(*d2l.resnet_block(128, 256, 2))
    b5 = nn.Sequential(*d2l.resnet_block(256, 512, 2))
    head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, 10))
    X, shapes = torch.randn(1, 1, 96, 96), []
    for part in (b1, b2, b3, b4, b5, head.eval()):
        X = part.eval()(X)
        shapes.append(tuple(X.shape[1:]))
    assert shapes == [(64, 24, 24), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3), (10,)]
    assert [len(d2l.resnet_block(64, 64, n, first_block=True)) for n in (1, 2, 5)] == [1, 2, 5]


def test_zero_init_of_a_whole_net_and_its_default():
    net = d2l.resnet50(zero_init=True)
    assert all(block.bn3.weight.eq(0).all() for block in net.modules() if isinstance(block, d2l.Bottleneck))
    assert d2l.Residual(2, 2).bn2.weight.eq(1).all()


# --- bad arguments ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "parts"), [
    (lambda: d2l.small_resnet(21), ["depth", "6n+2 (8, 14, 20, ...", "got 21"]),
    (lambda: d2l.small_resnet(2), ["depth", "6n+2", "got 2"]),
    (lambda: d2l.small_resnet(1208), ["depth", "1202", "got 1208"]),
    (lambda: d2l.small_resnet(20.0), ["depth", "got 20.0"]),
    (lambda: d2l.small_resnet(32, block=d2l.PreActBottleneck), ["depth", "9n+2 (11, 20, 29, ...", "got 32"]),
    (lambda: d2l.small_resnet(20, "D"), ["shortcut", '"A", "B", "C" or None', "'D'"]),
    (lambda: d2l.small_resnet(20, width=0), ["width", "whole number from 1", "got 0"]),
    (lambda: d2l.small_resnet(20, in_channels=-1), ["in_channels", "got -1"]),
    (lambda: d2l.resnet18(num_classes=2.5), ["num_classes", "got 2.5"]),
    (lambda: d2l.resnet18()(torch.zeros(2, 1, 32, 32)), ["X", "(N, 3, H, W)", "(2, 1, 32, 32)"]),
    (lambda: d2l.get_resnet(19), ["depth", "18, 34, 50, 101, 152", "got 19"]),
    (lambda: d2l.get_resnet(18.0), ["depth", "18, 34, 50, 101, 152", "got 18.0"]),
    (lambda: d2l.get_resnet(34, weights="V2"), ["weights must be 'V1' for resnet34", "got 'V2'"]),
    (lambda: d2l.get_resnet(50, weights="V3"), ["weights must be 'V1' or 'V2' for resnet50", "got 'V3'"]),
])
def test_errors_name_argument_value_and_what_is_allowed(call, parts):
    with pytest.raises(ValueError, match="must ") as error:
        call()
    assert all(part in str(error.value) for part in parts), error.value

"""The blocks and networks: shapes, initialisation, the paper's numbers, and parity with torchvision."""

import contextlib
import functools
import hashlib
import http.server
import io
import math
import re
import threading

import numpy as np
import pytest
import torch
from conftest import collect_sockets
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import d2l_utils as d2l
from d2l_utils import resnet

DEPTHS = (18, 34, 50, 101, 152)
BLOCKS = (d2l.Residual, d2l.Bottleneck, d2l.PreActResidual, d2l.PreActBottleneck)
properties = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def one_thread():
    """The nets here are small: a second thread costs more than it brings, and much more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


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

@pytest.mark.parametrize(("in_channels", "num_classes", "height", "width"), [(3, 10, 64, 64), (1, 7, 33, 70)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_same_outputs_and_gradients_as_torchvision(depth, in_channels, num_classes, height, width):
    torch.manual_seed(depth)
    theirs, net = reference(depth, in_channels, num_classes), ours(depth)(in_channels, num_classes)
    net.load_state_dict(theirs.state_dict(), strict=True)
    assert count(net) == count(theirs)
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
    assert count(net) == count(theirs) == meta["num_params"]
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


def test_textbook_resnet18_in_torchvisions_layout():
    assert count(on_meta(d2l.resnet18, in_channels=1, num_classes=10)) == 11_175_370


# --- the 6n+2 nets ----------------------------------------------------------------------------------------------------

def test_table_of_parameter_counts_in_the_docstring():
    rows = re.findall(r"^ +(\d+) +(\d+) +([\d,]+) +([\d.]+) +M$", resnet.__doc__, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [20, 32, 44, 56, 110, 1202]
    for depth, blocks, parameters, paper in rows:
        net = on_meta(d2l.small_resnet, depth=int(depth), in_channels=3)
        assert [len(stage) for stage in net.stages] == [int(blocks)] * 3
        assert count(net) == int(parameters.replace(",", ""))
        decimals = len(paper.split(".")[1])
        assert f"{count(net) / 1e6:.{decimals}f}" == paper


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


def test_numpys_whole_numbers_are_whole_numbers():
    count = np.int64(3)
    assert d2l.Residual(count, count, strides=np.int64(1)).conv1.in_channels == 3
    assert len(d2l.small_resnet(np.int64(20)).stages[0]) == 3


@pytest.mark.parametrize("build", [d2l.resnet18, lambda: d2l.small_resnet(8, "C")])
def test_a_default_device_is_where_a_net_is_built(build):
    with torch.device("meta"):
        assert {tensor.device.type for tensor in build().state_dict().values()} == {"meta"}


def test_he_initialisation_by_fan_out():
    torch.manual_seed(0)
    block = d2l.Residual(32, 128, use_1x1conv=True)
    for layer in (block.conv1, block.conv2, block.downsample[0]):
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert layer.bias is None


# --- the blocks -------------------------------------------------------------------------------------------------------

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


@properties
@given(st.sampled_from(BLOCKS), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.booleans(),
       st.sampled_from(["identity", "A", "B", "C", None]), st.booleans(), st.integers(3, 9), st.integers(3, 9))
def test_shapes_or_an_error_that_says_why(block, input_channels, width, strides, use_1x1conv, shortcut, norm, H, W):
    out = width * block.expansion
    changes = strides != 1 or input_channels != out
    impossible = ((use_1x1conv and shortcut in ("A", None))
                  or (shortcut == "identity" and changes and not use_1x1conv)
                  or (shortcut == "A" and input_channels > out))
    if impossible:
        with pytest.raises(ValueError, match=r"must be .*got"):
            block(input_channels, width, use_1x1conv, strides, shortcut=shortcut, norm=norm)
        return
    net = block(input_channels, width, use_1x1conv, strides, shortcut=shortcut, norm=norm)
    Y = net(torch.randn(2, input_channels, H, W))
    assert Y.shape == (2, out, math.ceil(H / strides), math.ceil(W / strides))
    assert Y.is_contiguous()
    assert all(tensor.is_contiguous() for tensor in net.state_dict().values())


@properties
@given(st.sampled_from(BLOCKS), st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_zero_init_makes_a_block_the_identity(block, width, norm, training, seed):
    torch.manual_seed(seed)
    channels = width * block.expansion
    net = block(channels, width, norm=norm, zero_init=True).train(training)
    X = torch.randn(2, channels, 5, 5)
    X = X if issubclass(block, d2l.PreActResidual) else X.relu()     # the last ReLU is after the sum, or there is none
    assert torch.equal(net(X), X)


def test_zero_init_of_a_whole_net_and_its_default():
    net = d2l.resnet50(zero_init=True)
    assert all(block.bn3.weight.eq(0).all() for block in net.modules() if isinstance(block, d2l.Bottleneck))
    assert d2l.Residual(2, 2).bn2.weight.eq(1).all()


@properties
@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))
def test_option_A_picks_pixels_and_adds_zeros(channels, new, strides, side):
    assume(new or strides > 1)
    block = d2l.Residual(channels, channels + new, strides=strides, shortcut="A")
    assert sum(p.numel() for p in block.downsample.parameters()) == 0
    X = torch.randn(2, channels, side, side)
    Y = block.downsample(X)
    assert torch.equal(Y[:, :channels], X[:, :, ::strides, ::strides])
    assert Y[:, channels:].eq(0).all()


def test_no_input_is_changed_in_place():
    for block in BLOCKS:
        X = torch.randn(2, 4 * block.expansion, 5, 5)
        before = X.clone()
        block(4 * block.expansion, 4)(X)
        assert torch.equal(X, before)


# --- bad arguments ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "parts"), [
    (lambda: d2l.small_resnet(21), ["depth", "6n+2 (8, 14, 20, ...", "got 21"]),
    (lambda: d2l.small_resnet(2), ["depth", "6n+2", "got 2"]),
    (lambda: d2l.small_resnet(1208), ["depth", "1202", "got 1208"]),
    (lambda: d2l.small_resnet(20.0), ["depth", "got 20.0"]),
    (lambda: d2l.small_resnet(32, block=d2l.PreActBottleneck), ["depth", "9n+2 (11, 20, 29, ...", "got 32"]),
    (lambda: d2l.small_resnet(20, "D"), ["shortcut", '"A", "B", "C" or None', "'D'"]),
    (lambda: d2l.small_resnet(20, width=0), ["width", "at least 1", "got 0"]),
    (lambda: d2l.small_resnet(20, in_channels=-1), ["in_channels", "got -1"]),
    (lambda: d2l.resnet18(num_classes=2.5), ["num_classes", "got 2.5"]),
    (lambda: d2l.Residual(3, 6), ["use_1x1conv", "3 channels in, 6 out", "got use_1x1conv=False"]),
    (lambda: d2l.Residual(3, 3, strides=2), ["use_1x1conv", "strides=2", "False"]),
    (lambda: d2l.Residual(0, 3), ["input_channels", "at least 1", "got 0"]),
    (lambda: d2l.Residual(3, 3, strides=0), ["strides", "at least 1", "got 0"]),
    (lambda: d2l.Residual(6, 3, shortcut="A"), ["shortcut", '"B" or "C"', "6 channels in, 3 out", "'A'"]),
    (lambda: d2l.Residual(3, 3, shortcut="identical"), ["shortcut", '"identity", "A", "B", "C" or None']),
    (lambda: d2l.Residual(3, 3, True, shortcut=None), ["shortcut", "use_1x1conv=True", "got None"]),
    (lambda: d2l.resnet18()(torch.zeros(2, 1, 32, 32)), ["X", "(N, 3, H, W)", "(2, 1, 32, 32)"]),
    (lambda: d2l.get_resnet(19), ["depth", "18, 34, 50, 101, 152", "got 19"]),
])
def test_errors_name_argument_value_and_what_is_allowed(call, parts):
    with pytest.raises(ValueError, match="must ") as error:
        call()
    assert all(part in str(error.value) for part in parts), error.value


# --- published weights ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained():
    """A locally made state of ResNet-18 as a file's bytes."""
    torch.manual_seed(1)
    file = io.BytesIO()
    torch.save(models.resnet18().state_dict(), file)
    return file.getvalue()


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """publish(content, sent=content, status=200) serves `sent` under a name with the hash of `content` as ResNet-18's
    V1 weights; it returns the path of the cached file."""
    servers = []

    def start(content, sent=None, status=200):
        sent = content if sent is None else sent

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):             # a client that hangs up early
                    self.wfile.write(sent)

            def log_message(self, *arguments):
                """Silent."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url",
                            f"http://127.0.0.1:{server.server_port}/{name}")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return tmp_path / "hub" / "checkpoints" / name

    def stop():
        for server in servers:
            server.shutdown()
            server.server_close()
        servers.clear()

    start.stop = stop
    yield start
    stop()
    collect_sockets()


def test_published_weights_are_fetched_once_and_loaded(publish, trained):
    path = publish(trained)
    net = d2l.get_resnet(18, pretrained=True)
    expected = torch.load(io.BytesIO(trained), weights_only=True)
    assert not net.training
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    publish.stop()
    again = d2l.get_resnet(18, pretrained=True)                      # from the cache: nobody serves it any more
    assert torch.equal(again.fc.weight, net.fc.weight)


@pytest.mark.parametrize("fault", ["no server", "not found", "cut off", "altered"])
def test_a_failed_download_is_one_sentence_and_leaves_nothing(publish, trained, fault):
    sent = {"cut off": trained[:100_000], "altered": trained[:-1] + b"?"}.get(fault)
    path = publish(trained, sent, 404 if fault == "not found" else 200)
    if fault == "no server":
        publish.stop()
    with pytest.raises(ConnectionError) as error:
        d2l.get_resnet(18, pretrained=True)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in ("ResNet-18", "127.0.0.1", "pretrained=False", str(path)))
    assert list(path.parent.iterdir()) == []


def test_a_damaged_cached_file_is_named_and_left_alone(publish, trained):
    path = publish(trained)
    path.parent.mkdir(parents=True)
    path.write_bytes(trained[:-1])
    with pytest.raises(ValueError, match="damaged") as error:
        d2l.get_resnet(18, pretrained=True)
    assert all(part in str(error.value) for part in (str(path), path.stem[-8:], "remove"))
    assert path.stat().st_size == len(trained) - 1


def test_random_weights_need_no_network(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    net = d2l.get_resnet(34)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert not net.training

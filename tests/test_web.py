"""The page's trainer and the net in the reader's hands: web/net.c against PyTorch in float64, the committed module
against its source, the rules that a run follows against their repetition here, the record of such runs, the files that
the pages load, and web/trainer.js and web/hands.js in Chromium.

A float32 net and its float64 twin part where a ReLU's argument lies within a rounding error of 0. So the batches that
are compared are the first ones whose arguments all stay away from 0.
"""

import contextlib
import copy
import ctypes
import functools
import gzip
import http.server
import itertools
import json
import math
import re
import shutil
import sys
import threading
import zlib
from base64 import b64decode
from types import SimpleNamespace

import book
import numpy as np
import pages
import pytest
import torch
import torch.nn.functional as F
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from conftest import ROOT
from torch.overrides import TorchFunctionMode

import d2l_utils as d2l
from d2l_utils.book.hands import ask
from d2l_utils.data import normalise
from d2l_utils.probes import blocks_of
from d2l_utils.training import sgd

sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "web")]
import build  # noqa: E402
import train_here  # noqa: E402
from build import parts  # noqa: E402
from train_here import Engine, learning_rate  # noqa: E402

WEB = ROOT / "web"
ROUNDING = 2.0**-23                     # float32's own: no deviation is asked to be smaller
CLEAR = {"A": 4e-6, None: 1e-5}         # how far from 0 every ReLU's argument must stay
DATA, LARGE = (d2l.fashion_mnist(size=size, device="cpu") for size in (14, 28))
STORED = d2l.stored("fashion_mnist_residual20")
BLOCKS = {name: f"block {i}" for i, name in enumerate(blocks_of(STORED), 1)}


# ---- the module and its source ----

def test_the_committed_module_is_what_the_pinned_compiler_makes_of_net_c():
    module = build.committed()
    assert build.compiled() == module, "run `make web`: trainer.js does not hold what net.c says"
    assert len(module) <= 25_000
    assert len(gzip.compress(module, 9)) <= 10_000


def test_the_compiler_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "COMPILER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"make web"):
        build.compiled()


def test_the_scripts_are_small(tmp_path):
    folder = copied_to(tmp_path)
    trainer, hands = ((folder / f"{name}.js").read_text(encoding="utf-8") for name in ("trainer", "hands"))
    assert len(re.sub(r'(const MODULE=)".*"', r"\1", trainer).encode()) <= 7_600
    assert len(hands.encode()) <= 5_800


def test_the_pictures_are_the_books():
    text = (WEB / "pictures.js").read_text(encoding="utf-8")
    assert len(text) <= 520_000
    labels, pixels = re.search(r'labels: "(.*?)", pixels: "(.*?)"', text).groups()
    assert zlib.decompress(b64decode(pixels)) == DATA.X_train[:2048].numpy().tobytes()
    assert [int(label) for label in labels] == DATA.y_train[:2048].tolist()


def test_the_weights_are_the_stored_nets_in_16_bits_and_the_controls_name_what_there_is():
    text = (WEB / "residual20.js").read_text(encoding="utf-8")
    assert len(text) <= 700_000
    packed = dict(re.findall(r'(\w+): "(.*?)"', text))
    assert zlib.decompress(b64decode(packed["pixels"])) == build.shown(LARGE).tobytes()
    upper, lower = np.frombuffer(zlib.decompress(b64decode(packed["weights"])), np.uint8).reshape(2, -1)
    assert np.array_equal(np.stack([lower, upper], 1).ravel().view("<f2"), build.half(STORED))
    soup = BeautifulSoup((WEB / "hands.html").read_text(encoding="utf-8"), "html.parser")
    labels = [label.get_text(strip=True) for label in soup.select("label")]
    assert [item.get_text(strip=True) for item in soup.select("li")] == [*LARGE.classes]
    assert labels[:8] == [*LARGE.classes[10 - build.SHOWN:], "yours"]
    assert labels[9:] == [*BLOCKS.values()]


# ---- net.c against PyTorch ----

def flat(tensors):
    return np.concatenate([tensor.detach().float().numpy().ravel() for tensor in tensors])


def apart(values, like):
    """Flat values as tensors of the shapes of `like`."""
    pieces = torch.from_numpy(values.copy()).split([tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def give(engine, net, optimizer=None):
    """Weights, running statistics and momentum of a torch net for the module."""
    parameters, statistics = parts(net)
    count = engine.parameter_count()
    assert count == sum(p.numel() for p in parameters)
    engine.view("parameters", count)[:] = flat(parameters)
    engine.view("statistics", sum(s.numel() for s in statistics))[:] = flat(statistics)
    if optimizer is not None and optimizer.state:
        engine.view("momenta", count)[:] = flat([optimizer.state[p]["momentum_buffer"] for p in parameters])


def torch_step(net, optimizer, X, y):
    """One step of torch: every tensor that it makes, by kind."""
    net.train()
    y_hat = net(X)
    loss = F.cross_entropy(y_hat, y)
    optimizer.zero_grad()
    loss.backward()
    gradients = [p.grad.clone() for p in parts(net)[0]]
    optimizer.step()
    parameters, statistics = parts(net)
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in parameters]
    updated = [p.detach().clone() for p in parameters], [s.clone() for s in statistics]
    return {"logits": [y_hat.detach()], "loss": [loss.detach()], "gradient": gradients, "weight": updated[0],
            "momentum": momenta, "statistics": updated[1]}


def module_step(engine, like, lr):
    """The same step of the module, on its first pictures."""
    engine.take(0, 1)
    loss = engine.forward(1)
    engine.backward()
    engine.update(lr, 0.9, 1e-4)
    view = {name: apart(engine.view(names, sum(t.numel() for t in like[name])), like[name]) for name, names in
            (("logits", "logits"), ("gradient", "gradients"), ("weight", "parameters"), ("momentum", "momenta"),
             ("statistics", "statistics"))}
    return {**view, "loss": [torch.tensor(loss)]}


def deviations(found, exact):
    """How far each tensor is from the exact one, in the latter's largest value."""
    return {(name, i): ((a.double() - b).abs().max() / b.abs().max()).item()
            for name in exact for i, (a, b) in enumerate(zip(found[name], exact[name], strict=True))}


class Closest(TorchFunctionMode):
    """The smallest argument, without its sign, that a ReLU is given."""

    least = math.inf

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is F.relu:
            self.least = min(self.least, arguments[0].detach().abs().min().item())
        return function(*arguments, **(options or {}))


def batches(net64, size, clear, start=0):
    """Batches of training pictures (indices) whose ReLU arguments, in train mode, all stay `clear` from 0."""
    probe = copy.deepcopy(net64).train()
    for number in range(start, start + 2000):
        indices = torch.randperm(2048, generator=torch.Generator().manual_seed(number))[:size]
        with torch.no_grad(), Closest() as closest:
            probe(normalise(DATA.X_train[indices]).double())
        if closest.least >= clear:
            yield indices
    pytest.fail(f"no batch stays {clear} from 0")


def pictures(indices):
    return DATA.X_train[indices].numpy(), DATA.y_train[indices].numpy()


def compare(depth, shortcut, width, size, count, clear, over=max):
    """One step from the same weights on `count` batches: each tensor's largest (or `over`) deviation from float64, the
    module's and that of torch's own float32."""
    torch.manual_seed(depth)
    net = d2l.small_resnet(depth, shortcut, width=width)
    net64, ours, theirs = copy.deepcopy(net).double(), {}, {}
    for _, indices in zip(range(count), batches(net64, size, clear), strict=False):
        X, y = normalise(DATA.X_train[indices]), DATA.y_train[indices]
        twin = copy.deepcopy(net64)
        exact = torch_step(twin, sgd(twin, 0.1), X.double(), y)
        engine = Engine(depth, shortcut, pictures(indices), width, size)
        engine.start(0)
        give(engine, net)
        twin = copy.deepcopy(net)
        step = torch_step(twin, sgd(twin, 0.1), X, y)
        for values, tensors in ((ours, module_step(engine, exact, 0.1)), (theirs, step)):
            for key, value in deviations(tensors, exact).items():
                values.setdefault(key, []).append(value)
    return [{key: over(found) for key, found in values.items()} for values in (ours, theirs)]


NETS = [(8, "A", 8, 16), (8, None, 8, 16), (20, "A", 8, 8), (20, None, 8, 8), (56, "A", 8, 8), (8, "A", 16, 8),
        (8, None, 16, 8)]


@pytest.mark.parametrize(("depth", "shortcut", "width", "size"), NETS)
def test_a_step_is_torchs(depth, shortcut, width, size):
    ours, theirs = compare(depth, shortcut, width, size, 3, CLEAR[shortcut])
    assert {name for name, _ in ours} == {"logits", "loss", "gradient", "weight", "momentum", "statistics"}
    for key, value in ours.items():
        assert value <= 3 * max(theirs[key], ROUNDING), key
        assert value <= 1e-4, key


def test_a_step_on_pictures_of_28_pixels_is_torchs(monkeypatch):
    monkeypatch.setitem(globals(), "DATA", LARGE)
    test_a_step_is_torchs(8, "A", 8, 8)


def test_a_step_of_the_chaotic_plain_56_is_as_good_as_torchs():
    ours, theirs = compare(56, None, 8, 8, 7, 0, np.median)
    for key, value in ours.items():
        assert value <= 3 * max(theirs[key], ROUNDING), key


@pytest.mark.parametrize(("depth", "shortcut"), [(8, "A"), (8, None), (20, "A"), (20, None)])
def test_ten_steps_each_from_torchs_weights_and_momentum(depth, shortcut):
    torch.manual_seed(1)
    net = d2l.small_resnet(depth, shortcut, width=8)
    optimizer, largest = sgd(net, 0.05), [{}, {}]
    for step in range(10):
        net64 = copy.deepcopy(net).double()
        optimizer64 = sgd(net64, 0.05)
        if step:
            optimizer64.load_state_dict(optimizer.state_dict())
        indices = next(batches(net64, 8, CLEAR[shortcut], 100 * step))
        X, y = normalise(DATA.X_train[indices]), DATA.y_train[indices]
        engine = Engine(depth, shortcut, pictures(indices), 8, 8)
        engine.start(0)
        give(engine, net, optimizer)
        exact = torch_step(net64, optimizer64, X.double(), y)
        ours, theirs = module_step(engine, exact, 0.05), torch_step(net, optimizer, X, y)
        for at, found in zip(largest, (ours, theirs), strict=True):
            for key, value in deviations(found, exact).items():
                at[key] = max(at.get(key, 0), value)
                assert value <= 1e-4 or found is theirs, (step, key)
    for key, value in largest[0].items():
        assert value <= 3 * max(largest[1][key], ROUNDING), key


@pytest.mark.parametrize(("depth", "shortcut", "width"), [(8, "A", 16), (20, None, 8), (56, "A", 8)])
def test_eval_mode_is_torchs(depth, shortcut, width):
    torch.manual_seed(2)
    net = d2l.small_resnet(depth, shortcut, width=width)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.running_mean, 0, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    indices = torch.arange(128)
    engine = Engine(depth, shortcut, pictures(indices), width)
    engine.start(0)
    give(engine, net)
    X, y = normalise(DATA.X_train[indices]), DATA.y_train[indices]
    with torch.no_grad():
        exact, theirs = copy.deepcopy(net).double().eval()(X.double()), net.eval()(X)
    engine.take(64, 1)
    loss = engine.forward(0)
    logits = torch.from_numpy(engine.view("logits", 640).copy()).view(64, 10)
    scale = exact[64:].abs().max()
    allowed = max((theirs - exact)[64:].abs().max() / scale, ROUNDING)
    assert (logits - exact[64:]).abs().max() / scale <= min(3 * allowed, 1e-4)
    assert loss == pytest.approx(F.cross_entropy(exact[64:], y[64:]).item(), rel=1e-5)
    assert engine.errors() == (exact[64:].argmax(1) != y[64:]).sum()
    assert engine.measure() == pytest.approx(F.cross_entropy(exact, y).item(), rel=1e-5)
    assert engine.errors() == (exact.argmax(1) != y).sum()


def stored_in_the_module():
    """The stored residual-20 in the module, with the 2,000 test pictures."""
    engine = Engine(20, "A", (LARGE.X_test.numpy(), LARGE.y_test.numpy()), 16, 8)
    engine.start(0)
    give(engine, STORED)
    return engine


def test_the_stored_net_in_16_bits_answers_the_test_pictures_as_torch_does():
    engine, answers, values = stored_in_the_module(), [], build.half(STORED).astype(np.float32)
    count = engine.parameter_count()
    engine.view("parameters", count)[:] = values[:count]
    engine.view("statistics", len(values) - count)[:] = values[count:]
    for first in range(0, 2000, 8):
        engine.take(first, 1)
        engine.forward(0)
        answers.append(engine.view("logits", 80).reshape(8, 10).argmax(1))
    with torch.no_grad():
        theirs = torch.cat([STORED(normalise(X)).argmax(1) for X in LARGE.X_test.split(250)])
    assert (np.concatenate(answers) == theirs.numpy()).sum() >= 1999


@pytest.mark.parametrize(("off", "factor"), [
    ((), 1), (("layer1.0",), 1), (("layer2.0", "layer3.0"), 1), (("layer1.2", "layer3.2"), 0.5), ((), 1.5), ((), 0.9),
    (tuple(blocks_of(d2l.small_resnet(20))), 1.1)])
def test_blocks_switched_off_and_shortcuts_scaled_are_torchs(off, factor):
    engine = stored_in_the_module()
    for i, name in enumerate(blocks_of(STORED)):
        engine.scale_block(i, float(name not in off), float(factor))
    engine.take(8, 1)
    engine.forward(0)
    shares, maps = ask(STORED, LARGE.X_test[10:11], off, factor)
    logits = torch.from_numpy(engine.view("logits", 80)[20:30].copy())
    assert torch.allclose(logits.softmax(0), shares, atol=1e-5)
    memory = ctypes.addressof(engine.exports["memory"].data_ptr(engine.store).contents)
    for i, Y in enumerate(maps.values()):
        start = memory + engine.map_at(2 * i + 2)
        map = np.frombuffer((ctypes.c_char * (4 * 8 * Y.numel())).from_address(start), np.float32)
        ours = torch.from_numpy(map.reshape(*Y.shape[1:], len(Y), 8)[..., 2].copy()).permute(2, 0, 1)
        assert (ours - Y).abs().max() <= 1e-5 * Y.abs().max(), i


def test_a_net_that_is_no_number_says_so():
    engine = Engine(8, "A", pictures(torch.arange(64)))
    engine.start(0)
    engine.view("parameters", 1)[0] = math.nan
    engine.take(0, 1)
    assert math.isnan(engine.forward(1))
    assert math.isnan(engine.forward(0))
    assert math.isnan(engine.measure())
    with pytest.raises(FloatingPointError, match=r"the loss is .* in step"):
        list(train_here.steps(engine, 0, 1e30, 8))


def test_memory_and_arguments():
    two = pictures(torch.arange(2048))
    engine = Engine(32, "A", two)
    assert engine.bytes <= 64e6
    assert engine.exports["memory"].data_len(engine.store) <= 64e6
    for depth, width, batch, count in ((9, 8, 64, 64), (2, 8, 64, 64), (62, 8, 64, 64), (8, 12, 64, 64),
                                       (8, 8, 60, 60), (8, 8, 64, 100), (8, 8, 64, 0)):
        assert engine.build(depth, width, batch, 1, count, 14) == 0
    for size in (0, 7, 15, 29, 56, -28):
        assert engine.build(8, 8, 64, 1, 64, size) == 0
    with pytest.raises(ValueError, match=r"depth must be 8, 14, .* got 9, 8"):
        Engine(9, "A", two)


def test_a_thousand_steps_leak_nothing():
    engine = Engine(8, "A", pictures(torch.arange(8)), batch=8)
    engine.start(0)
    before = engine.exports["memory"].size(engine.store)
    for step in range(1000):
        assert math.isfinite(engine.train(0, step, 0.01))
    assert engine.exports["memory"].size(engine.store) == before


# ---- the rules of a run, once more ----

def mix(x):
    x = np.asarray(x, np.uint32)
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return x ^ x >> 16


def draws(seed, purpose, indices):
    """32 random bits for each index."""
    golden = np.uint32(0x9E3779B9)
    key = mix(mix(np.array([seed], np.uint32) + golden) + np.uint32(purpose))
    return mix(key ^ mix(np.asarray(indices, np.uint32) + golden))


def start_weights(net, seed):
    """The weights that net.c's start() gives: nearly normal kernels (the sum of twelve uniform numbers), uniform linear
    weights."""
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    for purpose, layer in enumerate(layers):
        n, deviation = layer.weight.numel(), np.sqrt(np.float32(2 / (9 * layer.out_channels)))
        bits = draws(seed, purpose, np.arange(6 * n))
        total = ((bits & 65535) + (bits >> 16)).astype(np.int64).reshape(n, 6).sum(1) + 6 - 6 * 65536
        values = deviation * (total / 65536).astype(np.float32)
        layer.weight.data = torch.from_numpy(values).view_as(layer.weight)
    bits = draws(seed, len(layers), np.arange(net.fc.weight.numel())) >> 16
    bound = np.float32(1) / np.sqrt(np.float32(net.fc.in_features))
    values = bound * (bits.astype(np.float32) - np.float32(32767.5)) / np.float32(32768)
    net.fc.weight.data = torch.from_numpy(values).view_as(net.fc.weight)
    net.fc.bias.data.zero_()
    return net


def epoch_order(seed, epoch, count):
    order, bits = list(range(count)), draws(seed, 1000 + epoch, np.arange(count)).tolist()
    for i in range(count - 1, 0, -1):
        j = bits[i] * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order


@pytest.mark.parametrize(("depth", "width", "seed"), [(8, 8, 0), (56, 8, 19), (20, 16, 2**31 - 1)])
def test_start_weights_and_order_follow_the_rules_bit_by_bit(depth, width, seed):
    engine = Engine(depth, None, pictures(torch.arange(192)), width)
    engine.start(seed)
    net = start_weights(d2l.small_resnet(depth, width=width), seed)
    assert np.array_equal(engine.view("parameters", engine.parameter_count()), flat(parts(net)[0]))
    kernel = net.layer1[0].conv1.weight
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * width)), rel=0.1)
    for epoch in (0, 1, 7):
        engine.shuffle(seed, epoch)
        order = engine.view("order", 192, np.int32).tolist()
        assert order == epoch_order(seed, epoch, 192)
        assert sorted(order) == list(range(192)) != order


@pytest.mark.parametrize("shortcut", ["A", None])
def test_a_run_can_be_repeated_with_torch(shortcut):
    seed, lr, count, epochs = 5, 0.03, 192, 3
    engine = Engine(8, shortcut, pictures(torch.arange(count)))
    found = list(train_here.steps(engine, seed, lr, epochs * count // 64))
    net = start_weights(d2l.small_resnet(8, shortcut, width=8), seed)
    optimizer, losses = sgd(net, lr), []
    for epoch in range(epochs):
        for batch in torch.tensor(epoch_order(seed, epoch, count)).split(64):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(len(losses) / (epochs * count // 64), lr)
            step = torch_step(net, optimizer, normalise(DATA.X_train[batch]), DATA.y_train[batch])
            losses.append(step["loss"][0].item())
    assert found == pytest.approx(losses, rel=1e-3)
    loss, error = d2l.evaluate(net, DATA.X_train[:count], DATA.y_train[:count])
    assert engine.measure() == pytest.approx(loss, rel=1e-2)
    assert engine.errors() / count == pytest.approx(error, abs=0.02)


def test_the_rate_is_fits():
    from d2l_utils.training import learning_rate as fits
    for progress in np.linspace(0, 1, 50, endpoint=False):
        assert learning_rate(progress, 0.1) == pytest.approx(fits(progress, 0.1))


# ---- trainer.js in Chromium ----

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Trainer</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="book.css"><link rel="stylesheet" href="trainer/trainer.css">
<meta name="viewport" content="width=device-width">
<script src="trainer/trainer.js"></script></head><body><main><h1>Trainer</h1><div id="recorded">recorded</div>
<figure class="trainer" id="lab" hidden><script type="application/json">{record}</script>{controls}</figure>
<figure class="trainer" id="second" hidden>{controls}</figure></main></body></html>"""
HANDS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Hands</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="book.css"><link rel="stylesheet" href="trainer/hands.css">
<meta name="viewport" content="width=device-width"><script src="trainer/trainer.js"></script>
<script src="trainer/hands.js"></script></head><body><main><h1>Hands</h1>
<figure class="hands" id="hands"><p>It needs JavaScript.</p>{controls}</figure></main></body></html>"""
RECORD = {"rate": 0.1, "pictures": 512, "plain": {"8": [[0.8, 0.7], [0.9, 0.6]]}, "residual": {"8": [[0.7, 0.5]]}}
POLICY = "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"


def copied_to(folder):
    """The live figures' files as the extensions bring them, in folder/trainer, and the book's style beside it."""
    app = SimpleNamespace(srcdir=ROOT, outdir=folder, builder=SimpleNamespace(name="html"))
    book.copy_live_figures(app, None)
    pages.shorten_scripts(app, None)
    shutil.copy(ROOT / "_static" / "book.css", folder)
    return folder / "trainer"


class Strict(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "sub").mkdir()
    copied_to(folder / "sub")
    trainer, hands = ((WEB / f"{name}.html").read_text(encoding="utf-8") for name in ("trainer", "hands"))
    page = PAGE.format(record=json.dumps(RECORD), controls=trainer)
    (folder / "sub" / "page.html").write_text(page, encoding="utf-8")
    (folder / "sub" / "hands.html").write_text(HANDS.format(controls=hands), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """The page under a sub-path, with the policy that it promises to work under."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Strict, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/sub/page.html"
        server.shutdown()


@pytest.fixture
def visit(browser):
    """visit(address, script=None, **settings) opens a page; anything that goes wrong in it fails the test."""
    wrong, stack = [], contextlib.ExitStack()

    def visit(address, script=None, **settings):
        context = stack.enter_context(contextlib.closing(browser.new_context(**settings)))
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.extend([message.text] * (message.type == "error")))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    visit.asked, visit.expected = (asked := []), (expected := [])
    yield visit
    stack.close()
    assert [text for text in wrong if not any(part in text for part in expected)] == []


def choose(page, lab="#lab", depth="8", rate="0.03", seed="3", pictures="512"):
    for name, value in (("depth", depth), ("rate", rate), ("pictures", pictures)):
        page.locator(lab).get_by_label(name).select_option(value)
    page.locator(lab).get_by_label("seed").fill(seed)


def press(page, name, lab="#lab"):
    page.locator(lab).get_by_role("button", name=name).click()


def status(page, text, lab="#lab"):
    page.wait_for_function("([lab, text]) => document.querySelector(lab + ' output').textContent.includes(text)",
                           arg=[lab, text], timeout=120_000)
    return page.locator(f"{lab} output").text_content()


def results(page, lab="#lab"):
    return page.locator(lab).evaluate("(figure) => ({...figure.dataset})")


@functools.lru_cache
def expected(seed, lr=0.03, count=512):
    return [train_here.run(8, shortcut, lr, seed, count=count)[-1]["train_error"] for shortcut in (None, "A")]


def test_the_module_computes_the_same_bits_in_chromium(visit, served):
    engine = Engine(8, "A", pictures(torch.arange(64)), batch=64)
    engine.start(7)
    losses = [engine.train(7, step, 0.02) for step in range(5)]
    weights = engine.view("parameters", engine.parameter_count()).view(np.uint32)
    X, y = pictures(torch.arange(64))
    found = visit(served).evaluate("""async ([module, X, y]) => {
        const {instance: {exports: net}} = await WebAssembly.instantiate(Uint8Array.from(module));
        net.build(8, 8, 64, 1, 64, 14);
        new Uint8Array(net.memory.buffer).set(X, net.pictures_at());
        new Uint8Array(net.memory.buffer).set(y, net.labels_at());
        net.start(7);
        const losses = [0, 1, 2, 3, 4].map((step) => net.train(7, step, 0.02));
        return [losses, [...new Uint32Array(net.memory.buffer, net.parameters_at(), net.parameter_count())]];
    }""", [list(build.committed()), X.ravel().tolist(), y.tolist()])
    assert found[0] == losses
    assert found[1] == weights.tolist()


def test_a_page_that_is_a_file_trains_and_ends_where_python_says(visit, folder):
    page = visit((folder / "sub" / "page.html").as_uri())
    page.wait_for_timeout(300)
    assert not any("pictures.js" in url for url in visit.asked)         # nothing is loaded, nothing runs unasked
    choose(page)
    press(page, "Run")
    text = status(page, "Done")
    data = results(page)
    errors = [float(data["plainError"]), float(data["residualError"])]
    assert errors == expected(3)
    assert (data["depth"], data["seed"], data["pictures"]) == ("8", "3", "512")
    told = re.search(r"plain-8 ([0-9.]+)%, residual-8 ([0-9.]+)%", text).groups()
    assert [float(error) for error in told] == pytest.approx([100 * error for error in errors], abs=0.06)
    assert "in your browser, float32, one seed" in page.locator("#lab figcaption").text_content()


def test_a_pair_can_be_repeated_from_its_link(visit, served):
    page = visit(served)
    choose(page)
    press(page, "Run")
    status(page, "Done")
    first, link = results(page), page.locator("#lab li a").get_attribute("href")
    again = visit(served + link)
    status(again, "Press Run to repeat")
    assert again.locator("#lab").get_by_label("seed").input_value() == "3"
    assert "plainError" not in results(again)
    press(again, "Run")
    status(again, "Done")
    assert results(again) == first
    wrong = visit(served + "#lab?depth=21&seed=x&nonsense=1&rate=0.1")  # what is not allowed is left alone
    values = wrong.locator("#lab form").evaluate("(form) => Object.fromEntries(new FormData(form))")
    assert values == {"depth": "32", "rate": "0.1", "seed": "0", "pictures": "2048"}


def test_stop_run_again_and_two_labs_on_a_page(visit, served):
    page = visit(served, COUNT_ASKS)
    choose(page, depth="56")
    press(page, "Run")
    status(page, "step")
    press(page, "Stop")
    assert status(page, "Stopped") == "Stopped."
    assert page.evaluate("alive") == 0                                  # at once, and nothing is left behind
    assert page.locator("#lab").get_by_role("button", name="Run").is_enabled()
    for lab, seed in (("#lab", "1"), ("#second", "2")):
        choose(page, lab, seed=seed)
        press(page, "Run", lab)
    for lab, seed in (("#lab", 1), ("#second", 2)):
        status(page, "Done", lab)
        data = results(page, lab)
        assert [float(data["plainError"]), float(data["residualError"])] == expected(seed)
    choose(page, seed="4")
    press(page, "Run")
    status(page, "Done")
    assert page.locator("#lab li").count() == 2                         # earlier runs stay
    assert page.locator("#lab polyline.trainer-earlier").count() == 2
    assert page.locator("#second li").count() == 1
    assert page.evaluate("alive") == 0


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


COUNT_ASKS = """globalThis.asks = globalThis.alive = 0;
globalThis.Worker = class extends Worker {
  constructor(...source) { super(...source); alive += 1; }
  postMessage(...message) { asks += 1; super.postMessage(...message); }
  terminate() { alive -= 1; super.terminate(); }
};"""


def test_nothing_runs_while_the_page_is_hidden(visit, served):
    page = visit(served, COUNT_ASKS)
    choose(page, depth="56")                                            # seconds long on any machine
    press(page, "Run")
    page.wait_for_function("() => asks > 2")
    page.evaluate(HIDE, True)
    asks = page.evaluate("asks")
    page.wait_for_timeout(2000)                                         # workers rest unless they are asked
    assert status(page, "Paused")
    assert page.evaluate("asks") == asks > 2
    page.evaluate(HIDE, False)
    status(page, "Done")
    assert page.evaluate("asks") > asks


def test_a_slow_device_gets_fewer_pictures_and_is_told(visit, served):
    page = visit(served)
    page.locator("#lab").evaluate("(figure) => figure.dataset.limit = '0.001'")
    choose(page, pictures="2048")
    press(page, "Run")
    assert "it trains on 512 pictures instead" in status(page, "Done")
    data = results(page)
    assert data["pictures"] == "512" == page.locator("#lab").get_by_label("pictures").input_value()
    assert [float(data["plainError"]), float(data["residualError"])] == expected(3)


def test_a_net_that_diverges_is_named(visit, served):
    page = visit(served)
    page.evaluate("document.querySelector('#lab select[name=rate]').add(new Option('1e30', '1e30'))")
    choose(page, rate="1e30")
    press(page, "Run")
    assert "plain-8 diverged" in status(page, "Done")
    assert "plainError" not in results(page)


@pytest.mark.parametrize("script", ["delete globalThis.WebAssembly", "WebAssembly.validate = () => false"])
def test_without_webassembly_the_recorded_runs_stay(visit, served, script):
    page = visit(served, script)
    assert page.locator("#recorded").is_visible()
    assert not page.locator("#lab").is_visible()


def test_pictures_that_are_missing_are_named(visit, folder, tmp_path):
    shutil.copytree(folder / "sub", tmp_path / "bare")
    (tmp_path / "bare" / "trainer" / "pictures.js").unlink()
    visit.expected.append("ERR_FILE_NOT_FOUND")
    page = visit((tmp_path / "bare" / "page.html").as_uri())
    press(page, "Run")
    assert "pictures.js is not there" in status(page, "cannot start")


def darken(page):
    """The theme's dark colours."""
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.add_style_tag(content="""html { background: #14181e; color: #ced6dd; --pst-color-background: #14181e;
        --pst-color-text-base: #ced6dd; --pst-color-text-muted: #9ca4af; --pst-color-border: #48566b; }
        a { color: #6ea8fe; }""")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_the_lab_is_accessible_and_fits_a_phone(visit, served, width, dark):
    page = visit(served, viewport={"width": width, "height": 800})
    if dark:
        darken(page)
    choose(page, rate="0.1")
    assert page.locator("#lab polyline.trainer-record").count() == 3    # recorded runs of this very setting
    choose(page)
    assert page.locator("#lab polyline.trainer-record").count() == 0
    page.locator("#lab").get_by_label("seed").press("Enter")            # by keyboard
    status(page, "Done")
    choose(page, rate="0.1")
    assert page.locator("#lab polyline.trainer-record").count() == 0    # not behind a run of another setting
    choose(page)
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    size = page.locator("#lab svg text").first.evaluate("(text) => parseFloat(getComputedStyle(text).fontSize) * "
                                                        "text.ownerSVGElement.getBoundingClientRect().width / 400")
    assert 11 <= size <= 15                                             # as in the book's other figures


def test_progress_is_announced_every_few_seconds_only(visit, served):
    page = visit(served)
    page.evaluate("""() => {
      globalThis.reports = [];
      const output = document.querySelector("#lab output");
      new MutationObserver(() => reports.push([performance.now(), output.textContent])).observe(output,
        {childList: true, characterData: true, subtree: true});
    }""")
    page.locator("#lab").evaluate("(figure) => figure.dataset.limit = '1e9'")
    choose(page, depth="56", pictures="1024")                           # seconds long on any machine
    press(page, "Run")
    status(page, "Done")
    (_, loading), *reports, _ = page.evaluate("reports")                # the last one is the result
    assert loading == "Loading the pictures."
    assert reports
    for _, text in reports:
        assert re.fullmatch(r"Training plain-56 and residual-56: step \d+ of 80, about \d+ s left\.", text)
    times = [time for time, _ in reports]
    assert all(later - earlier >= 2900 for earlier, later in itertools.pairwise(times))


# ---- hands.js in Chromium ----

SHORTCUTS = "shortcuts \N{MULTIPLICATION SIGN}"


@pytest.fixture
def in_hand(visit, served):
    """in_hand(address=None, **settings) opens the page of the net in the reader's hands and loads the net."""
    def open_page(address=None, **settings):
        page = visit(address or served.replace("page.html", "hands.html"), **settings)
        page.get_by_role("button", name="Load the net").click()
        page.locator("#hands form").wait_for(timeout=60_000)
        return page

    return open_page


def answered(page):
    """What the page says of the picked picture once the next frame is there: the ten shares, and the status."""
    page.evaluate("document.querySelector('.hands-status').textContent = ''")
    page.evaluate("document.querySelector('#hands input').dispatchEvent(new Event('input', {bubbles: true}))")
    page.wait_for_function("() => document.querySelector('.hands-status').textContent !== ''")
    shares = page.locator("#hands li b").all_text_contents()
    return [float(share.rstrip("%")) / 100 for share in shares], page.locator(".hands-status").text_content()


def own_pixels(page):
    """The reader's own picture, as the page shows it."""
    return page.locator(".hands-pictures canvas").last.evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)")


def test_the_net_in_hand_answers_as_torch_does(visit, in_hand, folder):
    page = in_hand((folder / "sub" / "hands.html").as_uri())
    X, names = torch.from_numpy(build.shown(LARGE)), page.locator(".hands-pictures label")
    changes = [((), 1), (("layer1.0",), 1), (("layer2.1", "layer3.0"), 0.9), ((), 0.5)]
    for off, factor in changes:
        page.get_by_role("button", name="Whole net").click()
        for block in off:
            page.get_by_label(BLOCKS[block]).uncheck()
        page.get_by_label("every shortcut").fill(str(factor))
        for i in range(build.SHOWN):
            names.nth(i).click()
            shares, told = answered(page)
            exact = ask(STORED, X[i:i + 1], off, factor)[0]
            assert shares == pytest.approx(exact.tolist(), abs=0.004)
            answer = LARGE.classes[exact.argmax()]
            assert page.locator("#hands").get_attribute("data-answer") == answer
            without = f"without {', '.join(BLOCKS[name] for name in off)}" if off else "all blocks"
            assert re.fullmatch(rf"{answer}, [\d.]+% \({without}, {SHORTCUTS} {factor}\)", told)
            right = answer == LARGE.classes[3 + i]
            assert names.nth(i).locator("b").text_content() == ("right" if right else f"→ {answer}")


def test_nothing_is_loaded_before_it_is_asked_for_and_a_missing_file_is_named(visit, folder, tmp_path):
    shutil.copytree(folder / "sub", tmp_path / "bare")
    weights = tmp_path / "bare" / "trainer" / "residual20.js"
    moved = weights.rename(tmp_path / "elsewhere.js")
    visit.expected.append("ERR_FILE_NOT_FOUND")
    page = visit((tmp_path / "bare" / "hands.html").as_uri())
    assert not page.locator("#hands p").is_visible()
    assert not any("residual20" in url for url in visit.asked)
    page.get_by_role("button", name="Load the net").click()
    page.get_by_text("residual20.js is not there").wait_for()
    moved.rename(weights)
    page.get_by_role("button", name="Load the net").click()             # and once more, when it is there
    page.locator("#hands form").wait_for(timeout=60_000)


@pytest.mark.parametrize("settings", [{"script": "delete globalThis.WebAssembly"}, {"java_script_enabled": False}])
def test_without_webassembly_or_javascript_a_sentence_stands_there(visit, served, settings):
    page = visit(served.replace("page.html", "hands.html"), **settings)
    assert page.locator("#hands p").is_visible()
    assert page.locator("#hands :is(form, button, figcaption)").locator("visible=true").count() == 0


def test_the_reader_draws_with_the_mouse_and_leaves_the_test_pictures_alone(in_hand):
    page = in_hand()
    before = page.locator(".hands-pictures canvas").nth(6).evaluate("(canvas) => canvas.toDataURL()")
    page.locator(".hands-picture canvas").scroll_into_view_if_needed()
    box = page.locator(".hands-picture canvas").bounding_box()
    at = [(box["x"] + box["width"] * x / 28, box["y"] + box["height"] * y / 28) for x, y in ((3, 3), (25, 3))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    page.mouse.move(at[1][0], at[1][1] + 50)                             # no button, no ink
    answered(page)
    drawn = np.array(own_pixels(page)).reshape(28, 28)
    boot = build.shown(LARGE)[6, 0]
    line = drawn[2:4, 4:24]
    assert (line >= 200).all()                                          # a stroke without gaps, on a copy of the boot
    assert np.array_equal(drawn[7:], boot[7:])
    assert page.get_by_label("yours").is_checked()
    assert page.locator(".hands-pictures canvas").nth(6).evaluate("(canvas) => canvas.toDataURL()") == before


def test_of_an_empty_picture_nothing_is_said_but_draw_something(in_hand):
    page = in_hand()
    own, answer = page.locator(".hands-pictures label b").last, page.locator("#hands")
    assert own.text_content() == ""                                     # nothing is drawn yet, nor asked for
    assert answer.get_attribute("data-answer") == "ankle boot"
    for begin in (page.get_by_label("yours"), page.get_by_role("button", name="Clear")):
        begin.click()
        page.locator(".hands-status", has_text="Draw something.").wait_for()
        assert max(own_pixels(page)) == 0
        assert answer.get_attribute("data-answer") == own.text_content() == ""
        assert page.locator("#hands li b").all_text_contents() == [""] * 10
        assert page.locator("#hands li").first.evaluate("(item) => item.style.getPropertyValue('--share')") == ""
        page.locator(".hands-picture canvas").focus()
        page.keyboard.press("ArrowRight")
        shares, told = answered(page)
        drawn = torch.tensor(own_pixels(page), dtype=torch.uint8).view(1, 1, 28, 28)
        exact = ask(STORED, drawn)[0]
        assert shares == pytest.approx(exact.tolist(), abs=0.004)
        assert told.startswith(f"{LARGE.classes[exact.argmax()]}, ")
        assert own.text_content() == f"→ {answer.get_attribute('data-answer')}"
        page.locator(".hands-pictures label").first.click()
        answered(page)
        assert own.text_content().startswith("→ ")                      # it is drawn, if not picked
        page.get_by_role("button", name="Clear").click()


def test_the_net_is_in_hand_by_keyboard_and_the_answer_is_said_when_the_hand_rests(in_hand):
    page = in_hand()
    page.locator(".hands-picture canvas").focus()
    for key in ["ArrowRight"] * 5 + ["ArrowUp"] * 20:                   # up to the edge, and no further
        page.keyboard.press(key)
    answered(page)
    drawn = np.array(own_pixels(page)).reshape(28, 28)
    assert (drawn[1:15, 18:20] >= 200).all()
    page.get_by_role("radio", name="ankle boot", exact=False).first.focus()
    page.keyboard.press("ArrowLeft")                                    # the picture before it
    page.get_by_label(BLOCKS["layer3.1"]).focus()
    page.keyboard.press("Space")
    page.get_by_label("every shortcut").focus()
    page.evaluate("""() => { globalThis.said = 0; new MutationObserver(() => { said += 1; }).observe(
        document.querySelector(".hands-status"), {childList: true, characterData: true, subtree: true}); }""")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator(".hands-status", has_text=f"without block 8, {SHORTCUTS} 1.15)").wait_for()
    assert page.evaluate("said") <= 3
    shares, _ = answered(page)
    exact = ask(STORED, torch.from_numpy(build.shown(LARGE)[5:6]), ["layer3.1"], 1.15)[0]
    assert shares == pytest.approx(exact.tolist(), abs=0.004)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_the_net_in_hand_is_accessible_and_fits_a_phone(in_hand, width, dark):
    page = in_hand(viewport={"width": width, "height": 800})
    if dark:
        darken(page)
    page.get_by_label(BLOCKS["layer1.0"]).uncheck()                      # some answers are wrong now, and shown so
    answered(page)
    assert page.locator(".hands-wrong").count() > 0
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heights = page.locator("#hands :is(label, button)").evaluate_all(
        "(parts) => parts.map((part) => part.getBoundingClientRect().height)")
    assert min(heights) >= 24                                           # large enough for a finger


# ---- what the extension puts into a page ----

def build_page(tmp_path, body):
    """The body that the extension makes of a page's, in a book with this repository's web/; the scripts and styles."""
    scripts, styles = [], []
    app = SimpleNamespace(srcdir=tmp_path, add_js_file=scripts.append, add_css_file=styles.append)
    if not (tmp_path / "web").exists():
        shutil.copytree(WEB, tmp_path / "web")
    context = {"body": body}
    book.add_live_figures(app, "page", "page.html", context, None)
    return context["body"], scripts, styles


def test_pages_with_a_live_figure_get_controls_and_scripts_and_no_other_page_does(tmp_path):
    trainer = '<figure class="trainer" id="t" hidden></figure>'
    hands = '<figure class="hands" id="h"><p>Still.</p></figure>'
    assert build_page(tmp_path, "<p>Nothing.</p>") == ("<p>Nothing.</p>", [], [])
    body, scripts, styles = build_page(tmp_path, trainer)
    assert "<form>" in body
    assert "application/json" not in body                               # nothing is recorded in that book
    assert "<table" not in body
    assert (scripts, styles) == (["../trainer/trainer.js"], ["../trainer/trainer.css"])
    body, scripts, styles = build_page(tmp_path, f"{hands}<p>And:</p>{trainer}")
    assert scripts == ["../trainer/trainer.js", "../trainer/hands.js"]  # each once
    assert styles == ["../trainer/trainer.css", "../trainer/hands.css"]
    parts = BeautifulSoup(body, "html.parser").select("figure")
    assert [part["id"] for part in parts] == ["h", "t"]
    assert [len(part.select("form")) for part in parts] == [1, 1]
    assert [len(part.select("[name=depth]")) for part in parts] == [0, 1]


def test_the_pages_files_are_copied(tmp_path):
    there = {file.name for file in copied_to(tmp_path).iterdir()}
    assert there == {"trainer.js", "trainer.css", "pictures.js", "hands.js", "hands.css", "residual20.js"}


def test_recorded_runs_of_the_same_setting_are_pale_and_no_others(visit, tmp_path):
    (tmp_path / "d2l_utils" / "recorded").mkdir(parents=True)
    rows = [f"{depth},{shortcut},0.03,float32,{seed},{epoch},1,{0.9 - seed / 10 - epoch / 100},1,False,0"
            for depth in (8, 32) for shortcut in ("none", "A") for seed in range(3) for epoch in range(1, 6)]
    rows += ["8,none,0.03,float32,3,1,nan,nan,1,True,0"]                # diverged: no line
    columns = "depth,shortcut,lr,precision,seed,epoch,train_loss,train_error,seconds,diverged,entry"
    (tmp_path / book.RECORD).write_text("\n".join([columns, *rows, ""]), encoding="utf-8")
    body, *_ = build_page(tmp_path, '<figure class="trainer" id="lab" hidden></figure>')
    copied_to(tmp_path)
    head = '<link rel="stylesheet" href="trainer/trainer.css"><script src="trainer/trainer.js"></script>'
    (tmp_path / "page.html").write_text(f'<meta charset="utf-8">{head}<body>{body}</body>', encoding="utf-8")
    page = visit((tmp_path / "page.html").as_uri())
    lines = page.locator("#lab polyline.trainer-record")
    assert lines.count() == 6
    first = lines.first.get_attribute("points").split()
    assert [float(point.split(",")[1]) for point in first] == pytest.approx(
        [236 - 220 * (0.9 - epoch / 100) for epoch in range(1, 6)], abs=0.2)
    for name, other, same in (("depth", "20", "8"), ("rate", "0.1", "0.03"), ("pictures", "512", "2048")):
        page.get_by_label(name).select_option(other)
        assert lines.count() == 0, name
        page.get_by_label(name).select_option(same)
        assert lines.count() == 6, name
    rows = BeautifulSoup(body, "html.parser").select("figure details.data-table tbody tr")
    medians = [f"{80 - epoch}.0" for epoch in range(1, 6)]
    assert [[cell.text for cell in row.select("td")] for row in rows] == [medians] * 4


# ---- the record of such runs ----

def test_the_page_the_record_and_the_extension_speak_of_the_same_runs():
    script = (WEB / "trainer.js").read_text(encoding="utf-8")
    for name, value in (("EPOCHS", train_here.EPOCHS), ("BATCH", train_here.BATCH), ("WIDTH", train_here.WIDTH)):
        assert f"{name} = {value}," in script
    form = BeautifulSoup((WEB / "trainer.html").read_text(encoding="utf-8"), "html.parser")
    chosen = {choice["name"]: choice.find("option", selected=True).contents[0].strip() for choice in form("select")}
    assert chosen == {"depth": "32", "rate": str(train_here.LR), "pictures": str(train_here.COUNT)}
    assert book.PICTURES == train_here.COUNT == build.PICTURES
    depths = {int(option.contents[0]) for option in form.select("[name=depth] option")}
    assert depths == {config["depth"] for config in train_here.CONFIGS}


@pytest.fixture
def record():
    return d2l.recorded("train_here")


def test_in_the_record_the_32_layer_pair_keeps_its_order(record):
    last = record.query("depth == 32 and epoch == 5").pivot(index="seed", columns="shortcut", values="train_error")
    assert len(last) == 20
    assert (last["none"] > last["A"]).sum() >= 19


@pytest.mark.parametrize("seed", [0, 3])
def test_a_recorded_pair_comes_out_again(record, seed):
    for shortcut in ("none", "A"):
        rows = record.query("depth == 32 and seed == @seed and shortcut == @shortcut")
        again = train_here.run(32, None if shortcut == "none" else shortcut, train_here.LR, seed)
        assert [round(2048 * row["train_error"]) for row in again] == (2048 * rows.train_error).round().tolist()
        assert [row["train_loss"] for row in again] == pytest.approx(rows.train_loss.tolist(), rel=1e-5)

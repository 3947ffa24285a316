"""net_in_hands() with a kernel: what torch answers as blocks are switched off and shortcuts scaled. web/hands.js, which
the built book has instead, is tested in test_web.py."""

import pytest
import torch
from bs4 import BeautifulSoup

import d2l_utils as d2l
from d2l_utils.book import hands
from d2l_utils.data import normalise
from d2l_utils.probes import blocks_of, lesion


@pytest.fixture(scope="module")
def net():
    return d2l.stored("fashion_mnist_residual20")


def picture(i=0):
    return d2l.fashion_mnist(device="cpu").X_test[i:i + 1]


@torch.no_grad()
def test_the_whole_net_and_a_net_without_blocks_answer_as_they_do_elsewhere(net):
    X = picture()
    shares, maps = hands.ask(net, X)
    assert torch.equal(shares, net(normalise(X))[0].softmax(0))
    assert list(maps) == list(blocks_of(net))
    assert [tuple(Y.shape) for Y in maps.values()] == [(16, 28, 28)] * 3 + [(32, 14, 14)] * 3 + [(64, 7, 7)] * 3
    off = ["layer1.1", "layer2.0"]
    shares, without = hands.ask(net, X, off)
    with lesion(net, *off):
        assert torch.equal(shares, net(normalise(X))[0].softmax(0))
    assert torch.equal(without["layer1.1"], without["layer1.0"])            # the shortcut alone: nothing happens there
    assert torch.equal(maps["layer1.0"], without["layer1.0"])
    assert not torch.equal(maps["layer1.2"], without["layer1.2"])


@torch.no_grad()
def test_shortcuts_are_scaled_and_nothing_of_it_stays(net):
    X, before = picture(), net(normalise(picture()))
    _, maps = hands.ask(net, X, ["layer1.0"], 0.5)
    whole = hands.ask(net, X)[1]
    inner = torch.relu(net.bn1(net.conv1(normalise(X))))[0]
    assert torch.equal(maps["layer1.0"], 0.5 * inner)
    block = net.layer1[1]
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(0.5 * inner[None])))))
    assert torch.allclose(maps["layer1.1"], torch.relu(branch[0] + 0.25 * inner), atol=1e-6)
    assert torch.equal(hands.ask(net, X)[1]["layer3.2"], whole["layer3.2"])
    assert torch.equal(net(normalise(X)), before)


def test_with_a_kernel_the_same_controls_are_widgets(shown, net):
    d2l.net_in_hands()
    [box] = shown
    labels = [control.description for control in box.children if hasattr(control, "index")]
    assert labels == ["picture", "shortcuts", *blocks_of(net)]
    shares, _ = hands.ask(net, picture())
    assert f"nothing off, shortcuts x 1: ankle boot, {shares.max():.1%}." in box.children[-2].value
    box.children[2].index = 1
    assert "Picture 0, layer1.0 off, shortcuts x 1: " in box.children[-2].value
    box.children[1].value = 0.5
    shares, _ = hands.ask(net, picture(), ["layer1.0"], 0.5)
    assert f"layer1.0 off, shortcuts x 0.5: {shown_answer(shares)}." in box.children[-2].value
    assert box.children[-2].value.count("<svg") == 11                       # bars, the picture, nine blocks


def shown_answer(shares):
    return f"{d2l.fashion_mnist(device='cpu').classes[shares.argmax()]}, {shares.max():.1%}"


def test_in_the_book_there_is_a_figure_for_hands_js_with_a_sentence_for_who_cannot_run_it(shown, monkeypatch):
    monkeypatch.setenv("D2L_BOOK", "1")
    d2l.net_in_hands()
    figure = BeautifulSoup(shown[0].data, "html.parser").find("figure", class_="hands")
    assert "recorded answers" in figure.find("p").text

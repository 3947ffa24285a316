"""What the experiments of chapters 06 to 08 rest on: how a rate is chosen, what each kind of net is at its start."""

import copy
import math
import sys

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

import d2l_utils as d2l
from d2l_utils.data import normalise

sys.path.insert(0, str(ROOT / "experiments"))
kinds, nets, suspects, without, lesions, script = (__import__(name) for name in (
    "_kinds", "_nets", "suspects", "without_shortcuts", "lesions", "probes"))


@pytest.fixture(scope="module")
def data():
    return d2l.fashion_mnist(size=14, device="cpu")


# Rates

@pytest.mark.parametrize(("errors", "expected"), [
    ({}, ([0.01, 0.03, 0.1], None)),
    ({0.01: 0.5, 0.03: 0.2}, ([0.01, 0.03, 0.1], None)),
    ({0.01: 0.5, 0.03: 0.2, 0.1: 0.3}, ([0.01, 0.03, 0.1], 0.03)),
    ({0.01: 0.1, 0.03: 0.2, 0.1: 0.3}, ([0.003, 0.01, 0.03, 0.1], None)),
    ({0.003: 0.2, 0.01: 0.1, 0.03: 0.2, 0.1: 0.3}, ([0.003, 0.01, 0.03, 0.1], 0.01)),
    ({0.01: 0.5, 0.03: 0.2, 0.1: 0.1}, ([0.01, 0.03, 0.1, 0.3], None)),
    ({0.01: 0.5, 0.03: 0.3, 0.1: 0.2, 0.3: 0.1, 1.0: 0.0}, ([0.01, 0.03, 0.1, 0.3, 1.0], 1.0)),
])
def test_rates_are_widened_until_the_best_is_inside(errors, expected):
    assert kinds.rates((0.01, 0.03, 0.1), errors) == expected


def test_a_race_asks_for_seed_0_first_and_for_the_others_at_the_best_rate(tmp_path):
    best = {name: kind.rates[1] for name, kind in suspects.KINDS.items()}
    best["plain"] = 0.003                                                       # below the first three

    def run(kind, rate, epochs, precision, seed):
        if rate > 0.1:
            raise FloatingPointError
        return [{"step": 0, "agreement": 0.5}, {"epoch": 1, "val_error": abs(rate - best[kind]) / 10}]

    table, asked = (), []
    while asked != (asked := suspects.configs(table)):
        table = d2l.run_grid("suspects", asked, run, folder=tmp_path)
    chosen = table[table.seed > 0].groupby("kind").rate.unique()
    assert {kind: list(rates) for kind, rates in chosen.items()} == {kind: [rate] for kind, rate in best.items()}
    assert table[table.seed > 0].groupby("kind").seed.unique().map(tuple).to_dict() == suspects.SEEDS
    assert [config["seed"] for config in asked] == sorted(config["seed"] for config in asked)
    assert sorted(table[(table.kind == "plain") & (table.seed == 0)].rate.unique()) == [0.001, 0.003, 0.01, 0.03, 0.1]


def test_a_diverged_or_unmeasured_run_is_never_the_best():
    table = pd.DataFrame({"kind": "plain", "seed": 0, "epochs": kinds.EPOCHS, "rate": [0.01, 0.03, 0.1],
                          "val_error": [0.4, float("nan"), 0.1], "diverged": [False, False, True]})
    assert kinds.final_errors(table, kinds.of_kind("plain")) == {0.01: 0.4, 0.03: 1.0, 0.1: 1.0}


def test_there_are_twelve_kinds_and_a_control():
    assert len(suspects.KINDS) == 13
    assert suspects.CONTROL in suspects.KINDS


# Starts

def test_equal_sizes_leave_the_function_and_make_relative_gradients_equal(data):
    X, y = data.X_train[:512], data.y_train[:512]
    plain, equal = (suspects.KINDS[kind].make(0, data, 20) for kind in ("plain", "plain, equal sizes"))
    before, after = (d2l.gradient_norms(net, X, y).relative[:-1] for net in (plain, equal))
    assert before.max() / before.min() > 5
    assert after.max() / after.min() < 1.1
    assert torch.allclose(plain(normalise(X[:50])), equal(normalise(X[:50])), atol=0.05)


@pytest.mark.parametrize("kind", ["delta, matched norm", "random, matched norm"])
def test_matched_norm_is_the_net_without_norm(kind, data):
    net, X = suspects.KINDS[kind].make(0, data, 8), normalise(data.X_train[:512])
    bare = copy.deepcopy(net)
    for block in [bare, *d2l.probes.blocks_of(bare).values()]:
        for name in [name for name, child in block.named_children() if isinstance(child, nn.BatchNorm2d)]:
            setattr(block, name, nn.Identity())
    assert torch.allclose(net(X), bare(X), atol=1e-4)


def test_delta_kernels_copy_what_is_not_negative(data):
    block = suspects.KINDS["delta and 0.1 noise"].make(0, data, 8).layer1[0]
    X = torch.rand(4, 16, 5, 5)
    difference = block.conv1(X) - X
    assert difference.norm() < 0.3 * X.norm()
    assert difference.norm() > 0


def test_equal_steps_have_the_same_length_in_lengths_of_their_weights(data):
    net = d2l.small_resnet(8)
    F.cross_entropy(net(normalise(data.X_train[:32])), data.y_train[:32]).backward()
    norm = net.bn1.weight.grad.clone()
    kinds.equal_steps(net, 0.01)
    for weight in net.parameters():
        if weight.dim() > 1:
            assert (kinds.NORM_RATE * weight.grad.norm() / weight.norm()).item() == pytest.approx(0.01, rel=1e-4)
    assert torch.equal(net.bn1.weight.grad, norm)


def test_skipinit_and_fixup_begin_as_the_shortcut_alone_and_everything_learns_in_the_end(data):
    X, y = normalise(data.X_train[:32]), data.y_train[:32]
    for kind in ("no norm: SkipInit", "no norm: Fixup"):
        net = without.KINDS[kind].make(0, data, 8)
        H = torch.rand(3, 16, 6, 6)
        assert torch.equal(net.layer1[0](H), H)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(net(X), y).backward()
            optimizer.step()
        assert all(p.grad is not None and p.grad.any() for name, p in net.named_parameters()), kind


@pytest.mark.parametrize("kind", ["no norm: SkipInit", "no norm: Fixup"])
def test_a_ratio_to_a_gradient_of_zero_is_left_out_and_the_run_counts(kind, data):
    ratios = {"size_ratio", "relative_ratio", "product_ratio"}
    kind = without.KINDS[kind]
    row = kinds.measure(kind.make(0, data, 8), data, batch_size=16)
    assert not ratios & set(row)
    assert all(math.isfinite(value) for value in row.values())
    assert ratios < set(kinds.measure(kinds.Kind("A").make(0, data, 8), data, batch_size=16))


def test_a_tailored_chain_has_the_likeness_that_was_asked_for():
    slope = without.tailored_slope(54)
    assert 0 < slope < 1
    assert without.tailored_slope(10) < slope                   # a shorter chain may bend more
    torch.manual_seed(0)
    width, a, b = 2048, torch.zeros(2048, dtype=torch.float64), torch.zeros(2048, dtype=torch.float64)
    a[0], b[1] = width ** 0.5, width ** 0.5                     # no likeness
    for _ in range(10):
        W = torch.randn(width, width, dtype=torch.float64) / width ** 0.5
        slope = without.tailored_slope(10)
        a, b = ((2 / (1 + slope ** 2)) ** 0.5 * F.leaky_relu(W @ v, slope) for v in (a, b))
    assert F.cosine_similarity(a, b, dim=0).item() == pytest.approx(without.LIKENESS, abs=0.03)
    assert (a.square().mean() / 1).item() == pytest.approx(1, abs=0.3)


def test_orthogonal_deltas_keep_the_mean_square(data):
    net = without.KINDS["no norm: delta-orthogonal"].make(0, data, 8)
    for block in d2l.probes.blocks_of(net).values():
        X = torch.randn(50, block.conv1.in_channels, 6, 6)
        Y = block.conv1(X)
        assert Y.square().mean().item() == pytest.approx(X.square().mean().item(), rel=0.1)


def test_unit_variance_gives_every_convolution_deviation_one(data):
    net = without.KINDS["no norm: unit variance"].make(0, data, 20)
    table = d2l.response_std(net, data.X_train[:512])
    assert table["std"][:-1].tolist() == pytest.approx([1] * 19, abs=1e-3)


def test_a_folded_net_gives_the_same_to_ten_digits(data):
    net = without.KINDS["RepVGG"].make(0, data, 8)
    for _ in range(3):
        net(normalise(data.X_train[:64]))                       # other statistics than a fresh norm's
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.bias)
    net, X = net.double().eval(), normalise(data.X_test[:50]).double()
    one = without.folded(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in one.modules())
    assert sum(isinstance(module, nn.Conv2d) for module in one.modules()) == 7
    assert (net(X) - one(X)).abs().max() < 1e-10 * net(X).abs().max()


# Lesions and probes

def test_subsets_are_what_lesions_give_and_are_all_there(data):
    torch.manual_seed(0)
    net = nets.estimate_(d2l.small_resnet(8).to(memory_format=torch.channels_last), data.X_train[:200])
    X, y = data.X_test[:100], data.y_test[:100]
    counts = lesions.subsets(net, X, y, limit=3)
    assert sorted(counts) == list(range(8))
    assert sorted(lesions.subsets(net, X, y, limit=1)) == [0, 1, 2, 4]
    blocks = list(d2l.probes.blocks_of(net))
    for mask, count in counts.items():
        with d2l.lesion(net, *(name for i, name in enumerate(blocks) if mask >> i & 1)):
            loss, error = d2l.evaluate(net, X, y, precision=lesions.PRECISION)
        assert count.row(100)["test_error"] == pytest.approx(error, abs=0.021)      # a near tie may fall either way
        assert count.row(100)["test_loss"] == pytest.approx(loss, rel=0.02)
        assert len(torch.cat(count.answers)) == 100


def test_changes_are_of_copies_and_swap_only_blocks_of_one_shape():
    net = d2l.small_resnet(20)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = [(kind, which) for kind, which, changed in lesions.changes(net) if changed is not net]
    assert [which for kind, which in found if kind == "removed"] == [f"{s}.{b}" for s in range(3) for b in range(3)]
    assert [which for kind, which in found if kind == "swapped"] == ["0.0~0.1", "0.1~0.2", "1.1~1.2", "2.1~2.2"]
    assert len(found) == 9 + 4 + len(lesions.FACTORS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(kind == "scaled" for kind, *_ in lesions.changes(d2l.small_resnet(8, None)))


def test_estimated_statistics_are_those_of_the_pictures(data):
    net, X = d2l.small_resnet(8), data.X_train[:400]
    nets.estimate_(net, X, batch_size=400)
    with torch.no_grad():
        first = net.conv1(normalise(X))
    assert torch.allclose(net.bn1.running_mean, first.mean((0, 2, 3)), atol=0.01)
    assert torch.allclose(net.bn1.running_var, first.var((0, 2, 3)), rtol=0.05)
    assert not net.training


def test_a_linear_probe_finds_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    H, H_test = (torch.randn(n, 5, generator=generator) for n in (500, 200))
    y, y_test = (h[:, :3].argmax(1) for h in (H, H_test))
    assert (script.linear_probe(H, y, H_test) == y_test).float().mean() > 0.95

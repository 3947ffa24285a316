"""What single experiment scripts compute: one change of the pictures at a time, errors by class, shares of branches."""

import importlib
import runpy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

import d2l_utils as d2l


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module


def test_shifts_move_by_up_to_a_pixel_and_fill_with_black(script):
    fashion_mnist = script("fashion_mnist")
    X = d2l.data.normalise(d2l.fashion_mnist(size=14, device="cpu").X_train[:200])
    Y = fashion_mnist.shifted(X, torch.Generator().manual_seed(0))
    black = d2l.data.normalise(torch.zeros(1, dtype=torch.uint8)).item()
    padded = F.pad(X, (1, 1, 1, 1), value=black)
    moves = torch.stack([padded[:, :, y:y + 14, x:x + 14] for y in range(3) for x in range(3)])
    which = (moves == Y).flatten(2).all(2)                          # (9, N)
    assert which.any(0).all()
    assert (which.sum(1) >= 10).all()                               # of 200 about 22 each


def test_mirrors_exchange_left_and_right_in_about_half(script):
    X = torch.rand(200, 1, 14, 14)
    Y = script("fashion_mnist").mirrored(X, torch.Generator().manual_seed(0))
    flipped = (Y == X.flip(3)).flatten(1).all(1)
    assert ((Y == X).flatten(1).all(1) ^ flipped).all()
    assert 70 <= flipped.sum() <= 130


def test_changing_net_changes_in_train_mode_alone_and_follows_from_seed_and_batch(script):
    Changing = script("fashion_mnist").Changing
    X = torch.rand(50, 1, 14, 14)
    first, again, other = (Changing(torch.nn.Identity(), "mirrors", seed) for seed in (0, 0, 1))
    one, two = first(X), first(X)
    assert torch.equal(again(X), one)
    assert not torch.equal(one, two)
    assert not torch.equal(other(X), one)
    resumed = Changing(torch.nn.Identity(), "mirrors", 0)
    resumed.load_state_dict({"batches": torch.tensor(1)})
    assert torch.equal(resumed(X), two)
    assert torch.equal(first.eval()(X), X)


def test_errors_by_class_are_the_error_in_parts(script):
    data = script("common").few(d2l.fashion_mnist(size=14, device="cpu"), 500)
    torch.manual_seed(0)
    net = d2l.small_resnet(8, width=4)
    parts = script("fashion_mnist").class_errors(net, data, "float32")
    counts = torch.bincount(data.y_test, minlength=10).tolist()
    assert list(parts) == [f"test_error {name}" for name in data.classes]
    wrong = sum(error * count for error, count in zip(parts.values(), counts, strict=True))
    assert wrong / 500 == pytest.approx(d2l.evaluate(net, data.X_test, data.y_test, precision="float32")[1])


@pytest.mark.parametrize("shortcut", [None, "A"])
def test_share_of_the_first_blocks_is_their_variances_ratio(script, shortcut):
    rows = script("branch_share").run(14, shortcut, True, "float32", 0, n=64)
    assert [row["block"] for row in rows] == list(range(1, 7))
    torch.manual_seed(0)
    net = d2l.small_resnet(14, shortcut).train()
    X = d2l.data.normalise(d2l.fashion_mnist(size=14, device="cpu").X_train[:64])
    X = F.relu(net.bn1(net.conv1(X)))
    for row, block in zip(rows[:3], [*net.layer1, net.layer2[0]], strict=True):
        branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(X)))))
        stream = X if shortcut is None else block.downsample(X)
        variances = [Z.var((0, 2, 3), unbiased=False).mean().item() for Z in (branch, stream)]
        assert [row["branch"], row["stream"]] == pytest.approx(variances, rel=1e-4)
        assert row["share"] == pytest.approx(variances[0] / variances[1], rel=1e-4)
        X = block(X)


def test_digits_are_parted_and_drawn_apart(script):
    transfer = script("transfer")
    X, y, test, choosing, pool = transfer.digits()
    assert (X.shape, X.dtype, int(X.max())) == ((1797, 1, 28, 28), torch.uint8, 255)
    assert torch.cat([test, choosing, pool.flatten()]).sort().values.equal(torch.arange(1797))
    assert torch.bincount(y[choosing]).tolist() == [20] * 10
    assert (y[pool] == torch.arange(10)[:, None]).all()
    for examples in (1, 100):
        train = transfer.drawn(examples, 3)
        assert torch.bincount(y[train]).tolist() == [examples] * 10
        assert len(train.unique()) == 10 * examples
        assert torch.isin(train, pool.flatten()).all()
        assert not torch.equal(train, transfer.drawn(examples, 4))
        assert torch.equal(train, transfer.drawn(examples, 3))


@pytest.mark.parametrize(("arm", "stays", "trains"), [
    ("fine-tuned", [], ["conv1.weight", "bn1.weight", "bn1.running_mean", "fc.weight"]),
    ("norm frozen", ["bn1.weight", "bn1.running_mean", "layer3.2.bn2.running_var"], ["conv1.weight", "fc.weight"])])
def test_what_fine_tuning_changes(script, arm, stays, trains):
    transfer, first = script("transfer"), script("transfer").net_of(arm, 0)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    stored = d2l.stored("fashion_mnist_residual20").state_dict()
    assert all(torch.equal(before[name], stored[name]) for name in stored if not name.startswith("fc"))
    X, y, test, choosing, _ = transfer.digits()
    data = d2l.FashionMNIST(X[test[:20]], y[test[:20]], X[choosing[:5]], y[choosing[:5]])
    d2l.fit(first, data, 1, lr=0.01, batch_size=20, progress=False)
    after = first.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in stays)
    assert not any(torch.equal(before[name], after[name]) for name in trains)


def test_untrained_nets_differ_by_seed_and_features_are_pooled_channels(script):
    transfer = script("transfer")
    assert [transfer.features(arm).shape for arm in ("pixels", "stage 1", "stage 2", "stage 3")] == [
        (1797, 64), (1797, 16), (1797, 32), (1797, 64)]
    net = d2l.stored("fashion_mnist_residual20")
    answers = net.fc(transfer.features("stage 3")[:50])
    torch.testing.assert_close(answers, net(d2l.data.normalise(transfer.digits()[0][:50])), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", ["block", "sqrt"])
def test_a_step_that_keeps_less_has_the_same_loss_and_gradients(script, kept):
    depth_cost = script("depth_cost")
    torch.manual_seed(0)
    net, X, y = d2l.small_resnet(14, width=4), torch.randn(8, 1, 14, 14), torch.arange(8)
    found = []
    for which in ("all", kept):
        net.zero_grad()
        loss = F.cross_entropy(depth_cost.forward(net, X, which), y)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_memory_of_a_process_counts_what_it_holds_and_held():
    """In a process of its own: this one reuses what earlier tests have freed."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from _fresh import forget_peak, memory
torch.ones(8, 8) @ torch.ones(8, 8)
forget_peak()
before, now = memory(), memory("VmRSS")
kept = torch.ones(2**22)                # 16 MiB
lost = torch.ones(2**24)                # 64 MiB
del lost
peak = memory() - before
forget_peak()
print(peak, memory() - before, memory("VmRSS") - now, kept.sum().item())
"""
    printed = subprocess.check_output([sys.executable, "-c", code, ROOT / "experiments"], text=True)
    peak, after, held, _ = map(float, printed.split())
    assert 78 < peak < 90
    assert 15 < held < 25
    assert 15 < after < 25


def test_counts_of_the_nets_of_latency_are_torchvisions(script):
    counts = script("latency").counts
    assert counts("resnet18") == {"parameters": 11_689_512, "multiply_adds": 1_814_073_344}
    assert counts("resnet152")["parameters"] == 60_192_808


def test_delta_start_copies_and_a_difference_of_nothing_is_the_enlargement(script):
    super_resolution, X = script("super_resolution"), torch.rand(2, 1, 28, 28)
    stack = super_resolution.Stack(5, "delta start")
    for layer in stack.layers:
        layer.weight.data = torch.nn.init.dirac_(torch.empty_like(layer.weight))
    torch.testing.assert_close(stack(X), X)
    assert super_resolution.readable(stack, X) == pytest.approx([1] * 5, abs=1e-4)
    for arm in ("difference", "blocks"):
        stack = super_resolution.Stack(8, arm)
        stack.layers[-1].weight.data.zero_()
        torch.testing.assert_close(stack(X), X)
    plain, blocks = super_resolution.Stack(8, "difference"), super_resolution.Stack(8, "blocks")
    assert [p.shape for p in plain.parameters()] == [p.shape for p in blocks.parameters()]
    assert not torch.equal(blocks.hidden(X)[2], F.relu(blocks.layers[2](blocks.hidden(X)[1])))


def test_linear_enlargement_finds_the_map_that_made_the_pictures(script):
    linear = script("super_resolution").linear
    small = torch.rand(20, 1, 14, 14)
    big = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)    # of 3x3 small pixels
    torch.testing.assert_close(linear(small, big, [small[:3]])[0], big[:3], rtol=1e-4, atol=1e-5)


def test_nature_is_parted_by_picture(script):
    train, choosing, test = script("super_resolution").sets("nature")
    assert [part.shape for part in (train, choosing, test)] == [(10_000, 1, 28, 28)] + [(500, 1, 28, 28)] * 2
    assert all(part.min() >= 0 and part.max() <= 1 for part in (train, choosing, test))
    assert torch.cdist(test.flatten(1), choosing.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").min() > 0


@pytest.mark.parametrize(("name", "score", "later"), [("preactivation", "val_error", 30),
                                                      ("super_resolution", "choosing_psnr", 4 * 19 + 2 * 6)])
def test_other_seeds_run_at_the_rate_that_seed_0_found_best(script, tmp_path, name, score, later):
    module = script(name)
    sign = {"val_error": 1, "choosing_psnr": -1}[score]

    def best(config):
        return sorted({net["lr"] for net in module.configs(()) if net["depth"] == config["depth"]})[:2][-1]

    def run(**config):
        if config["lr"] > best(config):
            raise FloatingPointError
        return [{"epoch": 1, score: 0.0}, {"epoch": 2, score: sign * abs(config["lr"] - best(config))}]

    table, asked = (), []
    while asked != (asked := module.configs(table)):
        table = d2l.run_grid(name, asked, run, folder=tmp_path)
    ended = [config for config in asked if config["seed"]]
    assert len(ended) == later
    assert all(config["lr"] == best(config) for config in ended)


@pytest.mark.parametrize("name", ["latency", "depth_cost"])
def test_what_a_processor_costs_is_not_measured_on_a_machine_that_computes_elsewhere(script, monkeypatch, name):
    monkeypatch.setattr(script("_fresh"), "choose_device", lambda: torch.device("cuda"))
    with pytest.raises(SystemExit, match="set D2L_DEVICE=cpu"):
        runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="__main__")

"""fit and evaluate: what a run computes, gives back and refuses. Checkpoints: test_checkpoints."""

import contextlib
import math
import pickle
import statistics
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import d2l_utils as d2l
from d2l_utils.data import epoch_generator
from d2l_utils.engine.hardware import choose_device
from d2l_utils.engine.progress import Progress
from d2l_utils.engine.settings import Settings
from d2l_utils.training import SCHEDULES, batches, learning_rate, sgd, train_epoch, train_step

SETTINGS = Settings(epochs=2, lr=0.1, batch_size=32, seed=0, schedule="one-cycle", warmup=0.3, momentum=0.9,
                    weight_decay=1e-4, clip=None, augment=False, validation=0, test=False, precision="float32")


def subset(n=256, n_test=64, size=14):
    """The first images of the bundled data, on the CPU."""
    data = d2l.fashion_mnist(size=size, device="cpu")
    return replace(data, X_train=data.X_train[:n], y_train=data.y_train[:n],
                   X_test=data.X_test[:n_test], y_test=data.y_test[:n_test])


def small_net(seed=0, **options):
    torch.manual_seed(seed)
    return d2l.small_resnet(8, **options)


def run(net, data, epochs=2, **options):
    return d2l.fit(net, data, epochs, **{"batch_size": 64, "progress": False, "precision": "float32"} | options)


def same_weights(net, other):
    return all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def data():
    return subset()


# What a run computes

def test_fit_is_the_loop_of_the_book_written_out_with_plain_torch(data):
    """Reference: torch's own SGD, its one-cycle rate and plain cross-entropy, step by step, on contiguous float32."""
    net, reference = small_net(norm=False), small_net(norm=False)
    history = run(net, data, epochs=2, lr=0.02)
    groups = [{"params": [p for p in reference.parameters() if (p.dim() > 1) == weights], "weight_decay": decay}
              for weights, decay in ((True, 1e-4), (False, 0.0))]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
    step, steps, X = 0, 2 * math.ceil(256 / 64), (data.X_train / 255 - 0.2860) / 0.3530
    for epoch in range(2):
        for batch in torch.randperm(256, generator=epoch_generator(0, epoch)).split(64):
            done = step / steps
            lr = (0.02 / 25 + (0.02 - 0.02 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2 if done < 0.3
                  else 0.02 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            nn.functional.cross_entropy(reference(X[batch]), data.y_train[batch]).backward()
            optimizer.step()
            step += 1
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-5)
    assert history["lr"].iloc[-1] == pytest.approx(lr)
    assert history["train_loss"].iloc[-1] == pytest.approx(
        nn.functional.cross_entropy(reference(X), data.y_train).item(), abs=1e-4)


def test_results_are_those_of_earlier_versions(data):
    """Numbers that this recipe gave when the first records were made."""
    net = small_net()
    last = run(net, data, validation=40, test=True).iloc[-1].drop("seconds")
    assert last.to_dict() == pytest.approx({
        "epoch": 2, "train_loss": 2.13346, "train_error": 0.70833, "val_loss": 2.16954, "val_error": 0.7,
        "test_loss": 2.14671, "test_error": 0.6875, "lr": 0.00766379}, rel=2e-3)


def test_fit_learns_and_its_history_is_a_table(data):
    net = small_net()
    history = run(net, data, epochs=8, validation=56, test=True)
    assert isinstance(history, d2l.History)
    assert list(history.columns) == ["epoch", "train_loss", "train_error", "val_loss", "val_error", "test_loss",
                                     "test_error", "lr", "seconds"]
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[0]
    assert (history["seconds"] > 0).all()
    for name, X, y in [("train", data.X_train[:200], data.y_train[:200]), ("val", data.X_train[200:],
                       data.y_train[200:]), ("test", data.X_test, data.y_test)]:
        loss, error = d2l.evaluate(net, X, y, precision="float32")
        assert history.iloc[-1][[f"{name}_loss", f"{name}_error"]].tolist() == pytest.approx([loss, error], abs=1e-6)


def test_validation_images_are_never_trained_on(data):
    spoilt = replace(data, X_train=data.X_train.clone())
    spoilt.X_train[200:] = 255 - spoilt.X_train[200:]
    net, other = small_net(), small_net()
    run(net, data, validation=56)
    run(other, spoilt, validation=56)
    assert same_weights(net, other)


def test_same_seed_same_weights_other_seed_others(data):
    nets = [small_net() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        run(net, data, epochs=1, seed=seed, augment=True)
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


# Random numbers

class Dropped(nn.Module):
    """A net that draws random numbers in train mode, with always=True in eval mode too."""

    def __init__(self, always=False):
        super().__init__()
        self.net, self.always = nn.Linear(196, 10), always

    def forward(self, X):
        return F.dropout(self.net(X.flatten(1)), 0.5, self.training or self.always)


def built(build, seed=0):
    torch.manual_seed(seed)
    return build()


@pytest.mark.parametrize("build", [small_net, Dropped, partial(Dropped, always=True)])
def test_fit_leaves_torchs_random_state_alone_and_does_not_depend_on_it(data, build):
    net, other = built(build), built(build)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run(net, data, augment=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert run(other, data, augment=True)["train_loss"].equals(first["train_loss"])
    assert same_weights(net, other)


def test_a_cell_that_seeds_while_a_net_trains_in_a_thread_gets_its_numbers(data):
    net = small_net()
    torch.manual_seed(1)
    expected = torch.rand(3)
    thread = threading.Thread(target=run, args=(net, data))
    thread.start()
    while thread.is_alive():
        torch.manual_seed(1)
        time.sleep(0.001)
        assert torch.equal(torch.rand(3), expected)
    alone = small_net()
    run(alone, data)
    assert same_weights(net, alone)


def test_two_nets_that_draw_train_at_once_as_they_do_alone(data):
    alone = built(Dropped)
    run(alone, data, seed=3)
    nets = [built(Dropped) for _ in range(3)]
    threads = [threading.Thread(target=run, args=(net, data), kwargs={"seed": 3}) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_weights(net, alone) for net in nets)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_rise_to_the_peak_and_fall(schedule):
    rates = [learning_rate(i / 1000, 0.2, schedule, 0.25) for i in range(1000)]
    assert max(rates) == pytest.approx(0.2, rel=1e-3)
    assert min(rates) > 0
    top = rates.index(max(rates))
    assert rates[:top + 1] == sorted(rates[:top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if schedule == "one-cycle":
        assert rates[0] == pytest.approx(0.2 / 25)
    if schedule == "step":
        assert [rates[499], rates[500], rates[750]] == pytest.approx([0.2, 0.02, 0.002])


def test_one_cycle_is_torchs_own():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=1001, cycle_momentum=False)
    for i in range(1000):
        # torch's cycle turns one step earlier and ends at lr / 250,000, not at 0
        assert learning_rate(i / 1000, 0.1) == pytest.approx(reference.get_last_lr()[0], abs=3e-4)
        optimizer.step()
        reference.step()


def test_weight_decay_leaves_norm_and_bias_alone():
    net = small_net()
    decayed, spared = sgd(net, 0.1).param_groups
    assert decayed["weight_decay"] == 1e-4
    assert spared["weight_decay"] == 0
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(net.parameters()))


def test_clip_bounds_the_gradient(data):
    net, X = small_net(), data.X_train[:32].float()
    train_step(net, X, data.y_train[:32], sgd(net, 0.0), "float32", clip=0.01)
    assert torch.cat([p.grad.flatten() for p in net.parameters()]).norm() == pytest.approx(0.01, rel=1e-3)


def test_augmented_batches_differ_by_epoch_and_are_the_same_again(data):
    settings = replace(SETTINGS, augment=True)
    first, again, second = (torch.cat([X for X, _ in batches(data, epoch, settings)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    plain = torch.cat([X for X, _ in batches(data, 0, SETTINGS)])
    assert first.shape == plain.shape
    assert not torch.equal(first, plain)


# evaluate

def test_evaluate_is_cross_entropy_in_eval_mode_and_restores_every_mode(data):
    net = small_net().train()
    net.stages[1].eval()
    before = [module.training for module in net.modules()], [b.clone() for b in net.buffers()]
    loss, error = d2l.evaluate(net, data.X_test, data.y_test, precision="float32", batch_size=10)
    assert [module.training for module in net.modules()] == before[0]
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before[1], strict=True))
    y_hat = net.eval()((data.X_test / 255 - 0.2860) / 0.3530)
    assert loss == pytest.approx(nn.functional.cross_entropy(y_hat, data.y_test).item(), abs=1e-5)
    assert error == (y_hat.argmax(1) != data.y_test).float().mean().item()


def test_evaluate_restores_the_mode_after_an_error(data):
    net = small_net().train()
    with pytest.raises(ValueError, match="X must have shape"):
        d2l.evaluate(net, data.X_test.expand(-1, 3, -1, -1), data.y_test)
    assert net.training


def test_evaluate_takes_other_losses(data):
    net, y = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), data.X_test / 255
    loss, error = d2l.evaluate(net, data.X_test, y, precision="float32", loss=F.mse_loss, batch_size=10)
    assert loss == pytest.approx(F.mse_loss(net((y - 0.2860) / 0.3530), y).item(), abs=1e-5)
    assert error is None


def test_evaluate_takes_a_net_without_parameters(data):
    assert d2l.evaluate(nn.Flatten(), torch.eye(10)[:, :, None, None] * 99, torch.arange(10)) == (0, 0)


# Another loss, a look at each step

def pictures_of(data):
    """Image to image: the pictures, darkened."""
    X = data.X_train / 255
    return d2l.FashionMNIST(X, X / 2, X[:64], X[:64] / 2)


def picture_net():
    return built(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)))


def test_another_loss_trains_image_to_image_nets(data):
    net = picture_net()
    history = run(net, pictures_of(data), epochs=20, loss=F.mse_loss, test=True, validation=8, progress=True)
    assert list(history.columns) == ["epoch", "train_loss", "val_loss", "test_loss", "lr", "seconds"]
    assert history["train_loss"].iloc[-1] < 0.2 * history["train_loss"].iloc[0]
    X, y = pictures_of(data).X_test, pictures_of(data).y_test
    assert history["test_loss"].iloc[-1] == pytest.approx(F.mse_loss(net(X), y).item(), rel=1e-4)


def test_another_loss_of_labels_is_the_mean_over_batches_of_any_size(data):
    smooth = partial(F.cross_entropy, label_smoothing=0.1)
    net = small_net()
    history = run(net, subset(1300), epochs=1, loss=smooth)
    X, y = subset(1300).X_train, subset(1300).y_train
    with torch.no_grad():
        expected = smooth(net.eval()((X / 255 - 0.2860) / 0.3530), y).item()
    assert history["train_loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("options", "change", "said"), [
    ({"augment": True}, {}, "augment must be False for another loss"),
    ({"loss": F.cross_entropy}, {}, "data.y_train must be int64 labels"),
    ({"loss": partial(F.mse_loss, reduction="none")}, {}, "loss must give one number"),
    ({}, {"y_train": lambda y: y[:, 0]}, r"must have the shape of the net's answers, \(1, 14, 14\) each, got"),
    ({}, {"y_train": lambda y: (255 * y).byte()}, "data.y_train must be floating or int64, got torch.uint8")])
def test_another_loss_and_its_targets_are_checked(data, options, change, said):
    pictures = pictures_of(data)
    pictures = replace(pictures, **{name: spoil(getattr(pictures, name)) for name, spoil in change.items()})
    with pytest.raises(ValueError, match=said):
        run(picture_net(), pictures, **{"loss": F.mse_loss} | options)


def test_an_interrupted_run_with_another_loss_has_no_error_column(data, capsys):
    def stop(step, loss, net):
        raise KeyboardInterrupt
    history = run(picture_net(), pictures_of(data), loss=F.mse_loss, on_step=stop)
    assert list(history.columns) == ["epoch", "train_loss", "lr", "seconds"]


def test_on_step_sees_the_gradients_before_clipping_and_update(data):
    net, other, seen = small_net(norm=False), small_net(norm=False), []

    def look(step, loss, net):
        seen.append((step, loss.item(), [p.grad.clone() for p in net.parameters()],
                     [p.detach().clone() for p in net.parameters()]))
    run(net, data, epochs=2, clip=1e-9, weight_decay=0, on_step=look)
    assert [step for step, *_ in seen] == list(range(8))
    batch = torch.randperm(256, generator=epoch_generator(0, 0))[:64]
    loss = F.cross_entropy(other((data.X_train[batch] / 255 - 0.2860) / 0.3530), data.y_train[batch])
    loss.backward()
    _, first, gradients, weights = seen[0]
    assert first == pytest.approx(loss.item(), abs=1e-5)
    for p, gradient, weight in zip(other.parameters(), gradients, weights, strict=True):
        assert torch.equal(p, weight)
        torch.testing.assert_close(gradient, p.grad, rtol=1e-3, atol=1e-4)


# What fit gives back

def frozen_body():
    """A net of which only the last layer is trained."""
    net = small_net()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    return net


def test_frozen_modules_stay_as_they_were(data):
    net, untouched = frozen_body(), small_net()
    run(net, data)
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]) != name.startswith("fc"), name
    assert all(module.training for module in net.modules())


def test_modules_in_eval_mode_keep_their_statistics_and_learn(data):
    net = small_net()
    net.bn1.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run(net, data)
    after = net.state_dict()
    assert [name for name in after if "running" in name and torch.equal(after[name], before[name])] \
        == ["bn1.running_mean", "bn1.running_var"]
    assert not torch.equal(after["bn1.weight"], before["bn1.weight"])
    assert [name for name, module in net.named_modules() if not module.training] == ["bn1"]


def test_gradients_of_frozen_parameters_have_no_part_in_clipping(data):
    net, other = frozen_body(), frozen_body()
    other.conv1.weight.grad = torch.full_like(other.conv1.weight, 1e6)
    run(net, data, clip=0.1)
    run(other, data, clip=0.1)
    assert same_weights(net, other)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ZeroDivisionError(), "nan"])
def test_the_net_comes_back_in_its_memory_layout_and_modes(data, tmp_path, capsys, layout, end):
    net = small_net(shortcut="B").to(memory_format=layout)                     # 1x1 kernels too
    net.stages[1].eval()
    strides = {name: tensor.stride() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]

    def stop(step, loss, net):
        if step == 5 and end == "nan":
            net.fc.weight.data.fill_(math.nan)
        elif step == 5 and end:
            raise end
    with contextlib.suppress(ZeroDivisionError, d2l.Diverged):
        run(net, data, on_step=stop)
    assert {name: tensor.stride() for name, tensor in net.state_dict().items()} == strides
    assert all(p.grad.stride() == strides[name] for name, p in net.named_parameters())
    assert [module.training for module in net.modules()] == modes
    if layout == torch.contiguous_format:
        save_file(net.state_dict(), tmp_path / "net.safetensors")


# Bad arguments

@pytest.mark.parametrize(("name", "value", "allowed"), [
    ("epochs", 0, "whole number from 1"), ("epochs", 1.5, "whole number from 1"), ("epochs", True, "whole number"),
    ("lr", 0, "above 0"), ("lr", math.nan, "above 0"), ("lr", "0.1", "above 0"), ("batch_size", -1, "from 1"),
    ("seed", -1, "from 0"), ("schedule", "linear", "'one-cycle', 'cosine', 'step', 'constant'"),
    ("schedule", None, "'one-cycle'"),
    ("warmup", 1.0, "below 1"), ("momentum", 1, "below 1"), ("weight_decay", -1e-4, "from 0"),
    ("clip", 0, "None or a number above 0"), ("augment", "yes", "True or False"), ("validation", -1, "from 0"),
    ("validation", 256, "below the number of training images, 256"), ("test", 1, "True or False"),
    ("precision", "float16", "'float32', 'bfloat16' or None")])
def test_a_bad_argument_is_named_with_its_value_before_anything_changes(data, name, value, allowed):
    net = small_net()
    with pytest.raises(ValueError, match=f"^{name} must be .*") as error:
        run(net, data, **{name: value})
    assert allowed in str(error.value)
    assert str(value) in str(error.value)
    assert same_weights(net, small_net())


CLASSES_LEFT = {"y_train": lambda y: torch.where(torch.arange(len(y)) < 9, -100, y)}


@pytest.mark.parametrize(("change", "error", "said"), [
    ({"y_train": lambda y: y[1:]}, ValueError,
     r"data.y_train must have an entry for each of the 256 images, got \(255,\)"),
    ({"y_test": lambda y: y[1:]}, ValueError, r"data.y_test .* the 64 images, got \(63,\)"),
    ({"X_test": lambda X: X[:0], "y_test": lambda y: y[:0]}, ValueError, r"X_test .* N at least 1, got .* \(0, 1,"),
    (CLASSES_LEFT, ValueError, "data.y_train must be classes of the net, 0 to 9, got -100"),
    ({"y_train": lambda y: y + 1}, ValueError, "0 to 9, got 10"),
    ({"y_test": lambda y: y - 1}, ValueError, "data.y_test must be classes of the net, 0 to 9, got -1"),
    ({"y_train": lambda y: y.int()}, ValueError, "must be int64 labels .* got torch.int32"),
    ({"y_train": lambda y: F.one_hot(y, 10)}, ValueError, r"must be int64 labels .* got torch.int64 \(256, 10\)"),
    ({"y_train": lambda y: F.one_hot(y, 10).float()}, ValueError, "for other targets pass another loss"),
    ({"y_train": lambda y: y[:, None]}, ValueError, "must be int64 labels"),
    ({"y_train": lambda y: y.tolist()}, TypeError, "data.y_train must be a tensor, got list"),
    ({"y_train": lambda y: y[0]}, ValueError, r"must be int64 labels \(N,\)"),
    ({"X_train": lambda X: X.numpy()}, TypeError, "data.X_train must be a tensor, got ndarray"),
    ({"X_train": lambda X: X[:, 0]}, ValueError, r"images \(N, C, H, W\), .* got torch.uint8 \(256, 14, 14\)"),
    ({"X_train": lambda X: X > 127}, ValueError, "uint8 or floating .* got torch.bool"),
    ({"X_train": lambda X: X.long()}, ValueError, "uint8 or floating .* got torch.int64"),
    ({"X_train": lambda X: X.double()}, ValueError, "the net's kind, torch.float32, got torch.float64"),
    ({"X_test": lambda X: X.double()}, ValueError, "data.X_test must be of the net's kind"),
    ({"X_train": lambda X: X.expand(-1, 3, -1, -1)}, ValueError, "X must have shape")])
def test_images_and_labels_that_do_not_fit_are_refused_before_any_work(data, change, error, said):
    net = small_net()
    wrong = replace(data, **{name: spoil(getattr(data, name)) for name, spoil in change.items()})
    with pytest.raises(error, match=said):
        run(net, wrong, test=True, on_step=lambda *_: pytest.fail("it trained"))
    assert same_weights(net, small_net())


@pytest.mark.parametrize(("change", "error", "said"), [
    ({"y": lambda y: y[1:]}, ValueError, r"y must have an entry for each of the 64 images, got \(63,\)"),
    ({"X": lambda X: X[:0], "y": lambda y: y[:0]}, ValueError, "at least 1"),
    ({"y": lambda y: torch.full_like(y, -100)}, ValueError, "y must be classes of the net, 0 to 9, got -100"),
    ({"y": lambda y: F.one_hot(y, 10).float()}, ValueError, "y must be int64 labels"),
    ({"X": lambda X: X.numpy()}, TypeError, "X must be a tensor"), ({"X": lambda X: X[:, 0]}, ValueError, "X must be"),
    ({"X": lambda X: X.half()}, ValueError, "X must be of the net's kind")])
def test_evaluate_refuses_the_same(data, change, error, said):
    given = {"X": data.X_test, "y": data.y_test}
    with pytest.raises(error, match=said):
        d2l.evaluate(small_net(), **given | {name: spoil(given[name]) for name, spoil in change.items()})


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "all"])
def test_evaluate_refuses_a_batch_size_that_is_none(data, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number from 1, got {batch_size!r}"):
        d2l.evaluate(small_net(), data.X_test, data.y_test, batch_size=batch_size)


def test_data_must_be_a_set_and_a_set_equals_itself(data):
    with pytest.raises(TypeError, match="data must be a FashionMNIST, got tuple"):
        run(small_net(), (data.X_train, data.y_train))
    copy = replace(data, X_train=data.X_train.clone())
    assert data == data
    assert data != copy
    assert data.sha256() == copy.sha256()


def test_nets_and_images_of_double_precision_train_or_are_refused_in_one_sentence(data):
    net = small_net().double()
    with pytest.raises(ValueError, match=r"torch.float64, got torch.uint8 \(which is normalised to float32\)"):
        run(net, data)
    double = replace(data, X_train=data.X_train.double() / 255, X_test=data.X_test.double() / 255)
    assert run(net, double, epochs=1)["train_loss"].notna().all()
    assert {p.dtype for p in net.parameters()} == {torch.float64}


def nothing_to_train():
    return small_net().requires_grad_(False)


@pytest.mark.parametrize(("build", "context", "said"), [
    (nothing_to_train, contextlib.nullcontext, "net must have a parameter to train, .* ResNet with 23"),
    (nn.Flatten, contextlib.nullcontext, "got Flatten with 0 parameters, 0 of them to train"),
    (small_net, torch.no_grad, "not under torch.no_grad"), (small_net, torch.inference_mode, "or inference_mode"),
    (lambda: nn.Conv2d(1, 10, 3), contextlib.nullcontext, r"net must give scores \(N, classes\)")])
def test_a_net_that_cannot_be_trained_is_refused_in_one_sentence(data, build, context, said):
    net = build()
    with context(), pytest.raises(ValueError, match=said):
        run(net, data)


@pytest.mark.parametrize(("n", "options"), [(129, {}), (130, {"validation": 1}), (2, {"batch_size": 1}), (1, {})])
def test_a_lone_image_on_one_pixel_maps_is_found_out_before_training(n, options):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    with pytest.raises(ValueError, match=r"batch_size must leave no lone image for this net .* more than 1"):
        run(net, subset(n), **{"batch_size": 128} | options, on_step=lambda *_: pytest.fail("it trained"))
    run(net, subset(128), epochs=1, batch_size=128)
    net[2].eval()                                               # with stored statistics one image is enough
    run(net, subset(n), epochs=1, **{"batch_size": 128} | options)
    run(small_net(), subset(n), epochs=1, **{"batch_size": 128} | options)          # its last maps have 16 pixels


# A loss that is no number, an interrupt

class FailsAt(nn.Module):
    """A net whose output is NaN, or which raises `error`, from the forward pass number `step` in train mode on."""

    def __init__(self, step, error=None):
        super().__init__()
        self.net, self.step, self.error, self.seen = nn.Linear(196, 10), step, error, 0

    def forward(self, X):
        return self.net(X.flatten(1)) * (math.nan if self.fail(self) else 1)

    def fail(self, module, *args):
        """Whether the pass of `module` fails; also a hook for another net."""
        self.seen += module.training
        if module.training and self.seen > self.step:
            if self.error:
                raise self.error
            return True


@pytest.mark.parametrize("step", [0, 7, 20, 31])
def test_the_first_bad_step_is_named_with_rate_and_hint(data, step):
    with pytest.raises(d2l.Diverged, match=f"at step {step}, at rate .*: try a lower lr") as error:
        run(FailsAt(step), data, epochs=4, batch_size=32, lr=0.05)
    assert isinstance(error.value, FloatingPointError)
    assert error.value.step == step
    assert error.value.lr == pytest.approx(learning_rate(step / 32, 0.05))
    assert len(error.value.history) == step // 8
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)     # it comes back from other processes


def spoil_at(step, at):
    """An on_step that makes the weights NaN at one step, so that the update is the last good thing."""
    def on_step(now, loss, net):
        if now == step:
            for parameter in at(net):
                parameter.grad.fill_(math.nan)
    return on_step


@pytest.mark.parametrize("step", [3, 7])
def test_a_last_update_that_breaks_the_net_is_no_result(data, step):
    with pytest.raises(d2l.Diverged, match=f"at step {step + 1}, at rate") as error:
        run(small_net(), data, on_step=spoil_at(step, lambda net: [net.fc.bias]))         # 4 steps an epoch
    assert error.value.step == step + 1
    assert len(error.value.history) == step // 4
    assert isinstance(error.value.history, d2l.History)


class BadPile(nn.Module):
    """A net that is at a loss with bright pictures, in eval mode only."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(196, 10)

    def forward(self, X):
        scores = self.net(X.flatten(1))
        bright = (X.flatten(1).mean(1, keepdim=True) > 1.9) & (not self.training)
        return scores.masked_fill(bright, math.nan)


@pytest.mark.parametrize("pile", ["train", "val", "test"])
def test_a_measured_loss_that_is_no_number_is_no_result(data, pile):
    dark = replace(data, X_train=data.X_train // 4, X_test=data.X_test // 4)
    place = {"train": dark.X_train[5:6], "val": dark.X_train[255:], "test": dark.X_test[5:6]}[pile]
    place.fill_(255)
    with pytest.raises(d2l.Diverged, match="at step 4"):
        run(BadPile(), dark, validation=8, test=True)


def test_evaluate_never_returns_a_loss_that_is_no_number(data):
    net = small_net()
    net.fc.bias.data[3] = math.inf
    with pytest.raises(d2l.Diverged, match="the loss is not a finite number") as error:
        d2l.evaluate(net, data.X_test, data.y_test)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_interrupt_leaves_net_and_history_and_says_how_to_go_on(data, tmp_path, capsys, checkpoint):
    path = tmp_path / "run.pt" if checkpoint else None
    net = FailsAt(11, KeyboardInterrupt())
    history = run(net, data, epochs=3, checkpoint=path)                         # 4 steps an epoch
    assert history["epoch"].tolist() == [1, 2]
    said = capsys.readouterr().out
    assert "Stopped after 2 of 3 epochs" in said
    assert ("go on after epoch 2" if checkpoint else "checkpoint=PATH") in said
    assert math.isfinite(d2l.evaluate(net, data.X_test, data.y_test)[0])
    if checkpoint:
        net.error, net.seen = None, -99
        assert run(net, data, epochs=3, checkpoint=path)["epoch"].tolist() == [1, 2, 3]


def test_an_interrupt_in_the_first_epoch_leaves_an_empty_table(data, capsys):
    history = run(FailsAt(1, KeyboardInterrupt()), data)
    assert len(history) == 0
    assert history["train_loss"].tolist() == []


def test_on_epoch_sees_the_growing_history_and_may_stop_the_run(data, capsys):
    seen = []

    def stop(history):
        seen.append(len(history))
        if len(history) == 2:
            raise KeyboardInterrupt
    assert len(run(small_net(), data, epochs=4, on_epoch=stop)) == 2
    assert seen == [1, 2]


def test_the_bar_shows_epoch_loss_error_and_the_book_one_final_line(data, capsys, monkeypatch):
    run(small_net(), data, progress=True)
    shown = capsys.readouterr().out
    assert "epoch 2/2, loss " in shown
    assert ", error " in shown
    monkeypatch.setenv("D2L_BOOK", "1")
    run(small_net(), data, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("2 epochs: training loss ")
    run(small_net(), data, progress=False)
    assert capsys.readouterr().out == ""


# Devices, precision, layout

class OneDevice(TorchDispatchMode):
    """Fails when one operation sees tensors of two devices; a number (a tensor without dimensions) may come along."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        assert len(devices) <= 1, f"{function} sees {devices}"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("options", [{}, {"shortcut": None}, {"shortcut": "B"}, {"block": d2l.PreActResidual}])
def test_the_training_step_stays_on_the_datas_device(data, options):
    net = small_net(**options).to("meta", memory_format=torch.channels_last)
    optimizer = sgd(net, 0.1)
    meta = replace(data, X_train=data.X_train[:50].to("meta"), y_train=data.y_train[:50].to("meta"))
    with OneDevice():
        for X, y in batches(meta, 0, replace(SETTINGS, augment=True)):
            loss = train_step(net, X, y, optimizer, "float32", clip=1.0)
    assert loss.device.type == "meta"
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in net.parameters())


def test_the_device_check_finds_a_tensor_left_on_the_cpu(data):
    class Careless(nn.Linear):
        def forward(self, X):
            return super().forward(X.flatten(1)) + torch.ones(10)
    net = Careless(196, 10).to("meta")
    with pytest.raises(AssertionError, match="sees"), OneDevice():
        train_step(net, torch.empty(4, 1, 14, 14, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta"),
                   sgd(net, 0.1), "float32")


def test_a_step_never_waits_for_the_device(data, monkeypatch):
    """The loss is asked for every CHECK_EVERY steps and at the end of an epoch, nowhere else."""
    asked = []
    for name in ("item", "tolist", "__bool__", "__float__", "cpu"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, original=original, name=name, **kwargs:
                            (asked.append(name), original(self, *args, **kwargs))[1])
    net = small_net().to(memory_format=torch.channels_last)
    settings = replace(SETTINGS, batch_size=8, augment=True)                     # 32 steps
    progress = Progress(2, 32, [], False)
    monkeypatch.setattr(progress, "check_finite", lambda: asked.append(progress.done))
    train_epoch(net, data, 0, settings, sgd(net, 0.1), progress)
    assert asked == [20, 32]


def test_no_step_synchronises_with_a_gpu(data):
    """Where there is a GPU, CUDA itself looks, from an epoch's second batch on; elsewhere the steps only run."""
    device = choose_device()
    there = d2l.FashionMNIST(*(getattr(data, name).to(device) for name in ("X_train", "y_train", "X_test", "y_test")))
    net = small_net().to(device=device, memory_format=torch.channels_last)
    optimizer, steps = sgd(net, 0.1), batches(there, 0, replace(SETTINGS, augment=True))
    train_step(net, *next(steps), optimizer)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [train_step(net, X, y, optimizer, clip=1.0) for X, y in steps]
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_computes_in_the_precision_and_layout_it_says(data, precision):
    seen = []
    net = small_net()
    net.stages[0].register_forward_hook(lambda module, args, Y: seen.append((Y.dtype, Y.is_contiguous(
        memory_format=torch.channels_last))))
    run(net, data, epochs=1, precision=precision)
    assert set(seen) == {(getattr(torch, precision), True)}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


# Speed: fit adds next to nothing to the steps it makes

def bare_loop(net, data, batch_size=64):
    """An epoch of the same steps in nothing but torch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    for batch in torch.randperm(len(data.X_train)).split(batch_size):
        X = data.X_train[batch].float().div_(255).sub_(0.286).div_(0.353).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), data.y_train[batch]).backward()
        optimizer.step()


@pytest.mark.bench
def test_an_epoch_of_fit_costs_what_its_bare_steps_cost():
    """Measured in processor time, which other programs disturb little; experiments/throughput.py records the figure."""
    data, net, ratios = subset(1024), small_net().to(memory_format=torch.channels_last), []
    settings = replace(SETTINGS, batch_size=64)
    with contextlib.closing(Progress(99, 16, [], True)) as bar:
        for _ in range(7):
            start = time.process_time()
            bare_loop(net, data)
            bare = time.process_time() - start
            train_epoch(net, data, 0, settings, sgd(net, 0.1), bar)
            ratios.append((time.process_time() - start - bare) / bare)
    print(f"fit's epoch costs {statistics.median(ratios):.3f} times its bare steps")
    assert statistics.median(ratios) < 1.10, ratios

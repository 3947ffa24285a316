"""fit, evaluate, checkpoints: what a run computes, survives and refuses."""

import contextlib
import math
import os
import pickle
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import d2l_utils as d2l
from d2l_utils.data import epoch_generator
from d2l_utils.engine.checkpoints import SCHEDULES, Settings
from d2l_utils.engine.progress import Watch
from d2l_utils.training import (
    batches,
    learning_rate,
    sgd,
    train_epoch,
    train_step,
)

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


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """On cores that others use too, two threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def test_fit_leaves_torchs_random_state_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(small_net_without_seeding(), data, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def small_net_without_seeding():
    with torch.random.fork_rng(devices=[]):
        return d2l.small_resnet(8)


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
    first, again, second = (torch.cat([X for X, _, _ in batches(data, epoch, settings)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    plain = torch.cat([X for X, _, _ in batches(data, 0, SETTINGS)])
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


# Bad arguments

@pytest.mark.parametrize(("name", "value", "allowed"), [
    ("epochs", 0, "whole number from 1"), ("epochs", 1.5, "whole number from 1"), ("epochs", True, "whole number"),
    ("lr", 0, "above 0"), ("lr", math.nan, "above 0"), ("lr", "0.1", "above 0"), ("batch_size", -1, "from 1"),
    ("seed", -1, "from 0"), ("schedule", "linear", "'one-cycle', 'cosine', 'step', 'constant'"),
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


def test_labels_that_do_not_fit_are_refused(data):
    with pytest.raises(ValueError, match="256 training images and 255 labels"):
        run(small_net(), replace(data, y_train=data.y_train[1:]))
    with pytest.raises(ValueError, match="got 64 test images and 63 labels"):
        run(small_net(), replace(data, y_test=data.y_test[1:]), test=True)
    with pytest.raises(ValueError, match="got 0 test images"):
        run(small_net(), replace(data, X_test=data.X_test[:0], y_test=data.y_test[:0]), test=True)
    with pytest.raises(ValueError, match="got 64 and 63"):
        d2l.evaluate(small_net(), data.X_test, data.y_test[1:])


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
    assert lines[0].startswith("2 epochs, ")
    run(small_net(), data, progress=False)
    assert capsys.readouterr().out == ""


# Checkpoints

LONG = {"epochs": 6, "batch_size": 16, "augment": True}
SCRIPT = """
import sys
import torch
sys.path.insert(0, {tests!r})
from test_training import LONG, run, small_net, subset
torch.set_num_threads(1)
net = small_net()
run(net, subset(), **LONG, checkpoint=sys.argv[1], on_epoch=lambda history: print(len(history), flush=True))
torch.save(net.state_dict(), sys.argv[2])
"""


@contextlib.contextmanager
def attempt(folder):
    """The long run in a process of its own, which says each epoch that is saved."""
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    with subprocess.Popen([sys.executable, "-c", script, folder / "run.pt", folder / "weights.pt"],
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_killed_twice_ends_with_the_weights_of_an_undisturbed_one(data, tmp_path):
    chance, kills = random.Random(time.time_ns()), 0
    for _ in range(2):                              # kill -9 some way into an epoch after the first, or into writing
        with attempt(tmp_path) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))
            kills += process.poll() is None
    with attempt(tmp_path) as process:
        epochs = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    assert kills, "both attempts were over before they could be killed"
    assert len(epochs) < 6, "the last attempt started anew"
    undisturbed, found = small_net(), small_net(seed=9)
    run(undisturbed, data, **LONG)
    found.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert same_weights(found, undisturbed)


def test_killed_while_writing_leaves_the_checkpoint_before(data, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    full, net = small_net(), small_net()
    expected = run(full, data, epochs=3)
    save, calls = torch.save, []

    def die_in_the_middle(state, file):
        calls.append(1)
        if len(calls) == 3:                         # the start, epoch 1, epoch 2
            file.write(b"half a file")
            raise SystemExit
        save(state, file)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die_in_the_middle)
        with pytest.raises(SystemExit):
            run(net, data, epochs=3, checkpoint=path)
    again = small_net(seed=9)                       # other weights: the checkpoint's replace them
    history = run(again, data, epochs=3, checkpoint=path)
    assert same_weights(again, full)
    columns = ["epoch", "train_loss", "train_error", "lr"]
    assert history[columns].equals(expected[columns])


def test_a_finished_run_returns_at_once_with_its_net_and_history(data, tmp_path):
    net, again = small_net(), small_net(seed=9)
    history = run(net, data, checkpoint=tmp_path / "run.pt")
    written = os.stat(tmp_path / "run.pt").st_mtime_ns
    assert run(again, data, checkpoint=tmp_path / "run.pt",
               on_epoch=lambda history: pytest.fail("it trained")).equals(history)
    assert same_weights(net, again)
    assert os.stat(tmp_path / "run.pt").st_mtime_ns == written
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """A checkpoint of a run of 2 epochs."""
    path = tmp_path_factory.mktemp("checkpoint") / "run.pt"
    run(small_net(), data, checkpoint=path)
    return path


@pytest.mark.parametrize("option", [
    {"epochs": 3}, {"lr": 0.2}, {"batch_size": 32}, {"seed": 1}, {"schedule": "cosine"}, {"warmup": 0.1},
    {"momentum": 0.8}, {"weight_decay": 0.0}, {"clip": 1.0}, {"augment": True}, {"validation": 8}, {"test": True},
    {"precision": "bfloat16"}])
def test_a_checkpoint_of_other_settings_is_refused_by_name(data, checkpoint, option):
    (name, value), = option.items()
    content = checkpoint.read_bytes()
    net = small_net(seed=9)
    with pytest.raises(ValueError, match=f"was made with {name}=.* has {name}={value!r}"):
        run(net, data, checkpoint=checkpoint, **option)
    assert checkpoint.read_bytes() == content
    assert same_weights(net, small_net(seed=9))


def test_a_checkpoint_of_another_net_or_other_data_is_refused(data, checkpoint):
    for other in (small_net(shortcut=None), small_net(width=8), d2l.small_resnet(14)):   # the first: same shapes
        with pytest.raises(ValueError, match="was made with net="):
            run(other, data, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="was made with data="):
        run(small_net(), replace(data, y_train=data.y_train.flip(0)), checkpoint=checkpoint)


def test_numpys_numbers_are_taken_and_can_be_saved(data, checkpoint):
    history = run(small_net(), data, epochs=np.int64(2), lr=np.float64(0.1), seed=np.int64(0), checkpoint=checkpoint)
    assert len(history) == 2


@pytest.mark.parametrize("spoil", [
    lambda content: content[:len(content) // 2], lambda content: b"", lambda content: b"not a checkpoint" * 99,
    lambda content: content[:5000] + bytes(100) + content[5100:-9999]])
def test_a_damaged_or_foreign_file_is_refused_by_name_and_left_alone(data, checkpoint, tmp_path, spoil):
    path = tmp_path / "mine.pt"
    path.write_bytes(spoil(checkpoint.read_bytes()))
    before, net = path.read_bytes(), small_net(seed=9)
    with pytest.raises(ValueError, match=r"mine\.pt' is no whole checkpoint"):
        run(net, data, checkpoint=path)
    assert path.read_bytes() == before
    assert same_weights(net, small_net(seed=9))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("state", [{"weight": torch.zeros(2)}, [1, 2], Bomb()])
def test_other_torch_files_are_refused_and_never_executed(data, tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    torch.save(state, "mine.pt")
    with pytest.raises(ValueError, match=r"mine\.pt' is no whole checkpoint"):
        run(small_net(), data, checkpoint="mine.pt")
    assert os.listdir() == ["mine.pt"]


def test_a_path_that_cannot_be_written_is_found_out_before_any_training(data, tmp_path):
    net = small_net()
    with pytest.raises(FileNotFoundError):
        run(net, data, checkpoint=tmp_path / "missing" / "run.pt")
    assert same_weights(net, small_net())


def test_a_net_that_draws_at_random_resumes_bit_for_bit(data, tmp_path, capsys):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(196, 10))

    def stop(history):
        raise KeyboardInterrupt
    net, whole = build(), build()
    run(whole, data)
    run(net, data, checkpoint=tmp_path / "run.pt", on_epoch=stop)
    torch.rand(7)
    run(net, data, checkpoint=tmp_path / "run.pt")
    assert same_weights(net, whole)


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
        for X, y, _ in batches(meta, 0, replace(SETTINGS, augment=True)):
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
    """The loss is asked for every LOOK steps and at the end of an epoch, nowhere else."""
    asked = []
    for name in ("item", "tolist", "__bool__", "__float__", "cpu"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, original=original, name=name, **kwargs:
                            (asked.append(name), original(self, *args, **kwargs))[1])

    class Silent:
        def step(self, lr, loss):
            pass

        def look(self, done):
            asked.append("look")
    net = small_net().to(memory_format=torch.channels_last)
    settings = replace(SETTINGS, batch_size=8, augment=True)                     # 32 steps
    train_epoch(net, data, 0, settings, sgd(net, 0.1), Silent())
    assert asked == ["look", "look"]


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


def test_an_epoch_of_fit_costs_what_its_bare_steps_cost():
    """Measured in processor time, which other programs disturb little; experiments/throughput.py records the figure."""
    data, net, ratios = subset(1024), small_net().to(memory_format=torch.channels_last), []
    settings = replace(SETTINGS, batch_size=64)
    with contextlib.closing(Watch(2, 16, [], progress=True)) as watch:
        for _ in range(7):
            start = time.process_time()
            bare_loop(net, data)
            bare = time.process_time() - start
            train_epoch(net, data, 0, settings, sgd(net, 0.1), watch)
            ratios.append((time.process_time() - start - bare) / bare)
    assert statistics.median(ratios) < 1.10, ratios

"""Checkpoints: what a run survives, what it refuses to go on from."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_training import SETTINGS, frozen_body, picture_net, pictures_of, run, same_weights, small_net, subset
from torch import nn
from torch.nn import functional as F

import d2l_utils as d2l
from d2l_utils.engine.checkpoints import describe


@pytest.fixture(scope="module")
def data():
    return subset()


# Killed

LONG = {"epochs": 4, "batch_size": 16, "augment": True}                        # 16 steps an epoch
SCRIPT = """
import os, signal, sys
import torch
sys.path.insert(0, {tests!r})
from test_training import run, small_net, subset
from test_checkpoints import LONG, die_while_writing
torch.set_num_threads(1)
kill_at, net = int(sys.argv[3]), small_net()
if kill_at == {writing}:
    die_while_writing(3)                        # epochs 2, 3, 4

def on_step(step, loss, net):
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
history = run(net, subset(), **LONG, checkpoint=sys.argv[1], on_step=on_step)
torch.save(net.state_dict(), sys.argv[2])
"""
WRITING, NEVER = -1, -2


def die_while_writing(nth):
    """Have torch.save write half a file and kill the process, the nth time."""
    save, calls = torch.save, []

    def half(state, file):
        calls.append(1)
        if len(calls) == nth:
            file.write(b"half a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)
    torch.save = half


def attempt(folder, kill_at):
    """The long run in a process of its own that is killed at a step; its exit status."""
    script = SCRIPT.format(tests=os.path.dirname(__file__), writing=WRITING)
    return subprocess.run([sys.executable, "-c", script, folder / "run.pt", folder / "weights.pt", str(kill_at)],
                          timeout=250).returncode


def test_a_run_killed_at_fixed_points_ends_with_the_weights_of_an_undisturbed_one(data, tmp_path):
    kills = [16, WRITING, 3 * 16 + 7]          # right after epoch 1; while writing epoch 4; amid epoch 4 again
    assert [attempt(tmp_path, step) for step in kills] == [-signal.SIGKILL] * 3
    assert len(torch.load(tmp_path / "run.pt")["rows"]) == 3
    assert attempt(tmp_path, NEVER) == 0
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


def bn1_in_eval_mode():
    net = small_net()
    net.bn1.eval()
    return net


@pytest.mark.parametrize(("build", "said"), [(frozen_body, "trained parameters"),
                                             (bn1_in_eval_mode, "modules in eval mode")])
def test_a_checkpoint_of_a_run_with_other_frozen_layers_or_modes_is_refused(data, checkpoint, tmp_path, build, said):
    net = build()
    with pytest.raises(ValueError, match=f"was made with {said}=.*: use the same {said} or another path"):
        run(net, data, checkpoint=checkpoint)
    assert same_weights(net, build())
    run(net, data, checkpoint=tmp_path / "run.pt")                      # and its own is taken
    again = build()
    run(again, data, checkpoint=tmp_path / "run.pt")
    assert same_weights(net, again)


def test_a_checkpoint_of_another_loss_is_refused(data, tmp_path):
    pictures = pictures_of(data)
    run(picture_net(), pictures, loss=F.mse_loss, checkpoint=tmp_path / "run.pt")
    history = run(picture_net(), pictures, loss=F.mse_loss, checkpoint=tmp_path / "run.pt")
    assert list(history.columns) == ["epoch", "train_loss", "lr", "seconds"]
    for other in (F.l1_loss, nn.MSELoss(), partial(F.mse_loss, reduction="mean")):
        with pytest.raises(ValueError, match="was made with loss='<function mse_loss>', this call has loss="):
            run(picture_net(), pictures, loss=other, checkpoint=tmp_path / "run.pt")


def test_a_loss_has_the_same_name_in_every_process():
    losses = F.cross_entropy, nn.MSELoss(), partial(F.huber_loss, delta=0.5), Bomb()
    names = [describe(SETTINGS, nn.Linear(1, 1), subset(8), loss)["loss"] for loss in losses]
    assert names[:2] == ["<function cross_entropy>", "MSELoss()"]
    assert "huber_loss" in names[2]
    assert "0.5" in names[2]
    assert not any(" at 0x" in name for name in names)


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

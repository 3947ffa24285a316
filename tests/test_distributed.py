"""fit in two real processes on the CPU: the same run as in one; a lost process is noticed and named."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from test_training import FailsAt, frozen_body, run, small_net, subset
from torch import nn

import d2l_utils as d2l
from d2l_utils.engine import distributed
from d2l_utils.engine.distributed import TIMEOUT, average_gradients, init_process_group, rank, shard, world_size
from d2l_utils.engine.hardware import choose_device
from d2l_utils.training import sgd, train_step

OPTIONS = {"epochs": 2, "batch_size": 32, "lr": 0.02, "augment": True, "test": True, "validation": 15}


# What each of the two processes does

def main(task, folder):
    torch.set_num_threads(1)
    os.chdir(folder)
    globals()[task](int(os.environ["RANK"]))


def gradients_of(net, X, y, reduce=None):
    """The loss and the gradients that one step computes."""
    loss = train_step(net, X, y, sgd(net, 0.0), "float32", reduce=reduce)
    return [loss, *[p.grad for p in net.parameters()]]


def work(number):
    """Everything but a loss of a process; results go to rank0.pt and rank1.pt."""
    data, net = subset(), small_net(norm=False)
    X, y = data.X_train[:33].float() / 255, data.y_train[:33]
    alone = [gradients_of(net, X[:n], y[:n]) for n in (33, 32, 1)]               # before they know of each other
    init_process_group(torch.device("cpu"))
    shards = [shard(torch.arange(n)) for n in (33, 32, 1)]
    both = [gradients_of(net, X[mine], y[mine], average_gradients) for mine in shards]
    parity = small_net(seed=number, norm=False)                                    # process 0's weights are taken
    parity_history = run(parity, data, progress=True, **OPTIONS)
    torch.save({"alone": alone, "both": both, "shards": shards, "seen": seen_images(), "frozen": frozen(data),
                "parity": parity.state_dict(), "rows": parity_history.drop(columns="seconds").to_dict("records"),
                "norm": resumed(data), "diverged": diverged(data), "refused": refused(data, number)},
               f"rank{number}.pt")


def seen_images():
    """Which images an epoch of fit shows to this process, for two epochs: each picture is its own number."""
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(1, 10)), []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten()) if module.training else None)
    X, y = torch.arange(101.0)[:, None, None, None], torch.zeros(101, dtype=torch.int64)
    for seed in range(2):
        run(net, d2l.FashionMNIST(X, y, X, y), epochs=1, lr=1e-6, batch_size=33, seed=seed)
    return [torch.cat(seen[:4]).int().tolist(), torch.cat(seen[4:]).int().tolist()]


def resumed(data):
    """A net with batch norm after an undisturbed run, and after one that stopped in its second epoch and went on."""
    whole, net = small_net(), small_net()
    run(whole, data)
    stop = net.register_forward_pre_hook(FailsAt(5, ZeroDivisionError()).fail)
    with pytest.raises(ZeroDivisionError):
        run(net, data, checkpoint="run.pt")
    stop.remove()
    history = run(net, data, checkpoint="run.pt")
    return whole.state_dict(), net.state_dict(), len(history), len(run(small_net(), data, checkpoint="run.pt"))


def frozen(data):
    """A net with a frozen body and its own statistics, before and after a run."""
    net = frozen_body()
    run(net, data, epochs=1, batch_size=32)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run(net, data, epochs=1, batch_size=32, lr=0.01)
    return before, net.state_dict()


def diverged(data):
    """The step at which this process notices that a loss, process 1's, is no number."""
    with pytest.raises(d2l.Diverged) as error:
        run(FailsAt(9 if rank() else 99), data, epochs=4)
    return error.value.step


def refused(data, number):
    """What a process is told that was called with another seed than the other."""
    with pytest.raises(ValueError, match="seed") as error:
        run(small_net(), data, seed=number)
    return str(error.value)


def die(number):
    """Process 1 is killed in its second epoch."""
    run(FailsAt(6 if number else 10**9, Killed), subset(), epochs=1000, checkpoint="run.pt")


class Killed(BaseException):
    """Raising it is a kill -9."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


# The tests

def command(task, folder):
    call = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_distributed as t; "
    script = folder / "script.py"
    script.write_text(call + f"t.main({task!r}, {str(folder)!r})")
    return script


def torchrun(task, folder, timeout=150):
    """The finished process of `torchrun --nproc-per-node=2`."""
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                           command(task, folder)], capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What the two processes printed and computed."""
    folder = tmp_path_factory.mktemp("two")
    process = torchrun("work", folder)
    assert process.returncode == 0, process.stderr
    return process.stdout, [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_gradients_are_those_of_one_process_with_the_whole_batch(done):
    for result in done[1]:
        for alone, both in zip(result["alone"], result["both"], strict=True):
            for expected, found in zip(alone, both, strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert [[len(mine) for mine in result["shards"]] for result in done[1]] == [[17, 16, 1], [16, 16, 1]]


def test_every_image_of_an_epoch_is_seen_by_exactly_one_process(done):
    for first, second in zip(*(result["seen"] for result in done[1]), strict=True):
        assert sorted(first + second) == list(range(101))
        assert abs(len(first) - len(second)) <= 4


def test_two_processes_end_where_one_does(done):
    alone = small_net(norm=False)
    rows = run(alone, subset(), **OPTIONS).drop(columns="seconds").to_dict("records")
    for result in done[1]:
        for expected, found in zip(alone.state_dict().values(), result["parity"].values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert [row.keys() for row in result["rows"]] == [row.keys() for row in rows]
        for expected, found in zip(rows, result["rows"], strict=True):
            assert found == pytest.approx(expected, abs=1e-4)


def test_both_processes_have_the_same_net_and_go_on_from_one_checkpoint(done):
    states = [state for result in done[1] for state in result["norm"][:2]]
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    assert [result["norm"][2:] for result in done[1]] == [(2, 2)] * 2


def test_frozen_layers_stay_as_they_were_in_both_processes(done):
    for result in done[1]:
        before, after = result["frozen"]
        assert all(torch.equal(before[name], after[name]) for name in after if not name.startswith("fc"))


def test_there_is_one_progress_bar(done):
    assert done[0].count("2 epochs, ") == 1


def test_both_processes_stop_at_the_first_bad_step(done):
    assert [result["diverged"] for result in done[1]] == [9, 9]


def test_processes_called_differently_are_told_so(done):
    for result in done[1]:
        assert result["refused"] == "seed must be the same in all 2 processes, got [0, 1]"


def test_a_killed_process_ends_the_other_with_a_clear_message(tmp_path):
    """Without torchrun, which would end the others itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [subprocess.Popen([sys.executable, command("die", tmp_path)], text=True, stderr=subprocess.PIPE,
                                  env=os.environ | told | {"RANK": str(rank)}) for rank in range(2)]
    processes[1].communicate(timeout=150)
    lost = time.monotonic()
    said = processes[0].communicate(timeout=150)[1]
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL]
    assert time.monotonic() - lost < 60
    assert "RuntimeError: process 0 of 2 stops: another one ended or did not answer" in said
    assert "checkpoint=PATH" in said
    assert len(torch.load(tmp_path / "run.pt")["rows"]) == 1


def test_torchrun_ends_all_when_one_is_killed(tmp_path):
    process = torchrun("die", tmp_path)
    assert process.returncode != 0
    assert "SIGKILL" in process.stderr


def test_under_torchrun_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(choose_device()) == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(choose_device()) == str(choose_device("cuda")) == "cuda:1"
    assert str(choose_device("cuda:0")) == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="got 'cuda:2'"):
        choose_device()


def test_a_process_alone_has_the_whole_batch():
    batch = torch.arange(5)
    assert (rank(), world_size()) == (0, 1)
    assert torch.equal(shard(batch), batch)
    assert TIMEOUT.total_seconds() < 60


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 4, 7, 8, 33])
def test_the_mean_over_all_shards_counted_with_their_images_is_the_mean_of_the_batch(monkeypatch, processes, n):
    values, shards = torch.arange(float(n)) ** 2, []
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shards.append(shard(values))
    assert all(len(mine) for mine in shards)
    mean = sum(len(mine) * mine.mean() for mine in shards) / sum(len(mine) for mine in shards)
    assert mean == pytest.approx(values.mean().item())
    if n >= processes:
        assert sorted(torch.cat(shards).tolist()) == values.tolist()

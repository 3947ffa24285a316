"""One fit in many processes, started by `torchrun --nproc-per-node=N script.py`: each takes a part of every batch,
and their gradients are added up. gloo connects processes on CPUs, nccl those on GPUs; alone, nothing happens."""

import atexit
import datetime
import os
from contextlib import contextmanager

import torch
import torch.distributed as dist

TIMEOUT = datetime.timedelta(seconds=50)         # a process that has not answered for so long counts as lost


def connect(device):
    """Join the other processes that torchrun's environment variables tell of, if any, once per process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)


def position():
    """(this process's number from 0, how many processes there are): (0, 1) where it is alone."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


@contextmanager
def exchange():
    """Around each exchange: RuntimeError with one clear sentence when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        rank, processes = position()
        raise RuntimeError(f"process {rank} of {processes} stops: another one ended or did not answer for "
                           f"{TIMEOUT.seconds} s; its own message says why. Start all of them again; "
                           "with checkpoint=PATH they go on after the last whole epoch") from error


def part(X, y):
    """This process's part of a batch X (N, ...), y (N,), and which share of the batch that is. Where a batch is too
    small for all, a process without an image takes the first one with share 0: it only keeps step."""
    rank, processes = position()
    if rank >= len(X):
        return X[:1], y[:1], 0.0
    X_part, y_part = X[rank::processes], y[rank::processes]
    return X_part, y_part, len(X_part) / len(X)


def add_up(tensors, weight=1.0):
    """Replace each float tensor, in place, by the sum over all processes of `weight` times theirs: one message."""
    if position()[1] == 1:
        return
    flat = torch.cat([tensor.float().reshape(-1) for tensor in tensors]).mul_(weight)
    with exchange():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def gradients(net):
    """The gradients of a net's parameters; zeros where this process's part of the batch did not reach one."""
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in net.parameters() if parameter.requires_grad]


def start_equal(net, settings):
    """Give all processes the weights of process 0; ValueError where they were called with different settings."""
    rank, processes = position()
    if processes > 1:
        everyone = [None] * processes
        with exchange():
            dist.all_gather_object(everyone, settings)
        for name in settings:
            if len({repr(theirs[name]) for theirs in everyone}) > 1:
                raise ValueError(f"{name} must be the same in all {processes} processes, "
                                 f"got {[theirs[name] for theirs in everyone]}")
        add_up(list(net.state_dict().values()), weight=float(rank == 0))


def average_statistics(net):
    """Average what batch norm has seen: each process normalised its own part of the batches."""
    buffers = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
    if buffers:
        add_up(buffers, weight=1 / position()[1])


def wait_for_all():
    """Return when every process has come here."""
    if position()[1] > 1:
        with exchange():
            dist.barrier()

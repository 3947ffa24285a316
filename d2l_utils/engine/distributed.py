"""One fit in many processes, started by `torchrun --nproc-per-node=N script.py`: each takes a shard of every batch,
and their gradients are averaged. gloo connects processes on CPUs, nccl those on GPUs; alone, nothing happens."""

import atexit
import datetime
import os

import torch
import torch.distributed as dist

TIMEOUT = datetime.timedelta(seconds=50)         # a process that has not answered for so long counts as lost


def init_process_group(device):
    """Join the other processes that torchrun's environment variables tell of, if any, once per process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)


def world_size():
    """How many processes there are: 1 where this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def exchange(operation, *arguments):
    """One exchange of torch.distributed, if there are others. RuntimeError with one clear sentence when one is gone."""
    try:
        if world_size() > 1:
            operation(*arguments)
    except RuntimeError as error:
        raise RuntimeError(f"process {rank()} of {world_size()} stops: another one ended or did not answer for "
                           f"{TIMEOUT.seconds} s; its own message says why. Start all of them again; "
                           "with checkpoint=PATH they go on after the last whole epoch") from error


def shard(batch):
    """This process's part of a batch's indices (N,), or where it is too small for all, for those left over all of it:
    counted with its images, that leaves the mean over all processes as it was."""
    mine = batch[rank()::world_size()]
    return mine if len(mine) else batch


def all_reduce(tensors, weight=None):
    """Replace each float tensor, in place, by its sum over all processes or, where each process gives a `weight`, by
    the weighted mean: one message."""
    if world_size() > 1 and tensors:
        one = torch.ones(1, device=tensors[0].device)
        flat = torch.cat([*(tensor.float().reshape(-1) for tensor in tensors), one]) * (weight or 1)
        exchange(dist.all_reduce, flat)
        if weight is not None:
            flat = flat / flat[-1]
        for tensor, total in zip(tensors, flat[:-1].split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


def average_gradients(loss, net, n):
    """Replace loss and gradients, means over this process's `n` images, by the means over all processes' images: the
    `reduce` of train_step. Where a process's images did not reach a parameter, its gradient there is 0."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad] if world_size() > 1 else ()
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    all_reduce([loss, *(parameter.grad for parameter in trained)], weight=n)


def start_alike(run, net):
    """Give all processes the weights and buffers of process 0. ValueError where their dicts `run` differ."""
    if world_size() == 1:
        return
    everyone = [None] * world_size()
    exchange(dist.all_gather_object, everyone, run)
    for name in run:
        if len({repr(theirs[name]) for theirs in everyone}) > 1:
            raise ValueError(f"{name} must be the same in all {world_size()} processes, "
                             f"got {[theirs[name] for theirs in everyone]}")
    for tensor in net.state_dict().values():
        values = tensor.contiguous()
        exchange(dist.broadcast, values, 0)
        tensor.copy_(values)


def average_batch_norm(net):
    """Average what batch norm has seen: each process normalised its own part of the batches."""
    all_reduce([buffer for module in net.modules() if module.training for buffer in module.buffers(recurse=False)
                if buffer.is_floating_point()], weight=1)

"""fit(), the one training loop, and evaluate().

Stochastic gradient descent with momentum as in He et al. 2015 section 4.2. The same call trains on a CPU, on a GPU
and, started by `torchrun --nproc-per-node=N`, in N processes that share every batch.
"""

import contextlib
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from .data import augment as crop_and_flip
from .data import epoch_generator, epoch_order, normalise
from .engine.checkpoints import Settings, describe, load_checkpoint, save_checkpoint
from .engine.distributed import (
    add_up,
    average_statistics,
    connect,
    gradients,
    part,
    position,
    start_equal,
    wait_for_all,
)
from .engine.hardware import autocast, choose_precision, keep_memory, small_maps_side_by_side
from .engine.progress import Diverged, History, Watch, table

__all__ = ["Diverged", "History", "evaluate", "fit"]
MEASURED = 10_000       # training loss and error are measured on the first so many training images, un-augmented
LOOK = 20               # steps between looks at the loss: a look waits for the device


def learning_rate(progress, lr, schedule="one-cycle", warmup=0.3):
    """The rate when `progress` (0 to 1) of the steps are done. "one-cycle": cosine up from lr/25 during the share
    `warmup`, cosine down to 0 (after Smith 2018, arXiv:1803.09820); "cosine": linear up, cosine down; "step": linear
    up, then lr, /10 at 1/2 and at 3/4 (He et al. 2015); "constant"."""
    if schedule == "constant":
        return lr
    if progress < warmup:
        rise = progress / warmup
        return lr * (0.04 + 0.96 * (1 - math.cos(math.pi * rise)) / 2 if schedule == "one-cycle" else max(rise, 0.01))
    if schedule == "step":
        return lr * (1 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
    return lr * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def sgd(net, lr, momentum=0.9, weight_decay=1e-4):
    """SGD whose weight decay leaves norm and bias (the parameters of one dimension) alone."""
    groups = [{"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": weight_decay},
              {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0}]
    fused = next(net.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused, foreach=not fused)


def batches(data, epoch, settings):
    """An epoch's batches (X float32 (N, C, H, W), y (N,), share): order and augmentation follow from (seed, epoch).
    In one of many processes X, y are its part of the batch, and `share` is that part's size in batches."""
    order = epoch_order(settings.images(data), settings.seed, epoch).to(data.X_train.device)
    pictures = epoch_generator(settings.seed, epoch, purpose=1)
    for batch in order.split(settings.batch_size):
        X, y = data.X_train[batch], data.y_train[batch]
        if settings.augment:
            X = crop_and_flip(X, pictures)
        X, y, share = part(X, y)
        yield normalise(X).contiguous(memory_format=torch.channels_last), y, share


def train_step(net, X, y, optimizer, precision=None, clip=None, share=1.0):
    """One step on the batch X (N, C, H, W), y (N,): forward, loss, backward, update. The loss stays on X's device.
    In one of many processes, each with its `share` of the batch, loss and gradients are the mean over all parts."""
    with autocast(X.device, precision):
        y_hat = net(X)
    loss = F.cross_entropy(y_hat.float(), y)
    optimizer.zero_grad()
    loss.backward()
    loss = loss.detach()
    if position()[1] > 1:
        add_up([loss, *gradients(net)], weight=share)
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return loss


def train_epoch(net, data, epoch, settings, optimizer, watch):
    """One pass over the training images; returns the last rate and the seconds it took."""
    start, steps = time.perf_counter(), math.ceil(settings.images(data) / settings.batch_size)
    torch.manual_seed(epoch_generator(settings.seed, epoch, purpose=2 + position()[0]).initial_seed())
    net.train()
    with small_maps_side_by_side(net, data.X_train.device, settings.precision):
        for step, (X, y, share) in enumerate(batches(data, epoch, settings), start=epoch * steps):
            lr = learning_rate(step / (settings.epochs * steps), settings.lr, settings.schedule, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            watch.step(lr, train_step(net, X, y, optimizer, settings.precision, settings.clip, share))
            if (step + 1) % LOOK == 0 or (step + 1) % steps == 0:
                watch.look(done=step + 1)
    average_statistics(net)
    return lr, time.perf_counter() - start


@contextlib.contextmanager
def eval_mode(net):
    """The net in eval mode; afterwards each of its modules is in the mode it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def totals(net, X, y, precision, batch_size=1000):
    """The sum of the losses and the number of wrong answers on X, y in eval mode: a tensor (2,) on the net's device."""
    device = next(net.parameters()).device
    total = torch.zeros(2, device=device)
    with eval_mode(net), small_maps_side_by_side(net, device, precision):
        for i in range(0, len(X), batch_size):
            X_batch, y_batch = X[i:i + batch_size].to(device), y[i:i + batch_size].to(device)
            X_batch = normalise(X_batch).contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                y_hat = net(X_batch)
            total[0] += F.cross_entropy(y_hat.float(), y_batch, reduction="sum")
            total[1] += (y_hat.argmax(1) != y_batch).sum()
    return total


def evaluate(net, X, y, *, precision=None, batch_size=1000):
    """Mean loss and error (share of wrong answers, 0 to 1) on images X (N, C, H, W), labels y (N,), in eval mode.
    X moves to the net's device and memory layout in batches; the net's mode is restored. Raises ValueError."""
    if len(X) != len(y) or not len(X):
        raise ValueError(f"X and y must have the same length, at least 1, got {len(X)} and {len(y)}")
    loss, wrong = totals(net, X, y, precision, batch_size).tolist()
    return loss / len(X), wrong / len(X)


def measure(net, data, settings):
    """Losses and errors in eval mode of the first training images, the held-out ones, the test images; many processes
    share the images."""
    kept = settings.images(data)
    sets = {"train": (data.X_train[:min(kept, MEASURED)], data.y_train[:min(kept, MEASURED)])}
    if settings.validation:
        sets["val"] = (data.X_train[kept:], data.y_train[kept:])
    if settings.test:
        sets["test"] = (data.X_test, data.y_test)
    row, (rank, processes) = {}, position()
    for name, (X, y) in sets.items():
        total = totals(net, X[rank::processes], y[rank::processes], settings.precision)
        add_up([total])
        row[f"{name}_loss"], row[f"{name}_error"] = (value / len(X) for value in total.tolist())
    return row


def begin(net, data, optimizer, settings, checkpoint):
    """How far the run is: its history's rows, with net and optimiser as its checkpoint has them, if there is one.
    Returns the rows and save(), which writes the checkpoint."""
    rank, processes = position()
    if checkpoint is None and processes == 1:
        return [], lambda: None
    run = describe(settings, net, data, processes)
    there = checkpoint is not None and Path(checkpoint).exists()
    rows = load_checkpoint(checkpoint, net, optimizer, run) if there else []
    start_equal(net, run | {"epochs in the checkpoint": len(rows)})

    def save():
        if checkpoint is not None and rank == 0:
            save_checkpoint(checkpoint, net, optimizer, run, rows)
        wait_for_all()

    if not rows:
        save()                              # a path that cannot be written to is found out before any training
    return rows, save


def fit(net, data, epochs, *, lr=0.1, batch_size=128, seed=0, checkpoint=None, progress=True, schedule="one-cycle",
        warmup=0.3, momentum=0.9, weight_decay=1e-4, clip=None, augment=False, validation=0, test=False,
        precision=None, on_epoch=None):
    """Train `net` in place on `data` (a FashionMNIST), on the data's device; return its History.

    `lr` is the peak rate of `schedule` (see `learning_rate`); `clip` bounds the gradient's norm; the last `validation`
    training images are held out and measured; `test=True` measures the test images too. Loss and error are measured in
    eval mode at the end of each epoch. `checkpoint=PATH` saves after each epoch and, called again, goes on from there.
    `on_epoch(history)` is called after each epoch. Interrupting returns what there is. Raises ValueError for a bad
    argument or checkpoint, Diverged (a FloatingPointError) when the loss stops being a number.
    """
    device = data.X_train.device
    settings = Settings(epochs, lr, batch_size, seed, schedule, warmup, momentum, weight_decay, clip, augment,
                        validation, test, choose_precision(device, precision))
    steps = math.ceil(settings.images(data) / settings.batch_size)
    connect(device)
    keep_memory()
    net.to(device=device, memory_format=torch.channels_last)
    optimizer = sgd(net, settings.lr, settings.momentum, settings.weight_decay)
    rows, save = begin(net, data, optimizer, settings, checkpoint)
    watch = Watch(settings.epochs, steps, rows, progress)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), contextlib.closing(watch):
        try:
            for epoch in range(len(rows), settings.epochs):
                lr, seconds = train_epoch(net, data, epoch, settings, optimizer, watch)
                rows.append({"epoch": epoch + 1, **measure(net, data, settings), "lr": lr, "seconds": seconds})
                save()
                if on_epoch is not None and position()[0] == 0:
                    on_epoch(table(rows))
        except KeyboardInterrupt:
            watch.interrupted(checkpoint)
            if position()[1] > 1:           # the other processes must not wait for this one
                raise
    return table(rows)

"""fit(), the one training loop, and evaluate(): gradient descent with momentum as in He et al. 2015 section 4.2."""

import math
import time
from contextlib import closing
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F

from .data import NET, FashionMNIST, crop_and_flip, epoch_changes, epoch_generator, epoch_order, normalise
from .engine import checks, distributed
from .engine.checkpoints import Checkpoint
from .engine.distributed import rank, world_size
from .engine.hardware import autocast, choose_precision, keep_memory
from .engine.progress import Diverged, Progress
from .engine.settings import Settings, check_counts, obey
from .engine.small_maps import small_maps_side_by_side
from .engine.state import eval_mode, seeded_draws, training_form

TRAIN_IMAGES_MEASURED = 10_000          # training loss and error are measured on the first so many, un-augmented


class History(pd.DataFrame):
    """A row per epoch: epoch, train_loss, train_error, (val_*, test_*), lr at its end, seconds of training."""


def one_cycle(done, warmup):
    """Cosine up from 1/25, cosine down to 0 (after Smith 2018)."""
    if done < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * (done / warmup))) / 2
    return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def cosine(done, warmup):
    """Linear up, cosine down to 0."""
    if done < warmup:
        return max(done / warmup, 0.01)
    return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def step_decay(done, warmup):
    """Linear up, then 1, 1/10 at half, 1/100 at 3/4 (He et al. 2015)."""
    if done < warmup:
        return max(done / warmup, 0.01)
    return 1 if done < 0.5 else 0.1 if done < 0.75 else 0.01


def constant(done, warmup):
    """1 from the first step to the last."""
    return 1


SCHEDULES = {"one-cycle": one_cycle, "cosine": cosine, "step": step_decay, "constant": constant}


def learning_rate(done, lr, schedule="one-cycle", warmup=0.3):
    """The rate when the share `done` (0 to 1) of the steps is done, the
    share `warmup` of them rising; `lr` is the highest."""
    return lr * SCHEDULES[schedule](done, warmup)


def sgd(net, lr, momentum=0.9, weight_decay=1e-4):
    """SGD whose weight decay leaves norm and bias (the parameters of
    one dimension) alone; frozen parameters have no part in it."""
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
              {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
    fused = next(net.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused, foreach=not fused)


def batches(data, epoch, settings, shard=None):
    """An epoch's batches, X float (N, C, H, W) and y (N,): their order and changes follow from (seed, epoch). `shard`
    picks some of each batch's indices."""
    X, y, seed = data.X_train, data.y_train, settings.seed
    order = epoch_order(len(X), seed, epoch).to(X.device)
    if settings.augment:
        changes = epoch_changes(len(X), X.shape[2], seed, epoch)
        shift, flip = (change.to(X.device) for change in changes)
    for batch in order.split(settings.batch_size):
        if shard is not None:
            batch = shard(batch)
        images = X[batch]
        if settings.augment:
            images = crop_and_flip(images, shift[batch], flip[batch])
        images = normalise(images)
        yield images.contiguous(memory_format=torch.channels_last), y[batch]


def train_step(net, X, y, optimizer, precision=None, clip=None,
               reduce=None, loss_function=F.cross_entropy, on_step=None):
    """One step on the batch X (N, C, H, W), y (N,): forward, loss, backward, update. The loss stays on X's device."""
    with autocast(X.device, precision):
        y_hat = net(X)
    loss = loss_function(y_hat.float(), y)
    optimizer.zero_grad()
    loss.backward()
    loss = loss.detach()
    if reduce is not None:         # many processes share the batch
        reduce(loss, net, len(y))
    if on_step is not None:        # someone looks at the gradients
        on_step(loss, net)
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return loss


def train_epoch(net, data, epoch, settings, optimizer, progress, loss=F.cross_entropy, on_step=None, settled=None):
    """One pass over the training images, `settled()` called after each step; returns the last rate and the seconds."""
    start, steps = time.perf_counter(), math.ceil(len(data.X_train) / settings.batch_size)
    with small_maps_side_by_side(net, data.X_train.device, settings.precision):
        for step, (X, y) in enumerate(batches(data, epoch, settings, distributed.shard), start=epoch * steps):
            lr = learning_rate(step / (settings.epochs * steps), settings.lr, settings.schedule, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            progress.step(lr, train_step(net, X, y, optimizer, settings.precision, settings.clip,
                                         distributed.average_gradients, loss, on_step and partial(on_step, step)))
            if settled is not None:
                settled()
    distributed.average_batch_norm(net)
    return lr, time.perf_counter() - start


def answers(net, X, precision):
    """What the net gives, in float32, for images X, which move to its device and are normalised there."""
    X = normalise(X.to(next(net.parameters(), X).device)).contiguous(memory_format=torch.channels_last)
    with autocast(X.device, precision):
        return net(X).float()


@torch.no_grad()
def mean_loss_and_error(net, X, y, precision, loss, batch_size=1000, n=None):
    """[mean loss, share of wrong answers] on X, y in eval mode, for another loss than cross-entropy [mean loss]. Where
    X, y are one of many processes' share of `n` images, the means are over all of these."""
    total = torch.zeros(1 + (loss is F.cross_entropy), device=next(net.parameters(), X).device)
    with eval_mode(net), small_maps_side_by_side(net, total.device, precision):
        for i in range(0, len(X), batch_size):
            y_hat, targets = answers(net, X[i:i + batch_size], precision), y[i:i + batch_size].to(total.device)
            if loss is F.cross_entropy:
                total[0] += loss(y_hat, targets, reduction="sum")
                total[1] += (y_hat.argmax(1) != targets).sum()
            else:
                total[0] += loss(y_hat, targets) * len(targets)
    if n is not None:
        distributed.all_reduce([total])
    return [value / (n or len(X)) for value in total.tolist()]


def evaluate(net, X, y, *, precision=None, batch_size=1000, loss=F.cross_entropy):
    """Mean loss and error (share of wrong answers, 0 to 1; None for another loss than cross-entropy) on images X
    (N, C, H, W), labels or targets y (N, ...), in eval mode, on the net's device. Raises TypeError or ValueError for a
    bad argument, Diverged for a loss that is no finite number."""
    labels = loss is F.cross_entropy
    checks.check_images("X", X, net)
    checks.check_targets("y", y, len(X), labels)
    check_counts(batch_size=batch_size)
    with eval_mode(net), torch.no_grad():
        checks.check_answer(answers(net, X[:1], precision), "y", y, labels)
    mean_loss, *error = mean_loss_and_error(net, X, y, precision, loss, batch_size)
    if not math.isfinite(mean_loss):
        raise Diverged
    return mean_loss, error[0] if labels else None


def row_of_epoch(net, train, piles, epoch, settings, optimizer, progress, loss, on_step):
    """Train for one epoch and measure the piles of images, shared among processes: the history's row, a dict."""
    draws = epoch_generator(settings.seed, epoch, NET + rank()).initial_seed()
    row, mine = {"epoch": epoch + 1}, slice(rank(), None, world_size())
    with seeded_draws(train.X_train.device, draws) as settled:
        lr, seconds = train_epoch(net, train, epoch, settings, optimizer, progress, loss, on_step, settled)
        for name, (X, y) in piles.items():
            means = mean_loss_and_error(net, X[mine], y[mine], settings.precision, loss, n=len(X))
            if not math.isfinite(means[0]):
                raise Diverged(progress.done, lr)
            row |= zip((f"{name}_loss", f"{name}_error"), means, strict=False)
    return row | {"lr": lr, "seconds": seconds}


def run(net, data, settings, loss, checkpoint, show, on_step, on_epoch):
    """The epochs of a run, those after its checkpoint if there is one, of a net in training form: its History."""
    train, held_out = data.split(settings.validation)
    checks.check_run(net, data, train, settings, loss, answers)
    piles = {"train": (train.X_train[:TRAIN_IMAGES_MEASURED], train.y_train[:TRAIN_IMAGES_MEASURED])}
    piles |= {"val": held_out} if settings.validation else {}
    piles |= {"test": (data.X_test, data.y_test)} if settings.test else {}
    measures = ("loss", "error")[:1 + (loss is F.cross_entropy)]
    columns = ["epoch", *(f"{name}_{measure}" for name in piles for measure in measures), "lr", "seconds"]
    optimizer = sgd(net, settings.lr, settings.momentum, settings.weight_decay)
    saved = Checkpoint(checkpoint, settings, net, data, loss)
    rows, steps = saved.load(net, optimizer), math.ceil(len(train.X_train) / settings.batch_size)
    with closing(Progress(settings.epochs, steps, rows, show)) as progress:
        try:
            for epoch in range(len(rows), settings.epochs):
                rows.append(row_of_epoch(net, train, piles, epoch, settings, optimizer, progress, loss, on_step))
                saved.save(net, optimizer, rows)
                if on_epoch is not None and rank() == 0:
                    on_epoch(History(rows, columns=columns))
        except Diverged as error:
            error.history = History(rows, columns=columns)
            raise
        except KeyboardInterrupt:
            progress.interrupted(checkpoint)
            if world_size() > 1:                # the other processes must not wait for this one
                raise
    return History(rows, columns=columns)


def fit(net, data, epochs, *, lr=0.1, batch_size=128, seed=0, checkpoint=None, progress=True, schedule="one-cycle",
        warmup=0.3, momentum=0.9, weight_decay=1e-4, clip=None, augment=False, validation=0, test=False,
        precision=None, loss=F.cross_entropy, on_step=None, on_epoch=None):
    """Train `net` in place on `data` (a FashionMNIST), on the data's device; return its History.

    `lr` is the peak rate of `schedule`; `clip` bounds the gradient's norm; the last `validation` training images are
    held out and measured, with `test=True` the test images too. `checkpoint=PATH` saves after each epoch and, called
    again, goes on from there. `loss(y_hat, y)` may be another mean over the batch, also of images: then there is no
    error and no `augment`. `on_step(step, loss, net)` sees a step's gradients before clipping and update,
    `on_epoch(history)` each epoch's row. Frozen modules and those in eval mode keep their statistics; modes, memory
    layout and torch's random state are given back, freed memory is kept. Interrupting returns what there is. Raises
    TypeError or ValueError for a bad argument or checkpoint, Diverged where a loss is no finite number."""
    checks.check_fit(net, data, FashionMNIST, loss, test, augment)
    device = data.X_train.device
    settings = Settings(
        epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, warmup=warmup, momentum=momentum,
        weight_decay=weight_decay, clip=clip, augment=augment, validation=validation, test=test,
        schedule=obey("schedule", schedule, ", ".join(map(repr, SCHEDULES)), str, SCHEDULES.__contains__),
        precision=choose_precision(device, precision))
    distributed.init_process_group(device)
    keep_memory()
    with training_form(net.to(device)):
        return run(net, data, settings, loss, checkpoint, progress, on_step, on_epoch)

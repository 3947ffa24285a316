"""fit(), the one training loop, and evaluate(): gradient descent with momentum as in He et al. 2015 section 4.2, on a
CPU, on a GPU and, started by `torchrun --nproc-per-node=N`, in N processes that share every batch."""

import math
import time
from contextlib import closing
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F

from .data import FashionMNIST, Purpose, crop_and_flip, epoch_changes, epoch_generator, epoch_order, normalise
from .engine import checks, distributed
from .engine.checkpoints import Checkpoint, describe
from .engine.distributed import rank, world_size
from .engine.hardware import autocast, choose_precision, keep_memory
from .engine.progress import Progress
from .engine.settings import COUNT, Settings, obey, one_of
from .engine.small_maps import small_maps_side_by_side
from .engine.state import eval_mode, seeded_draws, training_form

TRAIN_IMAGES_MEASURED = 10_000          # training loss and error are measured on the first so many, un-augmented


class History(pd.DataFrame):
    """A row per epoch: epoch, train_loss, train_error, (val_*, test_*), lr at its end, seconds of training."""

    @property
    def _constructor(self):
        return History

    @classmethod
    def of(cls, rows, loss=F.cross_entropy):
        """The table of these rows; without any it has its columns all the same."""
        columns = ["epoch", "train_loss", *["train_error"] * (loss is F.cross_entropy), "lr", "seconds"]
        return cls(rows, columns=None if rows else columns)


class Diverged(FloatingPointError):
    """A loss was no finite number: at `step` (the first is 0) and the rate `lr` of a run whose `history` has the
    epochs before; step and lr are None where a net was evaluated."""

    def __init__(self, step=None, lr=None, history=None):
        super().__init__(step, lr, history)
        self.step, self.lr, self.history = step, lr, history

    def __str__(self):
        return "the loss is not a finite number" + ("" if self.step is None else (
            f" at step {self.step}, at rate {self.lr:.3g}: try a lower lr, a longer warmup, norm=True, or clip=1.0"))


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


SCHEDULES = {"one-cycle": one_cycle, "cosine": cosine,
             "step": step_decay, "constant": constant}


def learning_rate(done, lr, schedule="one-cycle", warmup=0.3):
    """The rate when the share `done` (0 to 1) of the steps is done, the
    share `warmup` of them rising; `lr` is the highest."""
    return lr * SCHEDULES[schedule](done, warmup)


def sgd(net, lr, momentum=0.9, weight_decay=1e-4):
    """SGD whose weight decay leaves norm and bias (the parameters of
    one dimension) alone; frozen parameters have no part in it."""
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1],
               "weight_decay": weight_decay},
              {"params": [p for p in trained if p.dim() <= 1],
               "weight_decay": 0.0}]
    fused = next(net.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.SGD(groups, lr=lr, momentum=momentum,
                           fused=fused, foreach=not fused)


def batches(data, epoch, settings, shard=None):
    """An epoch's batches, X float (N, C, H, W) and y (N,): their order
    and changes follow from (seed, epoch). `shard` picks some of each
    batch's indices."""
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
    """One step on the batch X (N, C, H, W), y (N,): forward, loss,
    backward, update. The loss stays on X's device."""
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
    """One pass over the training images; returns the last rate and the seconds it took. `settled()` is called after
    each step."""
    start, steps = time.perf_counter(), math.ceil(len(data.X_train) / settings.batch_size)
    reduce, shard = (distributed.average_gradients, distributed.shard) if world_size() > 1 else (None, None)
    with small_maps_side_by_side(net, data.X_train.device, settings.precision):
        for step, (X, y) in enumerate(batches(data, epoch, settings, shard), start=epoch * steps):
            lr = learning_rate(step / (settings.epochs * steps), settings.lr, settings.schedule, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            progress.step(lr, train_step(net, X, y, optimizer, settings.precision, settings.clip, reduce, loss,
                                         on_step and partial(on_step, step)))
            if settled is not None:
                settled()
    distributed.average_batch_norm(net)
    return lr, time.perf_counter() - start


def device_of(net, X):
    """Where the net is; a net without parameters is where X is."""
    return next((parameter.device for parameter in net.parameters()), X.device)


def answers(net, X, precision):
    """What the net gives for images X, which move to its device and are normalised there: float32 or wider."""
    X = normalise(X.to(device_of(net, X))).contiguous(memory_format=torch.channels_last)
    with autocast(X.device, precision):
        return net(X).float()


@torch.no_grad()
def sum_of_losses_and_errors(net, X, y, precision, loss, batch_size=1000):
    """The sums of the losses and of the wrong answers on X, y in eval mode: a tensor (2,) on the net's device."""
    total = torch.zeros(2, device=device_of(net, X))
    with eval_mode(net), small_maps_side_by_side(net, total.device, precision):
        for i in range(0, len(X), batch_size):
            y_hat, y_batch = answers(net, X[i:i + batch_size], precision), y[i:i + batch_size].to(total.device)
            if loss is F.cross_entropy:
                total[0] += loss(y_hat, y_batch, reduction="sum")
                total[1] += (y_hat.argmax(1) != y_batch).sum()
            else:
                total[0] += loss(y_hat, y_batch) * len(y_batch)
    return total


def evaluate(net, X, y, *, precision=None, batch_size=1000, loss=F.cross_entropy):
    """Mean loss and error (share of wrong answers, 0 to 1; None for another loss than cross-entropy) on images X
    (N, C, H, W), labels or targets y (N, ...), in eval mode; the net's mode is restored. X moves to the net's device in
    batches. Raises TypeError or ValueError for a bad argument, Diverged for a loss that is no finite number."""
    labels = loss is F.cross_entropy
    checks.check_examples(net, labels, "X", X, "y", y)
    batch_size = obey("batch_size", batch_size, *COUNT)
    with eval_mode(net), torch.no_grad():
        checks.check_answer(answers(net, X[:1], precision), "y", y, labels)
    mean_loss, error = (total / len(X) for total in
                        sum_of_losses_and_errors(net, X, y, precision, loss, batch_size).tolist())
    if not math.isfinite(mean_loss):
        raise Diverged
    return mean_loss, error if labels else None


def row_of_epoch(net, train, piles, epoch, settings, optimizer, progress, loss, on_step):
    """Train for one epoch and measure loss and, for cross-entropy, error in eval mode on each of the piles; many
    processes share the images. The history's row; Diverged where a loss is no finite number."""
    draws = epoch_generator(settings.seed, epoch, Purpose.NET + rank()).initial_seed()
    row, mine = {"epoch": epoch + 1}, slice(rank(), None, world_size())
    with seeded_draws(train.X_train.device, draws) as settled:
        lr, seconds = train_epoch(net, train, epoch, settings, optimizer, progress, loss, on_step, settled)
        for name, (X, y) in piles.items():
            total = sum_of_losses_and_errors(net, X[mine], y[mine], settings.precision, loss)
            distributed.all_reduce([total])
            row[f"{name}_loss"], error = (value / len(X) for value in total.tolist())
            row |= {f"{name}_error": error} if loss is F.cross_entropy else {}
            if not math.isfinite(row[f"{name}_loss"]):
                raise Diverged(progress.done, lr)
    return row | {"lr": lr, "seconds": seconds}


def run(net, data, settings, loss, checkpoint, show, on_step, on_epoch):
    """The epochs of a run, those after its checkpoint if there is one, of a net in training form: its History."""
    train, held_out = data.split(settings.validation)
    checks.check_run(net, data, train, settings, loss, answers)
    piles = {"train": (train.X_train[:TRAIN_IMAGES_MEASURED], train.y_train[:TRAIN_IMAGES_MEASURED])}
    piles |= {"val": held_out} if settings.validation else {}
    piles |= {"test": (data.X_test, data.y_test)} if settings.test else {}
    optimizer = sgd(net, settings.lr, settings.momentum, settings.weight_decay)
    alone = checkpoint is None and world_size() == 1
    saved = Checkpoint(checkpoint, {} if alone else describe(settings, net, data, loss))
    rows, steps = saved.load(net, optimizer), math.ceil(len(train.X_train) / settings.batch_size)
    with closing(Progress(settings.epochs, steps, rows, show, Diverged)) as progress:
        try:
            for epoch in range(len(rows), settings.epochs):
                rows.append(row_of_epoch(net, train, piles, epoch, settings, optimizer, progress, loss, on_step))
                saved.save(net, optimizer, rows)
                if on_epoch is not None and rank() == 0:
                    on_epoch(History.of(rows, loss))
        except Diverged as error:
            error.history = History.of(rows, loss)
            raise
        except KeyboardInterrupt:
            progress.interrupted(checkpoint)
            if world_size() > 1:                # the other processes must not wait for this one
                raise
    return History.of(rows, loss)


def fit(net, data, epochs, *, lr=0.1, batch_size=128, seed=0, checkpoint=None, progress=True, schedule="one-cycle",
        warmup=0.3, momentum=0.9, weight_decay=1e-4, clip=None, augment=False, validation=0, test=False,
        precision=None, loss=F.cross_entropy, on_step=None, on_epoch=None):
    """Train `net` in place on `data` (a FashionMNIST), on the data's device; return its History.

    `lr` is the peak rate of `schedule` (see `learning_rate`); `clip` bounds the gradient's norm; the last `validation`
    training images are held out and measured; `test=True` measures the test images too. Loss and error are measured in
    eval mode at the end of each epoch. `checkpoint=PATH` saves after each epoch and, called again, goes on from there.
    `loss(y_hat, y)`, a mean over the batch, may be another, also of images: then there is no error and no `augment`.
    `on_step(step, loss, net)` is called when a step's gradients are there, before clipping and update,
    `on_epoch(history)` after each epoch. Modules with no parameter to train, and those in eval mode, keep statistics
    and mode; net.train() beforehand trains all. Modes and memory layout are given back. The process keeps freed memory
    from then on. A net that draws random numbers takes torch's global generators, seeded, and gives them back as they
    were. Interrupting returns what there is. Raises TypeError or ValueError for a bad argument or checkpoint, Diverged
    (a FloatingPointError) where a loss is no finite number.
    """
    checks.check_fit(net, data, FashionMNIST, loss is F.cross_entropy, test, augment)
    device = data.X_train.device
    settings = Settings(
        epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, schedule=one_of("schedule", schedule, SCHEDULES),
        warmup=warmup, momentum=momentum, weight_decay=weight_decay, clip=clip, augment=augment,
        validation=validation, test=test, precision=choose_precision(device, precision))
    distributed.init_process_group(device)
    keep_memory()
    with training_form(net.to(device)):
        return run(net, data, settings, loss, checkpoint, progress, on_step, on_epoch)

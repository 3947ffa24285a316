"""fit(), the one training loop, and evaluate(); History; checkpoints; the precision policy.

Stochastic gradient descent with momentum as in He et al. 2015 section 4.2. The same call trains on a CPU, on a GPU
and, started by `torchrun --nproc-per-node=N`, on N processes that share every batch.
"""

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .data import augment as crop_and_flip
from .data import epoch_generator, epoch_order, normalise

MEASURED = 10_000       # training loss and error are measured on the first so many training images, un-augmented


class History(pd.DataFrame):
    """A row per epoch: epoch, train_loss, train_error, (val_*, test_*), lr at its end, seconds of training."""

    @property
    def _constructor(self):
        return History


class Diverged(FloatingPointError):
    """The loss stopped being a number; `history` has the epochs before."""

    def __init__(self, step, lr, history):
        super().__init__(f"the loss is not a finite number at step {step}, at rate {lr:.3g}: "
                         "try a lower lr, a longer warmup, norm=True, or clip=1.0")
        self.step, self.lr, self.history = step, lr, history


def fast_bfloat16(device):
    """Whether `device` computes bfloat16 faster than float32: recent GPUs, and CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = [getattr(torch.cpu, f"_is_{unit}_supported", lambda: False) for unit in ("amx_tile", "avx512_bf16")]
    return device.type == "cpu" and any(question() for question in ask)


def autocast(device, precision=None):
    """The context in which a forward pass runs: bfloat16 where the hardware is fast at it, else float32.
    `precision` "float32" or "bfloat16" decides instead; ValueError for another."""
    if precision not in (None, "float32", "bfloat16"):
        raise ValueError(f'precision must be "float32", "bfloat16" or None (the hardware decides), got {precision!r}')
    enabled = fast_bfloat16(device) if precision is None else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def learning_rate(progress, lr, schedule="one-cycle", warmup=0.3):
    """The rate when `progress` (0 to 1) of the steps are done. "one-cycle": cosine up from lr/25 during the share
    `warmup`, cosine down to 0 (Smith 2018, arXiv:1803.09820); "cosine": linear up, cosine down; "step": linear up,
    then lr, /10 at 1/2 and at 3/4 (He et al. 2015); "constant"."""
    if schedule == "constant":
        return lr
    if progress < warmup:
        rise = progress / warmup
        return lr * (0.04 + 0.96 * (1 - math.cos(math.pi * rise)) / 2 if schedule == "one-cycle" else max(rise, 0.01))
    if schedule == "step":
        return lr * (1 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
    return lr * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def sgd(net, lr, momentum, weight_decay):
    """SGD whose weight decay leaves norm and bias (the parameters of one dimension) alone."""
    groups = [{"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": weight_decay},
              {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0}]
    fused = next(net.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused, foreach=not fused)


def train_step(net, X, y, optimizer, precision=None, clip=None):
    """One step on the batch X (N, C, H, W), y (N,): forward, loss, backward, update. The loss stays on X's device."""
    with autocast(X.device, precision):
        y_hat = net(X)
    loss = F.cross_entropy(y_hat.float(), y)
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(net, X, y, *, precision=None, batch_size=1000):
    """Mean loss and error (share of wrong answers, 0 to 1) on images X (N, C, H, W), labels y (N,), in eval mode.
    X moves to the net's device and memory layout in batches; the net's mode is restored. Raises ValueError."""
    if len(X) != len(y) or not len(X):
        raise ValueError(f"X and y must have the same length, at least 1, got {len(X)} and {len(y)}")
    modes = {module: module.training for module in net.modules()}
    device = next(net.parameters()).device
    net.eval()
    try:
        total, wrong = torch.zeros(2, device=device)
        for X_batch, y_batch in zip(X.split(batch_size), y.split(batch_size), strict=True):
            X_batch = normalise(X_batch.to(device)).contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                y_hat = net(X_batch)
            y_batch = y_batch.to(device)
            total += F.cross_entropy(y_hat.float(), y_batch, reduction="sum")
            wrong += (y_hat.argmax(1) != y_batch).sum()
    finally:
        for module, mode in modes.items():
            module.training = mode
    return total.item() / len(X), wrong.item() / len(X)


@dataclass
class Settings:
    """What decides a run's result; a checkpoint of other settings is refused."""

    epochs: int
    lr: float
    batch_size: int
    seed: int
    schedule: str
    warmup: float
    momentum: float
    weight_decay: float
    clip: float | None
    augment: bool
    validation: int

    def check(self, data):
        """ValueError that names the first bad argument, its value and what is allowed."""
        n = len(data.X_train)
        rules = {"epochs": (isinstance(self.epochs, int) and self.epochs >= 1, "a whole number of at least 1"),
                 "lr": (self.lr > 0, "above 0"),
                 "batch_size": (isinstance(self.batch_size, int) and self.batch_size >= 1, "a whole number from 1"),
                 "seed": (isinstance(self.seed, int) and self.seed >= 0, "a whole number from 0"),
                 "schedule": (self.schedule in ("one-cycle", "cosine", "step", "constant"),
                              '"one-cycle", "cosine", "step" or "constant"'),
                 "warmup": (0 <= self.warmup < 1, "a share of the steps, from 0 to below 1"),
                 "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
                 "weight_decay": (self.weight_decay >= 0, "0 or above"),
                 "clip": (self.clip is None or self.clip > 0, "None or above 0"),
                 "validation": (isinstance(self.validation, int) and 0 <= self.validation < n,
                                f"a whole number of images below {n}")}
        for name, (fine, allowed) in rules.items():
            if not fine:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")


def measure(net, data, kept, test, precision):
    """Losses and errors in eval mode: of the first training images, of those held out, of the test images."""
    sets = {"train": (data.X_train[:min(kept, MEASURED)], data.y_train[:min(kept, MEASURED)])}
    if kept < len(data.X_train):
        sets["val"] = (data.X_train[kept:], data.y_train[kept:])
    if test:
        sets["test"] = (data.X_test, data.y_test)
    row = {}
    for name, (X, y) in sets.items():
        row[f"{name}_loss"], row[f"{name}_error"] = evaluate(net, X, y, precision=precision)
    return row


def save_checkpoint(path, net, optimizer, settings, history):
    """Everything a run needs to go on, written whole or not at all (write, fsync, rename)."""
    state = {"d2l_utils": 1, "settings": vars(settings), "net": net.state_dict(), "optimizer": optimizer.state_dict(),
             "history": history, "random": torch.get_rng_state()}
    part = Path(f"{path}.part")
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_checkpoint(path, net, optimizer, settings):
    """Restore net, optimiser and random state; return the history so far. ValueError, with everything left as it was,
    for a file that is no whole checkpoint and for one of other settings."""
    try:
        state = torch.load(path, map_location=next(net.parameters()).device, weights_only=True)
        saved = state["settings"] if state["d2l_utils"] == 1 else None
    except Exception as error:
        raise ValueError(f"checkpoint {str(path)!r} is no whole checkpoint of fit (truncated, or another file): "
                         "it is left as it is; name another path or remove it") from error
    for name, value in vars(settings).items():
        if saved.get(name) != value:
            raise ValueError(f"checkpoint {str(path)!r} was made with {name}={saved.get(name)!r}, "
                             f"this call has {name}={value!r}: use the same {name}, or another path")
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    if shapes != {key: tuple(value.shape) for key, value in state["net"].items()}:
        raise ValueError(f"checkpoint {str(path)!r} is of another net: build the same net, or use another path")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"].cpu())
    return state["history"]


def check_finite(losses, first_step, rates, history):
    """Raise Diverged at the first loss of the last steps that is not a finite number."""
    bad = (~torch.isfinite(torch.stack(losses))).nonzero()
    if len(bad):
        raise Diverged(first_step + bad[0].item(), rates[bad[0].item()], History(history))


def train_epoch(net, data, epoch, settings, optimizer, precision, bar, history):
    """One pass over the training images, in the order and with the augmentation of (seed, epoch)."""
    n = len(data.X_train) - settings.validation
    device = data.X_train.device
    order = epoch_order(n, settings.seed, epoch).to(device)
    pictures = epoch_generator(settings.seed, epoch, purpose=1)
    per_epoch = math.ceil(n / settings.batch_size)
    losses, rates = [], []
    net.train()
    for i, batch in enumerate(order.split(settings.batch_size)):
        step = epoch * per_epoch + i
        lr = learning_rate(step / (settings.epochs * per_epoch), settings.lr, settings.schedule, settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        X, y = data.X_train[batch], data.y_train[batch]
        if settings.augment:
            X = crop_and_flip(X, pictures)
        X = normalise(X).contiguous(memory_format=torch.channels_last)
        losses.append(train_step(net, X, y, optimizer, precision, settings.clip))
        rates.append(lr)
        bar.update()
        if len(losses) == 50 or i + 1 == per_epoch:           # asking for a loss waits for the device: not every step
            check_finite(losses, step + 1 - len(losses), rates, history)
            bar.set_postfix_str(f"epoch {epoch + 1}/{settings.epochs}, loss {losses[-1]:.3f}"
                                + (f", error {history[-1]['train_error']:.1%}" if history else ""))
            losses, rates = [], []
    return lr


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
    settings = Settings(epochs, lr, batch_size, seed, schedule, warmup, momentum, weight_decay, clip, augment,
                        validation)
    settings.check(data)
    device = data.X_train.device
    autocast(device, precision)                                # a bad precision is refused before anything changes
    net.to(device=device, memory_format=torch.channels_last)
    optimizer = sgd(net, lr, momentum, weight_decay)
    kept = len(data.X_train) - validation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        history = []
        if checkpoint is not None and Path(checkpoint).exists():
            history = load_checkpoint(checkpoint, net, optimizer, settings)
        steps = math.ceil(kept / batch_size)
        bar = progress_bar(progress, epochs * steps, len(history) * steps)
        try:
            for epoch in range(len(history), epochs):
                start = time.perf_counter()
                last_lr = train_epoch(net, data, epoch, settings, optimizer, precision, bar, history)
                seconds = time.perf_counter() - start
                history.append({"epoch": epoch + 1, **measure(net, data, kept, test, precision),
                                "lr": last_lr, "seconds": seconds})
                if checkpoint is not None:
                    save_checkpoint(checkpoint, net, optimizer, settings, history)
                if on_epoch is not None:
                    on_epoch(History(history))
        except KeyboardInterrupt:
            how = "run the cell again" if checkpoint is not None else "next time pass checkpoint=PATH"
            print(f"Stopped after {len(history)} of {epochs} epochs; the net keeps its weights. To go on, {how}.")
        finally:
            bar.close()
    if progress and history and bar.disable:
        row = history[-1]
        print(f"{len(history)} epochs, {sum(r['seconds'] for r in history):.0f} s: training loss "
              f"{row['train_loss']:.3f}, error {row['train_error']:.1%}")
    return History(history)


def progress_bar(progress, total, done):
    """tqdm's text bar; silent in the book, where one final line is printed."""
    return tqdm(total=total, initial=done, disable=not progress or bool(os.environ.get("D2L_BOOK")), unit="step",
                file=sys.stdout, mininterval=0.5, ncols=100)

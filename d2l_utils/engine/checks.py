"""The check at the door of `fit` and `evaluate`: images, targets and net, before any work."""

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .distributed import world_size
from .state import eval_mode, seeded_draws


def check(holds, message):
    """ValueError(message) unless it holds."""
    if not holds:
        raise ValueError(message)


def check_examples(net, labels, images, X, targets, y, kind=""):
    """TypeError or ValueError, which say `images` and `targets` for X and y, unless X is (N, C, H, W), N from 1, of the
    net's floating kind or uint8, and y int64 `labels` (N,) or, for another loss, floating or int64 (N, ...)."""
    for name, tensor in ((images, X), (targets, y)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    check(X.dim() == 4 and (X.dtype == torch.uint8 or X.is_floating_point()),
          f"{images} must be uint8 or floating images (N, C, H, W), got {X.dtype} {tuple(X.shape)}")
    check(y.dim() and len(X) == len(y) and len(X), f"{images} and {targets} must have the same length, at least 1, got "
          f"{len(X)} {kind}images and {len(y) if y.dim() else 'no'} labels")
    check(not labels or (y.dtype == torch.int64 and y.dim() == 1), f"{targets} must be int64 labels (N,) for "
          f"cross-entropy, got {y.dtype} {tuple(y.shape)}; for other targets pass another loss")
    check(y.dtype == torch.int64 or y.is_floating_point(), f"{targets} must be floating or int64, got {y.dtype}")
    expected = next((tensor.dtype for tensor in net.parameters() if tensor.is_floating_point()), torch.float32)
    check(expected == (torch.float32 if X.dtype == torch.uint8 else X.dtype), f"{images} must be of the net's kind, "
          f"{expected}, got {X.dtype} (uint8 is normalised to float32): convert one of them, for instance net.float()")


def check_fit(net, data, kind, labels, test, augment):
    """TypeError or ValueError unless `fit` can train `net` on `data`, which must be of that kind."""
    if not isinstance(data, kind):
        raise TypeError(f"data must be a {kind.__name__}, got {type(data).__name__}")
    check_examples(net, labels, "data.X_train", data.X_train, "data.y_train", data.y_train, "training ")
    if test is True:
        check_examples(net, labels, "data.X_test", data.X_test, "data.y_test", data.y_test, "test ")
    check(labels or augment is not True, "augment must be False for another loss than cross-entropy: images would "
          "change and their targets would not")
    check(any(parameter.requires_grad for parameter in net.parameters()), f"net must have a parameter to train, got "
          f"{type(net).__name__} with {len(list(net.parameters()))} parameters, none of which has requires_grad=True")
    check(torch.is_grad_enabled(), "fit must be called where gradients are computed, not under torch.no_grad() or "
          "torch.inference_mode()")


def check_answer(y_hat, targets, y, labels):
    """ValueError unless the targets y (N, ...) are such as the net's answer to one image, y_hat (1, ...), allows."""
    if labels:
        check(y_hat.dim() == 2, f"net must give scores (N, classes), got {tuple(y_hat.shape)} for one image")
        bad = y[(y < 0) | (y >= y_hat.shape[1])].tolist()
        check(not bad, f"{targets} must be classes of the net, 0 to {y_hat.shape[1] - 1}, got {next(iter(bad), None)}")
    check(not y.is_floating_point() or y.shape[1:] == y_hat.shape[1:], f"{targets} must have the shape of the net's "
          f"answers, {tuple(y_hat.shape[1:])} each, got {tuple(y.shape[1:])}")


def check_run(net, data, train, settings, loss, answers):
    """The last check before any work, with one image in eval mode: ValueError where net, data, loss and settings do not
    fit. `answers(net, X, precision)` is what the net gives; `train` is the data without the images held out."""
    lone, n, parts = [], len(train.X_train), world_size()       # batch norms that see one number a channel and image
    hooks = [module.register_forward_pre_hook(
        lambda module, args, name=name: lone.append(name) if args[0][0, 0].numel() == 1 else None)
        for name, module in net.named_modules() if isinstance(module, BatchNorm) and module.training]
    try:
        with torch.no_grad(), seeded_draws(train.X_train.device, 0), eval_mode(net):
            y_hat = answers(net, train.X_train[:1], settings.precision)
    finally:
        for hook in hooks:
            hook.remove()
    for name in ["y_train"] + ["y_test"] * settings.test:
        check_answer(y_hat, f"data.{name}", getattr(data, name), loss is F.cross_entropy)
    value = loss(y_hat, train.y_train[:1])
    check(isinstance(value, torch.Tensor) and not value.dim(), f"loss must give one number, the mean over a batch, got "
          f"{value!r}")
    check(not lone or (n % settings.batch_size or settings.batch_size) // parts > 1,
          f"batch_size must leave no lone image where batch norm ({', '.join(lone[:1])}) sees one pixel a channel, the "
          f"variance of one number; got {n} images in batches of {settings.batch_size} for {parts} process(es)")

"""The check at the door of `fit` and `evaluate`: images, targets and net, before any work."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .distributed import world_size
from .state import eval_mode, seeded_draws


def check_examples(images, X, targets, y, labels, kind=""):
    """TypeError or ValueError, which say `images` and `targets` for X and y, unless X is uint8 or floating
    (N, C, H, W), N from 1, and y int64 `labels` (N,) or, for another loss, floating or int64 (N, ...)."""
    for name, tensor in ((images, X), (targets, y)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if X.dim() != 4 or not (X.dtype == torch.uint8 or X.is_floating_point()):
        raise ValueError(f"{images} must be uint8 or floating images (N, C, H, W), got {X.dtype} {tuple(X.shape)}")
    if y.dim() == 0 or len(X) != len(y) or not len(X):
        raise ValueError(f"{images} and {targets} must have the same length, at least 1, got {len(X)} {kind}images and "
                         f"{len(y) if y.dim() else 'no'} labels")
    if labels and (y.dtype != torch.int64 or y.dim() != 1):
        raise ValueError(f"{targets} must be int64 labels (N,) for cross-entropy, got {y.dtype} {tuple(y.shape)}; "
                         "for other targets pass another loss")
    if y.dtype != torch.int64 and not y.is_floating_point():
        raise ValueError(f"{targets} must be floating or int64, got {y.dtype}")


def check_data(data, kind, labels, test, augment):
    """TypeError or ValueError unless `data` is one of that kind and its training images, and its test images if they
    are used, are such as check_examples asks for; and unless `augment` leaves the targets right."""
    if not isinstance(data, kind):
        raise TypeError(f"data must be a {kind.__name__}, got {type(data).__name__}")
    check_examples("data.X_train", data.X_train, "data.y_train", data.y_train, labels, "training ")
    if test is True:
        check_examples("data.X_test", data.X_test, "data.y_test", data.y_test, labels, "test ")
    if augment is True and not labels:
        raise ValueError("augment must be False for another loss than cross-entropy: images change, targets would not")


def check_dtype(images, X, net):
    """ValueError unless images X can go through `net`: floating ones of its kind, uint8 ones if it is float32."""
    kind = next((tensor.dtype for tensor in net.parameters() if tensor.is_floating_point()), torch.float32)
    if (torch.float32 if X.dtype == torch.uint8 else X.dtype) != kind:
        made = " (which is normalised to float32)" if X.dtype == torch.uint8 else ""
        raise ValueError(f"{images} must be of the net's kind, {kind}, got {X.dtype}{made}: convert one of them, for "
                         "instance by net.float()")


def check_trainable(net):
    """ValueError unless there is something to train, and gradients are computed."""
    parameters = list(net.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(f"net must have a parameter to train, got {type(net).__name__} with {len(parameters)} "
                         "parameters, none of which has requires_grad=True")
    if not torch.is_grad_enabled():
        raise ValueError("fit must be called where gradients are computed, not under torch.no_grad() or "
                         "torch.inference_mode()")


def check_answer(y_hat, targets, y, labels):
    """ValueError unless the targets y (N, ...) are such as the net's answer to one image, y_hat (1, ...), allows."""
    if labels and y_hat.dim() != 2:
        raise ValueError(f"net must give scores (N, classes) for cross-entropy, got {tuple(y_hat.shape)} for one image")
    if labels and (y.min() < 0 or y.max() >= y_hat.shape[1]):
        bad = y[(y < 0) | (y >= y_hat.shape[1])][0].item()
        raise ValueError(f"{targets} must be classes of the net, 0 to {y_hat.shape[1] - 1}, got {bad}")
    if y.is_floating_point() and y.shape[1:] != y_hat.shape[1:]:
        raise ValueError(f"{targets} must have the shape of the net's answers, {tuple(y_hat.shape[1:])} each, "
                         f"got {tuple(y.shape[1:])}")


@contextmanager
def lone_values(net):
    """Yields a list: within the context the names of the batch norms, of those now in train mode, that see one number
    a channel and image are added to it. In train mode these cannot take a lone image."""
    names, norms = [], [(name, module) for name, module in net.named_modules() if isinstance(module, BatchNorm)]
    hooks = [module.register_forward_pre_hook(
        lambda module, args, name=name: names.append(name) if args and args[0][0, 0].numel() == 1 else None)
        for name, module in norms if module.training]
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


def check_batches(n, batch_size, lone):
    """ValueError where a process would get a lone image and `lone` names batch norms that cannot take one."""
    last = n % batch_size or batch_size
    if lone and last // world_size() <= 1:
        raise ValueError(f"batch_size must leave no lone image where batch norm ({lone[0]}) sees one pixel a channel, "
                         f"the variance of one number; got {n} training images in batches of {batch_size}"
                         + f" for {world_size()} processes" * (world_size() > 1))


def check_run(net, data, train, settings, loss, answers):
    """The last check before any work, with one image in eval mode: ValueError where net, data, loss and settings do not
    fit. `answers(net, X, precision)` is what the net gives; `train` is the data without the images held out."""
    check_dtype("data.X_train", data.X_train, net)
    with torch.no_grad(), seeded_draws(train.X_train.device, 0), lone_values(net) as lone, eval_mode(net):
        y_hat = answers(net, train.X_train[:1], settings.precision)
    for name in ["y_train"] + ["y_test"] * settings.test:
        check_answer(y_hat, f"data.{name}", getattr(data, name), loss is F.cross_entropy)
    value = loss(y_hat, train.y_train[:1])
    if not isinstance(value, torch.Tensor) or value.dim():
        raise ValueError(f"loss must give one number, the mean over a batch, got {value!r}")
    check_batches(len(train.X_train), settings.batch_size, lone)

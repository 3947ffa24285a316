"""The checks at the door: images, targets and net, before any work."""

import copy

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .distributed import world_size
from .state import eval_mode, seeded_draws


def check_images(name, X, net=None):
    """TypeError or ValueError unless X, called `name`, is uint8 or floating images (N, C, H, W), N from 1, which `net`
    takes: floating ones of its dtype, uint8 ones if it is float32."""
    if not isinstance(X, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(X).__name__}")
    if X.dim() != 4 or not len(X) or not (X.dtype == torch.uint8 or X.is_floating_point()):
        raise ValueError(f"{name} must be uint8 or floating images (N, C, H, W), N at least 1, got {X.dtype} "
                         f"{tuple(X.shape)}")
    kinds = [weight.dtype for weight in net.parameters() if weight.is_floating_point()] if net is not None else []
    if kinds and kinds[0] != (torch.float32 if X.dtype == torch.uint8 else X.dtype):
        made = " (which is normalised to float32)" if X.dtype == torch.uint8 else ""
        raise ValueError(f"{name} must be of the net's kind, {kinds[0]}, got {X.dtype}{made}: convert one of them, for "
                         "instance by net.float()")


def check_channels(X, stem):
    """ValueError unless X has the shape (N, C, H, W) that the convolution `stem` takes; tracers, other stems pass."""
    channels = getattr(stem, "in_channels", None)
    traced = not isinstance(X, torch.Tensor) or torch.jit.is_tracing()
    if channels and not traced and (X.dim() != 4 or X.shape[1] != channels):
        raise ValueError(f"X must have shape (N, {channels}, H, W), got {tuple(X.shape)}")


def check_targets(name, y, n, labels):
    """TypeError or ValueError unless y, called `name`, is int64 `labels` (n,) or, for another loss than cross-entropy,
    floating or int64 targets (n, ...)."""
    if not isinstance(y, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(y).__name__}")
    if labels and (y.dtype != torch.int64 or y.dim() != 1):
        raise ValueError(f"{name} must be int64 labels (N,) for cross-entropy, got {y.dtype} {tuple(y.shape)}; "
                         "for other targets pass another loss")
    if y.dtype != torch.int64 and not y.is_floating_point():
        raise ValueError(f"{name} must be floating or int64, got {y.dtype}")
    if y.shape[:1] != (n,):
        raise ValueError(f"{name} must have an entry for each of the {n} images, got {tuple(y.shape)}")


def check_answer(y_hat, name, y, labels):
    """ValueError unless the targets y (N, ...) are such as the net's answer to one image, y_hat (1, ...), allows."""
    if labels and y_hat.dim() != 2:
        raise ValueError(f"net must give scores (N, classes) for cross-entropy, got {tuple(y_hat.shape)} for one image")
    if labels and (y.min() < 0 or y.max() >= y_hat.shape[1]):
        bad = y[(y < 0) | (y >= y_hat.shape[1])][0].item()
        raise ValueError(f"{name} must be classes of the net, 0 to {y_hat.shape[1] - 1}, got {bad}")
    if y.is_floating_point() and y.shape[1:] != y_hat.shape[1:]:
        raise ValueError(f"{name} must have the shape of the net's answers, {tuple(y_hat.shape[1:])} each, "
                         f"got {tuple(y.shape[1:])}")


def check_fit(net, data, kind, loss, test, augment):
    """TypeError or ValueError unless `data` is of that kind, `net` can be trained on it and `augment` leaves the
    targets right."""
    labels, weights = loss is F.cross_entropy, list(net.parameters())
    if not isinstance(data, kind):
        raise TypeError(f"data must be a {kind.__name__}, got {type(data).__name__}")
    trained = sum(weight.requires_grad for weight in weights)
    if not trained or not torch.is_grad_enabled():
        raise ValueError(f"net must have a parameter to train, and not under torch.no_grad() or inference_mode(); got "
                         f"{type(net).__name__} with {len(weights)} parameters, {trained} of them to train")
    for part in ["train"] + ["test"] * (test is True):
        X, y = getattr(data, f"X_{part}"), getattr(data, f"y_{part}")
        check_images(f"data.X_{part}", X, net)
        check_targets(f"data.y_{part}", y, len(X), labels)
    if augment is True and not labels:
        raise ValueError("augment must be False for another loss than cross-entropy: images change, targets would not")


def check_run(net, data, train, settings, loss, answers):
    """ValueError where a pass of one image shows that net, data, loss and settings do not fit. `answers(net, X,
    precision)` is what the net gives; `train` is the data without the images held out."""
    X, n, size = train.X_train[:1], len(train.X_train), settings.batch_size
    with torch.no_grad(), seeded_draws(X.device, 0):
        with eval_mode(net):
            y_hat = answers(net, X, settings.precision)
        norms = any(isinstance(module, BatchNorm) and module.training for module in net.modules())
        if norms and (n % size or size) // world_size() <= 1:     # a process gets a lone image: can they take it?
            try:
                answers(copy.deepcopy(net), X, settings.precision)
            except ValueError as error:
                raise ValueError(f"batch_size must leave no lone image for this net ({error}); got {n} training images "
                                 f"in batches of {size} for {world_size()} processes") from error
    for part in ["train"] + ["test"] * settings.test:
        check_answer(y_hat, f"data.y_{part}", getattr(data, f"y_{part}"), loss is F.cross_entropy)
    value = loss(y_hat, train.y_train[:1])
    if not isinstance(value, torch.Tensor) or value.dim():
        raise ValueError(f"loss must give one number, the mean over a batch, got {value!r}")

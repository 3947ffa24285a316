"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747; MIT licence), and an epoch's order and draws.

The bundled file holds the first 10,000 training and the first 2,000 test images, so nothing needs a network.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .engine import sources
from .engine.hardware import choose_device

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MEAN, STD = 0.2860, 0.3530        # of the 60,000 training images' pixels, scaled to 0..1
ORDER, AUGMENT, NET = range(3)          # what an epoch's random numbers are for; NET's purpose has the rank added


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """Images as uint8 tensors (N, 1, size, size), labels as int64 tensors (N,), and the ten class names."""

    X_train: torch.Tensor
    y_train: torch.Tensor
    X_test: torch.Tensor
    y_test: torch.Tensor
    classes: tuple = CLASSES

    def sha256(self):
        """The SHA-256 of all four tensors in hexadecimal: which pictures a result comes from."""
        digest = hashlib.sha256()
        for tensor in (self.X_train, self.y_train, self.X_test, self.y_test):
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def split(self, n):
        """The set without its last `n` training images, and these: images and labels. ValueError if none is left."""
        kept = len(self.X_train) - n
        if kept < 1:
            raise ValueError(f"validation must be below the number of training images, {len(self.X_train)}, got {n}")
        return (replace(self, X_train=self.X_train[:kept], y_train=self.y_train[:kept]),
                (self.X_train[kept:], self.y_train[kept:]))


def normalise(X):
    """uint8 images -> float32 with the training pixels' mean 0 and standard deviation 1; float input as it is."""
    return X if X.is_floating_point() else X.float().div_(255).sub_(MEAN).div_(STD)


def epoch_generator(seed, epoch, purpose=ORDER):
    """A CPU generator that follows from (seed, epoch, purpose): the same random numbers whatever the device."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1)[0]))


def epoch_order(n, seed, epoch):
    """The order of an epoch's n images: a permutation that depends on (seed, epoch) alone."""
    return torch.randperm(n, generator=epoch_generator(seed, epoch))


def epoch_changes(n, size, seed, epoch):
    """What crop_and_flip does to each of an epoch's n images of `size` pixels: shifts (n, 2) of up to `size` / 14
    pixels (2 of 28), and whether it is mirrored (n,). He et al. 2015 section 4.2."""
    generator, most = epoch_generator(seed, epoch, AUGMENT), max(1, size // 14)
    return torch.randint(-most, most + 1, (n, 2), generator=generator), torch.rand(n, generator=generator) < 0.5


def crop_and_flip(X, shift, flip):
    """Images X (N, C, H, W), each with its window moved by `shift` (N, 2) pixels down and right, zeros beyond the edge,
    and mirrored where `flip` (N,): all at once, on X's device."""
    n, _, height, width = X.shape
    rows = torch.arange(height, device=X.device) + shift[:, :1]  # (N, H)
    columns = torch.arange(width, device=X.device)
    columns = torch.where(flip[:, None], columns.flip(0), columns)
    columns = columns + shift[:, 1:]                             # (N, W)
    rows, columns = rows.clamp(-1, height), columns.clamp(-1, width)
    images = torch.arange(n, device=X.device)[:, None, None]
    padded = F.pad(X, (1, 1, 1, 1))            # beyond the edge: zeros
    X = padded[images, :, rows[:, :, None] + 1, columns[:, None, :] + 1]
    return X.permute(0, 3, 1, 2)


def fashion_mnist(full=False, size=28, device=None):
    """Fashion-MNIST on `device` (default: `choose_device()`), images of `size` 28 or 14 pixels a side (2x2 means): the
    bundled 10,000 + 2,000 images, or with `full=True` all 60,000 + 10,000 from `$D2L_DATA`, Debian's package, the
    user's cache or a download. Raises ValueError for a bad argument or a damaged file, ConnectionError offline."""
    if size not in (14, 28):
        raise ValueError(f"size must be 14 or 28, got {size!r}")
    device = choose_device(device)
    X_train, y_train, X_test, y_test = map(torch.tensor, sources.read_full() if full else sources.read_bundled())
    images = [X[:, None] if size == 28 else F.avg_pool2d(X[:, None].float(), 2).round().byte()
              for X in (X_train, X_test)]
    labels = [y.long() for y in (y_train, y_test)]
    return FashionMNIST(*(part.to(device) for pair in zip(images, labels, strict=True) for part in pair))

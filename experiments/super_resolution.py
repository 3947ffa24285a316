"""Chapter 09: enlarge pictures from 14x14 to 28x28: predict the picture, or the difference to its bicubic enlargement?

`pictures`: "clothes", Fashion-MNIST; "nature", 28x28 patches of the pictures that scikit-learn and scikit-image bring
along: for training china (CC BY 2.0), astronaut (NASA, public domain), coffee and chelsea (CC0); for choosing and for
testing the halves of flower (CC BY 2.0) and camera (CC0). The small picture is the mean of 2x2 pixels.

Arms of one stack of `depth` 3x3 convolutions of 16 channels, ReLUs between them, no norm, on the bicubic enlargement:
"picture", from He's kernels; "delta start", from delta kernels plus a tenth of He's; "difference", He's, the output
added to the enlargement; "blocks", the same with a shortcut over every two of the inner convolutions, the second of
which starts at a tenth. Without training: "nearest", "bilinear", "bicubic", and "linear", the best linear map of 5x5
small pixels to 2x2.

A row a measurement: PSNR (dB) and SSIM (Wang et al. 2004), means over 500 pictures, by scikit-image; the PSNR on 500
others, by which a rate is chosen. Arrays: "readable" (2, depth), R2 of the enlargement's pixel as a linear map of a
pixel's channels after each convolution but the last, before and after training, the enlargement's own 1 first; of seed
0 "made" (12, 28, 28) uint8, the first test pictures enlarged; of the arm nearest "small", of bicubic "truth"."""

import hashlib
from functools import cache
from itertools import pairwise

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from _kinds import at_best, race
from common import images, recorded
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_image
from torch import nn

from d2l_utils.blocks import conv
from d2l_utils.engine.progress import Diverged
from d2l_utils.training import learning_rate

STEPS, EVERY, BATCH, CHANNELS, HELD_OUT, SHOWN = 300, 100, 32, 16, 500, 12
PHOTOS = {"train": ("china", "astronaut", "coffee", "chelsea"), "test": ("flower", "camera")}


def photo(name):
    """A picture of scikit-learn's or scikit-image's, grey, 0 to 1, (H, W)."""
    sample = name in ("china", "flower")
    picture = load_sample_image(f"{name}.jpg") if sample else getattr(skimage.data, name)()
    return (skimage.color.rgb2gray(picture) if picture.ndim == 3 else picture / 255).astype(np.float32)


def patches(picture, n, generator):
    """n random patches (n, 1, 28, 28), those with more to see more often: the livelier of two each."""
    picture = torch.tensor(picture)
    rows, columns = (torch.randint(0, side - 27, (2 * n,), generator=generator) for side in picture.shape)
    cut = torch.stack([picture[y:y + 28, x:x + 28] for y, x in zip(rows.tolist(), columns.tolist(), strict=True)])
    pairs = cut.view(n, 2, 28, 28)
    return pairs[torch.arange(n), pairs.var((2, 3)).argmax(1)][:, None]


@cache
def sets(pictures):
    """Pictures (N, 1, 28, 28) from 0 to 1: for training, for choosing a rate, for testing."""
    if pictures == "clothes":
        data = images(size=28, device="cpu")
        X_test = data.X_test / 255
        return data.X_train / 255, X_test[HELD_OUT:2 * HELD_OUT], X_test[:HELD_OUT]
    generator, kinds = torch.Generator().manual_seed(0), {}
    kinds["train"] = [patches(photo(name), 2500, generator) for name in PHOTOS["train"]]
    for kind, half in (("choosing", 0), ("test", 1)):
        halves = [np.array_split(photo(name), 2, axis=1)[half] for name in PHOTOS["test"]]
        kinds[kind] = [patches(picture, HELD_OUT // 2, generator) for picture in halves]
    mixed = [torch.cat(parts) for parts in kinds.values()]
    return [part[torch.randperm(len(part), generator=generator)] for part in mixed]


def enlarged(small, mode="bicubic"):
    """(N, 1, 14, 14) -> (N, 1, 28, 28), from 0 to 1."""
    options = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(small, scale_factor=2, mode=mode, **options).clamp(0, 1)


class Stack(nn.Module):
    """An arm: enlarged pictures (N, 1, 28, 28) -> pictures."""

    def __init__(self, depth, arm):
        super().__init__()
        self.arm, widths = arm, [1, *[CHANNELS] * (depth - 1), 1]
        self.layers = nn.ModuleList(conv(*pair, 3, bias=True) for pair in pairwise(widths))
        if arm == "delta start":
            for layer in self.layers:
                layer.weight.data = nn.init.dirac_(torch.empty_like(layer.weight)) + 0.1 * layer.weight.data
        elif arm == "blocks":
            for layer in self.layers[2:-1:2]:
                layer.weight.data *= 0.1

    def hidden(self, X):
        """What leaves each convolution but the last: (N, 16, 28, 28) each."""
        found = [F.relu(self.layers[0](X))]
        for k, layer in enumerate(self.layers[1:-1], start=1):
            H = layer(found[-1])
            if self.arm == "blocks" and k % 2 == 0:
                H = H + found[-2]
            found.append(F.relu(H))
        return found

    def forward(self, X):
        Y = self.layers[-1](self.hidden(X)[-1])
        return Y + X if self.arm in ("difference", "blocks") else Y


@torch.no_grad()
def readable(net, X):
    """R2 of a pixel of X (N, 1, 28, 28) as a linear map of its channels, first of X itself, then after each convolution
    but the last: (depth,)."""
    pixel, found = X.flatten().double(), [1.0]
    for H in net.hidden(X):
        H = H.movedim(1, 3).reshape(-1, CHANNELS).double()
        H = torch.cat([H, torch.ones(len(H), 1)], 1)
        gram = H.T @ H + 1e-9 * len(H) * torch.eye(CHANNELS + 1)
        left = pixel - H @ torch.linalg.solve(gram, H.T @ pixel)
        found.append(1 - (left.var() / pixel.var()).item())
    return np.array(found, np.float32)


def quality(Y, truth):
    """Mean PSNR and mean SSIM of pictures Y (N, 1, 28, 28)."""
    pairs = list(zip(Y.clamp(0, 1)[:, 0].numpy(), truth[:, 0].numpy(), strict=True))
    psnr = [peak_signal_noise_ratio(y, made, data_range=1) for made, y in pairs]
    ssim = [structural_similarity(y, made, data_range=1) for made, y in pairs]
    return float(np.mean(psnr)), float(np.mean(ssim))


def linear(small, truth, others):
    """The best linear map of 5x5 small pixels (and 1) to 2x2, fitted to small, truth, of each of `others`."""
    def columns(X):
        X = F.unfold(F.pad(X, (2, 2, 2, 2), mode="replicate"), 5).movedim(1, 2)     # (N, 196, 25)
        return torch.cat([X, torch.ones(*X.shape[:2], 1)], 2).double()

    wanted = F.pixel_unshuffle(truth, 2).flatten(2).movedim(1, 2).double()          # (N, 196, 4)
    given = columns(small).flatten(0, 1)
    weight = torch.linalg.lstsq(given, wanted.flatten(0, 1), driver="gelsd").solution
    return [F.pixel_shuffle((columns(X) @ weight).movedim(1, 2).unflatten(2, (14, 14)), 2).float() for X in others]


def train(net, X, Y, lr, seed, steps, measure):
    """Adam on the mean squared error, at a rate that goes up to `lr` and back; `measure(step)` as it goes."""
    optimizer = torch.optim.Adam(net.parameters(), lr, fused=True)
    batches = torch.randint(0, len(X), (steps, BATCH), generator=torch.Generator().manual_seed(seed))
    for step, batch in enumerate(batches):
        if step % EVERY == 0:
            measure(step)
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, lr, "cosine", 0.1)
        loss = F.mse_loss(net(X[batch]), Y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    measure(steps)


def shown(Y):
    return (Y[:SHOWN, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def baseline(arm, truths, smalls):
    """One row and the pictures of an arm without training."""
    if arm == "linear":
        choosing, made = linear(smalls[0], truths[0], smalls[1:])
    else:
        choosing, made = (enlarged(small, arm) for small in smalls[1:])
    psnr, ssim = quality(made, truths[2])
    arrays, others = {"made": shown(made)}, {"nearest": ("small", smalls[2]), "bicubic": ("truth", truths[2])}
    if arm in others:
        arrays[others[arm][0]] = shown(others[arm][1])
    return [{"step": 0, "psnr": psnr, "ssim": ssim, "choosing_psnr": quality(choosing, truths[1])[0]}], arrays


def run(pictures, arm, depth, precision, lr, seed, steps=STEPS, n=None):
    """Rows and arrays of one arm."""
    truths = [part[:n] for part in sets(pictures)]
    smalls = [F.avg_pool2d(part, 2) for part in truths]
    if not depth:
        return baseline(arm, truths, smalls)
    inputs, rows = [enlarged(small).contiguous(memory_format=torch.channels_last) for small in smalls], []
    torch.manual_seed(seed)
    net = Stack(depth, arm).to(memory_format=torch.channels_last)
    before = readable(net, inputs[2][:50])

    @torch.no_grad()
    def measure(step):
        made = net(inputs[2])
        if not made.isfinite().all():
            raise Diverged(step, lr)
        psnr, ssim = quality(made, truths[2])
        rows.append({"step": step, "psnr": psnr, "ssim": ssim,
                     "choosing_psnr": quality(net(inputs[1]), truths[1])[0]})

    train(net, inputs[0], truths[0], lr, seed, steps, measure)
    arrays = {"readable": np.stack([before, readable(net, inputs[2][:50])])}
    with torch.no_grad():
        return rows, arrays | ({"made": shown(net(inputs[2][:SHOWN]))} if seed == 0 else {})


ARMS = ("picture", "delta start", "difference", "blocks")
BASELINES = ("nearest", "bilinear", "bicubic", "linear")


RATES = (0.001, 0.003, 0.01)


def net(pictures, arm, depth=0):
    return {"pictures": pictures, "arm": arm, "depth": depth, "precision": "float32"}


NETS = [net("clothes", arm, depth) for depth in (2, 4, 8, 16, 32) for arm in ARMS if depth > 2 or arm != "blocks"]
NETS += [net("nature", arm, depth) for depth in (4, 16) for arm in ("picture", "difference", "blocks")]
FIXED = [net(pictures, arm) | {"lr": 0.0, "seed": 0} for pictures in ("clothes", "nature") for arm in BASELINES]


def configs(table):
    """The baselines; seed 0 of every net at each rate, seeds 1 to 4 at the best (1 and 2 of natural pictures)."""
    return FIXED + at_best(table, NETS, lambda net, errors: RATES,
                           lambda net: (1, 2, 3, 4) if net["pictures"] == "clothes" else (1, 2),
                           error=lambda rows: -rows.choosing_psnr)


CONFIGS = configs(recorded("super_resolution"))


def sha256():
    digest = hashlib.sha256()
    for pictures in ("clothes", "nature"):
        for part in sets(pictures):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    smallest = FIXED + [net("clothes", arm, 4) | {"lr": 0.003, "seed": 0} for arm in ARMS]
    race("super_resolution", configs, run, smallest, sha256(), {"steps": 20, "n": 64})

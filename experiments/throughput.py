"""Appendix B: how fast the textbook's recipe, a plain torch loop and `fit` train, side by side; what each step buys;
what share of the machine that is; what `fit` adds to its bare steps; a step's time against depth.

`textbook`: PIL pictures, Resize and ToTensor, DataLoader, float32, plain loop. `torchvision`: torchvision's resnet18,
its tensors in memory, plain loop. `+ ...`: one step after the other added to `textbook`. `fit`: all, through `fit`.
All train a one-channel ResNet-18 on the same 96x96 pictures, batch 256, each in a process of its own (what keeps memory
keeps it). Repeats are `seed`; each goes through all.
"""

import functools
import time
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
import torchvision
from _fresh import in_fresh_process
from common import PRECISION, images, main
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import Compose, Resize, ToTensor

import d2l_utils as d2l
from d2l_utils.book.provenance import processor
from d2l_utils.data import normalise
from d2l_utils.engine.hardware import autocast, keep_memory
from d2l_utils.engine.small_maps import SideBySide
from d2l_utils.training import sgd

STEPS = ["+ tensors", "+ channels_last", "+ bfloat16", "+ fused optimiser", "+ small maps side by side",
         "+ kept memory"]
MAPS = {24: 64, 12: 128, 6: 256, 3: 512}                # ResNet-18's maps of 96x96 pictures: side and channels
DEPTHS = (20, 32, 44, 56, 110)


class Pictures(Dataset):
    """The images as torchvision's FashionMNIST hands them out: PIL, through the transforms."""

    def __init__(self, X, y, size):
        self.arrays, self.y, self.transform = X[:, 0].cpu().numpy(), y.tolist(), Compose([Resize(size), ToTensor()])

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.arrays[i])), self.y[i]


@functools.lru_cache(maxsize=1)
def pictures(size, n):
    """The same n pictures twice: as a textbook's data set, and as a FashionMNIST of uint8 tensors."""
    data = images()
    textbook = Pictures(data.X_train[:n], data.y_train[:n], size)
    X = torch.stack([textbook[i][0] for i in range(n)]).mul(255).round().to(torch.uint8).to(data.X_train.device)
    return textbook, replace(data, X_train=X, y_train=data.y_train[:n])


def seconds_per_step(step, batches):
    """The mean seconds of a step over all batches but the first, which warms up."""
    for i, batch in enumerate(batches):
        loss = step(*batch)
        if i == 0:
            loss.item()
            start = time.perf_counter()
    loss.item()                                             # waits until the device is done
    return (time.perf_counter() - start) / i


def plain_step(net, optimizer, precision="float32"):
    """The step of a plain loop."""
    def step(X, y):
        with autocast(X.device, precision):
            loss = F.cross_entropy(net(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss
    return step


def tensor_batches(data, batch, layout=torch.contiguous_format):
    """Batches of tensors that are in memory already, normalised as they are used."""
    order = torch.randperm(len(data.X_train), device=data.X_train.device)
    return ((normalise(data.X_train[i]).contiguous(memory_format=layout), data.y_train[i])
            for i in order.split(batch))


def textbook_seconds(size, batch, steps):
    textbook, data = pictures(size, batch * (steps + 1))
    device = data.X_train.device
    net = d2l.resnet18(1, 10).to(device)
    step = plain_step(net, torch.optim.SGD(net.parameters(), lr=0.05))
    return seconds_per_step(lambda X, y: step(X.to(device), y.to(device)), DataLoader(textbook, batch, shuffle=True))


def torchvision_seconds(size, batch, steps):
    _, data = pictures(size, batch * (steps + 1))
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    net.to(data.X_train.device)
    step = plain_step(net, torch.optim.SGD(net.parameters(), lr=0.05))
    return seconds_per_step(step, tensor_batches(data, batch))


def step_seconds(last, size, batch, steps):
    """The textbook's loop with all STEPS up to `last`."""
    taken = STEPS[:STEPS.index(last) + 1]
    _, data = pictures(size, batch * (steps + 1))
    layout = torch.channels_last if "+ channels_last" in taken else torch.contiguous_format
    precision = "bfloat16" if "+ bfloat16" in taken else "float32"
    if "+ kept memory" in taken:
        keep_memory()
    net = d2l.resnet18(1, 10).to(data.X_train.device, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, fused=True if "+ fused optimiser" in taken else None)
    with SideBySide() if "+ small maps side by side" in taken else nullcontext():   # also where it does not pay
        return seconds_per_step(plain_step(net, optimizer, precision), tensor_batches(data, batch, layout))


def fit_seconds(net, data, batch, precision=None):
    """`fit`'s seconds a step in its second epoch; the first warms up."""
    history = d2l.fit(net, data, 2, lr=0.01, batch_size=batch, precision=precision, progress=False)
    return history["seconds"].iloc[1] / (len(data.X_train) // batch)


def bare_seconds(net, data, batch):
    """The seconds of a step of the same computation as `fit_seconds`, in a bare loop, in its second epoch."""
    net.to(data.X_train.device, memory_format=torch.channels_last)
    step = plain_step(net, sgd(net, 0.01), PRECISION)
    for _ in range(2):
        start = time.perf_counter()
        for X, y in tensor_batches(data, batch, torch.channels_last):
            loss = step(X, y)
        loss.item()
    return (time.perf_counter() - start) / (len(data.X_train) // batch)


def operations_per_second(function, *tensors, repeats):
    """The floating-point operations a second, forward and backward, of function(*tensors); the first call warms up."""
    counter = FlopCounterMode(display=False)
    with counter:
        Y = function(*tensors)
        Y.backward(torch.ones_like(Y))
    start = time.perf_counter()
    for _ in range(repeats):
        Y = function(*tensors)
        Y.backward(torch.ones_like(Y))
    Y.sum().item()
    return repeats * counter.get_total_flops() / (time.perf_counter() - start)


def product_per_second(A, B, repeats):
    """The floating-point operations a second of the matrix product A B; the first one warms up."""
    (A @ B).sum().item()
    start = time.perf_counter()
    for _ in range(repeats):
        C = A @ B
    C.sum().item()
    return repeats * 2 * A.shape[0] * A.shape[1] * B.shape[1] / (time.perf_counter() - start)


def resnet18_operations(size):
    """The floating-point operations of one picture's training step, counted on the meta device."""
    net, X = d2l.resnet18(1, 10).to("meta"), torch.empty(2, 1, size, size, device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        net(X).sum().backward()
    return counter.get_total_flops() / 2


def peak(kind, side, precision, batch, repeats):
    """GFLOP/s of the product of two matrices of `side` squared; or of ResNet-18's 3x3 convolution on a map of `side`
    squared, forward and backward."""
    options = {"dtype": getattr(torch, precision), "device": images().X_train.device}
    if kind == "matmul":
        A, B = (torch.randn(side, side, **options) for _ in range(2))
        return product_per_second(A, B, repeats) / 1e9
    channels, layout = MAPS[side], torch.channels_last
    X = torch.randn(batch, channels, side, side, **options).contiguous(memory_format=layout).requires_grad_()
    W = torch.randn(channels, channels, 3, 3, **options).contiguous(memory_format=layout).requires_grad_()
    return operations_per_second(functools.partial(F.conv2d, padding=1), X, W, repeats=repeats) / 1e9


def resnet18_seconds(name, seed, size, batch, steps, precision):
    """The seconds of a step of the one-channel ResNet-18 as `name` trains it."""
    torch.manual_seed(seed)
    if name == "fit":
        return fit_seconds(d2l.resnet18(1, 10), pictures(size, batch * (steps + 1))[1], batch, precision)
    if name in STEPS:
        return step_seconds(name, size, batch, steps)
    return {"textbook": textbook_seconds, "torchvision": torchvision_seconds}[name](size, batch, steps)


def run(measure, processor, seed, size=96, batch=256, steps=4, side=2048, small=(9984, 128), fresh=True):
    """One row: `value` in `unit`, and for ResNet-18 also the GFLOP/s reached; `processor` is this one."""
    torch.manual_seed(seed)
    keep_memory()                                           # as `fit` does; ResNet-18's processes start without
    name, _, detail = measure.partition(": ")
    if name in ("matmul", "convolution"):
        *where, precision = detail.split()
        value = peak(name, int(where[0].split("x")[0]) if where else side, precision, batch, 4 * steps)
        return [{"value": value, "unit": "GFLOP/s", "gflops": value}]
    if name in ("bare steps", "steps of fit", "depth"):
        data = replace(images(size=14), X_train=images(size=14).X_train[:small[0]],
                       y_train=images(size=14).y_train[:small[0]])
        time_them = bare_seconds if name == "bare steps" else fit_seconds
        seconds = time_them(d2l.small_resnet(int(detail)), data, small[1])
        return [{"value": 1000 * seconds, "unit": "ms/step"}]
    measured = functools.partial(resnet18_seconds, name, seed, size, batch, steps, detail or None)
    seconds = in_fresh_process(measured) if fresh else measured()
    return [{"value": batch / seconds, "unit": "images/s", "gflops": batch / seconds * resnet18_operations(size) / 1e9}]


MEASURES = ["matmul: float32", "matmul: bfloat16", "textbook", "torchvision", *STEPS, "fit: bfloat16", "fit: float32"]
MEASURES += ["bare steps: 20", "steps of fit: 20"]
MEASURES += [f"depth: {depth}" for depth in DEPTHS]
MEASURES += [f"convolution: {side}x{side} {precision}" for side in MAPS for precision in ("float32", "bfloat16")]
CONFIGS = [{"measure": measure, "processor": processor(), "seed": seed} for seed in range(5) for measure in MEASURES]
FIRST = "2 x Intel(R) Xeon(R) Processor"                # the one of the rows that do not say it

if __name__ == "__main__":
    corner = ("matmul: float32", "textbook", "torchvision", STEPS[-1], "bare steps: 20", "steps of fit: 20",
              "fit: bfloat16", "depth: 20", "convolution: 3x3 bfloat16")
    smallest = [config for config in CONFIGS if config["measure"] in corner and config["seed"] == 0]
    main("throughput", CONFIGS, run, smallest, {"full": False, "size": 28}, workers=0, defaults={"processor": FIRST},
         smoke_options={"size": 32, "batch": 4, "steps": 1, "side": 256, "small": (32, 16), "fresh": False})

"""Chapter 01's trainer: what the reader's browser would compute, run through wasmtime: the module in web/trainer.js,
width 8, 2,048 pictures at 14x14, plain and residual nets of five depths, 20 seeds.

The rate was chosen on seeds 100 to 102, which are not in the record, among 0.03, 0.05 and 0.1 (0.3 was worse for both
nets at 32 layers): over 20, 32 and 56 layers the plain nets end at 46, 46 and 44 % training error, the residual ones at
14, 15 and 17 %.
"""

import base64
import ctypes
import math
import re
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from common import images, main

TRAINER = Path(__file__).parent.parent / "web" / "trainer.js"
WIDTH, BATCH, EPOCHS, COUNT, WARMUP = 8, 64, 5, 2048, 0.3           # as in trainer.js


@lru_cache(maxsize=1)
def compiled():
    """The module in trainer.js, compiled for this machine, and its engine, once a process."""
    import wasmtime
    text = re.search(r'^const MODULE = "(.*)";$', TRAINER.read_text(encoding="utf-8"), re.MULTILINE)[1]
    engine = wasmtime.Engine()
    return engine, wasmtime.Module(engine, base64.b64decode(text))


class Engine:
    """An instance of the module: its functions are methods, `view` shows its memory as NumPy arrays."""

    def __init__(self, depth, shortcut, pictures, width=WIDTH, batch=BATCH):
        """`pictures`: uint8 images (N, 1, 14, 14) or (N, 1, 28, 28) and labels (N,), N a multiple of `batch`. Raises
        ValueError."""
        import wasmtime
        X, y = pictures
        engine, module = compiled()
        self.store = wasmtime.Store(engine)
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.bytes = self.build(depth, width, batch, shortcut is not None, len(X), X.shape[-1])
        if not self.bytes:
            raise ValueError("depth must be 8, 14, ... 56, width 8 or 16, batch a multiple of 8 and pictures one of "
                             f"batch, got {depth!r}, {width!r}, {batch!r} and {len(X)} pictures")
        self.view("pictures", X.size, np.uint8)[:] = X.ravel()
        self.view("labels", y.size, np.uint8)[:] = y

    def __getattr__(self, name):
        function = self.exports[name]
        return lambda *arguments: function(self.store, *arguments)

    def view(self, name, count, dtype=np.float32):
        """`count` values at NAME_at(), to read or write; gone when another net is built."""
        memory = self.exports["memory"].data_ptr(self.store)
        start = ctypes.addressof(memory.contents) + self.exports[f"{name}_at"](self.store)
        return np.frombuffer((ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(start), dtype)


def learning_rate(progress, lr):
    """One cycle, as in `fit` and in trainer.js: up from lr/25, down to 0."""
    if progress < WARMUP:
        return lr * (0.04 + 0.96 * (1 - math.cos(math.pi * progress / WARMUP)) / 2)
    return lr * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))) / 2


def steps(engine, seed, lr, total):
    """Train `total` steps from `seed`; yields the loss of each batch, before its update. Raises FloatingPointError."""
    engine.start(seed)
    for step in range(total):
        loss = engine.train(seed, step, learning_rate(step / total, lr))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in step {step}")
        yield loss


def pictures(count):
    data = images(size=14)
    return data.X_train[:count].numpy(), data.y_train[:count].numpy()


def run(depth, shortcut, lr, seed, precision="float32", count=COUNT, epochs=EPOCHS):
    """One net; loss and error on the pictures that it trains on, in eval mode after each epoch."""
    engine, rows, start = Engine(depth, shortcut, pictures(count)), [], time.perf_counter()
    try:
        for step, _ in enumerate(steps(engine, seed, lr, epochs * count // BATCH), start=1):
            if step % (count // BATCH) == 0:
                loss, error = engine.measure(), engine.errors() / count
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} in eval mode")
                rows.append({"epoch": len(rows) + 1, "train_loss": loss, "train_error": error,
                             "seconds": round(time.perf_counter() - start, 2)})
    except FloatingPointError as error:
        error.history = rows
        raise
    return rows


LR = 0.03
CONFIGS = [{"depth": depth, "shortcut": shortcut, "lr": LR, "precision": "float32", "seed": seed}
           for seed in range(20) for depth in (32, 56, 20, 44, 8) for shortcut in (None, "A")]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["depth"] == 32 and config["seed"] == 0]
    main("train_here", CONFIGS, run, smallest, {"full": False, "size": 14}, {"count": 512, "epochs": 1})

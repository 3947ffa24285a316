"""Chapter 05: the book's recipe on the full set at 28x28, the last 5,000 training images held out, 5 seeds, and once
for the plain twin; the textbook's recipe (ResNet-18 at 96x96, batch 256, rate 0.05) through the same engine, once.

A run keeps a checkpoint in experiments/.checkpoints and, killed, goes on from there. Seed 0's residual net and its
plain twin stay as recorded/fashion_mnist_residual20.safetensors and _plain20. The textbook's runs count epochs; their
pictures are normalised, which the textbook does not do. One run at a time, with all threads: the seconds are those of
the whole machine.
"""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from _grid import PRECISION, images, main
from safetensors.torch import save_file
from torchvision.transforms.functional import resize

import d2l_utils as d2l
from d2l_utils.book.records import RECORDED, commit

DEPTH, WIDTH, EPOCHS = 20, 16, 14
BOOK = {"lr": 0.1, "batch_size": 128, "weight_decay": 5e-4, "augment": True, "validation": 5000}
TEXTBOOK = {"lr": 0.05, "batch_size": 256, "schedule": "constant", "momentum": 0.0, "weight_decay": 0.0}
TEXTBOOK_SIZE, TEXTBOOK_EPOCHS = 96, 10
CHECKPOINTS = Path(__file__).parent / ".checkpoints"


def run(recipe, shortcut, precision, seed, n=None, epochs=None, keep=RECORDED):
    """One net by one recipe; training loss and error on the first 10,000 training images, test ones on all. `n` images
    of the bundled ones instead of all."""
    data, options = images(full=n is None), {"seed": seed, "precision": precision, "test": True}
    if n is None:
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        options["checkpoint"] = CHECKPOINTS / f"fashion_mnist_{recipe}_{shortcut}_{seed}.pt"
    data = replace(data, **{name: getattr(data, name)[:n] for name in ("X_train", "y_train", "X_test", "y_test")})
    torch.manual_seed(seed)
    if recipe == "textbook":
        size = [TEXTBOOK_SIZE] * 2 if n is None else [32, 32]
        data = replace(data, **{name: torch.cat([resize(part, size) for part in getattr(data, name).split(5000)])
                                for name in ("X_train", "X_test")})
        return d2l.fit(d2l.resnet18(1, 10), data, epochs or TEXTBOOK_EPOCHS, **options, **TEXTBOOK)
    net = d2l.small_resnet(DEPTH, shortcut, width=WIDTH)
    history = d2l.fit(net, data, epochs or EPOCHS, **options, **BOOK | ({} if n is None else {"validation": n // 12}))
    if seed == 0:
        store(net, keep, shortcut, {"depth": DEPTH, "width": WIDTH, "shortcut": shortcut, "seed": seed,
                                    "epochs": len(history), "test_error": history["test_error"].iloc[-1]})
    return history


def store(net, folder, shortcut, facts):
    """Write the weights, with where they are from, whole or not at all."""
    path = Path(folder) / f"fashion_mnist_{'residual' if shortcut else 'plain'}{DEPTH}.safetensors"
    metadata = {key: str(value) for key, value in facts.items()} | {"commit": commit(), "made by": Path(__file__).name}
    save_file({key: value.cpu().contiguous() for key, value in net.state_dict().items()}, f"{path}.part", metadata)
    os.replace(f"{path}.part", path)


def config(recipe, shortcut, seed):
    return {"recipe": recipe, "shortcut": shortcut, "precision": PRECISION, "seed": seed}


CONFIGS = [config("book", "A", seed) for seed in range(5)] + [config("book", None, 0), config("textbook", "B", 0)]

if __name__ == "__main__":
    main("fashion_mnist", CONFIGS, run, CONFIGS[:1], {"full": True, "size": 28}, workers=0,
         n=300, epochs=1, keep=tempfile.gettempdir())

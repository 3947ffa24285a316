"""Chapter 05: the book's recipe on the full set at 28x28, the last 5,000 training images held out: residual-20 and its
plain twin, five seeds each, and without augmentation; what shifts and mirrors do apart, at 14x14; the textbook's recipe
(ResNet-18 at 96x96, batch 256, rate 0.05) through the same engine, once.

A run keeps a checkpoint in experiments/.checkpoints and, killed, goes on from there. Seed 0's residual net and its
plain twin stay as recorded/fashion_mnist_residual20.safetensors and _plain20. The textbook's runs count epochs; their
pictures are normalised, which the textbook does not do. On a CPU one run at a time, with all threads: the seconds are
those of the whole machine. Rows that a GPU made, several runs at once, have seconds that compare with nothing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from common import PRECISION, checkpoint, enlarged, few, images, main, store
from torch import nn

import d2l_utils as d2l

DEPTH, WIDTH, EPOCHS = 20, 16, 14
BOOK = {"lr": 0.1, "batch_size": 128, "weight_decay": 5e-4, "augment": True, "validation": 5000}
PLAINLY = BOOK | {"augment": False}
TEXTBOOK = {"lr": 0.05, "batch_size": 256, "schedule": "constant", "momentum": 0.0, "weight_decay": 0.0}
RECIPES = {"book": (28, BOOK), "not augmented": (28, PLAINLY), "textbook": (96, TEXTBOOK),
           "14x14 not augmented": (14, PLAINLY), "14x14 shifts": (14, PLAINLY), "14x14 mirrors": (14, PLAINLY),
           "14x14 both": (14, BOOK)}
TEXTBOOK_EPOCHS = 10
BLACK = d2l.data.normalise(torch.zeros(1, dtype=torch.uint8)).item()


class Changing(nn.Module):
    """`net`, in train mode with only one of the two changes that `fit(augment=True)` makes to its pictures: "shifts" by
    up to a pixel, or "mirrors". What it draws follows from (seed, number of the batch)."""

    def __init__(self, net, change, seed):
        super().__init__()
        self.net, self.change, self.seed = net, change, seed
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))     # kept in checkpoints

    def forward(self, X):
        if self.training:
            number = np.random.SeedSequence([self.seed, self.batches.item()]).generate_state(1)[0]
            generator = torch.Generator().manual_seed(int(number))
            X = {"shifts": shifted, "mirrors": mirrored}[self.change](X, generator)
            self.batches += 1
        return self.net(X)


def shifted(X, generator):
    """Each of the normalised pictures X (N, 1, 14, 14) moved by -1, 0 or 1 pixel both ways, black beyond the edge."""
    height, width = X.shape[2:]
    places = torch.randint(0, 3, (len(X), 2), generator=generator).tolist()
    padded = F.pad(X, (1, 1, 1, 1), value=BLACK)
    return torch.stack([padded[i, :, y:y + height, x:x + width] for i, (y, x) in enumerate(places)])


def mirrored(X, generator):
    """Half of the pictures X (N, 1, H, W) mirrored, left and right exchanged."""
    flip = (torch.rand(len(X), 1, 1, 1, generator=generator) < 0.5).to(X.device)
    return torch.where(flip, X.flip(3), X)


def class_errors(net, data, precision):
    """The share of each class's test pictures that the net gets wrong."""
    of_class = [data.y_test == k for k in range(len(data.classes))]
    return {f"test_error {name}": d2l.evaluate(net, data.X_test[chosen], data.y_test[chosen], precision=precision)[1]
            for name, chosen in zip(data.classes, of_class, strict=True)}


def run(recipe, shortcut, precision, seed, n=None, epochs=None, folder=None):
    """One net by one recipe; training loss and error on the first 10,000 training images, test ones on all, after the
    last epoch also by class. `n` images of the bundled ones instead of all."""
    size, settings = RECIPES[recipe]
    data = few(images(full=n is None, size=28 if size == 96 else size), n)
    torch.manual_seed(seed)
    if recipe == "textbook":
        data, net = enlarged(data, size if n is None else 32), d2l.resnet18(1, 10)
    else:
        net = d2l.small_resnet(DEPTH, shortcut, width=WIDTH)
    options = settings | {"seed": seed, "precision": precision, "test": True,
                          "checkpoint": checkpoint(f"fashion_mnist_{recipe}_{shortcut}_{seed}", folder)}
    if n is not None and "validation" in settings:
        options["validation"] = n // 12
    change = recipe.removeprefix("14x14 ")
    trained = Changing(net, change, seed) if change in ("shifts", "mirrors") else net
    history = d2l.fit(trained, data, epochs or (TEXTBOOK_EPOCHS if recipe == "textbook" else EPOCHS), **options)
    rows = history.to_dict("records")
    rows[-1] |= class_errors(net, data, precision)
    if recipe == "book" and seed == 0:
        store(net, f"fashion_mnist_{'residual' if shortcut else 'plain'}{DEPTH}", folder, depth=DEPTH, width=WIDTH,
              shortcut=shortcut, seed=seed, epochs=len(history), test_error=rows[-1]["test_error"])
    return rows


def config(recipe, shortcut, seed):
    return {"recipe": recipe, "shortcut": shortcut, "precision": PRECISION, "seed": seed}


CONFIGS = [config("book", "A", seed) for seed in range(5)] + [config("book", None, 0), config("textbook", "B", 0)]
CONFIGS += [config("book", None, seed) for seed in range(1, 5)]
CONFIGS += [config("not augmented", "A", seed) for seed in range(3)]
CONFIGS += [config(recipe, "A", seed) for seed in range(3) for recipe in RECIPES if recipe.startswith("14x14")]

if __name__ == "__main__":
    smallest = [config(recipe, "A", 0) for recipe in ("book", "14x14 shifts", "14x14 mirrors")]
    main("fashion_mnist", CONFIGS, run, smallest, {"full": True, "size": 28}, workers=0,
         smoke_options={"n": 300, "epochs": 1})

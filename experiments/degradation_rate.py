"""Chapter 01: depth x shortcut x peak rate x seed, 10,000 images at 14x14, 10 epochs; plain-56 also with its gradient
clipped and with a long warm-up. Each net is judged at its own best rate."""

from common import PRECISION, few, images, main, train

RECIPES = {"standard": {}, "clipped": {"clip": 1.0}, "long warm-up": {"warmup": 0.6}}


def run(depth, shortcut, lr, recipe, precision, seed, epochs=10, n=None):
    """One net at the peak rate `lr`; training loss and error on all 10,000 images."""
    return train(depth, shortcut, seed, few(images(size=14), n), epochs, lr=lr, test=True, precision=precision,
                 **RECIPES[recipe])


def config(depth, shortcut, lr, seed, recipe="standard"):
    return {"depth": depth, "shortcut": shortcut, "lr": lr, "recipe": recipe, "precision": PRECISION, "seed": seed}


CONFIGS = [config(depth, shortcut, lr, seed)
           for seed in range(3) for lr in (0.1, 0.03, 0.3) for depth in (56, 20) for shortcut in (None, "A")]
CONFIGS += [config(depth, shortcut, 0.01, seed)          # the best of the three was the lowest: one lower
            for seed in range(3) for depth in (56, 20) for shortcut in (None, "A")]
CONFIGS += [config(56, None, lr, seed, recipe)
            for seed in range(3) for lr in (0.1,) for recipe in ("clipped", "long warm-up")]
CONFIGS += [config(depth, shortcut, 0.03, seed)          # the headline: all four depths, five seeds, one rate
            for seed in range(5) for depth in (56, 20, 32, 8) for shortcut in (None, "A")
            if seed > 2 or depth in (8, 32)]
CONFIGS += [config(56, None, lr, seed)                   # plain-56 was best at the lowest rate tried: lower ones
            for seed in range(5) for lr in (0.01, 0.003, 0.001) if seed > 2 or lr < 0.01]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if (config["depth"], config["lr"], config["seed"]) == (20, 0.1, 0)]
    main("degradation_rate", CONFIGS, run, smallest, {"full": False, "size": 14},
         smoke_options={"epochs": 1, "n": 512})

"""Chapter 01: depth x shortcut x seed on all 60,000 images at 14x14, 4 epochs, and a float32 control of precision."""

from common import PRECISION, few, images, main, train


def run(depth, shortcut, precision, seed, full=True, epochs=4, n=None):
    """One net; training loss and error on the first 10,000 training images, test ones on all test images."""
    return train(depth, shortcut, seed, few(images(full=full, size=14), n), epochs, test=True, precision=precision)


CONFIGS = [{"depth": depth, "shortcut": shortcut, "precision": PRECISION, "seed": seed}
           for seed in range(5) for depth in (56, 20, 32, 8) for shortcut in (None, "A")]
CONTROL = [{"depth": depth, "shortcut": None, "precision": "float32", "seed": 0} for depth in (20, 56)]
if PRECISION != "float32":
    CONFIGS += CONTROL

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["depth"] == 8 and config["seed"] == 0]
    main("degradation", CONFIGS, run, smallest, {"full": True, "size": 14},
         smoke_options={"full": False, "epochs": 1, "n": 512})

"""Chapter 01: depth x shortcut x seed on all 60,000 images at 14x14, 4 epochs, and a float32 control of precision."""

from _grid import PRECISION, images, main, train


def run(depth, shortcut, precision, seed, full=True, epochs=4):
    """One net; training loss and error on the first 10,000 training images, test ones on all test images."""
    return train(depth, shortcut, seed, images(full=full, size=14), epochs, test=True, precision=precision)


CONFIGS = [{"depth": depth, "shortcut": shortcut, "precision": PRECISION, "seed": seed}
           for seed in range(5) for depth in (56, 20, 32, 8) for shortcut in (None, "A")]
CONTROL = [{"depth": depth, "shortcut": None, "precision": "float32", "seed": 0} for depth in (20, 56)]
if PRECISION != "float32":
    CONFIGS[8:8] = CONTROL

if __name__ == "__main__":
    main("degradation", CONFIGS, run, CONFIGS[6:8], {"full": True, "size": 14}, full=False, epochs=1)

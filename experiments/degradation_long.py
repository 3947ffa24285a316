"""Chapter 01, slower or worse?: 20 and 56 layers, plain and residual, at three times the epochs of `degradation`, and
once plain-56 at 0.03, where it did better in `degradation_rate`. All 60,000 images at 14x14."""

from common import PRECISION, few, images, main, train

EPOCHS = 12


def run(depth, shortcut, lr, precision, seed, full=True, epochs=EPOCHS, n=None):
    """One net; training loss and error on the first 10,000 training images, test ones on all test images."""
    data = few(images(full=full, size=14), n)
    return train(depth, shortcut, seed, data, epochs, lr=lr, test=True, precision=precision)


def config(depth, shortcut, lr, seed):
    return {"depth": depth, "shortcut": shortcut, "lr": lr, "precision": PRECISION, "seed": seed}


CONFIGS = [config(depth, shortcut, 0.1, seed) for seed in range(3) for depth in (56, 20) for shortcut in (None, "A")]
CONFIGS += [config(56, None, 0.03, 0)]                      # a control of the rate

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["depth"] == 20 and config["seed"] == 0]
    main("degradation_long", CONFIGS, run, smallest, {"full": True, "size": 14},
         smoke_options={"full": False, "epochs": 1, "n": 512})

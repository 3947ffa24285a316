"""Chapter 01, slower or worse?: 20 and 56 layers, plain and residual, at three times the epochs of `degradation`, and
once plain-56 at 0.03, where it did better in `degradation_rate`. All 60,000 images at 14x14."""

from _grid import PRECISION, images, main, train

EPOCHS = 12


def run(depth, shortcut, lr, precision, seed, full=True, epochs=EPOCHS):
    """One net; training loss and error on the first 10,000 training images, test ones on all test images."""
    return train(depth, shortcut, seed, images(full=full, size=14), epochs, lr=lr, test=True, precision=precision)


def config(depth, shortcut, lr, seed):
    return {"depth": depth, "shortcut": shortcut, "lr": lr, "precision": PRECISION, "seed": seed}


CONFIGS = [config(depth, shortcut, 0.1, seed) for seed in range(3) for depth in (56, 20) for shortcut in (None, "A")]
CONFIGS.insert(2, config(56, None, 0.03, 0))                # a control of the rate

if __name__ == "__main__":
    main("degradation_long", CONFIGS, run, CONFIGS[3:4], {"full": True, "size": 14}, full=False, epochs=1)

"""Chapter 05: schedule x peak rate x seed, residual-8 on 10,000 images at 14x14, 8 epochs; and at the rate 0.1 of the
one-cycle schedule, what the recipe's other parts do: augmentation, momentum, weight decay."""

from common import PRECISION, few, images, main, train

RECIPES = {"standard": {}, "augmented": {"augment": True}, "no momentum": {"momentum": 0.0},
           "no weight decay": {"weight_decay": 0.0}}


def run(schedule, lr, recipe, precision, seed, epochs=8, n=None):
    """One net; training loss and error on all 10,000 images, test ones on the 2,000."""
    return train(8, "A", seed, few(images(size=14), n), epochs, schedule=schedule, lr=lr, test=True,
                 precision=precision, **RECIPES[recipe])


def config(schedule, lr, seed, recipe="standard"):
    return {"schedule": schedule, "lr": lr, "recipe": recipe, "precision": PRECISION, "seed": seed}


CONFIGS = [config(schedule, lr, seed) for seed in range(5) for lr in (0.1, 0.3, 0.03, 1.0, 0.01)
           for schedule in ("one-cycle", "cosine", "step", "constant")]
CONFIGS += [config("one-cycle", lr, seed, recipe)
            for seed in range(5)
            for lr, recipe in [(0.1, recipe) for recipe in RECIPES if recipe != "standard"] + [(1.0, "no momentum")]]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS
                if (config["schedule"], config["lr"], config["seed"]) == ("one-cycle", 0.1, 0)]
    main("schedules", CONFIGS, run, smallest, {"full": False, "size": 14}, smoke_options={"epochs": 1, "n": 512})

"""Appendix B: the textbook's net (ResNet-18 at 96x96, batch 256) by our recipe, with momentum and one cycle to the rate
0.1, the last 5,000 training images held out: one run of 5 epochs. It tells the net's share of the time to 92 %
from the engine's; epochs count, on whatever machine. Killed, it goes on from experiments/.checkpoints."""

import torch
from common import PRECISION, checkpoint, enlarged, few, images, main

import d2l_utils as d2l

RECIPE = {"lr": 0.1, "batch_size": 256, "weight_decay": 5e-4, "validation": 5000}


def run(recipe, precision, seed, n=None, epochs=5, size=96, folder=None):
    """The net by `recipe`; validation error each epoch, training error on the first 10,000 training images."""
    data = enlarged(few(images(full=n is None), n), size)
    options = RECIPE if n is None else RECIPE | {"validation": n // 12}
    torch.manual_seed(seed)
    return d2l.fit(d2l.resnet18(1, 10), data, epochs, seed=seed, precision=precision, test=True,
                   checkpoint=checkpoint(f"textbook_{recipe}_{seed}", folder), **options)


CONFIGS = [{"recipe": "momentum and one cycle", "precision": PRECISION, "seed": 0}]

if __name__ == "__main__":
    main("textbook", CONFIGS, run, CONFIGS, {"full": True, "size": 28}, workers=0,
         smoke_options={"n": 300, "epochs": 1, "size": 32})

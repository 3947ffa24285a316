"""Appendix A: does residual-56 stray at the peak rate 0.1? Eight fresh seeds, each as it is, in float32, with its
gradient clipped and with a long warm-up; 10,000 images at 14x14, 10 epochs. All of it on one machine."""

import torch
import torch.nn.functional as F
from common import PRECISION, few, images, main

import d2l_utils as d2l
from d2l_utils.data import normalise
from d2l_utils.engine.hardware import autocast

ARMS = {"as is": {}, "float32": {"precision": "float32"}, "clipped": {"clip": 1.0}, "long warm-up": {"warmup": 0.6}}


@torch.no_grad()
def train_mode_loss(net, X, y, precision, batch_size=128):
    """The mean loss with each batch's own statistics, as a training step sees it; the running averages stay as they
    are. X uint8 (N, 1, H, W), y (N,)."""
    kept = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    total = 0.0
    for X_batch, y_batch in zip(X.split(batch_size), y.split(batch_size), strict=True):
        with autocast(X.device, precision):
            y_hat = net(normalise(X_batch).contiguous(memory_format=torch.channels_last))
        total += F.cross_entropy(y_hat.float(), y_batch, reduction="sum").item()
    for name, buffer in net.named_buffers():
        buffer.copy_(kept[name])
    return total / len(X)


def run(arm, precision, seed, epochs=10, n=None):
    """One residual-56; training loss and error in eval mode on all 10,000 images, and the loss in train mode."""
    data, losses = few(images(size=14), n), []
    torch.manual_seed(seed)
    net = d2l.small_resnet(56, "A")

    def measure(history):
        losses.append(train_mode_loss(net, data.X_train, data.y_train, precision))

    options = {"precision": precision} | ARMS[arm]
    try:
        history = d2l.fit(net, data, epochs, lr=0.1, seed=seed, test=True, progress=False, on_epoch=measure, **options)
    except d2l.Diverged as error:
        error.history = error.history.assign(train_mode_loss=losses)
        raise
    return history.assign(train_mode_loss=losses)


CONFIGS = [{"arm": arm, "precision": ARMS[arm].get("precision", PRECISION), "seed": seed}
           for seed in range(10, 18) for arm in ARMS]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if (config["arm"], config["seed"]) == ("as is", 10)]
    main("strays", CONFIGS, run, smallest, {"full": False, "size": 14}, smoke_options={"epochs": 1, "n": 256})

"""Chapter 10: what a net costs to use: ResNet-18 to 152, two descendants and a ConvNeXt of torchvision's, with random
weights, in eval mode, float32, on 224x224 pictures. Parameters, multiply-adds of one picture, milliseconds of a forward
pass at batch 1 and 64, and its peak memory over what the process held before it had the net, each in a fresh process.
Repeats are `seed`; each goes through all nets."""

from functools import partial

import torch
import torchvision
from _fresh import forget_peak, in_fresh_process, memory, only_on_a_cpu, timed
from common import main
from torch.utils.flop_counter import FlopCounterMode

import d2l_utils as d2l
from d2l_utils.book.provenance import processor

REPEATS = {1: 15, 64: 2}


def make(name, seed):
    """torchvision's net `name`, untrained, in eval mode."""
    torch.manual_seed(seed)
    return torchvision.models.get_model(name, weights=None).eval()


def counts(name):
    """Parameters and multiply-adds at 224x224, counted on the meta device."""
    with torch.device("meta"):
        net, counter = torchvision.models.get_model(name, weights=None).eval(), FlopCounterMode(display=False)
        with counter:
            net(torch.empty(1, 3, 224, 224))
    return {"parameters": d2l.parameter_count(net), "multiply_adds": counter.get_total_flops() // 2}


@torch.inference_mode()
def cost(name, batch, seed, size, repeats):
    """Time and memory of a forward pass in this process."""
    torch.ones(64, 64) @ torch.ones(64, 64)                 # the libraries are loaded
    before = memory("VmRSS")
    net, X = make(name, seed), torch.randn(batch, 3, size, size)
    weights = memory("VmRSS") - before                      # and the pictures
    forget_peak()
    measured = timed(partial(net, X), repeats)
    return measured | {"weights_MiB": weights, "peak_MiB": memory() - before}


def run(net, batch, processor, seed, size=224, repeats=None, fresh=True):
    """One row; `processor` is this one."""
    measured = partial(cost, net, batch, seed, size, repeats or REPEATS[batch])
    return [counts(net) | (in_fresh_process(measured) if fresh else measured())]


NETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d",
        "convnext_tiny")
CONFIGS = [{"net": net, "batch": batch, "processor": processor(), "seed": seed}
           for seed in range(5) for batch in REPEATS for net in NETS]

if __name__ == "__main__":
    only_on_a_cpu()
    smallest = [config for config in CONFIGS if (config["net"], config["seed"]) == ("resnet18", 0)]
    main("latency", CONFIGS, run, smallest, {"full": False, "size": 28}, {"size": 64, "repeats": 1})

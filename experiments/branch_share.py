"""Chapter 02: how much each block of an untrained 56-layer net adds: the variance of its branch and of the stream that
it adds to; plain and residual, with batch norm and without; 1,024 images at 14x14, in train mode."""

import torch
from common import few, images, main

import d2l_utils as d2l


def variance(X):
    """The variance over pictures and places of each channel of X (N, C, H, W), averaged over the channels."""
    return X.float().var((0, 2, 3), unbiased=False).mean().item()


def run(depth, shortcut, norm, precision, seed, n=1024):
    """A row per block, from the first to the last: `branch`, what its two convolutions (and norms) give; `stream`, what
    the shortcut carries there, in a plain net what enters the block; `share`, the one over the other."""
    data = few(images(size=14), n)
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, shortcut, norm).to(data.X_train.device)
    blocks = [block for stage in net.stages for block in stage]
    rows = [{"block": i + 1} for i in range(len(blocks))]
    for row, block in zip(rows, blocks, strict=True):
        carried = block.downsample or block
        carried.register_forward_hook(lambda _, inputs, output, row=row, enters=carried is block:
                                      row.update(stream=variance(inputs[0] if enters else output)))
        block.bn2.register_forward_hook(lambda _, inputs, output, row=row: row.update(branch=variance(output)))
    with torch.no_grad():
        net.train()(d2l.data.normalise(data.X_train))
    return [row | {"share": row["branch"] / row["stream"]} for row in rows]


CONFIGS = [{"depth": 56, "shortcut": shortcut, "norm": norm, "precision": "float32", "seed": seed}
           for seed in range(5) for norm in (True, False) for shortcut in (None, "A")]

if __name__ == "__main__":
    smallest = [config for config in CONFIGS if config["seed"] == 0 and config["norm"]]
    main("branch_share", CONFIGS, run, smallest, {"full": False, "size": 14}, smoke_options={"n": 64})

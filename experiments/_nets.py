"""The trained nets that the experiments of chapter 08 look into: those of chapter 05 as they are stored (28x28), others
trained here on all 60,000 images at 14x14 and kept in experiments/.checkpoints, once for all of them."""

import torch
import torch.nn.functional as F
from common import PRECISION, checkpoint, few, images
from torch import nn

import d2l_utils as d2l
from d2l_utils.data import normalise
from d2l_utils.engine.hardware import autocast

EPOCHS, RATE = 5, 0.03


def trained_net(depth, shortcut, seed, n=None):
    """The net (in eval mode) and its data; of `n` bundled images if that is given, and then not kept."""
    data = few(images(full=n is None, size=14), n)
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, shortcut)
    path = None if n else checkpoint(f"inside_{depth}_{shortcut}_{seed}", None)
    d2l.fit(net, data, 1 if n else EPOCHS, lr=RATE, seed=seed, checkpoint=path, progress=False, precision=PRECISION)
    return net.eval(), data


def stored_net(name, n=None):
    """A net of chapter 05 and its data, the full set or `n` bundled images."""
    return d2l.stored(name), few(images(full=n is None, size=28), n)


@torch.no_grad()
def estimate_(net, X, batch_size=500):
    """Set the norms' running averages to the statistics of the pictures X, in place."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None                          # a plain mean over the batches
    net.train()
    for part in X.split(batch_size):
        with autocast(part.device, PRECISION):
            net(normalise(part).contiguous(memory_format=torch.channels_last))
    return net.eval()


def bypass(block, H):
    """What is left of a block (one with its ReLU after the sum) without its branch: quicker than a lesion."""
    if block.downsample is not None:
        return torch.relu(block.downsample(H))
    stride, new = block.conv1.stride[0], block.conv2.out_channels - H.shape[1]
    return F.pad(H[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, new))


def stem(net, X):
    """The stream before the first block."""
    return torch.relu(net.bn1(net.conv1(normalise(X).contiguous(memory_format=torch.channels_last))))


def head(net, H):
    """The answers (N, classes) to a stream that has the last stage's channels."""
    return net.fc(H.mean((2, 3))).float()

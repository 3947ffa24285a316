"""Helpers of the book Residual Networks, by Experiment: `import d2l_utils as d2l`."""

from .anatomy import parameter_count
from .blocks import Bottleneck, PreActBottleneck, PreActResidual, Residual
from .book.claims import claim
from .book.explorer import explore, show
from .book.grids import run_grid
from .book.lab import train_lab
from .book.records import by_seed, main_precision, recorded, source, spread, stored
from .data import FashionMNIST, fashion_mnist
from .resnet import get_resnet, resnet18, resnet34, resnet50, resnet101, resnet152, resnet_block, small_resnet
from .training import Diverged, History, evaluate, fit

__all__ = ["Bottleneck", "Diverged", "FashionMNIST", "History", "PreActBottleneck", "PreActResidual", "Residual",
           "by_seed", "claim", "evaluate", "explore", "fashion_mnist", "fit", "get_resnet", "main_precision",
           "parameter_count", "recorded", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
           "resnet_block", "run_grid", "show", "small_resnet", "source", "spread", "stored", "train_lab"]

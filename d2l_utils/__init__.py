"""Helpers of the book Residual Networks, by Experiment: `import d2l_utils as d2l`."""

from .book.claims import claim
from .book.explorer import explore, show
from .book.lab import train_lab
from .book.predict import predict, predict_curve
from .book.quiz import quiz
from .book.records import recorded, run_grid
from .book.toy import toy
from .data import FashionMNIST, fashion_mnist
from .resnet import (
    Bottleneck,
    PreActBottleneck,
    PreActResidual,
    Residual,
    get_resnet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnet_block,
    small_resnet,
)
from .training import Diverged, History, evaluate, fit

__all__ = ["Bottleneck", "Diverged", "FashionMNIST", "History", "PreActBottleneck", "PreActResidual", "Residual",
           "claim", "evaluate", "explore", "fashion_mnist", "fit", "get_resnet", "predict", "predict_curve", "quiz",
           "recorded", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnet_block", "run_grid", "show",
           "small_resnet", "toy", "train_lab"]

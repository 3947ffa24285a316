"""Helpers of the book Residual Networks, by Experiment: `import d2l_utils as d2l`."""

from .anatomy import parameter_count
from .blocks import Bottleneck, PreActBottleneck, PreActResidual, Residual
from .book.claims import claim
from .book.explorer import explore, show
from .book.grids import run_grid
from .book.hands import net_in_hands
from .book.lab import train_lab
from .book.predict import predict, predict_curve
from .book.quiz import quiz
from .book.records import by_seed, main_precision, recorded, recorded_array, source, spread, stored
from .book.toy import toy
from .data import FashionMNIST, fashion_mnist
from .probes import (
    branch_share,
    effective_rank,
    gradient_agreement,
    gradient_norms,
    lesion,
    loss_surface,
    path_agreement,
    response_std,
)
from .resnet import get_resnet, resnet18, resnet34, resnet50, resnet101, resnet152, resnet_block, small_resnet
from .training import Diverged, History, evaluate, fit

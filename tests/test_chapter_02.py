"""experiments/identity.py, whose code chapter 02 teaches: the stacks start alike, and the record has their pictures."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import d2l_utils as d2l
from d2l_utils.book.records import recorded_array


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        yield __import__("identity")
    finally:
        sys.path.pop(0)


def test_starts_share_their_random_kernels(experiment):
    kernels = {}
    for start in ("he", "delta", "residual", "full"):
        torch.manual_seed(0)
        kernels[start] = [experiment.stack(4, start)[1].get_submodule(name).weight for name in ("conv1", "conv2")]
    delta = torch.nn.init.dirac_(torch.empty(8, 8, 3, 3))
    for he, near, residual, full, scale in zip(*kernels.values(), (1, 0.1), strict=True):
        assert torch.equal(full, he)
        torch.testing.assert_close(near, delta + 0.1 * he)
        torch.testing.assert_close(residual, scale * he)


def test_target_moves_the_picture_three_pixels(experiment):
    X = torch.rand(2, 1, 14, 14)
    assert torch.equal(experiment.target(X, 0), X)
    moved = experiment.target(X, 1)
    assert torch.equal(moved[..., 3:], X[..., :-3])
    assert not moved[..., :3].any()
    torch.testing.assert_close(experiment.target(X, 0.25), 0.75 * X + 0.25 * moved)


def test_pictures_are_those_of_the_recorded_nets(experiment):
    """What seed 0's pictures miss is near what the record says that their nets miss on 500 pictures."""
    last = d2l.recorded("identity").query("step == 200 and seed == 0")
    X = d2l.fashion_mnist(size=14, device="cpu").X_test[experiment.SHOWN] / 255
    assert len(last) == 2 * 4 * 5 * 5
    for run in last[last.lr == 0.006].itertuples():
        point = {"depth": run.depth, "start": run.start, "t": run.t, "lr": run.lr}
        pictures = recorded_array("identity", "pictures", **point)
        assert (pictures.shape, pictures.dtype) == ((6, 14, 14), np.uint8)
        Y = torch.tensor(pictures)[:, None] / 255
        assert experiment.missed(Y, experiment.target(X, run.t)) < 3 * run.missed + 1e-3, point

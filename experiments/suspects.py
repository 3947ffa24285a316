"""Chapter 06: twelve kinds of nets of 56 layers, fixed before the first run, and a control; 10,000 images at 14x14, the
last 1,000 held out, 5 epochs. Each kind is tried on seed 0 at three rates or more, until the best on the held-out
images lies between others (clipped is best at the highest, 1.0); seeds 1 to 5 (1 to 3 of the minor kinds) are reported
at that rate. Beside them what each suspect would be known by, at the start and after 10 and 100 steps, and the loss
after 20.

The control, residual with equal steps, asks whether that remedy itself hurts; a verdict over kinds leaves it out: its
start is residual's. Three kinds share plain's start.
"""

from _kinds import Kind, delta_, equal_sizes_, match_norm_, plan, race, scale_shortcuts_, trained
from common import PRECISION, few, images, recorded

EQUAL = {"equal_steps": True, "rates": (0.001, 0.003, 0.01)}
CONTROL = "residual, equal steps"


def delta(keep):
    return Kind(change=lambda net, X, y: delta_(net, keep))


def matched_delta(net, X, y):
    delta_(net, 0.1)
    match_norm_(net, X)


def scaled(factor):
    return Kind("A", lambda net, X, y: scale_shortcuts_(net, factor))


MATCHED_DELTA = Kind(change=matched_delta, rates=(0.003, 0.01, 0.03))
KINDS = {
    "plain": Kind(),
    "plain, equal sizes": Kind(change=equal_sizes_),
    "plain, equal steps": Kind(**EQUAL),
    "plain, clipped": Kind(options={"clip": 1.0}),
    "delta and 0.03 noise": delta(0.03),
    "delta and 0.1 noise": delta(0.1),
    "delta and 0.3 noise": delta(0.3),
    "delta, matched norm": MATCHED_DELTA,
    "random, matched norm": Kind(change=lambda net, X, y: match_norm_(net, X)),
    "residual": Kind("A"),
    "residual, shortcut times 0.25": scaled(0.25),
    "residual, shortcut times 0.5": scaled(0.5),
    CONTROL: Kind("A", **EQUAL),
}
MAJOR = ("plain", "plain, equal sizes", "plain, equal steps", "delta, matched norm", "random, matched norm", "residual")
SEEDS = dict.fromkeys(KINDS, (1, 2, 3)) | dict.fromkeys(MAJOR, (1, 2, 3, 4, 5))


def run(kind, rate, epochs, precision, seed, n=None):
    """One net's measurements and epochs; on the first `n` images if that is given."""
    return trained(KINDS[kind], rate, seed, epochs, few(images(size=14), n), precision=precision)[1]


def configs(table):
    return plan(table, KINDS, SEEDS)


CONFIGS = configs(recorded("suspects"))

if __name__ == "__main__":
    smoke = [{"kind": "delta, matched norm", "rate": 0.01, "epochs": 1, "precision": PRECISION, "seed": 1}]
    race("suspects", configs, run, smoke, {"full": False, "size": 14}, {"n": 600})

"""Chapter 06: is it the disagreement of batches that keeps plain-56 from learning? Images at 14x14, about 355 steps
each, plain and residual at their rates in `suspects`, 3 seeds; agreement is measured between batches as large as those
trained with.

If it is, larger batches must help plain: 128, 512 and 2,048 of the first 9,000 images; at three times the rate, too,
one seed. And residual must not learn better than plain does in batches that agree as badly: those of 32, 8 and 2, of
fewer images; at a third of the rate, too, one seed."""

import sys
from dataclasses import replace

from _kinds import EPOCHS, HELD_OUT, STEPS, Kind, batch_loss, best_rate
from common import PRECISION, few, images, main

import d2l_utils as d2l

PASSES = {2: (710, 1), 8: (2840, 1), 32: (5680, 2), 128: (9000, EPOCHS), 512: (9000, 4 * EPOCHS),
          2048: (9000, 71)}             # batch size: images, and passes over them
KINDS = {"plain": Kind(), "residual": Kind("A")}
RATES = {name: best_rate("suspects", name, kind.rates) for name, kind in KINDS.items()}
SMALL = {2: 1 / 3, 8: 1 / 3, 32: 1 / 3}
FACTORS = {"plain": SMALL | {128: 3, 512: 3, 2048: 3}, "residual": SMALL}       # of the other rate tried
AGREE = 512                             # agreement is that of four batches, or of those in so many images


def run(kind, batch_size, rate, precision, seed, n=None, epochs=None):
    """One net: agreement after some steps, then its epochs; on the first `n` images if that is given."""
    data, rows, held_out = few(images(size=14), n), [], HELD_OUT if n is None else n // 6
    kept, passes = PASSES[batch_size]
    keep = [*range(min(kept, len(data.X_train) - held_out)), *range(len(data.X_train) - held_out, len(data.X_train))]
    data = replace(data, X_train=data.X_train[keep], y_train=data.y_train[keep])
    net = KINDS[kind].make(seed, data)
    X, y = (part[:max(4 * batch_size, AGREE)] for part in (data.X_train, data.y_train))

    def look(step, loss, net):
        if step in STEPS:
            cosine = d2l.gradient_agreement(net, X, y, batch_size).cosine
            rows.append({"step": step, "batch_loss": batch_loss(net, data), "agreement": cosine[:-1].mean(),
                         "agreement_all": cosine.iloc[-1]})

    history = KINDS[kind].fit(net, data, rate, seed, epochs or passes, look, batch_size=batch_size,
                              validation=held_out, test=True, precision=precision)
    return rows + history.to_dict("records")


CONFIGS = [{"kind": kind, "batch_size": batch_size, "rate": float(f"{factor * (RATES[kind] or 0.03):.6g}"),
            "precision": PRECISION, "seed": seed}
           for seed in (1, 2, 3) for batch_size in PASSES for kind in KINDS if (kind, batch_size) != ("residual", 2048)
           for factor in (1, FACTORS[kind].get(batch_size)) if factor == 1 or (factor and seed == 1)]

if __name__ == "__main__":
    if None in RATES.values() and "--smoke" not in sys.argv:
        sys.exit("The rates come from the record `suspects`: make that first.")
    smoke = [config for config in CONFIGS if config["batch_size"] == 128][:1]
    main("batch_test", CONFIGS, run, smoke, {"full": False, "size": 14}, {"n": 600, "epochs": 1},
         defaults={"kind": "plain"})

"""Chapter 06: if disagreement of batches is what keeps plain-56 from learning, larger batches must help. Batches of
128, 512 and 2,048 of 10,000 images at 14x14 (the last 1,000 held out), about 355 steps each, at plain's rate in
`suspects`, 3 seeds, and at three times that, one; agreement is measured between batches of the size trained with."""

import sys

from _kinds import EPOCHS, HELD_OUT, STEPS, Kind, batch_loss, best_rate
from common import PRECISION, few, images, main

import d2l_utils as d2l

BATCHES = {128: EPOCHS, 512: 4 * EPOCHS, 2048: 71}         # epochs with as many steps
PLAIN = Kind()
RATE = best_rate("suspects", "plain", PLAIN.rates)


def run(batch_size, rate, precision, seed, n=None, epochs=None):
    """One net: agreement after some steps, then its epochs; on the first `n` images if that is given."""
    data, rows = few(images(size=14), n), []
    X, y = data.X_train[:4 * batch_size], data.y_train[:4 * batch_size]
    net = PLAIN.make(seed, data)

    def look(step, loss, net):
        if step in STEPS:
            cosine = d2l.gradient_agreement(net, X, y, batch_size).cosine
            rows.append({"step": step, "batch_loss": batch_loss(net, data), "agreement": cosine[:-1].mean(),
                         "agreement_all": cosine.iloc[-1]})

    held_out = min(HELD_OUT, len(data.X_train) // 6)
    history = PLAIN.fit(net, data, rate, seed, epochs or BATCHES[batch_size], look, batch_size=batch_size,
                        validation=held_out, test=True, precision=precision)
    return rows + history.to_dict("records")


CONFIGS = [{"batch_size": batch_size, "rate": factor * (RATE or 0.03), "precision": PRECISION, "seed": seed}
           for seed in (1, 2, 3) for factor in ((1, 3) if seed == 1 else (1,)) for batch_size in BATCHES]

if __name__ == "__main__":
    if RATE is None and "--smoke" not in sys.argv:
        sys.exit("The rate comes from the record `suspects`: make that first.")
    main("batch_test", CONFIGS, run, CONFIGS[:1], {"full": False, "size": 14}, {"n": 600, "epochs": 1})

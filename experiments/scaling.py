"""Appendix C: the same `fit` in 1 and 2 processes on this machine's processor, at the same batch (strong scaling) and
at the same batch per process (weak scaling): images a second, and the seconds that one exchange of gradients takes.

Each measurement is a `torchrun` of this file; the process that starts it only collects.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from common import PRECISION, images, main

import d2l_utils as d2l
from d2l_utils.engine.distributed import all_reduce, rank

DEPTH, BATCH = 20, 128
LAYOUTS = [  # (processes, threads of each, batch)
    (1, 1, BATCH), (2, 1, BATCH), (2, 1, 2 * BATCH), (1, 2, BATCH), (1, 2, 2 * BATCH)]


def run(processes, threads, batch_size, precision, seed, n=10_000):
    """One row: images a second in the second of two epochs, seconds of one exchange, how many numbers it moves."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               Path(__file__).resolve(), "measure", str(batch_size), precision, str(seed), str(n)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "D2L_DEVICE": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{processes} processes of scaling.py failed:\n{done.stderr[-3000:]}")
    return [json.loads(done.stdout.splitlines()[-1])]


def measure(batch_size, precision, seed, n):
    """What each process does; the first one prints the row."""
    data, net = images(), d2l.small_resnet(DEPTH)
    data = replace(data, X_train=data.X_train[:n], y_train=data.y_train[:n])
    history = d2l.fit(net, data, 2, batch_size=batch_size, seed=seed, precision=precision, progress=False)
    numbers = [torch.zeros(sum(p.numel() for p in net.parameters()), device=data.X_train.device)]
    times = []
    for _ in range(20):
        start = time.perf_counter()
        all_reduce(numbers)
        numbers[0].sum().item()
        times.append(time.perf_counter() - start)
    if rank() == 0:
        print(json.dumps({"images_per_second": n / history["seconds"].iloc[-1], "seconds": history["seconds"].iloc[-1],
                          "exchange_seconds": sorted(times)[10], "numbers": len(numbers[0]), "images": n}))


CONFIGS = [{"processes": processes, "threads": threads, "batch_size": batch_size, "precision": PRECISION, "seed": seed}
           for seed in range(5) for processes, threads, batch_size in LAYOUTS]

if __name__ == "__main__":
    if "measure" in sys.argv:
        batch_size, precision, seed, n = sys.argv[-4:]
        measure(int(batch_size), precision, int(seed), int(n))
    else:
        smallest = [config for config in CONFIGS
                    if (config["processes"], config["batch_size"], config["seed"]) == (2, BATCH, 0)]
        main("scaling", CONFIGS, run, smallest, {"full": False, "size": 28}, workers=0, smoke_options={"n": 512})

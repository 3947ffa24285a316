"""What the experiments share: the command line, two workers of one thread each, one training run."""

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial

import torch

import d2l_utils as d2l
from d2l_utils.engine.hardware import choose_device, fast_bfloat16

PRECISION = "bfloat16" if fast_bfloat16(choose_device()) else "float32"      # what fit chooses on this machine
images = lru_cache(maxsize=1)(d2l.fashion_mnist)                            # loaded once a process


def train(depth, shortcut, seed, data, epochs, **options):
    """Train one 6n+2 net from `seed`; its history, a row per epoch."""
    torch.manual_seed(seed)
    return d2l.fit(d2l.small_resnet(depth, shortcut), data, epochs, seed=seed, progress=False, **options)


def main(name, configs, run, corner, data, finish=None, workers=2, **small):
    """Run the grid of experiments/NAME.py on the images that `data` (full, size) names; `--smoke` runs the configs of
    `corner` with the options `small`, on the bundled images, into a temporary folder. `finish(folder)` is called
    when the grid is complete."""
    parser = argparse.ArgumentParser(description=f"Make d2l_utils/recorded/{name}.csv")
    parser.add_argument("--smoke", action="store_true", help="the grid's smallest corner, into a temporary folder")
    parser.add_argument("--folder", help="where the results go (default: d2l_utils/recorded)")
    parser.add_argument("--workers", type=int, default=workers,
                        help="processes, of one thread each on a CPU; 0: this process alone, with all its threads")
    options = parser.parse_args()
    if options.smoke:
        torch.set_num_threads(1)                     # quick also where other programs keep the cores busy
        configs, run, options.folder = corner, partial(run, **small), options.folder or tempfile.mkdtemp()
    sha256 = images(full=data["full"] and not options.smoke, size=data["size"]).sha256()
    if options.workers:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, context, torch.set_num_threads, (1,)) as pool:
            table = d2l.run_grid(name, configs, run, pool, options.folder, sha256, threads=1)
    else:
        table = d2l.run_grid(name, configs, run, None, options.folder, sha256)
    print(table.groupby(list(configs[0]), sort=False).tail(1).to_string(index=False))
    if finish is not None:
        finish(options.folder)

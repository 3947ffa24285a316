"""What the experiments share: the command line, two workers of one thread each, one training run, a stored net."""

import argparse
import inspect
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torchvision.transforms.functional import resize

import d2l_utils as d2l
from d2l_utils.book.provenance import commit
from d2l_utils.book.records import MACHINE, RECORDED, as_written, build
from d2l_utils.engine.files import whole
from d2l_utils.engine.hardware import choose_device, fast_bfloat16

PRECISION = "bfloat16" if fast_bfloat16(choose_device()) else "float32"      # what fit chooses on this machine
CHECKPOINTS = Path(__file__).parent / ".checkpoints"                         # of runs that take many minutes
images = lru_cache(maxsize=1)(d2l.fashion_mnist)                            # loaded once a process


def few(data, n):
    """The first `n` training and the first `n` test images (all for None)."""
    return replace(data, X_train=data.X_train[:n], y_train=data.y_train[:n], X_test=data.X_test[:n],
                   y_test=data.y_test[:n])


def enlarged(data, size):
    """The images at `size` x `size` pixels, uint8."""
    return replace(data, **{name: torch.cat([resize(part, [size, size]) for part in getattr(data, name).split(5000)])
                            for name in ("X_train", "X_test")})


def train(depth, shortcut, seed, data, epochs, **options):
    """Train one 6n+2 net from `seed`; its history, a row per epoch."""
    torch.manual_seed(seed)
    return d2l.fit(d2l.small_resnet(depth, shortcut), data, epochs, seed=seed, progress=False, **options)


def checkpoint(name, folder):
    """Where the run `name` keeps its checkpoint: killed, it goes on from there."""
    path = Path(folder or CHECKPOINTS) / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def store(net, name, /, folder=None, **facts):
    """Write a net as NAME.safetensors, whole or not at all, with `facts`: the arguments of `records.build` and what
    else is to be known. Raises ValueError where a net with these facts would not be this one."""
    facts = {key: getattr(value, "__name__", value) for key, value in facts.items()}
    state = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    try:
        build(facts).load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"facts must describe the net, got {facts}: {error}") from error
    facts |= {"commit": commit(), "made by": Path(sys.argv[0]).name}
    with whole(Path(folder or RECORDED) / f"{name}.safetensors") as file:
        file.write(save(state, {key: str(value) for key, value in facts.items()}))


def chosen(configs, words):
    """The configs that have the values of `words`, "depth=56" "seed=0" ..., as they are written in the CSV."""
    for word in words:
        key, _, value = word.partition("=")
        written = {as_written(config[key]) for config in configs if key in config}
        if value not in written:
            raise SystemExit(f"--only takes {' '.join(configs[0])}; {key} can be {', '.join(sorted(written)) or '...'}"
                             f" where the other words hold; got {word!r}")
        configs = [config for config in configs if as_written(config[key]) == value]
    return configs


def recorded(name, folder=None):
    """The record as far as it is there."""
    try:
        return d2l.recorded(name, folder)
    except FileNotFoundError:
        return ()


def beside(name, table, keys):
    """The last row of each run of `table`, each under the recorded one."""
    tables = {"recorded": recorded(name), "again": table}
    last = pd.concat({which: one.groupby([key for key in keys if key in one], sort=False).tail(1)
                      for which, one in tables.items() if len(one)}, names=["run"])
    same = [key for key in keys if key not in MACHINE]
    wanted = table.set_index(same).index
    last = last[last.set_index(same).index.isin(wanted)]
    return last.sort_values(same, kind="stable").droplevel(1).to_string()


def arguments(name, workers):
    """The command line."""
    parser = argparse.ArgumentParser(description=f"Make d2l_utils/recorded/{name}.csv")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--smoke", action="store_true", help="the grid's smallest corner, into a temporary folder")
    what.add_argument("--only", nargs="+", metavar="KEY=VALUE", help="make these points again, into a temporary "
                      "folder, and show them beside the recorded ones: --only depth=56 seed=0")
    parser.add_argument("--folder", help="where the results go (default: d2l_utils/recorded)")
    parser.add_argument("--workers", type=int, help="processes, of one thread each on a CPU; 0: this process alone, "
                        f"with all its threads (default: {workers}; 0 for --smoke)")
    options = parser.parse_args()
    if options.workers is None:
        options.workers = 0 if options.smoke else workers
    if options.smoke or options.only:
        options.folder = options.folder or tempfile.mkdtemp()
    return options


def main(name, configs, run, smoke_configs, data, smoke_options=None, after=None, workers=2, defaults=None):
    """Run the grid of experiments/NAME.py on the images that `data` (full, size) names; for other pictures `data` is
    their SHA-256. `--smoke` runs `smoke_configs` with the keywords `smoke_options`, on the bundled images. A `run` that
    takes a `folder` is told where results go (None: to d2l_utils/recorded); `after(folder)` is called when the grid is
    complete; `defaults`: see run_grid."""
    options = arguments(name, workers)
    if options.smoke:
        torch.set_num_threads(1)                     # quick also where other programs keep the cores busy
        configs, run = smoke_configs, partial(run, **smoke_options or {})
    elif options.only:
        configs = chosen(configs, options.only)
    if "folder" in inspect.signature(run).parameters:
        run = partial(run, folder=options.folder)
    sha256 = data
    if not isinstance(data, str):
        sha256 = images(full=data["full"] and not options.smoke, size=data["size"]).sha256()
    pool = nullcontext()
    if options.workers:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(options.workers, context, torch.set_num_threads, (1,))
    with pool as executor:
        table = d2l.run_grid(name, configs, run, executor, options.folder, sha256, 1 if options.workers else None,
                             defaults)
    keys = list(configs[0])
    if options.only:
        print(beside(name, table, keys))
    else:
        print(table.groupby(keys, sort=False).tail(1).to_string(index=False))
    if after is not None and not options.only:
        after(options.folder)

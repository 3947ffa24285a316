"""What the experiments of chapters 10 and 11 share: time and memory of a piece of work, in a process of its own."""

import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from d2l_utils.engine.hardware import choose_device


def in_fresh_process(function):
    """What function() returns, computed in a process of its own with as many threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(function).result()


def memory(which="VmHWM"):
    """MiB of this process (Linux): "VmHWM" at its peak, "VmRSS" now."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{which}:")[2].split()[0]) / 1024


def only_on_a_cpu():
    """Leave where this machine would compute elsewhere: what is measured are the processor and its memory."""
    if choose_device().type != "cpu":
        sys.exit("The processor and its memory are measured: set D2L_DEVICE=cpu.")


def forget_peak():
    """Let the peak begin again at what is in use now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def timed(work, repeats):
    """Milliseconds of work(), after a call that warms up: the median and the least on the clock, and the median of
    processor time, which other programs disturb less."""
    work()
    clock, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        clock.append(1000 * (time.perf_counter() - start[0]))
        processor.append(1000 * (time.process_time() - start[1]))
    return {"ms": statistics.median(clock), "least_ms": min(clock), "processor_ms": statistics.median(processor)}

"""What the machine has and how its time is best used: device, precision, memory. Networks know nothing of it."""

import contextlib
import ctypes
import os
import sys

import torch


def choose_device(device=None):
    """`device`, else `$D2L_DEVICE`, else CUDA, MPS or the CPU; under torchrun "cuda" is the process's own GPU.
    ValueError where this machine has none such."""
    devices = ["cpu"] + ["mps"] * torch.backends.mps.is_available()             # the preferred one last
    if torch.cuda.is_available():
        devices += [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cuda"]
    name = "D2L_DEVICE" if device is None else "device"
    device = str((os.environ.get("D2L_DEVICE") or devices[-1]) if device is None else device)
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device not in devices:
        raise ValueError(f"{name} must be one of {', '.join(devices)} on this machine, got {device!r}")
    return torch.device(device)


def processor_has(unit):
    """Whether this processor has a unit that PyTorch knows: "amx_tile", "avx512_bf16"."""
    return getattr(torch.cpu, f"_is_{unit}_supported", lambda: False)()


def fast_bfloat16(device):
    """Whether `device` computes bfloat16 faster than float32: recent GPUs, and CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (processor_has("amx_tile") or processor_has("avx512_bf16"))


def choose_precision(device, precision=None):
    """The precision of a forward pass: what is asked for, else bfloat16 where it is fast. ValueError for another."""
    if precision not in (None, "float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32', 'bfloat16' or None (the hardware decides), got {precision!r}")
    return precision or ("bfloat16" if fast_bfloat16(device) else "float32")


def autocast(device, precision=None):
    """The context of a forward pass: bfloat16 where it is safe, weights and updates in float32; or nothing."""
    if choose_precision(device, precision) == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def side_by_side_pays(device, precision=None):
    """Whether small maps convolve faster side by side: in bfloat16 on AMX, whose tiles have 16 rows to fill. (On an
    EPYC with AVX512-BF16 and no AMX they lose 10 %.)"""
    return device.type == "cpu" and choose_precision(device, precision) == "bfloat16" and processor_has("amx_tile")


def keep_memory():
    """Have this process keep freed memory for the next step instead of handing it back to the system, which clears and
    maps every page again: GNU/Linux (glibc's mallopt); elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2 ** 30)                # M_MMAP_THRESHOLD
        mallopt(-1, 2 ** 31 - 1)            # M_TRIM_THRESHOLD

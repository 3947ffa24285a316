"""What the machine decides: precision, kept memory. Devices: test_data, test_distributed."""

import resource
import subprocess
import sys

import pytest
import torch

from d2l_utils.engine.hardware import choose_precision, fast_bfloat16, side_by_side_pays


def has(monkeypatch, amx, avx512_bf16):
    """A processor with these units."""
    for name, answer in (("amx_tile", amx), ("avx512_bf16", avx512_bf16)):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda answer=answer: answer, raising=False)


@pytest.mark.parametrize(("units", "chosen"), [((True, True), "bfloat16"), ((False, True), "bfloat16"),
                                               ((False, False), "float32")])
def test_precision_is_what_the_processor_is_fast_at_unless_told_otherwise(monkeypatch, units, chosen):
    cpu = torch.device("cpu")
    has(monkeypatch, *units)
    assert choose_precision(cpu) == chosen
    assert choose_precision(cpu, "float32") == "float32"
    assert choose_precision(cpu, "bfloat16") == "bfloat16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: units[0])
    assert fast_bfloat16(torch.device("cuda")) == units[0]
    assert not fast_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(("device", "units", "precision", "pays"), [
    ("cpu", (True, True), None, True), ("cpu", (True, True), "float32", False),
    ("cpu", (True, False), "bfloat16", True),
    ("cpu", (False, True), None, False), ("cpu", (False, True), "bfloat16", False),
    ("cuda", (True, True), "bfloat16", False), ("mps", (True, True), "bfloat16", False)])
def test_small_maps_go_side_by_side_only_where_that_pays(monkeypatch, device, units, precision, pays):
    has(monkeypatch, *units)
    assert side_by_side_pays(torch.device(device), precision) == pays


# Kept memory

FAULTS = """
import resource, sys, torch
from d2l_utils.engine.hardware import keep_memory
if "keep" in sys.argv:
    keep_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)          # 40 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_kept_memory_is_not_mapped_anew():
    pages = 5 * 40_000_000 // resource.getpagesize()
    faults = {how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True,
                                      check=True).stdout) for how in ("hand back", "keep")}
    if sys.platform == "linux":
        assert faults["keep"] < pages / 20, faults          # on other systems: keep_memory() is no error

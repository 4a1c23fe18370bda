"""How the C library keeps memory."""

import platform
import subprocess
import sys

import pytest

from focalis.training import keep_freed_memory

COUNT_FAULTS = """
import ctypes, resource, sys
from focalis.training import keep_freed_memory
import torch
if sys.argv[1] == "kept":
    keep_freed_memory()
else:  # glibc's initial thresholds; it moves them while it runs, and what that comes to differs from run to run
    for parameter in (-1, -3):
        ctypes.CDLL(None).mallopt(parameter, 128 * 1024)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    tensors = [torch.ones(5_000_000) for _ in range(8)]
    tensors.clear()
for _ in range(3):  # until the heap has its size
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.slow
def test_pages_given_back_are_not_asked_for_again():
    """Eight tensors of 20 MB are 39,000 pages of 4 kB: without the setting each step faults on all of them again."""
    usual, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("usual", "kept")
    )
    assert kept < 0.1 * usual


def test_a_library_without_the_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert keep_freed_memory() is False

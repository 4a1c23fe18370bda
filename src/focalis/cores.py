"""How many cores of the processor are ours; a machine may have more."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many cores this process may use: those that `taskset` or a scheduler left to it, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

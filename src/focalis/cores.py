"""How many cores and threads of the processor are ours; a machine may have more."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many cores this process may use: those that `taskset` or a scheduler left to it, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """How many threads compute where nobody says: one per usable core, and no more than OMP_NUM_THREADS."""
    cores, asked = usable_cores(), os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores

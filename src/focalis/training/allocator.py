"""How the C library keeps memory between the steps of a training."""

from __future__ import annotations

import ctypes

_SETTINGS = {-1: 2**28, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD, up to how much free memory is kept, and M_MMAP_THRESHOLD, from where a block is a mapping
of its own and goes back at once, in bytes: tensors of a patch are kept, those of a whole volume are not."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that tensors give back, for the tensors of the next step.

    By default glibc soon returns free memory to the system and gets it back page by page, each page zeroed: a tenth of
    a training step on a processor (decision 0013).

    Returns:
        Whether the C library took the setting; other libraries than glibc have none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())

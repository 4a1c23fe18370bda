"""From probabilities to labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def decide(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Class indices (z, y, x) from probabilities (label, z, y, x), channel 0 being the background.

    A voxel is foreground where 1 - p[0] reaches the threshold; it then gets the foreground label with the
    highest probability, the lower one in a tie.
    """
    foreground = 1 - probabilities[0] >= threshold
    best: NDArray[np.uint8] = probabilities[1:].argmax(axis=0).astype(np.uint8)
    best += 1
    best[~foreground] = 0
    return best

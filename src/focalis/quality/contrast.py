"""How clearly a label stands out in its image, as it is and mirrored along each axis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import scipy
from numpy.typing import NDArray

FLIPS = tuple(product((False, True), repeat=3))
"""Along which of z, y, x a label is mirrored; the first is the label as it is."""
RIM = 2
"""Voxels around a label that it is compared with."""
MOST_VOXELS = 64_000_000
"""Larger images are not held for this."""
_LEAST_SPREAD = 1e-6


def contrasts(image: NDArray[np.number], mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """By how much a label is brighter than the voxels around it, in standard deviations of the two, per flip.

    Args:
        image: (z, y, x), any real dtype.
        mask: the label, same shape, not empty.

    Returns:
        One number per entry of `FLIPS`: mean inside less mean around, divided by the root of the mean variance; all 0
        where nothing lies around the label.
    """
    box = tuple(slice(max(0, int(side.min()) - RIM), int(side.max()) + 1 + RIM) for side in np.nonzero(mask))
    inside = mask[box]
    around = scipy.ndimage.binary_dilation(inside, iterations=RIM) & ~inside
    if not around.any():
        return (0.0,) * len(FLIPS)
    return tuple(_difference(values[inside], values[around]) for values in _seen_by(image, box))


def _difference(inside: NDArray[np.float32], around: NDArray[np.float32]) -> float:
    spread = float(np.sqrt((inside.var(dtype=np.float64) + around.var(dtype=np.float64)) / 2))
    return float(inside.mean(dtype=np.float64) - around.mean(dtype=np.float64)) / max(spread, _LEAST_SPREAD)


def _seen_by(image: NDArray[np.number], box: tuple[slice, ...]) -> Iterator[NDArray[np.float32]]:
    """The voxels of a box in the mirrored image, which equals mirroring the label instead."""
    for flip in FLIPS:
        mirrored = np.flip(image, tuple(axis for axis, turned in enumerate(flip) if turned))
        yield mirrored[box].astype(np.float32)

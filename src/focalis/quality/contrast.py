"""How a label stands out in its image, as it is and mirrored along each axis."""

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
_SAMPLED = 100_000


def contrasts(image: NDArray[np.number], mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """By how much a label is brighter than the voxels around it, in standard deviations of the two, per flip.

    Args:
        image: (z, y, x), any real dtype.
        mask: the label, same shape, not empty.

    Returns:
        One number per entry of `FLIPS`: mean inside less mean around, divided by the root of the mean variance; all 0
        where nothing lies around the label.
    """
    box = _around(mask, RIM)
    inside = mask[box]
    around = scipy.ndimage.binary_dilation(inside, iterations=RIM) & ~inside
    if not around.any():
        return (0.0,) * len(FLIPS)
    return tuple(_difference(values[inside], values[around]) for values in _seen_by(image, box))


def ranks(image: NDArray[np.number], mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """The share of the image's voxels (of an even selection) that are below the label's median, 0 to 1, per flip.

    0 means that most of the label lies where the image has its least value. Arguments as for `contrasts`.
    """
    box = _around(mask, 0)
    step = max(1, round((image.size / _SAMPLED) ** (1 / 3)))
    values = np.sort(image[::step, ::step, ::step], axis=None)
    least = float(image.min())
    middles = (float(np.median(seen[mask[box]])) for seen in _seen_by(image, box))
    return tuple(
        0.0 if middle <= least else float(np.searchsorted(values, middle)) / values.size for middle in middles
    )


def _around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    """The smallest box that holds a mask and as many voxels around it."""
    return tuple(
        slice(max(0, int(side.min()) - margin), int(side.max()) + 1 + margin) for side in np.nonzero(mask)
    )


def _difference(inside: NDArray[np.float32], around: NDArray[np.float32]) -> float:
    spread = float(np.sqrt((inside.var(dtype=np.float64) + around.var(dtype=np.float64)) / 2))
    return float(inside.mean(dtype=np.float64) - around.mean(dtype=np.float64)) / max(spread, _LEAST_SPREAD)


def _seen_by(image: NDArray[np.number], box: tuple[slice, ...]) -> Iterator[NDArray[np.float32]]:
    """The voxels of a box in the mirrored image, which equals mirroring the label instead."""
    for flip in FLIPS:
        mirrored = np.flip(image, tuple(axis for axis, turned in enumerate(flip) if turned))
        yield mirrored[box].astype(np.float32)

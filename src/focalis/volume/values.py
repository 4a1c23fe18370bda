"""Values that are not intensities: too large or too fine for float32, in which everything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e18
"""Beyond this a square overflows float32. No intensity is so large; fill values of float types are."""
LEAST_STEPS = 16
"""Contrast of fewer steps of float32 than this is rounding."""
_SAMPLED = 1_000_000
_FEW_LEVELS = 64
_FAR = 4.0


def why_unusable(array: NDArray[Any]) -> str:
    """Why an image cannot be used, judged by its float32 values; empty if it can.

    Args:
        array: of any real type and shape.
    """
    if array.size == 0:
        return "every voxel has the same value; export the image again or remove the case"
    least, greatest = float(array.min()), float(array.max())
    if not (np.isfinite(least) and np.isfinite(greatest)):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        return f"{bad} of {array.size} values are NaN or infinite; replace them"
    largest = max(abs(least), abs(greatest))
    if largest > LARGEST:
        bad = int(np.count_nonzero(np.abs(array.astype(np.float64)) > LARGEST))
        value = greatest if greatest == largest else least
        return (
            f"{bad} of {array.size} values are as large as {value:.4g}, most likely a fill value for no data; "
            "replace them by the background's value"
        )
    if least == greatest:
        return "every voxel has the same value; export the image again or remove the case"
    sample = _sample(array)
    inner = sample[(sample != least) & (sample != greatest)]  # fill values are extremes
    low, high = (float(value) for value in np.percentile(inner, (1, 99))) if inner.size else (least, greatest)
    contrast = high - low if high > low else greatest - least
    if contrast < LEAST_STEPS * max(float(np.spacing(np.float32(largest))), float(np.finfo(np.float32).tiny)):
        return (
            f"the contrast ({contrast:.4g}) is lost beside values of {largest:.4g} in float32; "
            "subtract the offset, or replace fill values by the background's value"
        )
    return ""


def padding_value(array: NDArray[Any]) -> float | None:
    """The value that most likely marks missing data, or None.

    It is the least or the greatest value, of two voxels or more, and lies beyond all others by more than four times
    their range; or the limit of a signed type of 16 bits or more, or the greatest of an unsigned one, and lies beyond
    all others by more than their range. An image of few distinct values is none that can be judged.

    Args:
        array: finite, of any real type and shape.
    """
    sample = _sample(array)
    levels = np.unique(sample)
    if len(levels) < _FEW_LEVELS:
        return None
    for value in (array.min(), array.max()):
        inside = array != value
        count = array.size - int(np.count_nonzero(inside))
        if count < 2:
            continue
        rest = array[inside].astype(np.float64)
        span = float(rest.max() - rest.min())
        gap = float(np.min(np.abs(rest - float(value))))
        if gap > (1.0 if float(value) in _LIMITS else _FAR) * span > 0:
            return float(value)
    return None


_LIMITS = {
    float(limit)
    for kind in ("i2", "u2", "i4", "u4")
    for limit in (np.iinfo(kind).min, np.iinfo(kind).max)
    if limit
}


def _sample(array: NDArray[Any]) -> NDArray[np.float64]:
    step = max(1, round((array.size / _SAMPLED) ** (1 / 3)))
    return array[(slice(None, None, step),) * array.ndim].astype(np.float64)

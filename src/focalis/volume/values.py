"""Values that are not intensities: too large or too fine for float32, in which everything is computed."""

from __future__ import annotations

from collections.abc import Sequence
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
    ordered = np.sort(_sample(array), axis=None)
    ends = np.searchsorted(ordered, least, side="right"), np.searchsorted(ordered, greatest)
    inner = ordered[slice(*ends)]  # fill values are extremes
    low, high = map(float, percentiles_of(inner, (1, 99))) if inner.size else (least, greatest)
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
    for value in (array.min(), array.max()):
        rest = array[array != value]
        if not 0 < rest.size < array.size - 1:
            continue
        low, high = float(rest.min()), float(rest.max())
        span, gap = high - low, max(low - float(value), float(value) - high)
        far = gap > (1.0 if float(value) in _LIMITS else _FAR) * span > 0
        if far and len(np.unique(_sample(array))) >= _FEW_LEVELS:
            return float(value)
    return None


def percentiles_of(ordered: NDArray[Any], shares: Sequence[float]) -> NDArray[np.float64]:
    """The percentiles of sorted values, interpolated linearly, as `np.percentile` gives them, up to rounding.

    To sort values first takes less time than `np.percentile` takes to find several percentiles.

    Args:
        ordered: finite, in ascending order, one or more.
        shares: from 0 to 100.
    """
    place = np.asarray(shares, dtype=np.float64) / 100 * (ordered.size - 1)
    below = np.floor(place).astype(np.intp)
    low, high = (
        ordered[each].astype(np.float64) for each in (below, np.minimum(below + 1, ordered.size - 1))
    )
    return np.asarray(low + (place - below) * (high - low))


_LIMITS = {
    float(limit)
    for kind in ("i2", "u2", "i4", "u4")
    for limit in (np.iinfo(kind).min, np.iinfo(kind).max)
    if limit
}


def _sample(array: NDArray[Any]) -> NDArray[np.float64]:
    step = max(1, round((array.size / _SAMPLED) ** (1 / 3)))
    return array[(slice(None, None, step),) * array.ndim].astype(np.float64)

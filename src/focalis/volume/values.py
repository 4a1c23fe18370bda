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
_LEVELS = 1 << 14
_LEAST_SPAN, _GREATEST_SPAN = 1e-30, 1e30


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
    inner = sample[(sample > least) & (sample < greatest)]  # fill values are extremes
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


def percentiles_of(values: NDArray[np.floating], shares: Sequence[float]) -> NDArray[np.float64]:
    """The percentiles, interpolated linearly, as `np.percentile` gives them, up to rounding, in a fifth of the time.

    Args:
        values: float32 or float64, finite, of any shape and order, one or more.
        shares: from 0 to 100.
    """
    place = np.asarray(shares, dtype=np.float64) / 100 * (values.size - 1)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, values.size - 1)
    low, high = _in_order(values.ravel(), np.stack([below, above])).astype(np.float64)
    return np.asarray(low + (place - below) * (high - low))


def _in_order(values: NDArray[np.floating], places: NDArray[np.intp]) -> NDArray[np.floating]:
    """What `np.sort(values)[places]` is; only values of the levels that hold these places are sorted."""
    least = values.min()
    span = float(values.max()) - float(least)
    if not _LEAST_SPAN < span < _GREATEST_SPAN:
        return np.sort(values)[places]
    level = values - least
    level *= values.dtype.type((_LEVELS - 1) / span)  # rounding keeps the order
    level_of = level.astype(np.intp)
    counts = np.bincount(level_of)
    holding = np.searchsorted(counts.cumsum(), places, side="right")
    wanted = np.zeros(len(counts), dtype=bool)
    wanted[holding] = True
    left_out = np.where(wanted, 0, counts).cumsum()
    found: NDArray[np.floating] = np.sort(values[wanted[level_of]])[places - left_out[holding]]
    return found


_LIMITS = {
    float(limit)
    for kind in ("i2", "u2", "i4", "u4")
    for limit in (np.iinfo(kind).min, np.iinfo(kind).max)
    if limit
}


def _sample(array: NDArray[Any]) -> NDArray[np.floating]:
    step = max(1, round((array.size / _SAMPLED) ** (1 / 3)))
    sample: NDArray[np.floating] = array[(slice(None, None, step),) * array.ndim].astype(
        np.result_type(array.dtype, np.float32)
    )
    return sample

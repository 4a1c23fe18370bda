"""Recognise the same image in different files, by its voxel values, also if these were changed a little."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError

_DIGITS = 24
"""Hexadecimal digits of a digest: 96 bits, so that two different images in the world never meet."""

PROFILE = "~"
"""How a profile begins, unlike a digest."""
_LEAST_PLANES, _MOST_CROPPED = 12, 3
_CLIPPED = (1, 99)


def content_digest(array: NDArray[np.generic]) -> str | None:
    """A hash of an image's voxel values as float32, and of how often each occurs; None if it has one value only.

    Places do not count, so it is the same for an image that was saved in another format, compression or type, whose
    axes were turned over, or whose header was changed. Whatever changes the values or the number of voxels (rescaling,
    resampling, cropping, a lossy type) changes it. A constant image is like any other of its size and has none.

    Args:
        array: of any shape and real type.

    Raises:
        DataError: the values are not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"an image of {array.dtype} has no real values; convert it")
    values, counts = _histogram(array)
    if len(values) < 2:
        return None
    total = hashlib.sha256(values.astype("<f4").tobytes())
    total.update(counts.astype("<i8").tobytes())
    return total.hexdigest()[:_DIGITS]


def _histogram(array: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The distinct values in ascending order, and how often each occurs."""
    if array.dtype.kind in "biu" and array.dtype.itemsize <= 2:  # without a copy of a large scan
        least = -(1 << 15)
        counts = np.zeros((1 << 16) - least, np.int64)
        for plane in array:
            part = np.bincount(plane.astype(np.int64).ravel() - least, minlength=1)
            counts[: len(part)] += part
        there = np.flatnonzero(counts)
        return (there + least).astype(np.float32), counts[there]
    flat = np.array(array, np.float32).ravel()
    flat += 0.0  # a negative zero is a zero
    flat.sort()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(np.append(starts, flat.size))


def content_profile(array: NDArray[np.generic]) -> str | None:
    """The mean of each plane along z, y and x, as text: what rounding, rescaling or cropping hardly changes.

    Args:
        array: (z, y, x), of a real type.

    Returns:
        The text, of about 3 bytes per plane; None of an image that is constant along an axis, or of fewer than 12
        planes.
    """
    if min(array.shape) < _LEAST_PLANES:
        return None
    low, high = np.percentile(array[::2, ::2, ::2].astype(np.float32), _CLIPPED)
    rows: list[list[np.floating]] = [[], [], []]
    sums = [np.zeros(array.shape[1]), np.zeros(array.shape[2])]
    for plane in array:
        clipped = np.clip(plane.astype(np.float32), low, high)
        rows[0].append(clipped.mean(dtype=np.float64))
        sums[0] += clipped.sum(axis=1, dtype=np.float64)
        sums[1] += clipped.sum(axis=0, dtype=np.float64)
    texts = []
    for row in (np.asarray(rows[0]), *sums):
        extent = float(np.ptp(row))
        if not extent > 0:
            return None
        steps = np.round((row - row.min()) / extent * np.iinfo("<u2").max)
        texts.append(b64encode(steps.astype("<u2").tobytes()).decode())
    return PROFILE + ".".join(texts)


def profile_similarity(one: str, other: str, least: float = -1.0) -> float:
    """How alike two profiles are, -1 to 1: the least correlation of an axis.

    In five public sets it is 0.94 or more for an image that was rounded, rescaled, turned over or cropped by up to 3
    planes, and 0.54 or less for images of different persons. Two dates of one person on the same grid, and copies of
    one phantom with other noise, are alike too.

    Args:
        least: once an axis is less alike than this, the others are not compared.
    """
    pairs = list(zip(_bends(one), _bends(other), strict=True))
    if any(abs(len(first) - len(second)) > _MOST_CROPPED for first, second in pairs):
        return -1.0
    lowest = 1.0
    for first, second in pairs:
        lowest = min(lowest, _alike(first, second))
        if lowest < least:
            break
    return lowest


@lru_cache(maxsize=4096)
def _bends(profile: str) -> tuple[NDArray[np.float64], ...]:
    """How the row of each axis bends: its second differences."""
    rows = profile.removeprefix(PROFILE).split(".")
    return tuple(np.diff(np.frombuffer(b64decode(row), "<u2").astype(np.float64), 2) for row in rows)


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The greatest correlation of two rows over shifts and directions."""
    greatest = -1.0
    for row in (other, other[::-1]):
        for shift in range(-_MOST_CROPPED, _MOST_CROPPED + 1):
            first, second = one[max(0, shift) :], row[max(0, -shift) :]
            length = min(len(first), len(second))
            first = first[:length] - first[:length].mean()
            second = second[:length] - second[:length].mean()
            size = float(first @ first) * float(second @ second)
            if size > 0:
                greatest = max(greatest, float(first @ second) / size**0.5)
    return greatest

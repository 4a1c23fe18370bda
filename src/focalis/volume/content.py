"""Recognise the same image in different files, by its voxel values."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError

_DIGITS = 24
"""Hexadecimal digits of a digest: 96 bits, so that two different images in the world never meet."""


def content_digest(array: NDArray[np.generic]) -> str | None:
    """A hash of an image's voxel values as float32, and of how often each occurs; None if it has one value only.

    Places do not count, so it is the same for an image that was saved in another format, compression or type, whose
    axes were turned over, or whose header was changed. Whatever changes the values or the number of voxels (rescaling,
    resampling, cropping, a lossy type) changes it. A constant image is like any other of its size and has none.

    Args:
        array: of any shape and real type.

    Raises:
        DataError: the values are no real numbers.
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

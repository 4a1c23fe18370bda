"""Axes that are not quite perpendicular: small faults are corrected, larger ones refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError, FileWarning

UNNOTICED_DEVIATION = 1e-4
"""Up to here cosines count as rounded; SimpleITK takes a NIfTI file up to about the same."""
REPAIRED_DEVIATION = 1e-3


class GridWarning(FileWarning):
    """An image was used on a grid that is not exactly the one in its file."""


def straightened(path: object, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction cosines, orthonormal.

    The deviation is the largest entry of |D^T D - 1|: the cosine between two axes, which should be 0, or what
    the length of an axis lacks. Up to 1e-4 the matrix stays as it is; up to 1e-3 the nearest orthonormal matrix
    (polar decomposition) takes its place, with a `GridWarning`.

    Args:
        direction: 3 x 3; column j is the direction of image axis j.

    Raises:
        DataError: the deviation exceeds 1e-3 or is not a number.
    """
    deviation = float(np.max(np.abs(direction.T @ direction - np.eye(3))))
    if deviation <= UNNOTICED_DEVIATION:
        return direction
    if not deviation <= REPAIRED_DEVIATION:
        raise DataError.at(
            path,
            f"its axes are not perpendicular (direction cosines off by {deviation:.2g}; up to "
            f"{REPAIRED_DEVIATION:g} is repaired)",
            "export it again, or resample it onto a rectangular grid",
        )
    warnings.warn(
        GridWarning(
            path,
            f"its axes are not quite perpendicular (direction cosines off by {deviation:.2g}); "
            "the nearest perpendicular axes are used",
        ),
        stacklevel=2,
    )
    left, _, right = np.linalg.svd(direction)
    repaired: NDArray[np.float64] = left @ right
    return repaired


def read_oblique_values(path: Path) -> NDArray[Any]:
    """The values of a NIfTI file whose direction cosines SimpleITK refuses, by nibabel: t, z, y, x or z, y, x."""
    import nibabel  # takes half a second, and is seldom needed

    values = nibabel_values(nibabel.Nifti1Image.from_filename(path))
    return np.ascontiguousarray(values.T, dtype=values.dtype.newbyteorder("="))


def nibabel_values(image: Any) -> NDArray[Any]:
    """The values of a nibabel image, x, y, z or x, y, z, t; of a file with a scale float32, as SimpleITK reads it."""
    values: NDArray[Any] = np.asanyarray(image.dataobj)
    stored = getattr(image.dataobj, "dtype", values.dtype)
    if values.dtype == stored:
        return values
    return values.astype(np.float64 if stored == np.float64 else np.float32)

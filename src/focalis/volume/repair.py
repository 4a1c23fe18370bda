"""Axes that are not quite perpendicular: small faults are corrected, larger ones refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError, FileWarning

Triple = tuple[float, float, float]

UNNOTICED_DEVIATION = 1e-4
"""Up to here cosines count as rounded; SimpleITK takes a NIfTI file up to about the same."""
REPAIRED_DEVIATION = 1e-3


class GridWarning(FileWarning):
    """An image was used on a grid that is not exactly the one in its file."""


def straightened(path: Path, direction: NDArray[np.float64]) -> NDArray[np.float64]:
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


def read_oblique_nifti(
    path: Path, unit_mm: float = 1.0
) -> tuple[NDArray[Any], Triple, Triple, NDArray[np.float64]]:
    """Read, by nibabel, a NIfTI file whose direction cosines SimpleITK refuses.

    The affine is the one that SimpleITK looked at: the sform, as no usable qform stands beside it. Spacing comes
    from pixdim, as SimpleITK takes it.

    Args:
        unit_mm: the header's unit of length.

    Returns:
        The values in the order t, z, y, x or z, y, x; spacing (x, y, z) in mm; origin (x, y, z) in mm, LPS; the
        3 x 3 direction cosines in LPS as they are in the file, columns of length 1.

    Raises:
        DataError: the values are not real numbers, or the affine is not a number.
    """
    import nibabel  # takes half a second, and is seldom needed

    image = nibabel.Nifti1Image.from_filename(path)
    stored = image.header.get_data_dtype()  # type: ignore[no-untyped-call]
    if stored.kind not in "iuf":
        raise DataError.at(
            path, f"holds {stored} values", "give one file per channel, one real number per voxel"
        )
    values = np.asanyarray(image.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype != stored:  # a scale slope was applied
        values = values.astype(np.float64 if stored == np.float64 else np.float32)
    array = np.ascontiguousarray(values.T, dtype=values.dtype.newbyteorder("="))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine  # from RAS to LPS
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        raise DataError.at(path, "its position in the patient is not given in numbers", "export it again")
    return (
        array,
        _three(image.header["pixdim"][1:4] * unit_mm),
        _three(affine[:3, 3] * unit_mm),
        affine[:3, :3] / lengths,
    )


def _three(values: NDArray[Any]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z

"""What SimpleITK says of an image, and what of that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume.grid import Grid
from focalis.volume.repair import straightened

LONGEST_MM = 5000.0
"""No patient is longer: a header that says so has a wrong spacing or unit."""


class Placed(Protocol):
    """A SimpleITK image, or a reader that has read a header."""

    def GetDimension(self) -> int: ...  # noqa: N802
    def GetSize(self) -> tuple[int, ...]: ...  # noqa: N802
    def GetSpacing(self) -> tuple[float, ...]: ...  # noqa: N802
    def GetOrigin(self) -> tuple[float, ...]: ...  # noqa: N802
    def GetDirection(self) -> tuple[float, ...]: ...  # noqa: N802


def checked_grid(path: object, image: Placed) -> Grid:
    """The grid of a 3D or 4D image, its axes made perpendicular (see `straightened`).

    Args:
        path: the file, or what to call the image.

    Raises:
        DataError: its axes are not perpendicular, or it is longer than any patient.
    """
    axes = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(axes, axes)[:3, :3]
    cosines = straightened(path, direction)
    x, y, z = image.GetSize()[:3]
    dx, dy, dz = image.GetSpacing()[:3]
    left, back, up = image.GetOrigin()[:3]
    grid = Grid((x, y, z), (dx, dy, dz), (left, back, up), tuple(cosines.ravel().tolist()))
    require_length(path, grid)
    return grid


def require_length(path: object, grid: Grid) -> None:
    """DataError if an image is longer than `LONGEST_MM`, and so has a wrong header."""
    longest = max(size * spacing for size, spacing in zip(grid.size_xyz, grid.spacing_xyz_mm, strict=True))
    if longest > LONGEST_MM:
        listed = ", ".join(f"{spacing:g}" for spacing in grid.spacing_xyz_mm)
        raise DataError.at(
            path,
            f"is {longest / 1000:.3g} m long by its header (spacing {listed} mm along x, y, z)",
            "correct the spacing or its unit",
        )


def require_scalar(path: object, reader: sitk.ImageFileReader) -> None:
    """Refuse what is not one real value per voxel; the reader has read the header."""
    kind = str(sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    if reader.GetNumberOfComponents() != 1 or "complex" in kind:
        raise DataError.at(
            path, f"holds {kind} values", "give one file per channel, one real number per voxel"
        )


def require_dimension(path: object, size_xyzt: tuple[int, ...], several: bool) -> None:
    """Refuse what is not 3D (or, with `several`, 4D); a fourth axis of length 1 is none."""
    if len(size_xyzt) == 3 or (len(size_xyzt) == 4 and (several or size_xyzt[3] == 1)):
        return
    size = " x ".join(str(length) for length in size_xyzt)
    raise DataError.at(path, f"is {len(size_xyzt)}-dimensional ({size})", "give one 3D image per channel")


def gist(error: RuntimeError) -> str:
    """The informative line of a SimpleITK error message of several lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = lines[-1] if lines else type(error).__name__
    return " ".join(telling.rpartition("ERROR:")[2].split()).rstrip(".!")


def is_skewed(error: RuntimeError) -> bool:
    """Whether SimpleITK refuses a NIfTI header because its axes are not perpendicular enough."""
    return "orthonormal" in str(error)


@contextmanager
def no_itk_warnings() -> Iterator[None]:
    """Keep ITK's own warnings off the standard error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)

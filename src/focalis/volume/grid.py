"""Where the voxels of an image lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPACING_TOLERANCE_MM = 1e-3
ORIGIN_TOLERANCE_MM = 1e-2
DIRECTION_TOLERANCE = 1e-3
OTHER_UNIT = 10.0
"""Voxels with sides this many times larger or smaller than usual most likely have a wrong unit of length."""


@dataclass(frozen=True)
class Grid:
    """The sampling grid of a volume, in SimpleITK's convention (axes x, y, z; patient system LPS; mm).

    Attributes:
        size_xyz: number of voxels along x, y, z.
        spacing_xyz_mm: distance between voxel centres along x, y, z.
        origin_xyz_mm: patient position of the centre of voxel (0, 0, 0).
        direction: 3 x 3 direction cosines, row by row; column j is the direction of image axis j.
    """

    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """The shape of an array on this grid."""
        x, y, z = self.size_xyz
        return z, y, x

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """The spacing in the order of an array's axes."""
        x, y, z = self.spacing_xyz_mm
        return z, y, x

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing_xyz_mm))

    @property
    def direction_matrix(self) -> NDArray[np.float64]:
        """The direction cosines as a 3 x 3 matrix."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    def to_indices(self, places_xyz_mm: ArrayLike) -> NDArray[np.float64]:
        """Places in the patient (LPS, mm; last axis x, y, z) as fractional indices x, y, z of its voxels."""
        away = np.subtract(places_xyz_mm, self.origin_xyz_mm) @ np.linalg.inv(self.direction_matrix).T
        return np.asarray(away / self.spacing_xyz_mm, dtype=np.float64)

    def to_patient(self, indices_xyz: ArrayLike) -> NDArray[np.float64]:
        """Indices of its voxels (last axis x, y, z) as places in the patient (LPS, mm)."""
        along = np.multiply(indices_xyz, self.spacing_xyz_mm)
        return np.asarray(along @ self.direction_matrix.T + self.origin_xyz_mm, dtype=np.float64)

    def part(self, start_xyz: Sequence[int], size_xyz: Sequence[int]) -> Grid:
        """The grid of so many of its voxels from a first one, which may lie before it; it may also reach beyond it."""
        x, y, z = (float(value) for value in self.to_patient(start_xyz))
        width, height, depth = (int(count) for count in size_xyz)
        return replace(self, size_xyz=(width, height, depth), origin_xyz_mm=(x, y, z))

    def differences(self, other: Grid) -> list[str]:
        """What differs between two grids, one phrase per property with both values; empty if they agree.

        Sizes must be equal; spacing may differ by 1e-3 mm, origin by 1e-2 mm, a direction cosine by 1e-3.
        """
        found = []
        if self.size_xyz != other.size_xyz:
            found.append(f"size {_times(self.size_xyz)} against {_times(other.size_xyz)} voxels (x, y, z)")
        for name, mine, theirs, tolerance, unit in (
            ("spacing", self.spacing_xyz_mm, other.spacing_xyz_mm, SPACING_TOLERANCE_MM, " mm"),
            ("origin", self.origin_xyz_mm, other.origin_xyz_mm, ORIGIN_TOLERANCE_MM, " mm"),
            ("direction", self.direction, other.direction, DIRECTION_TOLERANCE, ""),
        ):
            gap = float(np.max(np.abs(np.subtract(mine, theirs))))
            if gap > tolerance:
                found.append(
                    f"{name} {_listed(mine)} against {_listed(theirs)}{unit} (off by up to {gap:.4g})"
                )
        return found


def odd_voxels(spacing_mm: Sequence[float], usual_mm: Sequence[float]) -> str:
    """How a voxel's mean side differs from the usual one by `OTHER_UNIT` or more, a phrase; empty if it does not."""
    side, usual = (float(np.cbrt(np.prod(spacing))) for spacing in (spacing_mm, usual_mm))
    if 1 / OTHER_UNIT < side / usual < OTHER_UNIT:
        return ""
    return f"voxels of about {side:.3g} mm a side, where {usual:.3g} mm is usual; the spacing or its unit may be wrong"


def _times(values: tuple[int, ...]) -> str:
    return " x ".join(str(value) for value in values)


def _listed(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"

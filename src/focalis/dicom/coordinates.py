"""Convert between patient positions and voxel indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from focalis.volume import Grid


def to_indices(points_xyz_mm: ArrayLike, grid: Grid) -> NDArray[np.float64]:
    """Patient positions (LPS, mm; last axis x, y, z) as fractional voxel indices x, y, z of a grid."""
    return directions_to_indices(np.subtract(points_xyz_mm, grid.origin_xyz_mm), grid)


def directions_to_indices(vectors_xyz_mm: ArrayLike, grid: Grid) -> NDArray[np.float64]:
    """Displacements in the patient (mm; last axis x, y, z) as steps in voxel indices x, y, z of a grid."""
    steps: NDArray[np.float64] = np.asarray(vectors_xyz_mm, dtype=np.float64) @ np.linalg.inv(_steps(grid)).T
    return steps


def to_patient(indices_xyz: ArrayLike, grid: Grid) -> NDArray[np.float64]:
    """Voxel indices x, y, z (last axis) of a grid as patient positions (LPS, mm)."""
    positions: NDArray[np.float64] = (
        np.asarray(indices_xyz, dtype=np.float64) @ _steps(grid).T + grid.origin_xyz_mm
    )
    return positions


def _steps(grid: Grid) -> NDArray[np.float64]:
    """The displacement of one voxel along x, y and z, as columns."""
    steps: NDArray[np.float64] = grid.direction_matrix * np.asarray(grid.spacing_xyz_mm)
    return steps

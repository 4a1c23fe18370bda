"""Turn a volume so that its axes run as close as possible to the patient's left, posterior and superior."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from focalis.volume.grid import Grid
from focalis.volume.volume import Volume


def to_canonical(volume: Volume) -> Volume:
    """Permute and flip axes, without resampling, so that x, y, z run closest to +L, +P, +S.

    Among the six ways to assign image axes to patient axes, the one with the largest sum of absolute direction
    cosines is taken. Every voxel keeps its value and its place in the patient.

    Args:
        volume: any direction, oblique ones too.

    Returns:
        The same voxels in another order, contiguous, on the grid that belongs to them.
    """
    order, flipped = _turn(volume.grid)
    array = volume.array.transpose([2 - axis for axis in reversed(order)])
    array = np.flip(array, axis=tuple(2 - row for row in range(3) if flipped[row]))
    return Volume(np.ascontiguousarray(array), canonical_grid(volume.grid))


def canonical_grid(grid: Grid) -> Grid:
    """The grid on which `to_canonical` puts a volume."""
    order, flipped = _turn(grid)
    matrix = grid.direction_matrix
    origin = np.asarray(grid.origin_xyz_mm, dtype=np.float64)
    for row, axis in enumerate(order):
        if flipped[row]:
            origin = origin + matrix[:, axis] * (grid.spacing_xyz_mm[axis] * (grid.size_xyz[axis] - 1))
    signs = np.where(flipped, -1.0, 1.0)
    direction = matrix[:, list(order)] * signs
    size = tuple(grid.size_xyz[axis] for axis in order)
    spacing = tuple(grid.spacing_xyz_mm[axis] for axis in order)
    return Grid(
        size_xyz=(size[0], size[1], size[2]),
        spacing_xyz_mm=(spacing[0], spacing[1], spacing[2]),
        origin_xyz_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(value) for value in direction.ravel()),
    )


def canonical_axes(grid: Grid) -> tuple[int, int, int]:
    """Which axis of the canonical grid (0 is x, 1 is y, 2 is z) each axis x, y, z of a grid becomes."""
    order, _ = _turn(grid)
    return order.index(0), order.index(1), order.index(2)


def _turn(grid: Grid) -> tuple[tuple[int, ...], list[bool]]:
    """Which image axis becomes x, y and z, and which of them are flipped."""
    matrix = grid.direction_matrix
    order = max(permutations(range(3)), key=lambda axes: sum(abs(matrix[row, axes[row]]) for row in range(3)))
    return order, [bool(matrix[row, axis] < 0) for row, axis in enumerate(order)]

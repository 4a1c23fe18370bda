"""Changes of a lesion's outline that a person asks for, on its mask alone.

A plane is named by the axis (of z, y, x) that it fixes; rows and columns are the two other axes in their order, counted
in voxels with whole numbers at their centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def grow(mask: Mask, axis: int) -> Mask:
    """Move the outline out by a voxel, in each slice of a plane that the lesion touches; no slice is added.

    Args:
        mask: the lesion, shape (z, y, x), with a voxel of margin wherever it may grow.
        axis: the plane.
    """
    grown: Mask = ndimage.binary_dilation(mask, _cross(axis))
    return grown


def shrink(mask: Mask, axis: int) -> Mask:
    """Move the outline in by a voxel, in each slice of a plane; where the mask ends, no outline is seen or moved."""
    shrunk: Mask = ndimage.binary_erosion(mask, _cross(axis), border_value=1)
    return shrunk


def cut(mask: Mask, axis: int, line: NDArray[np.float64], *, keep_smaller: bool = False) -> Mask:
    """Remove what lies beyond a line, in all slices of a plane; voxels whose centres lie on it stay.

    Args:
        mask: the lesion, shape (z, y, x).
        axis: the plane.
        line: two points of the line, shape (2, 2): row, column; it goes on beyond them.
        keep_smaller: keep the smaller part, not the larger one.

    Returns:
        The part that stays; all of the mask if the line leaves it on one side.
    """
    (row, column), (down, along) = line[0], line[1] - line[0]
    shape = np.delete(mask.shape, axis)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    side = np.expand_dims((columns - column) * down - (rows - row) * along, axis)
    left, right = mask & (side < 0), mask & (side > 0)
    smaller, larger = (left, right) if left.sum() < right.sum() else (right, left)
    if not smaller.any():
        return mask
    return mask & ~(larger if keep_smaller else smaller)


def redraw(mask: Mask, axis: int, index: int, outline: NDArray[np.float64]) -> Mask:
    """Put what an outline encloses in the place of the lesion in one slice.

    What an outline that crosses itself goes around several times is enclosed too (the winding number is not 0).

    Args:
        mask: the lesion, shape (z, y, x).
        axis: the plane.
        index: the slice.
        outline: its corners, shape (n, 2): row, column; the last one joins the first.
    """
    found = mask.copy()
    plane = np.moveaxis(found, axis, 0)[index]
    height, width = plane.shape
    winding = np.zeros((height, width + 1), dtype=np.int64)
    for (row, column), (next_row, next_column) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        low, high = sorted((row, next_row))
        rows = np.arange(max(0, np.ceil(low)), min(height, np.ceil(high)), dtype=np.int64)
        if not len(rows):
            continue
        crossed = column + (rows - row) * (next_column - column) / (next_row - row)
        turn = 1 if next_row > row else -1
        winding[rows, 0] += turn
        winding[rows, np.clip(np.ceil(crossed), 0, width).astype(np.int64)] -= turn
    plane[:] = winding.cumsum(axis=1)[:, :width] != 0
    return found


def _cross(axis: int) -> Mask:
    """A voxel and its four neighbours in the plane."""
    cross: Mask = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(cross, axis, 0)[[0, 2]] = False
    return cross

"""Outlines of a mask on one slice, and back: polygons through pixel corners, filled at pixel centres.

All coordinates are pixel indices (x, y) of one slice: the centre of the pixel in row r and column c lies at
(c, r), its corners half a pixel away. Every corner is half a pixel from every centre, so that rounding the
corners to a file's decimals can never move a voxel in or out.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
"""A closed polygon, shape (points, 2): x, y in pixel indices; the last point joins the first."""

# right, down, left, up, as steps in (y, x): clockwise on a screen, whose y runs downwards
_STEPS_YX = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


def trace_contours(mask: NDArray[np.bool_]) -> list[Contour]:
    """The outlines of a mask, along the edges of its pixels.

    Pixels that touch only at a corner get a polygon each. A hole is joined to its outline by a channel of no
    width along a row of pixel edges, walked once in and once out: the keyhole technique of DICOM PS3.3,
    C.8.8.6.3. Such a polygon covers the same pixels for readers that unite a slice's polygons, for those
    that combine them by exclusive or, and for those that count windings.

    Args:
        mask: one slice, shape (y, x).

    Returns:
        Polygons with corners at odd multiples of half a pixel, in the order of their topmost, leftmost corner;
        no point in the middle of a straight edge but the ends of a channel. Outlines run clockwise where y
        points down.
    """
    loops: list[list[int]] = []
    holes: list[int] = []
    height, width = mask.shape[0] + 1, mask.shape[1] + 1
    loop_of_corner = np.full(height * width, -1)
    corners, turns, following = _edges(mask)
    seen = np.zeros(len(corners), dtype=bool)
    for first in range(len(corners)):
        if seen[first]:
            continue
        loop: list[int] = []
        edge = first
        while not seen[edge]:
            seen[edge] = True
            loop.append(int(corners[edge]))
            edge = int(following[edge])
        # a loop is entered at its topmost, leftmost corner: there an outline runs right and a hole down
        if turns[first] == 1:
            holes.append(len(loops))
        loop_of_corner[loop] = len(loops)
        loops.append(loop)
    on_edge = loop_of_corner.reshape(height, width) >= 0
    for hole in reversed(holes):
        y, x = divmod(loops[hole][0], width)
        # left of a hole's first corner lie pixels of its own object, as far as the next loop
        gate = y * width + int(np.flatnonzero(on_edge[y, :x])[-1])
        outline = loops[loop_of_corner[gate]]
        place = outline.index(gate)
        outline[place:place] = [gate, *loops[hole], loops[hole][0]]
    inner = set(holes)
    return [_straightened(np.array(loop), width) for i, loop in enumerate(loops) if i not in inner]


def fill_contours(contours: Iterable[Contour], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside an odd number of closed polygons.

    The rule of even and odd over all polygons at once serves both ways to draw a hole: as a polygon of its
    own, and by a keyhole. A centre exactly on a line counts as inside if the inside lies to the right of it
    or below it, so that neighbouring polygons neither share a pixel nor leave one between them.

    Args:
        contours: closed polygons in pixel indices; parts outside the slice are cut off.
        shape_yx: the slice's shape.

    Returns:
        The mask, shape `shape_yx`.
    """
    height, width = shape_yx
    crossings = np.zeros((height, width + 1), dtype=np.int64)
    for contour in contours:
        x, y = contour[:, 0], contour[:, 1]
        next_x, next_y = np.roll(x, -1), np.roll(y, -1)
        # the rows between the ends of each edge, the upper end included
        first = np.clip(np.ceil(np.minimum(y, next_y)), 0, height).astype(np.int64)
        after = np.clip(np.ceil(np.maximum(y, next_y)), 0, height).astype(np.int64)
        count = after - first
        edge = np.repeat(np.arange(len(x)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
        column = np.ceil(x[edge] + (row - y[edge]) * slope)
        np.add.at(crossings, (row, np.clip(column, 0, width).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
    return inside


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The mask's pixel edges that part foreground from background, the foreground on their right.

    Returns:
        Per edge, ordered by the corner it leaves: that corner's number (y * (columns + 1) + x), its
        direction, and the edge that follows it.
    """
    padded = np.pad(mask.astype(bool), 1)
    width = mask.shape[1] + 1
    # the pixels around every corner
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    leaves = np.stack(
        [
            below_right & ~above_right,
            below_left & ~below_right,
            above_left & ~below_left,
            above_right & ~above_left,
        ],
        axis=-1,
    )
    y, x, direction = np.nonzero(leaves)
    end_y, end_x = y + _STEPS_YX[direction, 0], x + _STEPS_YX[direction, 1]
    # a right turn where there is one keeps two pixels that touch at a corner apart
    onward = direction - 1
    for turn in (0, 1):
        candidate = (direction + turn) % 4
        onward = np.where(leaves[end_y, end_x, candidate], candidate, onward)
    numbers = np.full(leaves.shape, -1)
    numbers[y, x, direction] = np.arange(len(y))
    return y * width + x, direction, numbers[end_y, end_x, onward % 4].reshape(-1)


def _straightened(corners: NDArray[np.int64], width: int) -> Contour:
    """The polygon through numbered corners, without those at which it goes straight on.

    The ends of a keyhole's channel stay, so that a reader finds the same two points on both ways.
    """
    points = np.stack([corners % width, corners // width], axis=1)
    arriving = np.sign(points - np.roll(points, 1, axis=0))
    turns = (arriving != np.roll(arriving, -1, axis=0)).any(axis=1)
    _, which, visits = np.unique(corners, return_inverse=True, return_counts=True)
    contour: Contour = points[turns | (visits[which] > 1)] - 0.5
    return contour

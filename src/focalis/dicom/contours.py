"""Outlines of a mask on one slice, and back: polygons through pixel corners, filled at pixel centres.

All coordinates are pixel indices (x, y) of one slice: the centre of the pixel in row r and column c lies at
(c, r), its corners half a pixel away. Every corner is half a pixel from every centre, so that rounding the
corners to a file's decimals can never move a voxel in or out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
"""A closed polygon, shape (points, 2): x, y in pixel indices; the last point joins the first."""

NEARLY = 0.8
"""A contour within another that has more than this share of its area may retrace it."""

RETRACED_PIXELS = 2.0
"""Contours that retrace each other are nowhere further apart; a ring that is thicker somewhere is meant."""

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


@dataclass(frozen=True)
class Filled:
    """What the contours of one structure cover on one slice.

    Attributes:
        mask: the pixels, shape (y, x).
        repeated: how many contours cover what another one covers, and count once.
        overlapping: how many contours partly cover another one, and were united with it.
        empty: how many contours enclose no pixel's centre.
        retraced: how many contours lie just inside a nearly identical one, and count once.
        thin: how many contours are nearly as large as the one around them, and were read as holes all the same.
    """

    mask: NDArray[np.bool_]
    repeated: int = 0
    overlapping: int = 0
    empty: int = 0
    retraced: int = 0
    thin: int = 0


def combine_contours(contours: Sequence[Contour], shape_yx: tuple[int, int]) -> Filled:
    """Fill the contours of one structure on one slice: nested ones are holes and islands, all others are united.

    A contour just inside a nearly identical one was drawn twice; it is not a hole.

    Args:
        contours: closed polygons in pixel indices. One may walk its way several times; a keyhole is a hole.
        shape_yx: the slice's shape.
    """
    masks: list[NDArray[np.bool_]] = []
    polygons: list[Contour] = []
    repeated = empty = 0
    times = np.zeros(shape_yx, dtype=np.int64)
    for contour in contours:
        polygon = _walked_once(contour)
        mask = fill_contours([polygon], shape_yx)
        if not mask.any():
            empty += 1
        elif times[mask].all() and any(np.array_equal(mask, other) for other in masks):
            repeated += 1
        else:
            masks.append(mask)
            polygons.append(polygon)
            times += mask
    if times.max(initial=0) <= 1:
        return Filled(times > 0, repeated, 0, empty)
    order = sorted(range(len(masks)), key=lambda i: -int(masks[i].sum()))
    shared = [i for i in order if (times[masks[i]] > 1).any()]
    parents: dict[int, set[int]] = {}
    overlapping: set[int] = set()
    retraced: set[int] = set()
    thin: set[int] = set()
    for place, inner in enumerate(shared):
        parents[inner] = set()
        for outer in shared[:place]:
            if not (masks[inner] & masks[outer]).any():
                continue
            nested = _nested(polygons[inner], masks[inner], polygons[outer], masks[outer])
            nearly = nested and _area(polygons[inner]) > NEARLY * _area(polygons[outer])
            if nearly and _furthest(polygons[inner], polygons[outer]) < RETRACED_PIXELS:
                retraced.add(inner)
            elif outer in retraced:  # the one that it retraces is looked at too
                continue
            elif nested:
                parents[inner].add(outer)
                if nearly:
                    thin.add(inner)
            else:
                overlapping |= {inner, outer}
    regions = {i: mask.copy() for i, mask in enumerate(masks) if i not in retraced}
    # from the smallest: what an outer one loses is known before it is taken away
    for inner in [i for i in reversed(shared) if i not in retraced]:
        for outer in parents[inner]:
            if not any(outer in parents[between] for between in parents[inner]):
                regions[outer] &= ~regions[inner]
    found = np.zeros(shape_yx, dtype=bool)
    for i, region in regions.items():
        if not parents.get(i):
            found |= region
    return Filled(found, repeated, len(overlapping - retraced), empty, len(retraced), len(thin - retraced))


def _walked_once(contour: Contour) -> Contour:
    """A polygon without repeated points, whether its path is traced several times or closed by its first point."""
    points: Contour = contour[np.any(np.abs(contour - np.roll(contour, 1, axis=0)) > 1e-6, axis=1)]
    for times in range(len(points) // 3, 1, -1):
        if len(points) % times == 0:
            ways = points.reshape(times, -1, 2)
            if np.abs(ways - ways[0]).max() < 1e-3:
                return np.asarray(ways[0])
    return points


def _nested(
    inner: Contour, inner_mask: NDArray[np.bool_], outer: Contour, outer_mask: NDArray[np.bool_]
) -> bool:
    """Whether one polygon lies within another; its corners may lie on the other's lines."""
    if (inner_mask & ~outer_mask).any():
        return False
    return all(_inside_or_near(corner, outer) for corner in inner)


def _inside_or_near(point: NDArray[np.float64], polygon: Contour, near: float = 0.05) -> bool:
    """Whether a point lies in a polygon, or at most `near` pixels from it."""
    if _distance(point, polygon) <= near:
        return True
    start, end = polygon, np.roll(polygon, -1, axis=0)
    way = end - start
    across = (start[:, 1] > point[1]) != (end[:, 1] > point[1])
    x = start[across, 0] + (point[1] - start[across, 1]) * way[across, 0] / way[across, 1]
    return bool((x > point[0]).sum() % 2)


def _distance(point: NDArray[np.float64], polygon: Contour) -> float:
    """How far a point lies from a polygon's line, in pixels."""
    way = np.roll(polygon, -1, axis=0) - polygon
    length = np.maximum((way**2).sum(axis=1), 1e-12)
    share = np.clip(((point - polygon) * way).sum(axis=1) / length, 0, 1)
    return float(np.sqrt(((polygon + share[:, None] * way - point) ** 2).sum(axis=1).min()))


def _furthest(one: Contour, other: Contour) -> float:
    """The greatest distance of a corner of either polygon from the other one, in pixels."""
    pairs = ((one, other), (other, one))
    return max(_distance(corner, polygon) for corners, polygon in pairs for corner in corners)


def _area(polygon: Contour) -> float:
    """The area that a polygon encloses, in pixels; the hole of a keyhole, traced the other way, does not count."""
    x, y = (polygon - polygon[0]).T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


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

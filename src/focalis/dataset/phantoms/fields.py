"""Smooth random fields and soft balls, the material of phantoms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from focalis.volume import Grid

Box = tuple[slice, slice, slice]

# Mean over x of the sum of squared cubic B-splines at unit knots is 151/315; three axes multiply.
_FIELD_STD = (151 / 315) ** 1.5


def smooth_field(
    shape_zyx: tuple[int, ...],
    spacing_zyx_mm: tuple[float, float, float],
    correlation_mm: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """A random field of mean 0 and standard deviation 1: white noise on knots, cubic B-splines between them.

    Args:
        correlation_mm: the distance of the knots; structures are about twice as large.
    """
    weights = [
        _spline_weights(count, spacing / correlation_mm, float(rng.random()))
        for count, spacing in zip(shape_zyx, spacing_zyx_mm, strict=True)
    ]
    field = rng.standard_normal([weight.shape[1] for weight in weights], dtype=np.float32)
    for weight in weights:  # each step consumes the first axis and appends the new one
        field = np.tensordot(field, weight, axes=(0, 1))
    return (field / np.float32(_FIELD_STD)).astype(np.float32, copy=False)


def positions_mm(box: Box, spacing_zyx_mm: tuple[float, float, float]) -> list[NDArray[np.float64]]:
    """The coordinates of the voxels in a box along z, y, x, in mm from voxel 0, ready to broadcast."""
    axes = [np.arange(part.start, part.stop) * step for part, step in zip(box, spacing_zyx_mm, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def box_around(centre_zyx_mm: NDArray[np.float64], reach_mm: float, grid: Grid) -> Box:
    """The voxels within `reach_mm` of a point along every axis, cut at the image's border."""
    parts = []
    for centre, step, count in zip(centre_zyx_mm, grid.spacing_zyx_mm, grid.shape_zyx, strict=True):
        first = max(0, math.floor((centre - reach_mm) / step))
        last = min(count, math.ceil((centre + reach_mm) / step) + 1)
        parts.append(slice(min(first, count - 1), max(last, min(first, count - 1) + 1)))
    return parts[0], parts[1], parts[2]


def stamp_ball(
    target: NDArray[np.float32],
    grid: Grid,
    centre_zyx_mm: NDArray[np.float64],
    radius_mm: float,
    edge_mm: float,
) -> None:
    """Raise `target` to a ball of height 1 with a soft edge, where it is lower."""
    box = box_around(centre_zyx_mm, radius_mm + 4 * edge_mm, grid)
    squares = [
        (axis - middle) ** 2
        for axis, middle in zip(positions_mm(box, grid.spacing_zyx_mm), centre_zyx_mm, strict=True)
    ]
    distance = np.sqrt(squares[0] + squares[1] + squares[2])
    np.maximum(target[box], soft_step((radius_mm - distance) / edge_mm), out=target[box])


def soft_step(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """The logistic function, in float32."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), dtype=np.float32)


def _spline_weights(count: int, step: float, shift: float) -> NDArray[np.float32]:
    """Cubic B-spline weights (voxel, knot) for voxels `step` knots apart, the first at `shift`."""
    places = np.arange(count) * step + shift
    knots = np.arange(-1, math.floor(places[-1]) + 3)
    t = np.abs(places[:, None] - knots[None, :])
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.asarray(np.where(t < 1, inner, outer), dtype=np.float32)

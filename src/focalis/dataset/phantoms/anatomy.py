"""What surrounds the lesions: a body of several tissues with bright vessels and spots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import smooth_field, soft_step, stamp_ball
from focalis.volume import Grid

TISSUE = 100.0
_VESSEL = 70.0
_SPOT = 80.0


@dataclass(frozen=True)
class Anatomy:
    """A scan without lesions, before bias field and noise.

    Attributes:
        image: float32 intensities; air is 0, soft tissue about 100.
        body: where tissue is, bool; it leaves the image's outermost voxels free.
        texture: fine texture, mean 0 and standard deviation 1, float32.
    """

    image: NDArray[np.float32]
    body: NDArray[np.bool_]
    texture: NDArray[np.float32]


def make_anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """A random body on a grid."""
    extent_mm = np.asarray(grid.shape_zyx) * np.asarray(grid.spacing_zyx_mm)
    mean_extent_mm = float(extent_mm.mean())
    shape, spacing = grid.shape_zyx, grid.spacing_zyx_mm

    body_depth = _body_depth(grid, rng, mean_extent_mm)
    body = body_depth > 0
    for axis in range(3):
        np.moveaxis(body, axis, 0)[[0, -1]] = False

    texture = smooth_field(shape, spacing, 2.5, rng)
    image = TISSUE + 4 * texture + 4 * smooth_field(shape, spacing, 6.0, rng)
    # two more tissues in large soft-edged regions: one darker, one as bright as a faint lesion
    for step, share in ((-25.0, 0.6), (45.0, 1.2)):
        region = smooth_field(shape, spacing, mean_extent_mm / 5, rng)
        image += np.float32(step) * soft_step((region - share) * 4)
    vessels, spots = _vessels_and_spots(grid, rng, extent_mm)
    image += np.float32(_VESSEL) * vessels + np.float32(_SPOT) * spots * (1 - vessels)
    image *= soft_step(body_depth * mean_extent_mm / 2.0)
    image = scipy.ndimage.gaussian_filter(image, 0.4, mode="nearest")
    return Anatomy(image.astype(np.float32, copy=False), body, texture)


def _body_depth(grid: Grid, rng: np.random.Generator, mean_extent_mm: float) -> NDArray[np.float32]:
    """Positive inside a dented box with round corners, negative outside; 1 at the centre."""
    axes = [np.linspace(-1, 1, count) / 0.95 if count > 1 else np.zeros(1) for count in grid.shape_zyx]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = (z**4 + y**4 + x**4) ** 0.25
    dents = smooth_field(grid.shape_zyx, grid.spacing_zyx_mm, mean_extent_mm / 4, rng)
    return (1 - radius - 0.04 * dents).astype(np.float32)


def _vessels_and_spots(
    grid: Grid, rng: np.random.Generator, extent_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vessels = np.zeros(grid.shape_zyx, dtype=np.float32)
    spots = np.zeros(grid.shape_zyx, dtype=np.float32)
    finest_mm = min(grid.spacing_zyx_mm)
    mean_extent_mm = float(extent_mm.mean())
    for _ in range(6 + round(mean_extent_mm / 15)):
        radius_mm = float(rng.uniform(0.8, 1.8))
        for point in _winding_path(extent_mm, max(finest_mm, radius_mm) / 2, rng):
            stamp_ball(vessels, grid, point, radius_mm, 0.3)
    for _ in range(4 + round(mean_extent_mm / 15)):
        stamp_ball(spots, grid, rng.uniform(0.1, 0.9, 3) * extent_mm, float(rng.uniform(0.8, 2.0)), 0.2)
    return vessels, spots


def _winding_path(
    extent_mm: NDArray[np.float64], step_mm: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Points of a curve that wanders about half the image's diagonal."""
    steps = math.ceil(0.5 * float(np.linalg.norm(extent_mm)) / step_mm)
    turn = math.sqrt(step_mm / 15)  # forgets its direction after about 15 mm
    direction = rng.standard_normal(3)
    points = np.empty((steps, 3))
    point = rng.uniform(0.15, 0.85, 3) * extent_mm
    for i, change in enumerate(rng.standard_normal((steps, 3))):
        direction = direction + turn * change
        direction /= np.linalg.norm(direction)
        point = point + step_mm * direction
        points[i] = point
    return points[np.all((points >= 0) & (points < extent_mm), axis=1)]

"""Scans of a generated body with round lesions, of any grid, moved and noisy; every size and place is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from focalis.followup import Transform
from focalis.volume import Grid, Volume

BLOBS, BODY_SEED = 160, 7
HALF_BODY_MM = np.asarray([62.0, 50.0, 70.0])


@dataclass(frozen=True)
class Ball:
    """A round lesion: its centre on the first date (x, y, z in mm), its radius, and how much brighter it is."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    contrast: float = 60.0


def grid_of(
    spacing_mm: Sequence[float] = (2.0, 2.0, 2.0),
    low_mm: Sequence[float] = (-72.0, -60.0, -80.0),
    high_mm: Sequence[float] = (72.0, 60.0, 80.0),
) -> Grid:
    """An axial grid of a box in the patient."""
    size = [round((b - a) / s) for a, b, s in zip(low_mm, high_mm, spacing_mm, strict=True)]
    return Grid(tuple(size), tuple(spacing_mm), tuple(float(a) for a in low_mm))


def turned(degrees: Sequence[float], shift_mm: Sequence[float]) -> Transform:
    """A rotation about the middle of the body and a shift: from places of the first date to those of another."""
    moved = sitk.Euler3DTransform()
    moved.SetRotation(*np.radians(degrees).tolist())
    moved.SetTranslation([float(value) for value in shift_mm])
    return Transform.from_sitk(moved)


def scan(
    balls: Sequence[Ball],
    grid: Grid,
    moved: Transform | None = None,
    noise: float = 5.0,
    seed: int = 0,
    body_seed: int = BODY_SEED,
) -> tuple[Volume, Volume]:
    """An image and its exact label map (1 = lesion): every voxel is drawn from formulas, nothing is resampled.

    Args:
        balls: the lesions.
        grid: where to scan.
        moved: from places of the first date to those of this one; as on the first date by default.
        noise: standard deviation of the noise; soft tissue is about 100.
        seed: of the noise.
        body_seed: another one is another person.
    """
    z, y, x = (np.arange(count, dtype=np.float64) for count in grid.shape_zyx)
    voxels = np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]), axis=-1)
    places = np.asarray(grid.origin_xyz_mm) + (voxels * grid.spacing_xyz_mm) @ grid.direction_matrix.T
    if moved is not None:
        places = moved.inverse().apply(places)
    rng = np.random.default_rng(body_seed)
    build = 1.0 if body_seed == BODY_SEED else rng.permutation([0.75, 1.0, 1.25])
    depth = np.linalg.norm(places / (HALF_BODY_MM * build), axis=-1)
    image = 100.0 / (1 + np.exp((depth - 1) * 25))
    flat = places.reshape(-1, 3).astype(np.float32)
    for _ in range(BLOBS):
        centre, width, height = rng.uniform(-1, 1, 3) * HALF_BODY_MM, rng.uniform(4, 12), rng.normal(0, 35)
        near = np.flatnonzero(np.abs(flat - centre.astype(np.float32)).max(axis=1) < 3.5 * width)
        away = np.square(flat[near] - centre).sum(axis=1)
        image.reshape(-1)[near] += height * np.exp(-away / (2 * width**2))
    image = np.where(depth < 1.1, image, 0)
    label = np.zeros(grid.shape_zyx, dtype=np.uint8)
    edge = min(grid.spacing_xyz_mm) / 3
    for ball in balls:
        away = np.linalg.norm(places - ball.centre_mm, axis=-1)
        image += ball.contrast / (1 + np.exp(np.clip((away - ball.radius_mm) / edge, -50, 50)))
        label[away < ball.radius_mm] = 1
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return Volume(image.astype(np.float32), grid), Volume(label, grid)

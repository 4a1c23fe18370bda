"""Volumes of blobs, tubes and sheets with the class of every voxel: what a network learns shapes from.

A volume is a pure function of its seed and number. No anatomy is modelled. Shapes stand out clearly, and in most
volumes blobs, tubes and what lies behind a sheet are equally bright: only shape tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import smooth_field

BACKGROUND, BLOB, TUBE, SHEET = 0, 1, 2, 3
CLASSES = ("background", "blob", "tube", "sheet")

BLOB_RADII = (2.0, 9.0)
TUBE_RADII = (0.8, 3.5)
DARK_SHARE = 0.3
ALIKE_SHARE = 0.6
"""How often all shapes of a volume are about as bright."""
WALL_SHARE = 0.4
"""How often a sheet has a wall of its own brightness."""
STEP, STEPS = 0.5, 120
"""A tube's path: the length of a step in voxels, and how many it takes to either side at most."""
_STREAM = 7
_CUBES = (1.0, 1.0, 1.0)

Array = NDArray[np.float32]
Contrast = Callable[[], float]
"""Draws how far a shape's brightness lies from its surroundings', of either sign."""


def make_shapes(side: int, seed: int, number: int) -> tuple[Array, NDArray[np.uint8]]:
    """A cube of shapes: its image, of mean 0 and standard deviation 1, and the class of every voxel.

    Args:
        side: its length in voxels along every axis, 32 or more.
        seed: the seed of a set of volumes.
    """
    rng = np.random.default_rng((seed, _STREAM, number))
    axis = np.arange(side, dtype=np.float32)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    ideal, label = np.zeros((side,) * 3, dtype=np.float32), np.zeros((side,) * 3, dtype=np.uint8)
    contrast = _draw_contrast(rng)
    for _ in range(int(rng.integers(0, 3))):
        _add_sheet(ideal, label, places, contrast, rng)
    for _ in range(int(rng.integers(2, 6))):
        _add_tube(ideal, label, contrast, rng)
    for _ in range(int(rng.integers(2, 7))):
        _add_blob(ideal, label, places, contrast, rng)
    image = _seen(ideal, rng)
    return ((image - image.mean()) / max(image.std(), 1e-6)).astype(np.float32), label


def _draw_contrast(rng: np.random.Generator) -> Contrast:
    signs, shares = (-1, 1), (DARK_SHARE, 1 - DARK_SHARE)
    sign = rng.choice(signs, p=shares)
    alike = rng.random() < ALIKE_SHARE
    common = sign * rng.uniform(0.6, 1.6)

    def contrast() -> float:
        if alike:
            return float(common * rng.uniform(0.85, 1.15))
        return float(rng.choice(signs, p=shares) * rng.uniform(0.5, 1.8))

    return contrast


def _add_sheet(
    ideal: Array, label: NDArray[np.uint8], places: Array, contrast: Contrast, rng: np.random.Generator
) -> None:
    """A curved plane with another brightness behind it."""
    normal = _direction(rng)
    through = rng.uniform(0.1, 0.9, 3) * len(ideal)
    depth = np.tensordot(normal.astype(np.float32), places, 1) - np.float32(normal @ through)
    depth += np.float32(rng.uniform(1, 5)) * smooth_field(
        ideal.shape, _CUBES, float(rng.uniform(16, 32)), rng
    )
    steepness = np.sqrt(sum(slope * slope for slope in np.gradient(depth)))
    depth /= np.maximum(steepness, 0.5)
    behind = contrast() * rng.uniform(0.8, 1.5)
    ideal += np.float32(behind) * np.clip(depth + 0.5, 0, 1)
    half = 0.75
    if rng.random() < WALL_SHARE:
        half = rng.uniform(0.6, 1.5)
        ideal += np.float32(contrast()) * np.clip(half - np.abs(depth) + 0.5, 0, 1)
    label[np.abs(depth) <= half] = SHEET


def _add_tube(ideal: Array, label: NDArray[np.uint8], contrast: Contrast, rng: np.random.Generator) -> None:
    """A wandering line of constant width, in place of what is there."""
    thinnest, thickest = TUBE_RADII
    radius = thinnest * (thickest / thinnest) ** rng.random()
    path = _path(len(ideal), rng)
    onto = np.round(path).astype(int)
    onto = onto[((onto >= 0) & (onto < len(ideal))).all(axis=1)]
    if not len(onto):
        return
    off_path = np.ones(ideal.shape, dtype=bool)
    off_path[tuple(onto.T)] = False
    close = scipy.ndimage.distance_transform_edt(off_path) < radius + 2
    distance, _ = scipy.spatial.cKDTree(path).query(np.argwhere(close))
    depth = np.full(ideal.shape, -5, dtype=np.float32)
    depth[close] = radius - distance
    filled = np.clip(depth + 0.5, 0, 1)
    around = float(np.median(ideal[close])) if rng.random() < 0.5 else float(np.mean(ideal[close]))
    ideal += filled * (np.float32(around + contrast()) - ideal)
    label[filled >= 0.5] = TUBE


def _path(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points of a line that wanders to both sides from a place within the cube, (n, 3)."""
    begin, direction = rng.uniform(0, side, 3), _direction(rng)
    bend = rng.uniform(0.05, 0.25)
    points = []
    for heading in (direction, -direction):
        here = begin
        for _ in range(STEPS):
            points.append(here)
            heading = heading + bend * STEP * rng.standard_normal(3)
            heading = heading / np.linalg.norm(heading)
            here = here + STEP * heading
            if (here < -4).any() or (here > side + 4).any():
                break
    return np.array(points)


def _add_blob(
    ideal: Array, label: NDArray[np.uint8], places: Array, contrast: Contrast, rng: np.random.Generator
) -> None:
    """An ellipsoid with a rough surface, in place of what is there."""
    smallest, largest = BLOB_RADII
    radius = smallest * (largest / smallest) ** (rng.random() ** 1.3)
    centre = rng.uniform(2, len(ideal) - 2, 3)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    axes = radius * np.exp(rng.normal(0, 0.22, 3))
    axes = np.maximum(axes * radius / np.prod(axes) ** (1 / 3), 1.5)
    reach = 2 * axes.max() + 2
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.minimum(np.ceil(centre + reach + 1).astype(int), len(ideal))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    offset = places[(slice(None), *box)] - centre[:, None, None, None].astype(np.float32)
    turned = np.tensordot(turn.astype(np.float32), offset, 1)
    distance = np.sqrt(sum((t / np.float32(a)) ** 2 for t, a in zip(turned, axes, strict=True)))
    roughness, scale = rng.uniform(0, 0.3), max(2.0, radius * rng.uniform(0.6, 1.2))
    rough = roughness * smooth_field(distance.shape, _CUBES, float(scale), rng)
    filled = np.clip((1 + rough - distance) * np.float32(axes.min()) + 0.5, 0, 1)
    around = float(np.median(ideal[box]))
    ideal[box] += filled * (np.float32(around + contrast()) - ideal[box])
    label[box][filled >= 0.5] = BLOB


def _seen(ideal: Array, rng: np.random.Generator) -> Array:
    """The image: blurred, with a bias field, correlated and white noise."""
    shape = ideal.shape
    image = scipy.ndimage.gaussian_filter(ideal, rng.uniform(0.3, 1.0))
    bias = np.float32(0.5 * rng.uniform(0, 0.4))
    image = image * (1 + bias * smooth_field(shape, _CUBES, 32.0, rng))
    image += bias * smooth_field(shape, _CUBES, 32.0, rng)
    image += np.float32(rng.uniform(0, 0.15)) * smooth_field(shape, _CUBES, float(rng.uniform(1.0, 3.0)), rng)
    image += np.float32(rng.uniform(0.02, 0.25)) * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(image, dtype=np.float32)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    direction = rng.standard_normal(3)
    return np.asarray(direction / np.linalg.norm(direction), dtype=np.float64)

"""Irregular lesions of exact size, and readers who disagree about them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import Box, box_around, positions_mm, smooth_field, soft_step
from focalis.errors import UsageError
from focalis.volume import Grid

_FAINT = 0.75
_MISS_PROBABILITY = 0.3
_NEIGHBOURHOOD = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class PhantomLesion:
    """One lesion in its own box of the image.

    Attributes:
        box: the part of the image that the arrays cover.
        depth: a star-shaped distance, 0 at the lesion's centre and 1 at its boundary, float32.
        mask: the lesion itself, bool.
        radius_mm: the radius of a ball of the same volume.
        strength: how bright it is; below 0.75 it is faint and a reader may miss it.
    """

    box: Box
    depth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    radius_mm: float
    strength: float


def place_lesions(
    room: NDArray[np.bool_], grid: Grid, voxels: int, count: int, rng: np.random.Generator
) -> tuple[PhantomLesion, ...]:
    """Lesions of `voxels` voxels together, apart from each other and inside `room`.

    Raises:
        UsageError: there is not room enough.
    """
    room = room.copy()
    depth_mm = scipy.ndimage.distance_transform_edt(room, sampling=grid.spacing_zyx_mm)
    lesions: list[PhantomLesion] = []
    for size in sorted(_sizes(voxels, count, rng), reverse=True):
        radius_mm = (3 * size * grid.voxel_volume_mm3 / (4 * math.pi)) ** (1 / 3)
        centre = _centre(room, depth_mm, radius_mm, grid, rng)
        lesion = _grow(room, centre, size, radius_mm, grid, rng)
        lesions.append(lesion)
        box = tuple(
            slice(max(0, part.start - 1), min(length, part.stop + 1))
            for part, length in zip(lesion.box, room.shape, strict=True)
        )
        taken = np.zeros([part.stop - part.start for part in box], dtype=bool)
        inner = tuple(
            slice(mine.start - outer.start, mine.stop - outer.start)
            for mine, outer in zip(lesion.box, box, strict=True)
        )
        taken[inner] = lesion.mask
        room[box] &= ~scipy.ndimage.binary_dilation(taken, _NEIGHBOURHOOD)
        # the next centre keeps away from this lesion
        away = np.sqrt(_squares(grid, centre)) - 1.5 * radius_mm
        np.minimum(depth_mm, np.maximum(away, 0), out=depth_mm)
    return tuple(lesions)


def add_lesion(
    image: NDArray[np.float32],
    lesion: PhantomLesion,
    texture: NDArray[np.float32],
    contrast: float,
    blur_mm: float,
) -> None:
    """Brighten the image by a lesion with a blurred boundary and an uneven inside."""
    softness = (0.1 * lesion.radius_mm + blur_mm) / lesion.radius_mm
    profile = soft_step((1 - lesion.depth) / softness)
    image[lesion.box] += np.float32(contrast * lesion.strength) * profile * (1 + 0.25 * texture[lesion.box])


def read_lesions(
    lesions: tuple[PhantomLesion, ...], body: NDArray[np.bool_], grid: Grid, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What one reader contours: boundaries off by a smooth random amount, a faint lesion missed at times."""
    contour = np.zeros(grid.shape_zyx, dtype=np.uint8)
    habit = 0.06 * float(rng.standard_normal())
    step_mm = float(np.mean(grid.spacing_zyx_mm))
    for lesion in lesions:
        correlation_mm = max(0.6 * lesion.radius_mm, 1.5 * step_mm)
        waves = smooth_field(lesion.depth.shape, grid.spacing_zyx_mm, correlation_mm, rng)
        missed = rng.random() < _MISS_PROBABILITY and lesion.strength < _FAINT
        if missed:
            continue
        amplitude = 0.1 + 0.25 * step_mm / lesion.radius_mm
        seen = (lesion.depth < 1 + habit + amplitude * waves) & body[lesion.box]
        if not seen.any():
            seen = lesion.mask & (lesion.depth == lesion.depth[lesion.mask].min())
        contour[lesion.box] |= seen
    return contour


def _sizes(voxels: int, count: int, rng: np.random.Generator) -> list[int]:
    """Uneven whole sizes of at least one voxel that add up to `voxels`."""
    count = min(count, voxels)
    shares = rng.dirichlet(np.full(count, 2.0))
    return [int(size) + 1 for size in rng.multinomial(voxels - count, shares)]


def _centre(
    room: NDArray[np.bool_],
    depth_mm: NDArray[np.float64],
    radius_mm: float,
    grid: Grid,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """A random place, in mm from voxel 0, deep enough for a lesion; the deepest one if none is."""
    if not room.any():
        raise UsageError(
            "the lesions do not fit into the phantom; ask for a smaller foreground share or fewer"
        )
    enough = min(1.3 * radius_mm, 0.95 * float(depth_mm[room].max()))
    candidates = np.flatnonzero(room & (depth_mm >= enough))
    index = np.unravel_index(candidates[rng.integers(len(candidates))], room.shape)
    jitter = rng.uniform(-0.4, 0.4, 3)
    return np.multiply(np.asarray(index) + jitter, grid.spacing_zyx_mm)


def _grow(
    room: NDArray[np.bool_],
    centre: NDArray[np.float64],
    size: int,
    radius_mm: float,
    grid: Grid,
    rng: np.random.Generator,
) -> PhantomLesion:
    """A star-shaped lesion: the `size` free voxels nearest to its centre in a distorted measure."""
    shape = _RandomStar(rng)
    reach_mm = 3 * radius_mm + 2 * max(grid.spacing_zyx_mm)
    while True:
        box = box_around(centre, reach_mm, grid)
        whole = all(part == slice(0, count) for part, count in zip(box, grid.shape_zyx, strict=True))
        distance = shape.distance(box, centre, grid)
        free = np.sort(distance[room[box]])
        if free.size > size and (whole or free[size] < reach_mm / shape.largest):
            break
        if whole and free.size < size:
            raise UsageError("the lesions do not fit into the phantom; ask for a smaller foreground share")
        if whole:
            free = np.append(free, free[-1:] * 1.1)
            break
        reach_mm *= 1.5
    edge = (free[size - 1] + free[size]) / 2
    mask = np.zeros(distance.shape, dtype=bool)
    nearest = np.flatnonzero(room[box])
    nearest = nearest[np.argsort(distance[room[box]], kind="stable")[:size]]
    mask.reshape(-1)[nearest] = True
    strength = float(rng.uniform(0.6, 1.2))
    return PhantomLesion(box, (distance / edge).astype(np.float32), mask, radius_mm, strength)


class _RandomStar:
    """A distance whose unit ball is an irregular star-shaped body."""

    def __init__(self, rng: np.random.Generator) -> None:
        waves = 6
        self._wave_vectors = rng.standard_normal((waves, 3)) * rng.uniform(1.0, 4.0, (waves, 1))
        self._phases = rng.uniform(0, 2 * math.pi, waves)
        self._heights = rng.uniform(0.5, 1.0, waves) * 0.18
        self.largest = float(np.exp(self._heights.sum()))

    def distance(self, box: Box, centre: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
        """Distance in mm from the centre divided by the body's radius in that direction."""
        offsets = [
            axis - middle for axis, middle in zip(positions_mm(box, grid.spacing_zyx_mm), centre, strict=True)
        ]
        length = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2)
        scale = 1 / np.maximum(length, 1e-9)
        exponent = np.zeros(length.shape)
        for vector, phase, height in zip(self._wave_vectors, self._phases, self._heights, strict=True):
            along = (vector[0] * offsets[0] + vector[1] * offsets[1] + vector[2] * offsets[2]) * scale
            exponent += height * np.cos(along + phase)
        return np.asarray(length * np.exp(-exponent))


def _squares(grid: Grid, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = tuple(slice(0, count) for count in grid.shape_zyx)
    z, y, x = positions_mm((whole[0], whole[1], whole[2]), grid.spacing_zyx_mm)
    return np.asarray((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)

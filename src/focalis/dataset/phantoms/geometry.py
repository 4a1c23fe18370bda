"""Blobs, tubes and sheets as depths: how far inside of a shape a voxel lies, in mm, negative outside.

Thick slices are worked out on several thinner ones, so that what a slice shows is the mean over its thickness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import Box, box_around, positions_mm, smooth_field
from focalis.volume import Grid

FINEST_MM = 1.0
"""The finest spacing of a canvas; a depth of half of it more or less is the edge that partial volume blurs."""
_MARGIN_MM = 1.5


@dataclass(frozen=True)
class Canvas:
    """A patch and the thinner slices that it is worked out on.

    Attributes:
        shape_zyx: the patch's shape.
        spacing_zyx_mm: the patch's spacing, 1 mm along its finest axes.
        axis: the axis of thick slices.
        parts: how many thinner slices make one of them; 1 if voxels are cubes.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    axis: int = 0
    parts: int = 1

    @property
    def grid(self) -> Grid:
        """The grid of the thinner slices."""
        shape, spacing = list(self.shape_zyx), list(self.spacing_zyx_mm)
        shape[self.axis] *= self.parts
        spacing[self.axis] /= self.parts
        return Grid((shape[2], shape[1], shape[0]), (spacing[2], spacing[1], spacing[0]))

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """The patch's size along z, y, x."""
        return np.multiply(self.shape_zyx, self.spacing_zyx_mm)

    def seen(self, depth_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """The share of every voxel of the patch that lies inside, from the depths on the thinner slices."""
        inside = np.clip(depth_mm / np.float32(FINEST_MM) + np.float32(0.5), 0, 1)
        return self.thick(inside)

    def thick(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of an array on the thinner slices over each thick one."""
        if self.parts == 1:
            return array
        shape = list(array.shape)
        shape[self.axis : self.axis + 1] = [shape[self.axis] // self.parts, self.parts]
        return np.asarray(array.reshape(shape).mean(axis=self.axis + 1), dtype=np.float32)

    def boxes(self, centre_zyx_mm: NDArray[np.float64], reach_mm: float) -> tuple[Box, Box]:
        """The voxels around a point: on the thinner slices, where whole thick ones are taken, and of the patch."""
        fine = list(box_around(centre_zyx_mm, reach_mm, self.grid))
        coarse = list(fine)
        first = fine[self.axis].start // self.parts
        last = -(-fine[self.axis].stop // self.parts)
        fine[self.axis] = slice(first * self.parts, last * self.parts)
        coarse[self.axis] = slice(first, last)
        return (fine[0], fine[1], fine[2]), (coarse[0], coarse[1], coarse[2])


@dataclass(frozen=True)
class Sheet:
    """A wall or an edge: part of a wavy sphere, so large that it looks like a plane, or an organ's whole outline."""

    centre_zyx_mm: NDArray[np.float64]
    radius_mm: float
    wave_mm: float
    correlation_mm: float

    def depth_mm(self, canvas: Canvas, rng: np.random.Generator) -> NDArray[np.float32]:
        """How far inside of the sphere each voxel of the canvas's grid lies."""
        grid = canvas.grid
        box = (slice(0, grid.shape_zyx[0]), slice(0, grid.shape_zyx[1]), slice(0, grid.shape_zyx[2]))
        depth = self.radius_mm - _distance(box, self.centre_zyx_mm, grid)
        depth += np.float32(self.wave_mm) * smooth_field(
            grid.shape_zyx, grid.spacing_zyx_mm, self.correlation_mm, rng
        )
        return depth

    def nearest(self, point_zyx_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """The point of the sphere next to a point."""
        away = point_zyx_mm - self.centre_zyx_mm
        return np.asarray(
            self.centre_zyx_mm + away * (self.radius_mm / max(float(np.linalg.norm(away)), 1e-6))
        )


def draw_sheet(canvas: Canvas, rng: np.random.Generator) -> Sheet:
    """A sheet through a random point of the patch, of a curvature between an organ's and a plane's."""
    size = float(canvas.extent_mm.min())
    radius = size * math.exp(rng.uniform(math.log(0.3), math.log(5)))
    through = rng.uniform(0.15, 0.85, 3) * canvas.extent_mm
    return Sheet(
        centre_zyx_mm=through - radius * _direction(rng),
        radius_mm=radius,
        wave_mm=float(rng.uniform(0, 0.06)) * size,
        correlation_mm=float(rng.uniform(0.12, 0.4)) * size,
    )


@dataclass(frozen=True)
class Tube:
    """A wandering line: its points, z, y, x in mm from voxel 0, and the radius at each of them."""

    path_zyx_mm: NDArray[np.float64]
    radius_mm: NDArray[np.float64]

    def depth_mm(self, canvas: Canvas) -> NDArray[np.float32]:
        """How far inside of the tube each voxel of the canvas's grid lies; far outside a fixed negative depth."""
        grid = canvas.grid
        spacing, shape = np.asarray(grid.spacing_zyx_mm), np.asarray(grid.shape_zyx)
        reach = float(self.radius_mm.max()) + _MARGIN_MM
        half = np.ceil(reach / spacing).astype(int)
        around = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in half), indexing="ij"), -1).reshape(
            -1, 3
        )
        around = around[np.linalg.norm(around * spacing, axis=1) <= reach + spacing.max() / 2]
        nearest = np.rint(self.path_zyx_mm / spacing).astype(int)
        voxels = nearest[:, None] + around
        away = (around * spacing).astype(np.float32) + (nearest * spacing - self.path_zyx_mm).astype(
            np.float32
        )[:, None]
        depth = self.radius_mm.astype(np.float32)[:, None] - np.sqrt(np.einsum("pkc,pkc->pk", away, away))
        there = ((voxels >= 0) & (voxels < shape)).all(-1)
        flat = voxels @ np.array([shape[1] * shape[2], shape[2], 1])
        found = np.full(shape.prod(), -_MARGIN_MM, dtype=np.float32)
        np.maximum.at(found, flat[there], depth[there])
        return found.reshape(grid.shape_zyx)


def draw_tube(canvas: Canvas, rng: np.random.Generator, parent: Tube | None = None) -> Tube:
    """A tube that starts anywhere in the patch or, as a thinner branch, on another one."""
    size = float(canvas.extent_mm.min())
    thinnest, thickest = 0.7, max(0.8, 0.09 * size)
    if parent is None:
        start = rng.uniform(0.1, 0.9, 3) * canvas.extent_mm
        radius = math.exp(rng.uniform(math.log(thinnest), math.log(thickest)))
    else:
        at = int(rng.integers(len(parent.path_zyx_mm)))
        start, radius = parent.path_zyx_mm[at], max(0.6, 0.7 * float(parent.radius_mm[at]))
    step = 0.6 * max(radius, FINEST_MM)
    count = max(2, int(size * rng.uniform(0.5, 1.5) / step))
    straightness = float(rng.uniform(0.05, 0.35))
    steps = np.cumsum(rng.standard_normal((count, 3)) * straightness, axis=0) + _direction(rng)
    steps *= step / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
    path = start + np.cumsum(steps, axis=0)
    taper = np.linspace(1, rng.uniform(0.5, 1.2), count)
    return Tube(path, np.maximum(0.6, radius * taper))


def blob_depth(
    canvas: Canvas, centre_zyx_mm: NDArray[np.float64], radius_mm: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Box]:
    """An irregular blob: ellipsoids that overlap, with a rough surface.

    Returns:
        How far inside each voxel lies, about, in the blob's box on the canvas's grid; and that box of the patch.
    """
    fine, coarse = canvas.boxes(centre_zyx_mm, 2.2 * radius_mm + _MARGIN_MM)
    lobes = 1 if radius_mm < 2 or rng.random() < 0.6 else int(rng.integers(2, 4))
    depth: NDArray[np.float32] | None = None
    for lobe in range(lobes):
        share = 1.0 if lobe == 0 else float(rng.uniform(0.4, 0.8))
        middle = centre_zyx_mm if lobe == 0 else centre_zyx_mm + 0.8 * radius_mm * _direction(rng)
        one = share * radius_mm * (1 - _ellipsoid(fine, middle, share * radius_mm, canvas.grid, rng))
        depth = one if depth is None else np.maximum(depth, one)
    assert depth is not None
    roughness = float(rng.uniform(0, 0.25)) * radius_mm
    if radius_mm >= 1.5:
        correlation = max(1.2, float(rng.uniform(0.35, 1.0)) * radius_mm)
        depth += np.float32(roughness) * smooth_field(
            depth.shape, canvas.grid.spacing_zyx_mm, correlation, rng
        )
    return depth, coarse


def _ellipsoid(
    box: Box, centre: NDArray[np.float64], radius_mm: float, grid: Grid, rng: np.random.Generator
) -> NDArray[np.float32]:
    """0 at the centre of a randomly turned ellipsoid and 1 on its surface; `radius_mm` is its mean half axis."""
    halves = np.exp(rng.normal(0, 0.25, 3))
    halves *= radius_mm / halves.prod() ** (1 / 3)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    shape = ((turn / halves**2) @ turn.T).astype(np.float32)
    z, y, x = (
        (axis - middle).astype(np.float32)
        for axis, middle in zip(positions_mm(box, grid.spacing_zyx_mm), centre, strict=True)
    )
    square = shape[0, 0] * z * z + shape[1, 1] * y * y + shape[2, 2] * x * x
    square = square + 2 * (shape[0, 1] * z * y + shape[0, 2] * z * x + shape[1, 2] * y * x)
    return np.asarray(np.sqrt(np.maximum(square, 0)), dtype=np.float32)


def _distance(box: Box, centre: NDArray[np.float64], grid: Grid) -> NDArray[np.float32]:
    z, y, x = (
        ((axis - middle) ** 2).astype(np.float32)
        for axis, middle in zip(positions_mm(box, grid.spacing_zyx_mm), centre, strict=True)
    )
    return np.asarray(np.sqrt(z + y + x), dtype=np.float32)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector in any direction."""
    vector = rng.standard_normal(3)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))

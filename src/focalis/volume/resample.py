"""Bring images, label maps and probabilities from one grid to another."""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.volume.files import to_sitk
from focalis.volume.grid import Grid
from focalis.volume.volume import Volume

SAME_SPACING = 1e-3
_TIE = 1e-5


def grid_with_spacing(grid: Grid, spacing_zyx_mm: tuple[float, float, float]) -> Grid:
    """A grid over the same box of the patient with another spacing.

    Direction and centre stay; along each axis the number of voxels is the box's length divided by the
    spacing, rounded. Where that is a whole number, the corners of the box stay too.

    Args:
        grid: the grid to replace.
        spacing_zyx_mm: the new spacing.

    Returns:
        The new grid; the same object if every spacing already agrees within one part in a thousand.
    """
    wanted = spacing_zyx_mm[::-1]
    if all(abs(new / old - 1) <= SAME_SPACING for new, old in zip(wanted, grid.spacing_xyz_mm, strict=True)):
        return grid
    size = [
        max(1, math.floor(count * old / new + 0.5))
        for count, old, new in zip(grid.size_xyz, grid.spacing_xyz_mm, wanted, strict=True)
    ]
    # from the centre of the first voxel to the centre of the box, then back along the new grid
    shift = [
        ((count - 1) * old - (new_count - 1) * new) / 2
        for count, old, new_count, new in zip(grid.size_xyz, grid.spacing_xyz_mm, size, wanted, strict=True)
    ]
    origin = np.asarray(grid.origin_xyz_mm) + grid.direction_matrix @ np.asarray(shift)
    return Grid(
        size_xyz=(size[0], size[1], size[2]),
        spacing_xyz_mm=wanted,
        origin_xyz_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=grid.direction,
    )


def resample_image(volume: Volume, grid: Grid) -> Volume:
    """An image's values at the voxel centres of another grid, by linear interpolation.

    Where the new grid is coarser by a factor f along an axis, the image is smoothed first by a Gaussian of
    sigma (f - 1) / 2 voxels, so that fine texture does not turn into noise. Outside the image the nearest
    edge value holds.

    Args:
        volume: any real dtype.
        grid: the grid wanted, in the same patient space.

    Returns:
        float32 values on `grid`; the very same values if the grids agree.
    """
    array = volume.array.astype(np.float32, copy=False)
    if not volume.grid.differences(grid):
        return Volume(array, grid)
    sigma_zyx = [max(0.0, (factor - 1) / 2) for factor in _factors_zyx(volume.grid, grid)]
    if max(sigma_zyx) > SAME_SPACING:
        array = scipy.ndimage.gaussian_filter(array, sigma_zyx, mode="nearest")
    return Volume(_linear(array, volume.grid, grid, edge=True), grid)


def resample_label(volume: Volume, grid: Grid) -> Volume:
    """A label map on another grid: each label is interpolated linearly as a mask, and the largest share wins.

    The background wins ties, then the lower label value. No value appears that was not there, except 0
    outside the label map. The map's border is taken as one voxel wide.

    Args:
        volume: integer (or whole-number) label values.
        grid: the grid wanted, in the same patient space.

    Returns:
        The labels on `grid`, dtype kept.
    """
    if not volume.grid.differences(grid):
        return Volume(volume.array, grid)
    found = np.zeros(grid.shape_zyx, dtype=volume.array.dtype)
    share = _linear(_mask(volume.array == 0), volume.grid, grid, edge=False)
    for value in np.unique(volume.array[volume.array != 0]):
        candidate = _linear(_mask(volume.array == value), volume.grid, grid, edge=False)
        better = candidate > share + _TIE
        found[better] = value
        share[better] = candidate[better]
    return Volume(found, grid)


def resample_probabilities(
    array_lzyx: NDArray[np.float32], grid_from: Grid, grid_to: Grid
) -> NDArray[np.float32]:
    """Probabilities of all labels on another grid, by linear interpolation.

    Args:
        array_lzyx: (label, z, y, x) on `grid_from`; label 0 is the background.
        grid_from: the grid they are on.
        grid_to: the grid wanted, in the same patient space.

    Returns:
        float32 (label, z, y, x) on `grid_to`; outside `grid_from` the background has probability 1.
    """
    if not grid_from.differences(grid_to):
        return array_lzyx.astype(np.float32, copy=False)
    where, grid_part = _needed(grid_from, grid_to)
    result = np.empty((len(array_lzyx), *grid_to.shape_zyx), dtype=np.float32)
    for label, array in enumerate(array_lzyx):
        result[label] = _linear(
            _padded(array[where]), grid_part, grid_to, edge=False, outside=float(label == 0)
        )
    return result


def _needed(grid_from: Grid, grid_to: Grid) -> tuple[tuple[slice, slice, slice], Grid]:
    """The part of a grid that interpolation onto another one reads, with a margin of two voxels; never empty."""
    last = np.asarray(grid_to.size_xyz) - 1
    corners = np.asarray(list(itertools.product((0, 1), repeat=3))) * last
    places = grid_from.to_indices(grid_to.to_patient(corners))
    end = np.asarray(grid_from.size_xyz)
    low = np.clip(np.floor(places.min(axis=0)).astype(int) - 2, 0, end - 1)
    high = np.clip(np.ceil(places.max(axis=0)).astype(int) + 3, low + 1, end)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x), grid_from.part(low, high - low)


def _mask(array: NDArray[np.bool_]) -> NDArray[np.float32]:
    return _padded(array.astype(np.float32))


def _padded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add one voxel on every side, so that edge values extend beyond the border, but no further."""
    return np.pad(array, 1, mode="edge").astype(np.float32, copy=False)


def _factors_zyx(grid_from: Grid, grid_to: Grid) -> list[float]:
    """How much coarser the new grid is along each axis of the old one (its nearest axis counts)."""
    nearest = np.argmax(np.abs(grid_from.direction_matrix.T @ grid_to.direction_matrix), axis=1)
    factors = [
        grid_to.spacing_xyz_mm[other] / mine
        for other, mine in zip(nearest, grid_from.spacing_xyz_mm, strict=True)
    ]
    return factors[::-1]


def _linear(
    array: NDArray[np.float32], grid_from: Grid, grid_to: Grid, *, edge: bool, outside: float = 0.0
) -> NDArray[np.float32]:
    """Linear interpolation; beyond the image the nearest value (`edge`) or `outside`.

    An array with one voxel more on every side than `grid_from` is taken as padded.
    """
    if array.shape != grid_from.shape_zyx:
        grid_from = grid_from.part((-1, -1, -1), [count + 2 for count in grid_from.size_xyz])
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid_to.size_xyz)
    resampler.SetOutputSpacing(grid_to.spacing_xyz_mm)
    resampler.SetOutputOrigin(grid_to.origin_xyz_mm)
    resampler.SetOutputDirection(grid_to.direction)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(edge)
    resampler.SetDefaultPixelValue(outside)
    result: NDArray[np.float32] = sitk.GetArrayFromImage(resampler.Execute(to_sitk(Volume(array, grid_from))))
    return result

"""From a case to the array that the network sees: one orientation, one spacing, intensities of order one.

Training and prediction both come through here, so that a network meets the same numbers in both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import IGNORED
from focalis.errors import DataError
from focalis.planning.plan import Normalisation, Plan
from focalis.volume import (
    Absent,
    Grid,
    Volume,
    grid_with_spacing,
    resample_image,
    resample_label,
    to_canonical,
)

BACKGROUND_SHARE = 0.25
"""From this share of voxels that equal the minimum exactly, they are taken for air or a mask."""


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
        array: float32 (channel, z, y, x), normalised, in canonical orientation, at the plan's spacing.
        grid: where the voxels of `array` lie.
        input_grid: the grid on which the case came.
    """

    array: NDArray[np.float32]
    grid: Grid
    input_grid: Grid


def prepare_image(volumes: Sequence[Volume], plan: Plan) -> Prepared:
    """Orient, normalise and resample the channels of a case.

    Intensities are normalised before the resampling: whether a voxel equals the background exactly can only
    be told while no value has been interpolated.

    Args:
        volumes: one per channel, in the plan's order, all on one grid; an `Absent` one becomes 0 everywhere.

    Raises:
        DataError: the number of channels is wrong, or the channels lie on different grids.
    """
    if len(volumes) != len(plan.channels):
        wanted = ", ".join(plan.channels)
        raise DataError(f"{len(volumes)} channels given, but the plan wants {len(plan.channels)} ({wanted})")
    input_grid = volumes[0].grid
    for name, volume in zip(plan.channels[1:], volumes[1:], strict=True):
        differences = input_grid.differences(volume.grid)
        if differences:
            raise DataError(
                f"channel {name} is not on the grid of channel {plan.channels[0]}: {'; '.join(differences)}; "
                "resample it first"
            )
    _require_room(to_canonical(volumes[0]).grid, plan)
    prepared = []
    for volume, how in zip(volumes, plan.normalisation, strict=True):
        canonical = to_canonical(Volume(volume.array, input_grid))
        absent = isinstance(volume, Absent)
        values = np.zeros(canonical.array.shape, np.float32) if absent else normalise(canonical.array, how)
        normalised = Volume(values, canonical.grid)
        prepared.append(resample_image(normalised, grid_with_spacing(canonical.grid, plan.spacing_zyx_mm)))
    return Prepared(np.stack([channel.array for channel in prepared]), prepared[0].grid, input_grid)


def _require_room(grid: Grid, plan: Plan) -> None:
    """DataError if the image at the plan's spacing would not fit into this machine, before it is made."""
    voxels = math.prod(grid_with_spacing(grid, plan.spacing_zyx_mm).size_xyz)
    needed = 4 * voxels * (len(plan.channels) + 1)
    if not hasattr(os, "sysconf"):  # Windows
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        listed = ", ".join(f"{value:g}" for value in grid.spacing_zyx_mm)
        raise DataError(
            f"at the plan's spacing it takes {needed / 1e9:.3g} GB, and this machine has {there / 1e9:.3g} GB; "
            f"check the spacing in its header ({listed} mm along z, y, x), crop it, or plan a coarser spacing"
        )


def prepare_label(volume: Volume, plan: Plan) -> NDArray[np.uint8]:
    """The class indices (0 = background, i + 1 = the i-th of `plan.label_values`, IGNORED) of a label map, z, y, x.

    They lie on the grid of `prepare_image` for an image on the same grid as the label map.

    Raises:
        DataError: the label map holds a value that the plan does not know.
    """
    values, inverse = np.unique(volume.array, return_inverse=True)
    index_of = {0: 0} | {value: index for index, value in enumerate(plan.label_values, start=1)}
    if plan.ignore is not None:
        index_of[plan.ignore] = IGNORED
    unknown = [str(value) for value in values if value not in index_of]
    if unknown:
        known = ", ".join(str(value) for value in plan.label_values)
        raise DataError(
            f"label values {', '.join(unknown[:5])} are not in the plan (0, {known}); "
            "correct the label map or the plan"
        )
    table = np.asarray([index_of[value] for value in values.tolist()], dtype=np.uint8)
    canonical = to_canonical(Volume(table[inverse].reshape(volume.array.shape), volume.grid))
    return resample_label(canonical, grid_with_spacing(canonical.grid, plan.spacing_zyx_mm)).array


def normalise(array: NDArray[np.generic], how: Normalisation) -> NDArray[np.float32]:
    """Intensities of order one, float32; a constant image becomes all zero.

    `zscore` subtracts the mean and divides by the standard deviation of all voxels, or of those above the
    minimum when more than a quarter equal the minimum exactly (air around a head, a padded field of view).
    """
    values = array.astype(np.float32)
    if how.kind == "window":
        np.clip(values, how.low, how.high, out=values)
        mean, std = how.mean, how.std
    else:
        minimum = values.min()
        above = values[values > minimum]
        body = above if 0 < above.size < (1 - BACKGROUND_SHARE) * values.size else values
        mean, std = float(body.mean(dtype=np.float64)), float(body.std(dtype=np.float64))
        if std <= 1e-6 * max(1.0, abs(mean)):  # a constant image, or one lesion-free plateau above the air
            std = float(values.std(dtype=np.float64)) or 1.0
    values -= np.float32(mean)
    values /= np.float32(std)
    return values

"""A model's second prediction of a scan, from which the measurement error of its lesions is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from focalis.followup import scan_noise
from focalis.model import Model
from focalis.prediction import Place, Settings, segment, segment_at
from focalis.volume import Absent, Grid, Volume, with_absent

_SHIFT_VOXELS = (3, 5, 5)
"""By so many voxels (z, y, x) the image starts later if the model may not be mirrored."""


def second_look(
    model: Model, volumes: Sequence[Volume], settings: Settings, places: Sequence[Place] = ()
) -> NDArray[np.integer]:
    """The mask of the scan as another scan of the same body might show it, put back onto its grid.

    The image is interpolated half a voxel on, because no second scan samples a body at the same places. The image is
    mirrored, or begins a few voxels later. Noise is added, of twice the variance of the scan's own, see
    `focalis.followup.ERROR_RULE`; the same scan always gets the same.

    A channel that the scan lacks, its second look lacks as well.

    Args:
        places: of a guided model, where the lesions are.
    """
    noise, grid = np.random.default_rng(0), volumes[0].grid
    lacks = {place for place, volume in enumerate(volumes) if isinstance(volume, Absent)}
    there = [_changed(each, model, noise) for each in volumes if not isinstance(each, Absent)]
    changed = with_absent(there, lacks)
    if places:
        found = segment_at(model, changed, [_moved(each, grid, model) for each in places], settings).mask
    else:
        found = segment(model, changed, settings).mask
    if _mirrors(model):
        return np.ascontiguousarray(found[::-1, ::-1, ::-1])
    whole = np.zeros(volumes[0].grid.shape_zyx, dtype=found.dtype)
    z, y, x = _SHIFT_VOXELS
    whole[z:, y:, x:] = found
    return whole


def describe_second_look(model: Model) -> str:
    """What was repeated, a phrase."""
    how = "mirrored" if _mirrors(model) else "shifted by a few voxels"
    return f"a second prediction, {how}, half a voxel on and with noise added"


def _mirrors(model: Model) -> bool:
    return all(model.plan.training.flip_axes_zyx)


def _moved(place: Place, grid: Grid, model: Model) -> Place:
    """A place in the changed image, as a voxel."""
    at = place.indices_xyz(grid)
    at = np.asarray(grid.size_xyz) - 1 - at if _mirrors(model) else np.maximum(at - _SHIFT_VOXELS[::-1], 0)
    return replace(place, ends=tuple(map(tuple, at.tolist())), voxel=True)


def _half_on(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """The image half a voxel further along each axis, by linear interpolation; its last voxels stay."""
    moved = array.astype(np.float32)
    for axis in range(3):
        along = np.moveaxis(moved, axis, 0)
        along[:-1] = (along[:-1] + along[1:]) / 2
    return moved


def _changed(volume: Volume, model: Model, noise: np.random.Generator) -> Volume:
    array, grid = volume.array, volume.grid
    added = noise.standard_normal(array.shape, dtype=np.float32)
    added *= np.sqrt(2) * scan_noise(array)
    added += _half_on(array)
    # what is padding to the model stays padding
    added = np.where(array == array.min(), array, added)
    if _mirrors(model):
        return Volume(np.ascontiguousarray(added[::-1, ::-1, ::-1]), grid)
    z, y, x = _SHIFT_VOXELS
    part = np.ascontiguousarray(added[z:, y:, x:])
    return Volume(part, grid.part((x, y, z), part.shape[::-1]))

"""Read the channels of a case, from one file each or from a 4D file, onto one grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from focalis.errors import DataError
from focalis.volume.files import read_volumes
from focalis.volume.grid import Grid
from focalis.volume.repair import GridWarning
from focalis.volume.resample import resample_image
from focalis.volume.volume import Volume

_SAMPLES_PER_AXIS = 32


def read_channels(paths: Sequence[Path]) -> list[Volume]:
    """Read one volume per entry.

    A file that is named once holds one 3D image. A file that is named n times is a 4D file of n volumes; its
    i-th entry stands for its i-th volume, and the file is read once. A channel on another grid than the first is
    resampled onto that one (see `resample_image`), with a `GridWarning` that names the file.

    Args:
        paths: the files, one entry per channel.

    Returns:
        One volume per entry, in order, all on the first one's grid; dtype as stored, float32 if resampled.

    Raises:
        DataError: a file cannot be read, holds another number of volumes than entries name it, or covers
            nothing of the first channel.
    """
    volumes = {path: iter(read_entries(path, paths.count(path))) for path in dict.fromkeys(paths)}
    return onto_first_grid([next(volumes[path]) for path in paths], paths)


def onto_first_grid(channels: Sequence[Volume], paths: Sequence[Path]) -> list[Volume]:
    """Bring all channels onto the grid of the first; a channel on another grid is resampled, with a `GridWarning`.

    Args:
        paths: where each was read from, for warning and error.

    Raises:
        DataError: a channel covers nothing of the first one.
    """
    return [
        _onto(channels[0].grid, paths[0], channel, path)
        for path, channel in zip(paths, channels, strict=True)
    ]


def read_entries(path: Path, entries: int) -> tuple[Volume, ...]:
    """The volumes of a file that holds this many channels.

    Raises:
        DataError: the file cannot be read, or holds another number of volumes.
    """
    volumes = read_volumes(path)
    if len(volumes) != entries:
        one = "one 3D image" if len(volumes) == 1 else f"{len(volumes)} volumes"
        wanted = "one channel is" if entries == 1 else f"{entries} channels are"
        raise DataError.at(path, f"holds {one} where {wanted} wanted", "give as many volumes as channels")
    return volumes


def _onto(grid: Grid, first: Path, volume: Volume, path: Path) -> Volume:
    differences = grid.differences(volume.grid)
    if not differences:
        return volume
    covered = _share_covered(grid, volume.grid)
    if covered == 0:
        raise DataError.at(
            path, f"shows nothing of what {first.name} shows", "give images of one examination"
        )
    warnings.warn(
        GridWarning(
            path,
            f"is resampled onto the grid of {first.name}, of which it covers {covered:.0%}: "
            f"{', '.join(differences)}",
        ),
        stacklevel=2,
    )
    return resample_image(volume, grid)


def _share_covered(grid: Grid, other: Grid) -> float:
    """The share of a grid's voxel centres that lie in the box of another grid, from an even sample."""
    places = [
        np.unique(np.linspace(0, size - 1, min(size, _SAMPLES_PER_AXIS)).round()) for size in grid.size_xyz
    ]
    index = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 3)
    found = other.to_indices(grid.to_patient(index))
    inside = (found >= -0.5) & (found <= np.asarray(other.size_xyz) - 0.5)
    return float(inside.all(axis=1).mean())

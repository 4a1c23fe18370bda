"""Separate masks, one per structure, become one label map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from focalis.errors import DataError
from focalis.volume import Volume, read_volume


def read_masks(paths: Sequence[Path], label_values: Sequence[int] | None = None) -> Volume:
    """Read one mask per structure into a label map.

    A mask holds 0 and one other value (1 and 255 are common). Its voxels become the label value in its place,
    1, 2 and so on unless `label_values` says otherwise.

    Returns:
        uint8 (uint16 for values beyond 255), on the grid of the first mask.

    Raises:
        DataError: a mask cannot be read, lies on another grid than the first, or holds two values besides 0; or
            two masks share a voxel (both are named).
    """
    values_of = list(label_values or range(1, len(paths) + 1))
    label: Volume | None = None
    for value, path in zip(values_of, paths, strict=True):
        volume = read_volume(path)
        inside = volume.array != 0
        values = np.unique(volume.array[inside])
        if values.size > 1 or not np.isfinite(values).all():
            listed = ", ".join(f"{found:g}" for found in values[:3])
            raise DataError.at(
                path, f"is not a mask, it holds {listed} besides 0", "give one file per structure"
            )
        if label is None:
            dtype = np.uint8 if max(values_of) <= np.iinfo(np.uint8).max else np.uint16
            label = Volume(np.zeros(volume.array.shape, dtype), volume.grid)
        elif differences := label.grid.differences(volume.grid):
            raise DataError.at(
                path, f"is not on the grid of {paths[0].name}: {', '.join(differences)}", "export it again"
            )
        elif (shared := label.array[inside & (label.array != 0)]).size:
            other = paths[values_of.index(int(shared[0]))]
            raise DataError.at(
                path,
                f"shares {np.count_nonzero(shared == shared[0])} voxels with {other}",
                "a voxel has one label: subtract one mask from the other",
            )
        label.array[inside] = value
    if label is None:
        raise DataError("no mask given; name at least one")
    return label

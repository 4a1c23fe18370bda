"""The size of an image from its header, before any value is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume.files import image_reader
from focalis.volume.grid import Grid
from focalis.volume.itk import require_length

_BYTES = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}


@dataclass(frozen=True)
class Outline:
    """An image without its values.

    Attributes:
        grid: where its voxels lie.
        nbytes: what its values take in memory.
    """

    grid: Grid
    nbytes: int


def read_outlines(paths: Sequence[Path]) -> list[Outline]:
    """The outline of each channel of a case, on the first one's grid, as `read_channels` will put it there.

    Args:
        paths: the files, one entry per channel; a 4D file once per channel.

    Returns:
        One per entry; none if a header cannot be used, which reading the image will say better.
    """
    found: list[Outline] = []
    for path in paths:
        try:
            with image_reader(path) as reader:
                reader.ReadImageInformation()
        except (RuntimeError, DataError):
            return []
        if reader.GetDimension() not in (3, 4):
            return []
        try:
            axes = reader.GetDimension()
            direction = np.asarray(reader.GetDirection()).reshape(axes, axes)[:3, :3]
            first, second, third = reader.GetSize()[:3]
            grid = Grid(
                (first, second, third),
                reader.GetSpacing()[:3],
                reader.GetOrigin()[:3],
                tuple(direction.ravel().tolist()),
            )
            require_length(path, grid)
        except (DataError, ValueError):
            return []
        grid = found[0].grid if found else grid
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        value_bytes = next((count for name, count in _BYTES.items() if kind.startswith(name)), 1)
        found.append(Outline(grid, value_bytes * int(np.prod(grid.size_xyz, dtype=np.int64))))
    return found

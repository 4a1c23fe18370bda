"""Where a person points in an image, and the surroundings of that place which a guided model wants to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.errors import UsageError
from focalis.model import Model
from focalis.volume import Grid, Volume, canonical_axes

Box = tuple[slice, slice, slice]
"""A part of an array: z, y, x."""


@dataclass(frozen=True)
class Place:
    """A point in a lesion, or the two ends of a line across it.

    Attributes:
        ends: one or two, x, y, z each: mm in the patient (LPS), or indices of voxels from 0.
        voxel: whether these are indices of voxels.
        name: tells it from others; empty if only its coordinates do.
        frame: the Frame of Reference UID that the mm belong to; empty if none is named.
        image: the SOP Instance UID of the image that it was drawn on, whose column and row x and y then are; z is of
            no meaning until the image is known. Empty for none.

    Raises:
        UsageError: it has no ends, more than two, or one that is not three finite numbers.
    """

    ends: tuple[tuple[float, ...], ...]
    voxel: bool = False
    name: str = ""
    frame: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        if len(self.ends) not in (1, 2) or any(
            len(end) != 3 or not np.isfinite(end).all() for end in self.ends
        ):
            raise UsageError(f"{self}: is not a place; give three numbers x,y,z, or two such ends of a line")

    def __str__(self) -> str:
        listed = " to ".join(",".join(f"{value:g}" for value in end) for end in self.ends)
        return f"{self.name} ({listed})" if self.name else listed

    def indices_xyz(self, grid: Grid) -> NDArray[np.float64]:
        """Its ends as fractional indices of a grid's voxels, shape (1 or 2, 3)."""
        return np.asarray(self.ends, dtype=np.float64) if self.voxel else grid.to_indices(self.ends)

    def lies_in(self, grid: Grid) -> bool:
        """Whether all of its ends lie in a grid's voxels."""
        indices = self.indices_xyz(grid)
        return bool(((indices >= -0.5) & (indices <= np.asarray(grid.size_xyz) - 0.5)).all())


@dataclass(frozen=True, repr=False)
class Pointed(Shown):
    """What became of a place.

    Attributes:
        status: a lesion was found at it, nothing was, or it lies outside of the image.
        said: the same in words.
        cut: whether the lesion is larger than what the model looks at, so that a part of it is missing.
    """

    shows = ("place", "status", "said")

    place: Place
    status: Literal["lesion", "nothing", "outside"]
    said: str
    cut: bool = False


def surroundings(model: Model, grid: Grid, place: Place) -> Box | None:
    """The part of an image that a model wants to see around a place; None if an end of it lies outside of the image.

    Near the image's border it is moved inwards, so that it is as large there as anywhere.
    """
    if not place.lies_in(grid):
        return None
    ends, size = place.indices_xyz(grid), np.asarray(grid.size_xyz)
    wanted = np.asarray(model.crop_zyx_mm[::-1])[list(canonical_axes(grid))] / grid.spacing_xyz_mm
    count = np.clip(np.floor(wanted + 0.5).astype(int), 1, size)
    start = np.clip(np.floor(ends.mean(axis=0) - (count - 1) / 2 + 0.5).astype(int), 0, size - count)
    x, y, z = (slice(int(first), int(first + many)) for first, many in zip(start, count, strict=True))
    return z, y, x


def cut(volumes: Sequence[Volume], box: Box) -> list[Volume]:
    """That part of each channel, on its own grid; the arrays are views."""
    start = [side.start for side in reversed(box)]
    size = [side.stop - side.start for side in reversed(box)]
    return [
        replace(volume, array=volume.array[box], grid=volume.grid.part(start, size)) for volume in volumes
    ]


def why_outside(place: Place, grid: Grid) -> str:
    """That a place lies outside of an image, where the image lies, and whether signs are the cause."""
    size = np.asarray(grid.size_xyz)
    if place.voxel:
        return f"lies outside of the image, which has {' x '.join(map(str, grid.size_xyz))} voxels (x, y, z)"
    corners = np.stack(np.meshgrid(*([0, count - 1] for count in size)), axis=-1).reshape(-1, 3)
    at = grid.to_patient(corners)
    spans = ", ".join(
        f"{axis} {low:.0f} to {high:.0f}"
        for axis, low, high in zip("xyz", at.min(axis=0), at.max(axis=0), strict=True)
    )
    said = f"lies outside of the image, which spans {spans} mm (LPS)"
    mirrored = replace(place, ends=tuple((-x, -y, z) for x, y, z in place.ends))
    if mirrored.lies_in(grid):
        said += "; it looks like RAS: turn the signs of x and y"
    elif replace(place, voxel=True).lies_in(grid):
        said += "; it looks like voxels: give them as such"
    return said

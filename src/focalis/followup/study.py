"""One date of a person: the scan, its label map, and the lesions in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.lesions import Lesion, label_components, measure_components
from focalis.volume import Grid, Volume

_FACES_TO_SURFACE = 2 / 3
"""The faces of a voxelised surface of any orientation have 3/2 of its area on average."""


@dataclass(frozen=True, eq=False, repr=False)
class Piece(Shown):
    """One connected component of one label on one date.

    Attributes:
        lesion: its measures, taken on the scan's own grid.
        voxels_zyx: indices of its voxels, shape (n, 3).
        surface_mm2: its surface: the area of its outer faces, times 2/3.
        cut: whether it touches the border of the scan, so that a part of it may be missing.
    """

    lesion: Lesion
    voxels_zyx: NDArray[np.intp]
    surface_mm2: float
    cut: bool


@dataclass(frozen=True, eq=False, repr=False)
class Study(Shown):
    """One date.

    Attributes:
        name: what it is called in tables and files.
        image: the scan; of several channels the first that all dates have.
        names: label value to name, without the background.
        pieces: every lesion in it, by label and number.
        numbered: int32 on the scan's grid: 0, or the place of a voxel's lesion in `pieces`, from 1.
        day: when it was taken; None if that is not known.
    """

    shows = ("name", "day", "pieces", "image")

    name: str
    image: Volume
    names: Mapping[int, str]
    pieces: tuple[Piece, ...]
    numbered: NDArray[np.int32]
    day: date | None = None

    def voxels_zyx(self, pieces: tuple[int, ...]) -> NDArray[np.intp]:
        """The indices of the voxels of some pieces, shape (n, 3)."""
        return np.concatenate([self.pieces[piece].voxels_zyx for piece in pieces])

    def places(self, pieces: tuple[int, ...]) -> NDArray[np.float64]:
        """The voxel centres of some pieces in the patient, shape (n, 3), x, y, z in mm."""
        return self.image.grid.to_patient(self.voxels_zyx(pieces)[:, ::-1])

    def look_up(self, places: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which lesion lies at places in the patient: its place in `pieces` from 1, 0 for none, -1 outside the scan."""
        grid = self.image.grid
        voxels = np.round(grid.to_indices(places)).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < np.asarray(grid.size_xyz))).all(axis=1)
        found = np.full(len(places), -1, dtype=np.int64)
        x, y, z = voxels[inside].T
        found[inside] = self.numbered[z, y, x]
        return found


def make_study(
    name: str, image: Volume, label: NDArray[np.integer], names: Mapping[int, str], day: date | None = None
) -> Study:
    """Find and measure the lesions of a date.

    Args:
        image: the scan; of several channels the first that all dates have.
        label: label values on its grid, shape (z, y, x).
        names: label value to name; other values are not lesions.
        day: when it was taken.
    """
    numbered = np.zeros(label.shape, dtype=np.int32)
    pieces: list[Piece] = []
    for value, title in sorted(names.items()):
        components, _ = label_components(label == value)
        boxes = scipy.ndimage.find_objects(components)
        for lesion, box in zip(measure_components(components, image.grid, value, title), boxes, strict=True):
            inside = components[box] == lesion.number
            voxels = np.argwhere(inside) + [side.start for side in box]
            cut = bool((voxels == 0).any() or (voxels == np.asarray(label.shape) - 1).any())
            pieces.append(Piece(lesion, voxels, _surface_mm2(inside, image.grid), cut))
            numbered[box][inside] = len(pieces)
    return Study(name, image, dict(names), tuple(pieces), numbered, day)


def _surface_mm2(inside: NDArray[np.bool_], grid: Grid) -> float:
    padded = np.pad(inside, 1)
    z, y, x = grid.spacing_zyx_mm
    areas = (y * x, z * x, z * y)
    faces = sum(np.count_nonzero(np.diff(padded, axis=axis)) * area for axis, area in enumerate(areas))
    return float(faces * _FACES_TO_SURFACE)

"""Small pictures of every case: three cuts around a lesion with outlines, without axes, as small JPEG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from focalis.evaluation import JudgedLesion
from focalis.lesions import Lesion
from focalis.report.figure import PREDICTION_COLOUR, TRUTH_COLOUR
from focalis.report.slice_drawing import CUTS, Cut, Focus, canonical, find_focus, grey_window
from focalis.volume import Grid, Volume

PIXELS = 160
"""The side of one of the three squares of a strip."""
_GAP = 2
_LEAST_VOXELS = 32
_AROUND = 2.5
"""How much more than the lesion is shown, and at least how many voxels of the finest axis."""
MOST_MISSED = 10
"""Missed lesions of a case that are drawn, the largest ones."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class CasePicture:
    """The pictures of a judged case.

    Attributes:
        strip: its largest lesion, a JPEG file.
        missed: its missed lesions, largest first, ten at most, each with a JPEG file.
    """

    case: str
    strip: bytes
    missed: tuple[tuple[JudgedLesion, bytes], ...] = ()


def case_picture(
    case: str, image: Volume, truth: Volume, prediction: Volume, lesions: Sequence[JudgedLesion]
) -> CasePicture:
    """The pictures of a judged case; of `lesions` only its own missed ones count.

    Raises:
        DataError: if the grids differ.
    """
    pair = [(truth, _both(TRUTH_COLOUR)), (prediction, _both(PREDICTION_COLOUR))]
    missed = [each for each in lesions if each.case == case and each.status == "missed"]
    missed.sort(key=lambda each: -each.lesion.volume_mm3)
    return CasePicture(
        case,
        strip(image, pair, case),
        tuple((each, strip(image, pair, case, each.lesion)) for each in missed[:MOST_MISSED]),
    )


def strip(
    image: Volume,
    maps: Sequence[tuple[Volume, Mapping[int, Colour]]],
    title: str,
    lesion: Lesion | None = None,
) -> bytes:
    """Axial, coronal and sagittal cut in radiological convention, side by side, with the outlines of label maps.

    The cuts go through the lesion, else through the largest of the first map that holds one, else through the middle.
    The outline of the first map is wide, so that another one on the same edge leaves half of it to be seen.

    Args:
        maps: label maps on the image's grid, each with the colours of its values (0 to 255; 0 stands for any value).
        title: names the case in errors.

    Returns:
        A JPEG file of 3 x 160 by 160 pixels.

    Raises:
        DataError: if the grids differ.
    """
    shown, *labels = canonical(image, [("label map", volume) for volume, _ in maps], title)
    grid = shown.grid
    spacing = grid.spacing_zyx_mm
    first, last = (labels[place].array != 0 for place in (0, -1))
    focus = find_focus(first, last, spacing) if lesion is None else _focus_on(lesion, grid)
    longest_mm = max(count * step for count, step in zip(grid.shape_zyx, spacing, strict=True))
    side_mm = longest_mm
    if focus.extent_mm:
        side_mm = min(max(_AROUND * focus.extent_mm, _LEAST_VOXELS * min(spacing)), longest_mm)
    planes = [[_square(volume, cut, focus, side_mm) for cut in CUTS] for volume in (shown, *labels)]
    greys = planes[0]
    low, high = grey_window([grey[inside] for grey, inside in greys])
    picture = np.zeros((PIXELS, 3 * PIXELS + 2 * _GAP, 3), np.uint8)
    for place, (grey, inside) in enumerate(greys):
        scaled = np.clip((np.nan_to_num(grey.astype(np.float64), nan=low) - low) / (high - low), 0, 1)
        square = np.repeat((255 * scaled * inside).astype(np.uint8)[..., None], 3, axis=2)
        for number, (_, colours) in enumerate(maps):
            _outline(square, planes[number + 1][place][0], colours, wide=number == 0)
        start = place * (PIXELS + _GAP)
        picture[:, start : start + PIXELS] = square
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, picture, format="jpg", pil_kwargs={"quality": 82, "subsampling": 0})
    return buffer.getvalue()


def _focus_on(lesion: Lesion, grid: Grid) -> Focus:
    index = np.rint(grid.to_indices(lesion.centroid_lps_mm)).astype(int)[::-1]
    z, y, x = np.clip(index, 0, np.asarray(grid.shape_zyx) - 1).tolist()
    return Focus((z, y, x), lesion.longest_3d.length_mm or min(grid.spacing_zyx_mm))


def _square(
    volume: Volume, cut: Cut, focus: Focus, side_mm: float
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """A square of a cut, in pixels of equal sides, nearest neighbour; and which of its pixels lie in the volume."""
    plane = np.take(volume.array, focus.voxel_zyx[cut.axis], axis=cut.axis)
    steps_mm = (np.arange(PIXELS) + 0.5 - PIXELS / 2) * side_mm / PIXELS
    places, within = [], []
    for axis, size in ((cut.rows, plane.shape[0]), (cut.columns, plane.shape[1])):
        step = volume.grid.spacing_zyx_mm[axis]
        index = np.floor(focus.voxel_zyx[axis] + 0.5 + steps_mm / step).astype(int)
        within.append((index >= 0) & (index < size))
        places.append(np.clip(index, 0, size - 1))
    inside = within[0][:, None] & within[1][None]
    found = plane[places[0][:, None], places[1][None]]
    found = np.where(inside, found, 0)
    return (found[::-1], inside[::-1]) if cut.upwards else (found, inside)


def _outline(
    square: NDArray[np.uint8], labels: NDArray[np.generic], colours: Mapping[int, Colour], *, wide: bool
) -> None:
    """Colour the pixels of a label that touch another value."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        change = np.diff(labels, axis=axis) != 0
        before, after = [(0, 1), (0, 0)], [(1, 0), (0, 0)]
        if axis:
            before, after = before[::-1], after[::-1]
        edge |= np.pad(change, before) | np.pad(change, after)
    if wide:
        grown = edge.copy()
        grown[1:] |= edge[:-1]
        grown[:-1] |= edge[1:]
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        edge = grown
    for value, colour in colours.items():
        square[edge & ((labels == value) if value else (labels != 0))] = colour


def _both(colour: str) -> dict[int, Colour]:
    """One colour for all values."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {0: (red, green, blue)}

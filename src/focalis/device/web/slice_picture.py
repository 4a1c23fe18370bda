"""One slice of a study as a PNG picture, lesions drawn over it in the colours of their verdicts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from focalis.device.records import Verdict
from focalis.device.web.views import View

Plane = Literal["axial", "coronal", "sagittal"]
AXES: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis (of z, y, x) that a plane fixes."""

Part = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last, in voxels."""

LONGEST_PIXELS = 720
_UNDECIDED, _ACCEPTED, _REJECTED = (255, 176, 0), (45, 212, 191), (244, 114, 182)
_COLOURS: dict[Verdict, tuple[int, int, int]] = {"accepted": _ACCEPTED, "rejected": _REJECTED}
_FILL = 0.12


def slice_png(
    view: View,
    plane: Plane,
    index: int,
    *,
    window: tuple[float, float],
    verdicts: Mapping[int, Verdict],
    selected: int = 0,
    overlay: bool = True,
    part: Part | None = None,
    other: View | None = None,
) -> bytes:
    """Draw a slice in radiological convention: the patient's right at the left, anterior and superior at the top.

    Args:
        view: the study.
        plane: axial, coronal or sagittal (of the image's own axes).
        index: the voxel along the axis that the plane fixes; cut to the image.
        window: the values that are black and white.
        verdicts: lesion to verdict; a rejected lesion's outline is dotted.
        selected: the lesion with the thick outline.
        overlay: draw the lesions.
        part: the rows and columns to draw; all of them by default.
        other: images in the same frame of reference, whose values are drawn in the place of the study's: at the same
            places of the patient, on whatever voxels they lie. Where they show nothing, the picture is black.

    Returns:
        A PNG file, square millimetres, its longer side `LONGEST_PIXELS`.
    """
    axis = AXES[plane]
    index = min(max(index, 0), view.shape_zyx[axis] - 1)
    rows, columns = (count for each, count in enumerate(view.shape_zyx) if each != axis)
    top, bottom, left, right = part or (0, rows, 0, columns)

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        found = np.asarray(np.take(volume, index, axis=axis))[top:bottom, left:right]
        return found if axis == 0 else found[::-1]  # superior to the top

    spacing = [view.spacing_zyx_mm[each] for each in range(3) if each != axis]
    height_mm, width_mm = (bottom - top) * spacing[0], (right - left) * spacing[1]
    scale = LONGEST_PIXELS / max(height_mm, width_mm)
    height, width = max(1, round(height_mm * scale)), max(1, round(width_mm * scale))

    numbers = cut(view.marks())
    if other is None or _same_voxels(view, other):
        grey = cut((other or view).image())
    else:
        down, across = np.arange(height) + 0.5, np.arange(width) + 0.5
        down = down if axis == 0 else down[::-1]
        places = np.stack(np.meshgrid(down, across, indexing="ij"))
        places *= np.array([(bottom - top) / height, (right - left) / width])[:, None, None]
        places += np.array([top - 0.5, left - 0.5])[:, None, None]
        grey = _values_at(other, view, np.insert(places, axis, index, axis=0))
    low, high = window
    shown = np.nan_to_num(np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)) * 255
    picture = Image.fromarray(shown.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    if not overlay or not numbers.any():
        return _png(picture)
    rows = np.arange(height) * numbers.shape[0] // height
    columns = np.arange(width) * numbers.shape[1] // width
    colours = np.repeat(np.asarray(picture)[..., None], 3, axis=2)
    _draw(colours, numbers[rows][:, columns], verdicts, selected)
    return _png(Image.fromarray(colours))


def _same_voxels(view: View, other: View) -> bool:
    alike = np.allclose(view.affine_zyx(), other.affine_zyx(), atol=1e-3)
    return view.shape_zyx == other.shape_zyx and alike


def _values_at(other: View, view: View, places: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values of other images, linear between their voxels, at places z, y, x (3, ...) in voxels of a view.

    NaN outside of them.
    """
    there = np.linalg.inv(other.affine_zyx()) @ view.affine_zyx()
    at = np.tensordot(there[:3, :3], places, axes=1) + there[:3, 3][:, None, None]
    found = ndimage.map_coordinates(other.image(), at, output=np.float32, order=1, mode="nearest")
    ends = np.array(other.shape_zyx)[:, None, None] - 0.5
    values: NDArray[np.float32] = np.where(((at >= -0.5) & (at <= ends)).all(axis=0), found, np.nan)
    return values


def _draw(
    colours: NDArray[np.uint8], marks: NDArray[np.integer], verdicts: Mapping[int, Verdict], selected: int
) -> None:
    """Fill and outline the lesions, in place."""
    y, x = np.ogrid[: marks.shape[0], : marks.shape[1]]
    dots = (x + y) // 5 % 2 == 0
    for number in np.unique(marks[marks > 0]).tolist():
        part = marks == number
        verdict = verdicts.get(number)
        colour = np.array(_COLOURS[verdict] if verdict else _UNDECIDED, dtype=np.float32)
        if verdict != "rejected":
            colours[part] = (colours[part] * (1 - _FILL) + colour * _FILL).astype(np.uint8)
        edge = part & ~_shrunk(part, 4 if number == selected else 2)
        colours[edge & dots if verdict == "rejected" else edge] = colour.astype(np.uint8)


def _shrunk(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    padded: NDArray[Any] = np.pad(mask, pixels)
    height, width = mask.shape
    inner: NDArray[np.bool_] = mask.copy()
    for step in range(1, pixels + 1):
        for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step)):
            inner &= padded[pixels + dy : pixels + dy + height, pixels + dx : pixels + dx + width]
    return inner


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()

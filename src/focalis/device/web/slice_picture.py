"""One slice of a study as a PNG picture, lesions drawn over it in the colours of their verdicts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    marks: NDArray[np.uint16] | None = None,
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
        marks: the lesions' numbers on the same voxels, in the place of the view's own.

    Returns:
        A PNG file, square millimetres, its longer side `LONGEST_PIXELS`.
    """
    axis = AXES[plane]
    index = min(max(index, 0), view.shape_zyx[axis] - 1)
    grey = np.asarray(np.take(view.image(), index, axis=axis), dtype=np.float32)
    numbers = np.asarray(np.take(view.marks() if marks is None else marks, index, axis=axis))
    if part is not None:
        top, bottom, left, right = part
        grey, numbers = grey[top:bottom, left:right], numbers[top:bottom, left:right]
    if axis != 0:  # superior to the top
        grey, numbers = grey[::-1], numbers[::-1]
    spacing = [view.spacing_zyx_mm[each] for each in range(3) if each != axis]
    height_mm, width_mm = (count * step for count, step in zip(grey.shape, spacing, strict=True))
    scale = LONGEST_PIXELS / max(height_mm, width_mm)
    height, width = max(1, round(height_mm * scale)), max(1, round(width_mm * scale))

    low, high = window
    shown = np.nan_to_num(np.clip((grey - low) / max(high - low, 1e-6), 0, 1)) * 255
    picture = Image.fromarray(shown.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    if not overlay or not numbers.any():
        return _png(picture)
    rows = np.arange(height) * numbers.shape[0] // height
    columns = np.arange(width) * numbers.shape[1] // width
    colours = np.repeat(np.asarray(picture)[..., None], 3, axis=2)
    _draw(colours, numbers[rows][:, columns], verdicts, selected)
    return _png(Image.fromarray(colours))


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

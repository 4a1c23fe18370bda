"""The summary picture: a cut through each of the largest lesions, with its outline and its figures."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from focalis.dicom import Caution, ReportedLesion, Series
from focalis.report.slice_drawing import BACKGROUND, TEXT, draw_slice

_SHOWN = 6
_COLUMNS = 3
_OUTLINE, _WARNING = "#ffb000", "#ff6b5e"
_LETTERS_PER_INCH, _LINE_INCHES, _MOST_LINES = 13, 0.16, 8


def draw_summary(
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    lesions: Sequence[ReportedLesion],
    version: str,
    cautions: Sequence[Caution] = (),
) -> NDArray[np.uint8]:
    """Draw the slice through the middle of each of the six largest lesions; the middle slice if there is none.

    Cautions are written across it.

    Returns:
        Red, green, blue; (y, x, 3).
    """
    shown = sorted(lesions, key=lambda lesion: -lesion.volume_mm3)[:_SHOWN]
    count = max(len(shown), 1)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    warnings = _wrapped(cautions, 3.4 * columns)
    height = 3.7 * rows + 0.9 + _LINE_INCHES * len(warnings)
    figure = Figure(figsize=(3.4 * columns, height), dpi=100, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    named = [name for value, name in sorted(names.items()) if value != 0]
    for place, lesion in zip(axes, shown, strict=False):
        z = min(max(round(_slice_of(lesion, series)), 0), len(label) - 1)
        _draw(place, label, series, z)
        place.set_title(
            f"{lesion.number}: {named[lesion.segment - 1]}, {lesion.volume_mm3 / 1000:.2f} ml, "
            f"{lesion.longest_axial_mm:.1f} mm",
            color=TEXT,
            fontsize=9,
        )
    if not shown:
        _draw(axes[0], label, series, len(label) // 2)
        axes[0].set_title("no lesion found", color=TEXT, fontsize=9)
    for place in axes[count:]:
        place.set_axis_off()
    more = f", the {len(shown)} largest shown" if len(lesions) > len(shown) else ""
    figure.suptitle(f"{len(lesions)} found by Focalis {version}{more}", color=TEXT, fontsize=10)
    figure.text(0.5, 0.09 / height, "For research use only", color=_OUTLINE, fontsize=10, ha="center")
    figure.text(0.5, 0.3 / height, "\n".join(warnings), color=_WARNING, fontsize=9, ha="center", va="bottom")
    bottom = (0.37 + _LINE_INCHES * len(warnings)) / height
    figure.subplots_adjust(
        left=0.02, right=0.98, bottom=bottom, top=1 - 0.64 / height, wspace=0.05, hspace=0.15
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw", facecolor=BACKGROUND)
    width, height = canvas.get_width_height()
    pixels = np.frombuffer(buffer.getvalue(), dtype=np.uint8).reshape(height, width, 4)
    return np.ascontiguousarray(pixels[..., :3])


def _wrapped(cautions: Sequence[Caution], width_inches: float) -> list[str]:
    letters = int(width_inches * _LETTERS_PER_INCH)
    texts = (f"{each.mark}: {each.text}" for each in cautions)
    return [line for each in texts for line in textwrap.wrap(each, letters)[:_MOST_LINES]]


def _slice_of(lesion: ReportedLesion, series: Series) -> float:
    return float(series.volume.grid.to_indices(lesion.centroid_xyz_mm)[2])


def _draw(axes: Axes, label: NDArray[np.integer], series: Series, z: int) -> None:
    spacing = series.volume.grid.spacing_zyx_mm[1:]
    draw_slice(axes, series.volume.array[z], [(label[z], _OUTLINE, 1)], spacing)
    axes.set_aspect("equal")

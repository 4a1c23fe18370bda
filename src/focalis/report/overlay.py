"""Truth and prediction drawn over the image: three cuts through the lesion, and the lesion enlarged."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from focalis.report.figure import PREDICTION_COLOUR, TRUTH_COLOUR, png
from focalis.report.slice_drawing import (
    BACKGROUND,
    CUTS,
    TEXT,
    Cut,
    Focus,
    canonical,
    draw_slice,
    find_focus,
    grey_window,
    letters,
    near,
    zoom,
)
from focalis.volume import Volume

_WIDTH_IN, _TALLEST_IN, _HEAD_IN, _GAP_IN = 10.0, 6.5, 0.45, 0.06


def overlay_figure(image: Volume, truth: Volume, prediction: Volume, title: str) -> bytes:
    """Draw axial, coronal and sagittal cuts in radiological convention, with exact voxel outlines.

    The cuts go through the largest true lesion, else the largest predicted one, else the middle of the
    volume. A second row enlarges the lesion, unless it fills most of the picture anyway. Grey values run from
    the 1st to the 99.5th percentile of what a row shows.

    Args:
        truth: label map on the image's grid.
        prediction: label map on the image's grid.
        title: a line of plain text.

    Returns:
        A PNG file.

    Raises:
        DataError: if the grids differ.
    """
    image, truth, prediction = canonical(image, (("truth", truth), ("prediction", prediction)), title)
    spacing = image.grid.spacing_zyx_mm
    focus = find_focus(truth.array != 0, prediction.array != 0, spacing)
    size_mm = [n * s for n, s in zip(image.array.shape, spacing, strict=True)]
    zoom_mm = max(2.5 * focus.extent_mm, 24 * min(spacing))
    zoomed = focus.extent_mm > 0 and zoom_mm < 0.6 * max(size_mm)

    widths, heights = [size_mm[cut.columns] for cut in CUTS], [size_mm[cut.rows] for cut in CUTS]
    scale = min((_WIDTH_IN - 2 * _GAP_IN) / sum(widths), _TALLEST_IN / max(heights))
    row_in = max(heights) * scale
    square_in = (_WIDTH_IN - 2 * _GAP_IN) / 3
    total_in = _HEAD_IN + row_in + (_GAP_IN + square_in if zoomed else 0)
    figure = Figure(figsize=(_WIDTH_IN, total_in), facecolor=BACKGROUND)
    _head(figure, title, total_in)

    pairs = [(spacing[cut.rows], spacing[cut.columns]) for cut in CUTS]
    centres = [(focus.voxel_zyx[cut.rows], focus.voxel_zyx[cut.columns]) for cut in CUTS]
    greys = [_plane(image, cut, focus) for cut in CUTS]
    window = grey_window(greys)
    near_window = grey_window([near(*each, zoom_mm) for each in zip(greys, centres, pairs, strict=True)])
    left_in = (_WIDTH_IN - sum(widths) * scale - 2 * _GAP_IN) / 2
    for number, (cut, pair, grey) in enumerate(zip(CUTS, pairs, greys, strict=True)):
        planes = [
            (_plane(volume, cut, focus), colour)
            for volume, colour in ((truth, TRUTH_COLOUR), (prediction, PREDICTION_COLOUR))
        ]
        width_in, height_in = widths[number] * scale, heights[number] * scale
        bottom_in = total_in - _HEAD_IN - (row_in + height_in) / 2
        axes = _axes(figure, left_in, bottom_in, width_in, height_in, total_in)
        _draw(axes, grey, planes, pair, window, cut, 1.3)
        letters(axes, cut)
        left_in += width_in + _GAP_IN
        if zoomed:
            enlarged = _axes(figure, number * (square_in + _GAP_IN), 0, square_in, square_in, total_in)
            _draw(enlarged, grey, planes, pair, near_window, cut, 2.0)
            row, column = ((index + 0.5) * step for index, step in zip(centres[number], pair, strict=True))
            zoom(enlarged, (row, column), zoom_mm, upwards=cut.upwards)
            corner = column - zoom_mm / 2, row - zoom_mm / 2
            axes.add_patch(
                Rectangle(corner, zoom_mm, zoom_mm, fill=False, edgecolor="white", linewidth=0.8, alpha=0.7)
            )
    return png(figure)


def _head(figure: Figure, title: str, total_in: float) -> None:
    middle = 1 - _HEAD_IN / 2 / total_in
    figure.text(0.01, middle, title, color=TEXT, fontsize=11, va="center", parse_math=False)
    handles = [Line2D([], [], color=colour, linewidth=2.2) for colour in (TRUTH_COLOUR, PREDICTION_COLOUR)]
    figure.legend(
        handles,
        ["truth", "prediction"],
        loc="center right",
        bbox_to_anchor=(1, middle),
        ncols=2,
        frameon=False,
        labelcolor=TEXT,
        fontsize=10,
    )


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float, total: float) -> Axes:
    return figure.add_axes((left / _WIDTH_IN, bottom / total, width / _WIDTH_IN, height / total))


def _plane(volume: Volume, cut: Cut, focus: Focus) -> NDArray[Any]:
    plane: NDArray[Any] = np.take(volume.array, focus.voxel_zyx[cut.axis], axis=cut.axis)
    return plane


def _draw(
    axes: Axes,
    grey: NDArray[Any],
    labels: list[tuple[NDArray[Any], str]],
    spacing_mm: tuple[float, float],
    window: tuple[float, float],
    cut: Cut,
    line: float,
) -> None:
    (truth, colour), (prediction, other) = labels
    outlines = [(truth, colour, 2 * line), (prediction, other, line)]
    draw_slice(axes, grey, outlines, spacing_mm, window, upwards=cut.upwards)

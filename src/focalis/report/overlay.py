"""Truth and prediction drawn over the image: three cuts through the lesion, and the lesion enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.report.figure import PREDICTION_COLOUR, TRUTH_COLOUR, png
from focalis.report.outline import Focus, find_focus, outline
from focalis.volume import Volume, to_canonical

_WIDTH_IN, _TALLEST_IN, _HEAD_IN, _GAP_IN = 10.0, 6.5, 0.45, 0.06
_BACKGROUND, _TEXT = "#0f1215", "#e6e9ec"


@dataclass(frozen=True)
class View:
    """One cut: the axis it fixes, the axes (of z, y, x) along its rows and columns, and what lies at its
    sides."""

    cut: int
    rows: int
    columns: int
    upwards: bool
    left: str
    right: str
    top: str
    bottom: str


VIEWS = (
    View(0, 1, 2, False, "R", "L", "A", "P"),
    View(1, 0, 2, True, "R", "L", "S", "I"),
    View(2, 0, 1, True, "A", "P", "S", "I"),
)


def overlay_figure(image: Volume, truth: Volume, prediction: Volume, title: str) -> bytes:
    """Draw axial, coronal and sagittal cuts in radiological convention, with exact voxel outlines.

    The cuts go through the largest true lesion, else the largest predicted one, else the middle of the
    volume. A second row enlarges the lesion, unless it fills most of the picture anyway. Grey values run from
    the 1st to the 99.5th percentile of what a row shows.

    Args:
        image: one channel.
        truth: label map on the image's grid.
        prediction: label map on the image's grid.
        title: a line of plain text.

    Returns:
        A PNG file.

    Raises:
        DataError: if the grids differ.
    """
    for name, other in (("truth", truth), ("prediction", prediction)):
        differences = image.grid.differences(other.grid)
        if differences:
            raise DataError(f"{title}: image and {name} lie on different grids: {'; '.join(differences)}")
    image, truth, prediction = to_canonical(image), to_canonical(truth), to_canonical(prediction)
    spacing = image.grid.spacing_zyx_mm
    focus = find_focus(truth.array != 0, prediction.array != 0, spacing)
    size_mm = [n * s for n, s in zip(image.array.shape, spacing, strict=True)]
    zoom_mm = max(2.5 * focus.extent_mm, 24 * min(spacing))
    zoomed = focus.extent_mm > 0 and zoom_mm < 0.6 * max(size_mm)

    widths, heights = [size_mm[v.columns] for v in VIEWS], [size_mm[v.rows] for v in VIEWS]
    scale = min((_WIDTH_IN - 2 * _GAP_IN) / sum(widths), _TALLEST_IN / max(heights))
    row_in = max(heights) * scale
    square_in = (_WIDTH_IN - 2 * _GAP_IN) / 3
    total_in = _HEAD_IN + row_in + (_GAP_IN + square_in if zoomed else 0)
    figure = Figure(figsize=(_WIDTH_IN, total_in), facecolor=_BACKGROUND)
    _head(figure, title, total_in)

    cuts = [_cut(image, view, focus) for view in VIEWS]
    window = grey_window(cuts)
    near_window = grey_window(
        [_near(cut, view, focus, spacing, zoom_mm) for cut, view in zip(cuts, VIEWS, strict=True)]
    )
    left_in = (_WIDTH_IN - sum(widths) * scale - 2 * _GAP_IN) / 2
    for number, view in enumerate(VIEWS):
        width_in, height_in = widths[number] * scale, heights[number] * scale
        bottom_in = total_in - _HEAD_IN - (row_in + height_in) / 2
        axes = _axes(figure, left_in, bottom_in, width_in, height_in, total_in)
        _draw(axes, view, image, truth, prediction, focus, window)
        letters(axes, view)
        left_in += width_in + _GAP_IN
        if zoomed:
            column_in = number * (square_in + _GAP_IN)
            near = _axes(figure, column_in, 0, square_in, square_in, total_in)
            _draw(near, view, image, truth, prediction, focus, near_window, line=2.0)
            _frame(axes, near, view, focus, spacing, zoom_mm)
    return png(figure)


def _head(figure: Figure, title: str, total_in: float) -> None:
    middle = 1 - _HEAD_IN / 2 / total_in
    figure.text(0.01, middle, title, color=_TEXT, fontsize=11, va="center", parse_math=False)
    handles = [Line2D([], [], color=colour, linewidth=2.2) for colour in (TRUTH_COLOUR, PREDICTION_COLOUR)]
    figure.legend(
        handles,
        ["truth", "prediction"],
        loc="center right",
        bbox_to_anchor=(1, middle),
        ncols=2,
        frameon=False,
        labelcolor=_TEXT,
        fontsize=10,
    )


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float, total: float) -> Axes:
    axes = figure.add_axes((left / _WIDTH_IN, bottom / total, width / _WIDTH_IN, height / total))
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def grey_window(cuts: Sequence[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate([cut.ravel() for cut in cuts]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [1, 99.5])
    if high <= low:
        low, high = values.min(), values.max()
    return float(low), float(high if high > low else low + 1)


def _cut(volume: Volume, view: View, focus: Focus) -> NDArray[Any]:
    plane: NDArray[Any] = np.take(volume.array, focus.voxel_zyx[view.cut], axis=view.cut)
    return plane


def _near(
    plane: NDArray[Any], view: View, focus: Focus, spacing: tuple[float, float, float], side_mm: float
) -> NDArray[Any]:
    """The part of a cut inside the enlarged frame."""
    box = []
    for axis in (view.rows, view.columns):
        reach = int(side_mm / 2 / spacing[axis]) + 1
        box.append(slice(max(focus.voxel_zyx[axis] - reach, 0), focus.voxel_zyx[axis] + reach + 1))
    return plane[tuple(box)]


def _draw(
    axes: Axes,
    view: View,
    image: Volume,
    truth: Volume,
    prediction: Volume,
    focus: Focus,
    window: tuple[float, float],
    line: float = 1.3,
) -> None:
    spacing = image.grid.spacing_zyx_mm
    pair = spacing[view.rows], spacing[view.columns]
    grey = _cut(image, view, focus)
    height, width = grey.shape[0] * pair[0], grey.shape[1] * pair[1]
    axes.imshow(
        grey,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower" if view.upwards else "upper",
        extent=(0, width, 0, height) if view.upwards else (0, width, height, 0),
        aspect="auto",
    )
    for volume, colour, thickness in ((truth, TRUTH_COLOUR, 2 * line), (prediction, PREDICTION_COLOUR, line)):
        edges = outline(_cut(volume, view, focus), pair)
        # Snapped to whole pixels: two outlines on one edge show as two colours and not as their mixture.
        lines = LineCollection(
            list(edges), colors=colour, linewidths=thickness, capstyle="projecting", snap=True
        )
        axes.add_collection(lines, autolim=False)


def _frame(
    whole: Axes, near: Axes, view: View, focus: Focus, spacing: tuple[float, float, float], side_mm: float
) -> None:
    """Point the enlarged cut at the lesion and mark its frame on the whole one."""
    x = (focus.voxel_zyx[view.columns] + 0.5) * spacing[view.columns] - side_mm / 2
    y = (focus.voxel_zyx[view.rows] + 0.5) * spacing[view.rows] - side_mm / 2
    near.set_xlim(x, x + side_mm)
    near.set_ylim(*((y, y + side_mm) if view.upwards else (y + side_mm, y)))
    whole.add_patch(
        Rectangle((x, y), side_mm, side_mm, fill=False, edgecolor="white", linewidth=0.8, alpha=0.7)
    )


def letters(axes: Axes, view: View) -> None:
    places = (
        (view.left, 0.02, 0.5),
        (view.right, 0.98, 0.5),
        (view.top, 0.5, 0.97),
        (view.bottom, 0.5, 0.03),
    )
    for letter, x, y in places:
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            color="#9aa3ab",
            fontsize=8,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )

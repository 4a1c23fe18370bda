"""One slice of one case with the contours of several systems beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from focalis.errors import DataError
from focalis.report.figure import TRUTH_COLOUR, png
from focalis.report.outline import find_focus, outline
from focalis.report.overlay import VIEWS, grey_window, letters
from focalis.volume import Volume, to_canonical

COLOURS = (
    *("#35b6ff", "#ff5d9e", "#4fd86b", "#ff7d3b", "#b18cff", "#2ed9cf"),
    *("#f2f2f2", "#e0463c", "#5b6cff", "#b07d5c", "#98a3ad", "#ffb3d9"),
)
"""One for each of as many systems as there are losses; then they come again."""
_BACKGROUND, _TEXT, _SOFT = "#0f1215", "#e6e9ec", "#9aa3ab"
_COLUMNS, _SIDE_IN, _GAP_IN, _HEAD_IN, _TITLE_IN = 4, 2.45, 0.08, 0.34, 0.26


def contours_figure(
    image: Volume, truth: Volume, predictions: Sequence[tuple[str, float, Volume]], title: str
) -> bytes:
    """Draw one axial slice through the largest true lesion: all contours together, then each system on its own.

    Every panel shows the same piece of the slice, the lesion enlarged, in radiological convention, with exact voxel
    outlines; the truth is drawn in each.

    Args:
        image: one channel.
        truth: label map on the image's grid.
        predictions: name, Dice and label map (on the image's grid) of each system.
        title: a line of plain text.

    Returns:
        A PNG file.

    Raises:
        DataError: if the grids differ.
    """
    for name, other in (("truth", truth), *((name, volume) for name, _, volume in predictions)):
        if differences := image.grid.differences(other.grid):
            raise DataError(f"{title}: image and {name} lie on different grids: {'; '.join(differences)}")
    canonical = to_canonical(image)
    spacing = canonical.grid.spacing_zyx_mm
    true_map = to_canonical(truth).array
    maps = [to_canonical(volume).array for _, _, volume in predictions]
    anything = np.any([array != 0 for array in maps], axis=0)
    focus = find_focus(true_map != 0, anything, spacing)
    z, y, x = focus.voxel_zyx
    plane = canonical.array[z]
    height_mm, width_mm = plane.shape[0] * spacing[1], plane.shape[1] * spacing[2]
    side_mm = min(max(2.2 * focus.extent_mm, 24 * min(spacing)), max(height_mm, width_mm))
    centre_mm = (x + 0.5) * spacing[2], (y + 0.5) * spacing[1]

    panels: list[tuple[str, list[int]]] = [("all together", list(range(len(maps))))]
    panels += [(f"{name}  {dice:.3f}", [number]) for number, (name, dice, _) in enumerate(predictions)]
    rows = -(-len(panels) // _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    width_in = columns * (_SIDE_IN + _GAP_IN) + _GAP_IN
    height_in = _HEAD_IN + rows * (_SIDE_IN + _TITLE_IN + _GAP_IN)
    figure = Figure(figsize=(width_in, height_in), facecolor=_BACKGROUND)
    text_y = 1 - _HEAD_IN / 2 / height_in
    figure.text(
        _GAP_IN / width_in,
        text_y,
        f"{title}, axial slice {z}",
        color=_TEXT,
        fontsize=10.5,
        va="center",
        parse_math=False,
    )
    figure.legend(
        [Line2D([], [], color=TRUTH_COLOUR, linewidth=2.4)],
        ["truth"],
        loc="center right",
        bbox_to_anchor=(1, text_y),
        frameon=False,
        labelcolor=_TEXT,
        fontsize=10,
    )

    near = _near(plane, (x, y), spacing, side_mm)
    window = grey_window([near])
    for number, (name, shown) in enumerate(panels):
        column, row = number % _COLUMNS, number // _COLUMNS
        left = _GAP_IN + column * (_SIDE_IN + _GAP_IN)
        bottom = height_in - _HEAD_IN - (row + 1) * (_SIDE_IN + _TITLE_IN + _GAP_IN) + _GAP_IN
        axes = figure.add_axes(
            (left / width_in, bottom / height_in, _SIDE_IN / width_in, _SIDE_IN / height_in)
        )
        _bare(axes)
        axes.imshow(
            plane,
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            extent=(0, width_mm, height_mm, 0),
            aspect="auto",
        )
        _contour(axes, true_map[z], spacing, TRUTH_COLOUR, 3.4)
        for system in shown:
            _contour(axes, maps[system][z], spacing, COLOURS[system % len(COLOURS)], 1.5)
        axes.set_xlim(centre_mm[0] - side_mm / 2, centre_mm[0] + side_mm / 2)
        axes.set_ylim(centre_mm[1] + side_mm / 2, centre_mm[1] - side_mm / 2)
        colour = COLOURS[shown[0] % len(COLOURS)] if number else _SOFT
        axes.set_title(name, color=colour, fontsize=9.5, pad=4, loc="left", parse_math=False)
        if not number:
            letters(axes, VIEWS[0])
            _scale(axes, (centre_mm[0] - side_mm / 2, centre_mm[1] + side_mm / 2), side_mm)
    return png(figure, dpi=130)


def _scale(axes: Axes, corner_mm: tuple[float, float], side_mm: float) -> None:
    """A bar of a round length in the lower left corner of a panel, and how long it is."""
    bar = max(length for length in (1, 2, 5, 10, 20, 50, 100) if length <= max(0.3 * side_mm, 1))
    x, y = corner_mm[0] + 0.04 * side_mm, corner_mm[1] - 0.04 * side_mm
    axes.plot([x, x + bar], [y, y], color=_TEXT, linewidth=2.5, solid_capstyle="butt")
    axes.text(x, y - 0.015 * side_mm, f"{bar} mm", color=_TEXT, fontsize=8.5, va="bottom")


def _near(
    plane: np.ndarray, centre_xy: tuple[int, int], spacing: tuple[float, float, float], side_mm: float
) -> np.ndarray:
    """The part of the slice that the panels show, for its range of grey values."""
    box = []
    for index, step in ((centre_xy[1], spacing[1]), (centre_xy[0], spacing[2])):
        reach = int(side_mm / 2 / step) + 1
        box.append(slice(max(index - reach, 0), index + reach + 1))
    return plane[tuple(box)]


def _bare(axes: Axes) -> None:
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _contour(
    axes: Axes, labels: np.ndarray, spacing: tuple[float, float, float], colour: str, width: float
) -> None:
    edges = outline(labels, (spacing[1], spacing[2]))
    lines = LineCollection(list(edges), colors=colour, linewidths=width, capstyle="projecting", snap=True)
    axes.add_collection(lines, autolim=False)

"""One slice of one case with the contours of several systems beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from focalis.report.figure import TRUTH_COLOUR, png
from focalis.report.slice_drawing import (
    AXIAL,
    BACKGROUND,
    SOFT,
    TEXT,
    canonical,
    draw_slice,
    find_focus,
    grey_window,
    letters,
    near,
    scale_bar,
    zoom,
)
from focalis.volume import Volume

COLOURS = (
    *("#35b6ff", "#ff5d9e", "#4fd86b", "#ff7d3b", "#b18cff", "#2ed9cf"),
    *("#f2f2f2", "#e0463c", "#5b6cff", "#b07d5c", "#98a3ad", "#ffb3d9"),
    *("#c6e84a", "#a8231e", "#1f8f5f", "#d9a3ff", "#7fd3ff", "#8a5a9c"),
)
"""One for each of as many systems as there are losses; then they come again."""
_COLUMNS, _SIDE_IN, _GAP_IN, _HEAD_IN, _TITLE_IN = 4, 2.45, 0.08, 0.34, 0.26


def contours_figure(
    image: Volume, truth: Volume, predictions: Sequence[tuple[str, float, Volume]], title: str
) -> bytes:
    """Draw one axial slice through the largest true lesion: all contours together, then each system on its own.

    Every panel shows the same piece of the slice, the lesion enlarged, in radiological convention, with exact voxel
    outlines; the truth is drawn in each.

    Args:
        truth: label map on the image's grid.
        predictions: name, Dice and label map (on the image's grid) of each system.
        title: a line of plain text.

    Returns:
        A PNG file.

    Raises:
        DataError: if the grids differ.
    """
    others = [("truth", truth), *((name, volume) for name, _, volume in predictions)]
    first, *labels = canonical(image, others, title)
    true_map, *maps = (volume.array for volume in labels)
    spacing = first.grid.spacing_zyx_mm
    pair = spacing[1:]
    anything = np.any([array != 0 for array in maps], axis=0)
    focus = find_focus(true_map != 0, anything, spacing)
    z, y, x = focus.voxel_zyx
    plane = first.array[z]
    longest_mm = max(count * step for count, step in zip(plane.shape, pair, strict=True))
    side_mm = min(max(2.2 * focus.extent_mm, 24 * min(spacing)), longest_mm)

    panels: list[tuple[str, list[int]]] = [("all together", list(range(len(maps))))]
    panels += [(f"{name}  {dice:.3f}", [number]) for number, (name, dice, _) in enumerate(predictions)]
    rows = -(-len(panels) // _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    width_in = columns * (_SIDE_IN + _GAP_IN) + _GAP_IN
    height_in = _HEAD_IN + rows * (_SIDE_IN + _TITLE_IN + _GAP_IN)
    figure = Figure(figsize=(width_in, height_in), facecolor=BACKGROUND)
    text_y = 1 - _HEAD_IN / 2 / height_in
    figure.text(
        _GAP_IN / width_in,
        text_y,
        f"{title}, axial slice {z}",
        color=TEXT,
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
        labelcolor=TEXT,
        fontsize=10,
    )

    window = grey_window([near(plane, (y, x), pair, side_mm)])
    for number, (name, shown) in enumerate(panels):
        column, row = number % _COLUMNS, number // _COLUMNS
        left = _GAP_IN + column * (_SIDE_IN + _GAP_IN)
        bottom = height_in - _HEAD_IN - (row + 1) * (_SIDE_IN + _TITLE_IN + _GAP_IN) + _GAP_IN
        axes = figure.add_axes(
            (left / width_in, bottom / height_in, _SIDE_IN / width_in, _SIDE_IN / height_in)
        )
        outlines = [(true_map[z], TRUTH_COLOUR, 3.4)]
        outlines += [(maps[system][z], COLOURS[system % len(COLOURS)], 1.5) for system in shown]
        draw_slice(axes, plane, outlines, pair, window)
        zoom(axes, ((y + 0.5) * pair[0], (x + 0.5) * pair[1]), side_mm)
        colour = COLOURS[shown[0] % len(COLOURS)] if number else SOFT
        axes.set_title(name, color=colour, fontsize=9.5, pad=4, loc="left", parse_math=False)
        if not number:
            letters(axes, AXIAL)
            scale_bar(axes)
    return png(figure, dpi=130)

"""Draw a cut through a volume: where to cut so that a lesion is seen, grey values, exact outlines, sides, scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.lesions import label_components
from focalis.volume import Volume, to_canonical

BACKGROUND, TEXT, SOFT = "#0f1215", "#e6e9ec", "#9aa3ab"


@dataclass(frozen=True)
class Focus:
    """What a picture is about.

    Attributes:
        voxel_zyx: the voxel that all three cuts go through.
        extent_mm: the longest side of the lesion's bounding box; 0 if there is no lesion.
    """

    voxel_zyx: tuple[int, int, int]
    extent_mm: float


@dataclass(frozen=True)
class Cut:
    """The axis that a cut fixes, the axes (of z, y, x) along its rows and columns, and what lies at its sides."""

    axis: int
    rows: int
    columns: int
    upwards: bool
    left: str
    right: str
    top: str
    bottom: str


AXIAL = Cut(0, 1, 2, False, "R", "L", "A", "P")
CUTS = (AXIAL, Cut(1, 0, 2, True, "R", "L", "S", "I"), Cut(2, 0, 1, True, "A", "P", "S", "I"))


def canonical(image: Volume, others: Iterable[tuple[str, Volume]], title: str) -> tuple[Volume, ...]:
    """The image and the others in canonical order; DataError if the grid of one of them differs from the image's."""
    found = [to_canonical(image)]
    for name, other in others:
        if differences := image.grid.differences(other.grid):
            raise DataError.at(title, f"image and {name} lie on different grids: {'; '.join(differences)}")
        found.append(to_canonical(other))
    return tuple(found)


def find_focus(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]
) -> Focus:
    """The middle of the largest true lesion, else of the largest predicted one, else of the volume.

    The middle is the lesion's own voxel nearest to its centre of gravity, so a bent lesion is still cut.
    """
    mask = truth if truth.any() else predicted
    if not mask.any():
        z, y, x = (size // 2 for size in mask.shape)
        return Focus((z, y, x), 0.0)
    labelled, _ = label_components(mask)
    largest = int(np.argmax(np.bincount(labelled[mask])))
    voxels = np.argwhere(labelled == largest)
    spacing = np.asarray(spacing_zyx_mm)
    away = (((voxels - voxels.mean(axis=0)) * spacing) ** 2).sum(axis=1)
    z, y, x = (int(i) for i in voxels[int(np.argmin(away))])
    sides = (voxels.max(axis=0) - voxels.min(axis=0) + 1) * spacing
    return Focus((z, y, x), float(sides.max()))


def outline(labels: NDArray[np.integer], spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """The pixel edges between different values of a plane, the edge of the plane included.

    Args:
        labels: shape (rows, columns); beyond it lies 0.
        spacing_mm: of rows and columns.

    Returns:
        Line segments, shape (n, 2, 2): two ends, each (column, row) in mm from the plane's corner.
    """
    padded = np.pad(labels, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    across = np.stack([np.stack([columns - 1, rows], 1), np.stack([columns, rows], 1)], 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    along = np.stack([np.stack([columns, rows - 1], 1), np.stack([columns, rows], 1)], 1)
    segments: NDArray[np.float64] = np.concatenate([across, along]).astype(np.float64)
    segments *= np.asarray([spacing_mm[1], spacing_mm[0]])
    return segments


def bare(axes: Axes) -> None:
    """Leave nothing of the axes but a black background."""
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def grey_window(planes: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """The values shown as black and white: the 1st and the 99.5th percentile of all finite values."""
    values = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [1, 99.5])
    if high <= low:
        low, high = values.min(), values.max()
    return float(low), float(high if high > low else low + 1)


def near(
    plane: NDArray[Any], centre: tuple[int, int], spacing_mm: tuple[float, float], side_mm: float
) -> NDArray[Any]:
    """The part of a plane in a square around a pixel; centre and spacing by rows and columns."""
    box = []
    for index, step in zip(centre, spacing_mm, strict=True):
        reach = int(side_mm / 2 / step) + 1
        box.append(slice(max(index - reach, 0), index + reach + 1))
    return plane[tuple(box)]


def draw_slice(
    axes: Axes,
    grey: NDArray[Any] | None,
    outlines: Sequence[tuple[NDArray[np.integer], str, float]],
    spacing_mm: tuple[float, float],
    window: tuple[float, float] | None = None,
    *,
    upwards: bool = False,
) -> None:
    """Draw a plane in mm, and over it the outlines of label planes, the last one on top.

    Args:
        axes: where to; it is left bare.
        grey: the image's plane, shape (rows, columns); None for outlines alone.
        outlines: label plane, colour and width of each.
        spacing_mm: of rows and columns.
        window: the values shown as black and white; by default `grey_window` of the plane.
        upwards: draw the first row at the bottom.
    """
    bare(axes)
    if grey is not None:
        height, width = grey.shape[0] * spacing_mm[0], grey.shape[1] * spacing_mm[1]
        low, high = window or grey_window([grey])
        axes.imshow(
            grey,
            cmap="gray",
            vmin=low,
            vmax=high,
            origin="lower" if upwards else "upper",
            extent=(0, width, 0, height) if upwards else (0, width, height, 0),
            aspect="auto",
        )
    for labels, colour, thickness in outlines:
        # Snapped to whole pixels: two outlines on one edge show as two colours and not as their mixture.
        lines = LineCollection(
            list(outline(labels, spacing_mm)),
            colors=colour,
            linewidths=thickness,
            capstyle="projecting",
            snap=True,
        )
        axes.add_collection(lines, autolim=False)


def zoom(axes: Axes, centre_mm: tuple[float, float], side_mm: float, *, upwards: bool = False) -> None:
    """Show a square of the plane around a place (row, column)."""
    row, column = centre_mm
    axes.set_xlim(column - side_mm / 2, column + side_mm / 2)
    axes.set_ylim(*(row + step * side_mm / 2 for step in ((-1, 1) if upwards else (1, -1))))


def scale_bar(axes: Axes) -> None:
    """A bar of a round length in the lower left corner of what the axes show, and how long it is."""
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    side = right - left
    length = max(each for each in (1, 2, 5, 10, 20, 50, 100) if each <= max(0.3 * side, 1))
    x, y = left + 0.04 * side, bottom - 0.04 * side
    axes.plot([x, x + length], [y, y], color=TEXT, linewidth=2.5, solid_capstyle="butt")
    axes.text(x, y - 0.015 * side, f"{length} mm", color=TEXT, fontsize=8.5, va="bottom")


def letters(axes: Axes, cut: Cut) -> None:
    """Write the patient's sides at the edges of a cut."""
    places = ((cut.left, 0.02, 0.5), (cut.right, 0.98, 0.5), (cut.top, 0.5, 0.97), (cut.bottom, 0.5, 0.03))
    for letter, x, y in places:
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            color=SOFT,
            fontsize=8,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )

"""Measurements of each lesion: volume, diameters, position, probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.lesions.components import label_components
from focalis.lesions.probability import temper
from focalis.volume import Grid

Point = tuple[float, float, float]
"""A place in the patient: x, y, z in mm, LPS."""

MEASURING_RULE = (
    "Diameters run between the outer faces of the outermost voxels. The longest axial diameter and the "
    "longest line perpendicular to it lie in one slice of the image plane that is nearest to the "
    "patient's axial plane; the slice is the one where the diameter is longest. Where a lesion is hollow "
    "or bent, its convex hull is measured."
)

_SAME_LENGTH_MM = 1e-6


@dataclass(frozen=True)
class Line:
    """A straight line in the patient, as a reader draws it with callipers."""

    length_mm: float
    ends_lps_mm: tuple[Point, Point]


@dataclass(frozen=True, repr=False)
class Lesion(Shown):
    """One lesion, a connected component of one label. Measured by `MEASURING_RULE`.

    Attributes:
        number: from 1, per label, as `label_components` numbers them.
        longest_axial: the longest diameter in an axial slice, as in RECIST 1.1.
        perpendicular: the longest line across it at right angles in the same slice.
        longest_3d: the longest diameter in space.
        centroid_lps_mm: the mean of the voxels' centres; of a bent lesion it may lie outside.
        slice_axis: along which axis of the image the axial slices are stacked: x, y or z (z for an image of
            axial slices).
        slice_index: the slice of the two axial lines, counted from 0 along that axis.
        mean_probability: mean foreground probability of its voxels; None without probabilities.
        confidence: the highest foreground probability in it: what rises as the model is surer that there is a
            lesion at all; None without probabilities.
        uncertainty: how far repeated passes of the model disagree about it, 0 to 1, see `disagreement`; None if
            there was one pass.
    """

    shows = ("number", "name", "volume_mm3", "centroid_lps_mm", "confidence", "uncertainty")

    number: int
    label: int
    name: str
    voxels: int
    volume_mm3: float
    longest_axial: Line
    perpendicular: Line
    longest_3d: Line
    centroid_lps_mm: Point
    slice_axis: str
    slice_index: int
    mean_probability: float | None = None
    confidence: float | None = None
    uncertainty: float | None = None


def measure_lesions(
    labels: NDArray[np.integer],
    grid: Grid,
    names: Mapping[int, str],
    probability: NDArray[np.floating] | None = None,
    uncertainty: NDArray[np.floating] | None = None,
    temperature: float = 1.0,
) -> tuple[Lesion, ...]:
    """Measure every lesion of a label map: by label, then by number.

    Args:
        labels: label values, shape (z, y, x).
        grid: their grid, of any spacing and direction.
        names: label value to name, without the background 0; other values are not measured.
        probability: foreground probability of every voxel, shape (z, y, x).
        uncertainty: standard deviation of the foreground probability over passes, shape (z, y, x); used with
            `probability` only.
        temperature: by which `probability` was tempered, and `uncertainty` was not.
    """
    return tuple(
        lesion
        for value in sorted(names)
        for lesion in measure_components(
            label_components((labels == value).astype(bool))[0],
            grid,
            value,
            names[value],
            probability,
            uncertainty,
            temperature,
        )
    )


def measure_components(
    labelled: NDArray[np.int32],
    grid: Grid,
    label: int,
    name: str,
    probability: NDArray[np.floating] | None = None,
    uncertainty: NDArray[np.floating] | None = None,
    temperature: float = 1.0,
) -> Iterator[Lesion]:
    """The lesions of one label whose components are numbered already, see `label_components`; in their order.

    Args:
        labelled: the components' numbers, shape (z, y, x).
    """
    axis = axial_axis(grid)
    for number, box in enumerate(scipy.ndimage.find_objects(labelled), start=1):
        inside = labelled[box] == number
        place = tuple(side.start for side in box)
        voxels = int(np.count_nonzero(inside))
        yield Lesion(
            number=number,
            label=label,
            name=name,
            voxels=voxels,
            volume_mm3=voxels * grid.voxel_volume_mm3,
            **_shape(inside, place, grid, axis),
            **_certainty(inside, box, probability, uncertainty, temperature),
        )


def axial_axis(grid: Grid) -> int:
    """The array axis (0, 1, 2 for z, y, x) along which the slices nearest to the patient's axial plane are stacked."""
    return 2 - int(np.abs(grid.direction_matrix[2]).argmax())


def disagreement(mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> float:
    """How far passes disagree about a region, from 0 (all alike) towards 1.

    It is sum(s^2) / sum(m^2 + s^2) over the region's voxels, with the mean m of the passes' probabilities and their
    standard deviation s: one minus the soft Dice (with squares) of two passes drawn at random, with replacement. A
    lesion that half of the passes lack gets a half; one whose border alone wavers, little.

    Args:
        mean: foreground probabilities of the region's voxels, any shape.
        deviation: their standard deviation over the passes (divisor: their number), same shape.
    """
    spread = float(np.square(deviation, dtype=np.float64).sum())
    whole = float(np.square(mean, dtype=np.float64).sum()) + spread
    return spread / whole if whole > 0 else 0.0


def _certainty(
    inside: NDArray[np.bool_],
    box: tuple[slice, ...],
    probability: NDArray[np.floating] | None,
    uncertainty: NDArray[np.floating] | None,
    temperature: float,
) -> dict[str, Any]:
    if probability is None:
        return {}
    values = probability[box][inside]
    return {
        "mean_probability": float(values.mean(dtype=np.float64)),
        "confidence": float(values.max()),
        # Mean and deviation of the same passes, before any temperature.
        "uncertainty": None
        if uncertainty is None
        else disagreement(temper(values, 1 / temperature), uncertainty[box][inside]),
    }


def _shape(inside: NDArray[np.bool_], place_zyx: tuple[int, ...], grid: Grid, axis: int) -> dict[str, Any]:
    """Place and diameters of the component `inside` its bounding box, which starts at `place_zyx`."""
    spacing = np.asarray(grid.spacing_zyx_mm)
    outermost = _outermost(inside) + np.asarray(place_zyx)
    centroid = _centroid(inside) + np.asarray(place_zyx)
    corners = _hull(_faces(outermost, (0, 1, 2)) * spacing)
    flat = [other for other in range(3) if other != axis]
    best: tuple[float, float, int, NDArray[np.float64]] | None = None
    for index in np.unique(outermost[:, axis]):
        around = _hull(_faces(outermost[outermost[:, axis] == index][:, flat], (0, 1)) * spacing[flat])
        length = float(np.linalg.norm(np.subtract(*_farthest(around))))
        away = abs(index - centroid[axis])
        # Slices of the same diameter, as in a cylinder: the one in the middle of the lesion.
        longer = best is None or length > best[0] + _SAME_LENGTH_MM
        if best is None or longer or (length > best[0] - _SAME_LENGTH_MM and away < best[1]):
            best = (length, away, int(index), around)
    assert best is not None, "a component has voxels"
    _, _, index, around = best
    ends = _farthest(around)

    def in_slice(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.insert(points, axis, index * spacing[axis], axis=1)

    return {
        "longest_axial": _line(in_slice(ends), grid),
        "perpendicular": _line(in_slice(_across(around, ends)), grid),
        "longest_3d": _line(_farthest(corners), grid),
        "centroid_lps_mm": _patient(centroid * spacing, grid),
        "slice_axis": "zyx"[axis],
        "slice_index": index,
    }


def _centroid(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean place of the voxels that are true, from how many lie in each plane: no list of them is made."""
    planes = [inside.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return np.array([np.average(np.arange(len(counts)), weights=counts) for counts in planes])


def _outermost(inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The first and last voxel of every row along x: all that a convex hull, of a slice or in space, can touch.

    Rows run along x; if the slices are stacked along x, the rows of a slice run along y, so both are taken.
    """
    kept = np.zeros_like(inside)
    for axis in (1, 2):
        before = np.maximum.accumulate(inside, axis=axis)
        behind = np.flip(np.maximum.accumulate(np.flip(inside, axis), axis=axis), axis)
        first = inside & ~_shifted(before, axis, 1)
        last = inside & ~_shifted(behind, axis, -1)
        kept |= first | last
    return np.argwhere(kept)


def _shifted(mask: NDArray[np.bool_], axis: int, step: int) -> NDArray[np.bool_]:
    """The mask moved by one voxel along an axis; False moves in."""
    result = np.zeros_like(mask)
    inner, outer = [slice(None)] * 3, [slice(None)] * 3
    inner[axis], outer[axis] = (
        (slice(1, None), slice(None, -1)) if step > 0 else (slice(None, -1), slice(1, None))
    )
    result[tuple(inner)] = mask[tuple(outer)]
    return result


def _faces(voxels: NDArray[np.intp], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """The middles of the voxels' faces, where a surface mesh of the mask would pass; in voxels."""
    offsets = np.zeros((2 * len(axes), voxels.shape[1]))
    for row, axis in enumerate(axes):
        offsets[2 * row, axis], offsets[2 * row + 1, axis] = 0.5, -0.5
    points: NDArray[np.float64] = (voxels[:, None] + offsets).reshape(-1, voxels.shape[1])
    return points


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of the convex hull, in two dimensions in their order around it."""
    corners: NDArray[np.float64] = points[scipy.spatial.ConvexHull(points).vertices]
    return corners


def _farthest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The two points that lie farthest apart, shape (2, dimensions); the first such pair."""
    best, pair = -1.0, (0, 0)
    for first, point in enumerate(points):
        away = np.square(points[first:] - point).sum(axis=1)
        second = int(away.argmax())
        if away[second] > best:
            best, pair = float(away[second]), (first, first + second)
    return points[list(pair)]


def _across(around: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longest line at right angles to `ends` inside the convex polygon with the corners `around`.

    The polygon's width is a concave function along the line that bends at corners only, so it is greatest at one.
    """
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    sideways = np.asarray([-along[1], along[0]])
    places, heights = around @ along, around @ sideways
    best, chosen = -1.0, (0.0, 0.0, 0.0)
    for place in places:
        crossings = list(_crossings(places - place, heights))
        low, high = min(crossings), max(crossings)
        if high - low > best:
            best, chosen = high - low, (float(place), low, high)
    place, low, high = chosen
    return np.stack([place * along + low * sideways, place * along + high * sideways])


def _crossings(places: NDArray[np.float64], heights: NDArray[np.float64]) -> Iterator[float]:
    """The heights at which a closed polygon crosses place 0."""
    following, above = np.roll(places, -1), np.roll(heights, -1)
    for p, q, low, high in zip(places, following, heights, above, strict=True):
        if p == 0:
            yield float(low)
        elif p * q < 0:
            yield float(low + (high - low) * p / (p - q))


def _line(ends_zyx_mm: NDArray[np.float64], grid: Grid) -> Line:
    first, second = (_patient(end, grid) for end in ends_zyx_mm)
    return Line(float(np.linalg.norm(ends_zyx_mm[1] - ends_zyx_mm[0])), (first, second))


def _patient(place_zyx_mm: NDArray[np.float64], grid: Grid) -> Point:
    """A place along the image's axes, from the centre of its first voxel, in the patient."""
    x, y, z = np.asarray(grid.origin_xyz_mm) + grid.direction_matrix @ place_zyx_mm[::-1]
    return float(x), float(y), float(z)

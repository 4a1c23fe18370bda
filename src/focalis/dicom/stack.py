"""Sort slices by position into a stack, and check that they lie on one regular grid."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focalis.dicom.slices import Slice
from focalis.dicom.uniform import REQUIRED, Reading, alternating
from focalis.display import listed
from focalis.errors import DataError
from focalis.volume import Grid

COSINE_TOLERANCE = 1e-4
"""Direction cosines of one stack may differ by this: a pixel 500 mm from the first one moves by 0.05 mm."""

PIXEL_SPACING_TOLERANCE_MM = 1e-4
"""Pixel spacings of one stack may differ by this: the five hundredth pixel moves by 0.05 mm."""

UNIT_TOLERANCE = 1e-3
"""Direction cosines may be off unit length and right angle by this, as cosines of three decimals are."""

ECHO_TIME_TOLERANCE_MS = 0.5
"""Echo times of one stack may differ by this: echoes lie further apart."""

SAME_PLACE_MM = 0.01
"""Slices closer than this lie at one place: no scanner makes slices so thin."""

PLACE_TOLERANCE = 0.1
"""A slice may lie off its place on the regular grid by this share of the voxel: a contour does not show it."""

ROUNDING_MM = 0.1
"""It may also lie off by this, though by no more than twice that share: positions are often rounded to 0.1 mm."""

_NAMED = 4


def stack(slices: Sequence[Slice]) -> tuple[list[Slice], Grid]:
    """Sort slices along their normal (row x column, PS3.3 C.7.6.2.1.1) and lay the grid through them.

    Args:
        slices: one or more, in any order; file names and instance numbers do not count.

    Returns:
        The slices by ascending position along the normal, and their grid: x along a row, y down a column, z
        along the normal.

    Raises:
        DataError: the slices differ in series, frame of reference, size, orientation or pixel spacing, or in what
            `focalis.dicom.uniform` requires to agree; acquisitions take turns along the normal; two slices lie
            at one place; one is missing; they are unevenly spaced; or they are stacked askew (gantry tilt).
            The message names the slices.
    """
    names = _Names(slices)
    for phrase, property_of, tolerance, advice in _UNIFORM:
        _require_uniform(slices, names, phrase, property_of, tolerance, advice)
    for phrase, reading, advice in REQUIRED:
        _require_uniform(slices, names, phrase, _property(reading), 0, advice)
    axes = _axes(slices[0], names)
    positions = np.array([each.position_xyz_mm for each in slices])
    order = np.argsort(positions @ axes[2], kind="stable")
    ordered = [slices[i] for i in order]
    _require_one_acquisition(ordered, names)
    # along a row, down a column, along the normal, from the first slice
    offsets = (positions[order] - positions[order[0]]) @ axes.T
    spacing_z = _slice_spacing(ordered, names, offsets[:, 2])
    _require_straight(ordered, names, offsets[:, :2], offsets[:, 2])
    first = ordered[0]
    return ordered, Grid(
        size_xyz=(*first.size_xy, len(ordered)),
        spacing_xyz_mm=(*first.spacing_xy_mm, spacing_z),
        origin_xyz_mm=first.position_xyz_mm,
        direction=tuple(float(value) for value in axes.T.ravel()),
    )


def _shown(values: Sequence[float], times: str) -> str:
    return times.join(f"{value:g}" for value in np.round(values, 6) + 0.0)


def _echo_time_ms(each: Slice) -> float:
    """The echo time; -1 where a slice names none."""
    try:
        return float(each.said.get("EchoTime") or -1)
    except ValueError:
        return -1


Property = Callable[[Slice], tuple[Sequence[float] | str, str]]
# what must agree among slices: its value (numbers within the tolerance, or text) and how a person reads it
_UNIFORM: tuple[tuple[str, Property, float, str], ...] = (
    (
        "series",
        lambda each: (each.series_uid, each.series_uid or "no UID"),
        0,
        "give the files of one series",
    ),
    (
        "orientation (cosines of row and column)",
        lambda each: (each.orientation, _shown(each.orientation, " ")),
        COSINE_TOLERANCE,
        "these are localizers or several stacks: give the files of one stack",
    ),
    (
        "size (columns x rows)",
        lambda each: (each.size_xy, _shown(each.size_xy, " x ")),
        0,
        "give the files of one stack",
    ),
    (
        "pixel spacing (x, y)",
        lambda each: (each.spacing_xy_mm, _shown(each.spacing_xy_mm, " x ") + " mm"),
        PIXEL_SPACING_TOLERANCE_MM,
        "give the files of one stack",
    ),
    (
        "echo time",
        lambda each: ((_echo_time_ms(each),), each.said.get("EchoTime") or "none"),
        ECHO_TIME_TOLERANCE_MS,
        "give the files of one echo",
    ),
    (
        "frame of reference",
        lambda each: (each.frame_of_reference, each.frame_of_reference or "no UID"),
        0,
        "their positions cannot be compared: give the files of one acquisition",
    ),
)


class _Names:
    """How messages name slices: the common folder (or file) in front, then file, frame and position."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        files = {each.file for each in slices}
        self.folder = Path(os.path.commonpath([file.parent for file in files]))
        self.where = next(iter(files)) if len(files) == 1 else self.folder

    def of(self, each: Slice) -> str:
        """Name and position along the slice's own normal."""
        row, column = np.reshape(each.orientation, (2, 3))
        place = float(np.dot(np.cross(row, column), each.position_xyz_mm))
        file = each.file.relative_to(self.folder)
        name = f"{file} frame {each.frame}" if each.frames > 1 else str(file)
        return f"{name} at {place + 0.0:.2f} mm"

    def some(self, slices: Sequence[Slice]) -> str:
        return listed([self.of(each) for each in slices], _NAMED)

    def error(self, what: str, advice: str) -> DataError:
        return DataError.at(self.where, what, advice)


def _require_uniform(
    slices: Sequence[Slice], names: _Names, phrase: str, property_of: Property, tolerance: float, advice: str
) -> None:
    groups: list[tuple[Sequence[float] | str, str, list[Slice]]] = []
    for each in slices:
        value, shown = property_of(each)
        for known, _, members in groups:
            if known == value or (
                not isinstance(value, str) and float(np.max(np.abs(np.subtract(known, value)))) <= tolerance
            ):
                members.append(each)
                break
        else:
            groups.append((value, shown, [each]))
    if len(groups) > 1:
        groups.sort(key=lambda group: len(group[2]))
        # the smallest groups are the odd ones out
        listed = "; ".join(
            f"{shown} ({len(members)}: {names.some(members)})" for _, shown, members in groups[:_NAMED]
        )
        raise names.error(f"the slices differ in {phrase}: {listed}", advice)


def _property(reading: Reading) -> Property:
    """A property of a slice, as `_require_uniform` compares it."""

    def read(each: Slice) -> tuple[str, str]:
        value = reading(each.said)
        return value, value or "none"

    return read


def _require_one_acquisition(ordered: Sequence[Slice], names: _Names) -> None:
    """Refuse interleaved slices of several acquisitions."""
    if found := alternating([each.said for each in ordered]):
        name, reading = found
        _require_uniform(
            ordered,
            names,
            f"{name}, and take turns",
            _property(reading),
            0,
            "they are several acquisitions between each other: give the files of one",
        )


def _axes(first: Slice, names: _Names) -> NDArray[np.float64]:
    """Unit vectors along a row, down a column and along the normal, as rows; exactly orthonormal."""
    row, column = np.reshape(first.orientation, (2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > UNIT_TOLERANCE:
        raise names.error(
            f"the orientation of {names.of(first)} ({_shown(first.orientation, ' ')}) is not two unit vectors at "
            "a right angle",
            "export the series again",
        )
    row = row / lengths[0]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.array([row, np.cross(normal, row), normal])


def _slice_spacing(ordered: Sequence[Slice], names: _Names, along_mm: NDArray[np.float64]) -> float:
    """The distance between neighbouring slices; refused if it is not the same everywhere."""
    if len(ordered) == 1:
        if ordered[0].thickness_mm is None:
            raise names.error("a single slice without Slice Thickness", "give the whole series")
        return ordered[0].thickness_mm
    gaps = np.diff(along_mm)
    pairs = list(pairwise(ordered))
    if (gaps < SAME_PLACE_MM).any():
        same = [pairs[i] for i in np.flatnonzero(gaps < SAME_PLACE_MM)]
        listed = ", ".join(f"{names.of(a)} and {names.of(b)}" for a, b in same[:_NAMED])
        more = f" and {len(same) - _NAMED} more pairs" if len(same) > _NAMED else ""
        raise names.error(
            f"two slices at one place: {listed}{more}",
            "keep one of each; echoes, phases and b-values must be given one at a time",
        )
    spacing = float(along_mm[-1] / len(gaps))
    off_mm = np.abs(along_mm - spacing * np.arange(len(along_mm)))
    if off_mm.max() > _tolerance_mm(spacing):
        raise _unevenly_spaced(ordered, names, gaps, int(off_mm.argmax()))
    return spacing


def _tolerance_mm(voxel_mm: float) -> float:
    """How far a slice may lie off its place along an axis of this voxel length."""
    share = PLACE_TOLERANCE * voxel_mm
    return min(max(share, ROUNDING_MM), 2 * share) + 1e-6  # for the last digits of decimal strings


def _unevenly_spaced(
    ordered: Sequence[Slice], names: _Names, gaps: NDArray[np.float64], worst: int
) -> DataError:
    """What is wrong with the gaps: slices missing, where a gap is a multiple of the usual one, or uneven."""
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    times = np.round(gaps / usual)
    tolerance_mm = _tolerance_mm(usual)
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance_mm)
    listed = ", ".join(
        f"{gaps[i]:.2f} mm between {names.of(ordered[i])} and {names.of(ordered[i + 1])}"
        for i in wrong[:_NAMED]
    )
    listed += f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    if len(wrong) and all(times[i] > 1 and abs(gaps[i] - times[i] * usual) <= tolerance_mm for i in wrong):
        count = int(sum(times[wrong] - 1))
        lack = "1 slice is missing" if count == 1 else f"{count} slices are missing"
        return names.error(f"{lack}: {listed}, elsewhere {usual:.2f} mm", "export the whole series again")
    listed = listed or f"{names.of(ordered[worst])} lies off its even place"
    return names.error(
        f"the slices are unevenly spaced: {listed}, elsewhere {usual:.2f} mm",
        "slices may be missing: export the series again, or resample it to even slices",
    )


def _require_straight(
    ordered: Sequence[Slice], names: _Names, aside_mm: NDArray[np.float64], along_mm: NDArray[np.float64]
) -> None:
    """Refuse slices that are sheared against each other."""
    allowed_mm = [_tolerance_mm(spacing) for spacing in ordered[0].spacing_xy_mm]
    off = (np.abs(aside_mm) / allowed_mm).max(axis=1)
    if off.max() <= 1:
        return
    worst = int(off.argmax())
    aside = float(np.linalg.norm(aside_mm[worst]))
    angle = float(np.degrees(np.arctan2(aside, along_mm[worst])))
    raise names.error(
        f"the slices are stacked askew, as with a tilted gantry: {names.of(ordered[worst])} lies {aside:.2f} mm "
        f"to the side of {names.of(ordered[0])} ({angle:.1f} degrees)",
        "straighten the series first, for example with dcm2niix",
    )

"""How lesions change between two dates, and whether that is more than the measurement error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from focalis.display import Shown
from focalis.followup.error import MeasurementError
from focalis.followup.study import Study
from focalis.followup.timeline import Track
from focalis.lesions import axial_axis

CHANGE_RULE = (
    "Volumes and diameters are taken on each scan's own grid. A lesion in several pieces has the sum of their volumes "
    "and of their diameters; where lesions have merged, the merged one is compared with the sum of what it was. Growth "
    "is taken as exponential: the doubling time is days x ln 2 / ln(later / earlier volume), the growth rate the "
    "change in 30 days. Both need dates, and the doubling time a change beyond a measurement error that is known."
)
RATE_DAYS = 30


@dataclass(frozen=True)
class Size:
    """A lesion's size on one date.

    Attributes:
        volume_mm3, volume_sd_mm3: its volume and its standard error.
        longest_axial_mm, longest_axial_sd_mm: its longest axial diameter, as in RECIST 1.1, likewise.
        perpendicular_mm: the longest diameter across it.
        longest_3d_mm: the longest diameter in space.
        cut: whether it reaches the border of the scan, so that a part of it may be missing.
    """

    volume_mm3: float
    volume_sd_mm3: float
    longest_axial_mm: float
    longest_axial_sd_mm: float
    perpendicular_mm: float
    longest_3d_mm: float
    pieces: int
    cut: bool


@dataclass(frozen=True)
class Change:
    """How a lesion changed from one date to another.

    Attributes:
        since: the earlier date, counted from 0.
        days: between both; None without dates.
        volume_percent: change of the volume; -100 for one that is gone.
        volume_limits_percent: what measurement error alone would show, in 95 % of the time.
        diameter_percent, diameter_mm: change of the longest axial diameter.
        diameter_limit_mm: what measurement error alone would show, either way.
        doubling_days: negative for the time in which it halves; None without dates, within measurement error or where
            it is not known, if it is gone, or if it is not reliable.
        growth_percent_per_30_days: None without dates, or if it is gone.
        growth_limits: its interval of 95 %.
        reliable: False if it reaches the border of either scan.
        error_known: False if no mask was repeated: the error of the voxels alone is smaller than the true one.
    """

    since: int
    days: int | None
    volume_percent: float
    volume_limits_percent: tuple[float, float]
    volume_beyond_error: bool
    diameter_percent: float
    diameter_mm: float
    diameter_limit_mm: float
    diameter_beyond_error: bool
    doubling_days: float | None
    growth_percent_per_30_days: float | None
    growth_limits: tuple[float, float] | None
    reliable: bool
    error_known: bool = True

    def verdict(self, *, beyond: bool) -> str:
        """Whether a change is beyond the measurement error, in words."""
        if not self.error_known:
            return "measurement error not known"
        return "beyond measurement error" if beyond else "within measurement error"


def size_on(track: Track, day: int, study: Study, error: MeasurementError) -> Size | None:
    """A lesion's size on a date; None if it is not there."""
    pieces = [study.pieces[piece] for piece in track.sightings[day].pieces]
    if not pieces:
        return None
    axis = axial_axis(study.image.grid)
    in_plane = max(mm for other, mm in enumerate(study.image.grid.spacing_zyx_mm) if other != axis)
    lesions = [each.lesion for each in pieces]
    return Size(
        volume_mm3=sum(each.volume_mm3 for each in lesions),
        volume_sd_mm3=float(np.linalg.norm([error.volume_sd_mm3(each) for each in pieces])),
        longest_axial_mm=sum(each.longest_axial.length_mm for each in lesions),
        longest_axial_sd_mm=error.diameter_sd_mm(in_plane) * float(np.sqrt(len(pieces))),
        perpendicular_mm=sum(each.perpendicular.length_mm for each in lesions),
        longest_3d_mm=sum(each.longest_3d.length_mm for each in lesions),
        pieces=len(pieces),
        cut=any(each.cut for each in pieces),
    )


def together(sizes: Sequence[Size]) -> Size:
    """Several lesions taken as one."""
    return Size(
        volume_mm3=sum(each.volume_mm3 for each in sizes),
        volume_sd_mm3=float(np.linalg.norm([each.volume_sd_mm3 for each in sizes])),
        longest_axial_mm=sum(each.longest_axial_mm for each in sizes),
        longest_axial_sd_mm=float(np.linalg.norm([each.longest_axial_sd_mm for each in sizes])),
        perpendicular_mm=sum(each.perpendicular_mm for each in sizes),
        longest_3d_mm=sum(each.longest_3d_mm for each in sizes),
        pieces=sum(each.pieces for each in sizes),
        cut=any(each.cut for each in sizes),
    )


def change(
    since: int,
    before: Size,
    after: Size | None,
    days: int | None,
    quantile: float,
    *,
    error_known: bool = True,
) -> Change:
    """How a lesion changed.

    Args:
        since: the earlier date, counted from 0.
        before, after: its sizes; None for one that is gone.
        days: between both; None without dates. On one day there are no rates.
        quantile: see `MeasurementError.quantile`.
    """
    relative = before.volume_sd_mm3 / before.volume_mm3
    length_sd = before.longest_axial_sd_mm
    if after is not None:
        relative = float(np.hypot(relative, after.volume_sd_mm3 / after.volume_mm3))
        length_sd = float(np.hypot(length_sd, after.longest_axial_sd_mm))
    limit, length_limit = quantile * relative, quantile * length_sd
    longer = (0.0 if after is None else after.longest_axial_mm) - before.longest_axial_mm
    growth = None if after is None else float(np.log(after.volume_mm3 / before.volume_mm3))
    beyond = growth is None or abs(growth) > limit
    reliable = not before.cut and not (after is not None and after.cut)
    doubling = rate = limits = None
    if growth is not None and days:
        per_day = RATE_DAYS / days
        rate = _percent(growth * per_day)
        limits = _percent((growth - limit) * per_day), _percent((growth + limit) * per_day)
        doubling = days * float(np.log(2)) / growth if beyond and reliable and error_known else None
    return Change(
        since=since,
        days=days,
        volume_percent=-100.0 if growth is None else _percent(growth),
        volume_limits_percent=(_percent(-limit), _percent(limit)),
        volume_beyond_error=beyond,
        diameter_percent=100 * longer / before.longest_axial_mm,
        diameter_mm=longer,
        diameter_limit_mm=length_limit,
        diameter_beyond_error=after is None or abs(longer) > length_limit,
        doubling_days=doubling,
        growth_percent_per_30_days=rate,
        growth_limits=limits,
        reliable=reliable,
        error_known=error_known,
    )


def _percent(log_ratio: float) -> float:
    """A change in percent from the logarithm of a ratio."""
    return float(100 * np.expm1(np.clip(log_ratio, -20, 20)))


@dataclass(frozen=True, repr=False)
class LesionDay(Shown):
    """A lesion on one date, measured.

    Attributes:
        size: None if it is not there.
        since_first: the change since the first date on which it is there; None on that date, or if it is not known.
        since_last: the change since the last date on which it was there.
    """

    size: Size | None
    since_first: Change | None
    since_last: Change | None


def measure(
    tracks: Sequence[Track], studies: Sequence[Study], error: MeasurementError
) -> tuple[tuple[LesionDay, ...], ...]:
    """Every lesion's size and change on every date: of each track, one entry per date."""
    sizes = [[size_on(track, day, study, error) for day, study in enumerate(studies)] for track in tracks]
    return tuple(
        tuple(_day(row, day, tracks, studies, sizes, error) for day in range(len(studies)))
        for row in range(len(tracks))
    )


def _day(
    row: int,
    day: int,
    tracks: Sequence[Track],
    studies: Sequence[Study],
    sizes: Sequence[Sequence[Size | None]],
    error: MeasurementError,
) -> LesionDay:
    after = sizes[row][day]
    there = [other for other in range(day) if sizes[row][other] is not None]
    if not there or (after is None and tracks[row].sightings[day].status != "gone"):
        return LesionDay(after, None, None)

    def since(other: int) -> Change:
        parts = [sizes[row][other], *_merged(tracks, sizes, row, other, day)]
        before = together([size for size in parts if size is not None])
        days = _days(studies, other, day)
        return change(other, before, after, days, error.quantile, error_known=error.repeated > 0)

    return LesionDay(after, since(there[0]), since(there[-1]))


def _merged(
    tracks: Sequence[Track], sizes: Sequence[Sequence[Size | None]], row: int, since: int, day: int
) -> list[Size | None]:
    """The sizes, on an earlier date, of lesions that have merged with one after it, or with one that has."""
    others = (other for other in range(len(tracks)) if other != row)
    return [sizes[other][since] for other in others if part_of(tracks, other, day) == row]


def part_of(tracks: Sequence[Track], row: int, day: int) -> int:
    """The place among the tracks of the lesion that one is a part of on a date; its own if it has not merged."""
    while (number := tracks[row].sightings[day].merged_into) is not None:
        row = number - 1
    return row


def _days(studies: Sequence[Study], one: int, other: int) -> int | None:
    first, second = studies[one].day, studies[other].day
    return None if first is None or second is None else (second - first).days

"""The sum of target diameters and its response category: RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from focalis.errors import UsageError
from focalis.followup.change import LesionDay
from focalis.followup.timeline import THERE, Track

MEASURABLE_MM, MOST_TARGETS = 10.0, 5
PARTIAL_PERCENT, PROGRESSION_PERCENT, PROGRESSION_MM = 30.0, 20.0, 5.0

RECIST_RULE = (
    "RECIST 1.1. Targets are lesions of the first date: those named, else the "
    f"{MOST_TARGETS} largest of {MEASURABLE_MM:g} mm or more in their longest axial diameter. CR: no target is left. "
    f"PR: the sum is {PARTIAL_PERCENT:g} % or more below that of the first date. PD: it is {PROGRESSION_PERCENT:g} % "
    f"or more, and {PROGRESSION_MM:g} mm or more, above the nadir, the least sum so far. SD: none of these. NE: a "
    "target cannot be measured. Focalis does not know organs (RECIST takes two targets of one organ at most) or lymph "
    "nodes (measured across), and assesses no other lesions; new ones are counted, and are PD if confirmed."
)

Response = Literal["baseline", "CR", "PR", "SD", "PD", "NE"]


@dataclass(frozen=True)
class TargetSum:
    """The targets on one date.

    Attributes:
        sum_mm: the sum of their longest axial diameters; None if one of them cannot be measured.
        sum_sd_mm: its standard error.
        nadir_mm: the least sum before this date.
        from_first_percent, from_nadir_percent: its change.
        response: by `RECIST_RULE`.
        new_lesions: how many lesions are new on this date.
        within_error: whether the change since the first date is within measurement error.
    """

    sum_mm: float | None
    sum_sd_mm: float
    nadir_mm: float | None
    from_first_percent: float | None
    from_nadir_percent: float | None
    response: Response
    new_lesions: int
    within_error: bool


@dataclass(frozen=True)
class Targets:
    """The targets, by their identities, and their sums on every date."""

    numbers: tuple[int, ...]
    sums: tuple[TargetSum, ...]


def choose_targets(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], named: Sequence[int]
) -> tuple[int, ...]:
    """The identities of the targets: those named, else the largest measurable ones of the first date.

    Raises:
        UsageError: a named one is not there on the first date.
    """
    first = {
        each.number: days[0].size
        for each, days in zip(tracks, measured, strict=True)
        if days[0].size is not None
    }
    if strangers := sorted(set(named) - set(first)):
        there = ", ".join(str(number) for number in first) or "none"
        raise UsageError(
            f"--targets: lesion {strangers[0]} is not there on the first date; its lesions are {there}"
        )
    if named:
        return tuple(dict.fromkeys(named))
    lengths = {number: size.longest_axial_mm for number, size in first.items() if size is not None}
    large = sorted((-mm, number) for number, mm in lengths.items() if mm >= MEASURABLE_MM)
    return tuple(number for _, number in large[:MOST_TARGETS])


def sum_targets(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], numbers: Sequence[int], quantile: float
) -> Targets | None:
    """The sums of the targets and the response on every date; None without targets.

    Args:
        tracks, measured: the lesions, and their sizes on every date.
        numbers: the targets' identities.
        quantile: see `MeasurementError.quantile`.
    """
    if not numbers:
        return None
    sums: list[TargetSum] = []
    for day in range(len(measured[0])):
        new = sum(each.sightings[day].status == "new" for each in tracks)
        parts = _parts(tracks, measured, numbers, day)
        if parts is None:
            sums.append(TargetSum(None, 0.0, _least(sums), None, None, "NE", new, False))
            continue
        total, sd = sum(mm for mm, _ in parts), float(np.linalg.norm([0.0, *(each for _, each in parts)]))
        if not sums:
            sums.append(TargetSum(total, sd, None, None, None, "baseline", new, False))
            continue
        first, nadir = sums[0], _least(sums)
        assert first.sum_mm is not None, "targets are there on the first date"
        assert nadir is not None, "and so there is a least sum"
        from_first = 100 * (total / first.sum_mm - 1)
        from_nadir = 100 * (total / nadir - 1) if nadir else None
        sums.append(
            TargetSum(
                total,
                sd,
                nadir,
                from_first,
                from_nadir,
                _response(total, nadir, from_first),
                new,
                abs(total - first.sum_mm) <= quantile * float(np.hypot(sd, first.sum_sd_mm)),
            )
        )
    return Targets(tuple(numbers), tuple(sums))


def _parts(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], numbers: Sequence[int], day: int
) -> list[tuple[float, float]] | None:
    """Diameter and standard error of each target; None if one cannot be measured. A merged one is counted once."""
    by_number = {each.number: row for row, each in enumerate(tracks)}
    counted: set[int] = set()
    parts: list[tuple[float, float]] = []
    for number in numbers:
        sighting = tracks[by_number[number]].sightings[day]
        while sighting.status == "merged" and sighting.merged_into is not None:
            number = sighting.merged_into
            sighting = tracks[by_number[number]].sightings[day]
        if number in counted or sighting.status == "gone":
            continue
        size = measured[by_number[number]][day].size
        if sighting.status not in THERE or size is None:
            return None
        counted.add(number)
        parts.append((size.longest_axial_mm, size.longest_axial_sd_mm))
    return parts


def _least(sums: Sequence[TargetSum]) -> float | None:
    return min((each.sum_mm for each in sums if each.sum_mm is not None), default=None)


def _response(total: float, nadir: float, from_first: float) -> Response:
    if total == 0:
        return "CR"
    risen = total - nadir
    if risen >= PROGRESSION_MM and risen >= PROGRESSION_PERCENT / 100 * nadir:
        return "PD"
    return "PR" if from_first <= -PARTIAL_PERCENT else "SD"

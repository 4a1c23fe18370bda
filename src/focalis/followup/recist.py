"""Targets, non-targets, new lesions and the response: RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009; 45: 228)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from focalis.display import Shown
from focalis.errors import UsageError
from focalis.followup.change import LesionDay, Size, part_of, together
from focalis.followup.timeline import THERE, Track

MEASURABLE_MM, MEASURABLE_NODE_MM, DISEASED_NODE_MM = 10.0, 15.0, 10.0
THICK_SLICE_MM, MOST_TARGETS = 5.0, 5
PARTIAL_PERCENT, PROGRESSION_PERCENT, PROGRESSION_MM = 30.0, 20.0, 5.0
NON_TARGET_PERCENT = 73.0
"""More volume than this of all non-targets is what 20 % more diameter of one lesion would be (section 4.3.4)."""
_ROUNDING = 1e-6
_NODE = re.compile(r"lymph|(?<![a-z])(nodes?|ln)(?![a-z])", re.IGNORECASE)

RECIST_RULE = (
    f"RECIST 1.1. Targets are lesions of the first date: those named, else the {MOST_TARGETS} largest measurable ones "
    f"that the scan does not cut off. Measurable are {MEASURABLE_MM:g} mm in the longest axial diameter (twice the "
    f"distance of slices more than {THICK_SLICE_MM:g} mm apart). A label whose name holds lymph, node or LN is of "
    f"lymph nodes, which are measured across: {MEASURABLE_NODE_MM:g} mm are measurable, and less than "
    f"{DISEASED_NODE_MM:g} mm are normal. Targets: CR, none is left but normal nodes; PR, the sum is "
    f"{PARTIAL_PERCENT:g} % or more below that of the first date; PD, it is {PROGRESSION_PERCENT:g} % or more, and "
    f"{PROGRESSION_MM:g} mm or more, above the nadir, the least sum so far, or a target is back after CR; SD, none of "
    "these; NE, the sum misses a target, unless what is seen is PD already. A target is missed where a scan does not "
    "show it or cuts it off, or where it has merged with a lesion that is not a target. Non-targets are the "
    "other lesions of the first date: PD, their volumes together have risen by "
    f"{NON_TARGET_PERCENT:g} % or more above their least, beyond measurement error, and their diameters by "
    f"{PROGRESSION_MM:g} mm or more. The response is PD if that of "
    "the targets or of the non-targets is, or with a new lesion, also in a part of the body that no scan showed "
    "before; CR if all lesions are gone; PR if the targets are CR and the non-targets are not; else that of the "
    "targets. Focalis does not know organs (RECIST takes two targets of one organ at most), and neither confirms a "
    "response nor judges whether a new lesion is one."
)

Response = Literal["baseline", "CR", "PR", "SD", "PD", "NE"]
NonTarget = Literal["none", "CR", "non-CR/non-PD", "PD", "NE"]


@dataclass(frozen=True)
class TargetSum:
    """The targets on one date, and the response.

    Attributes:
        sum_mm: the sum of their diameters; None if it misses a target.
        sum_sd_mm: its standard error.
        nadir_mm, nadir_date: the least sum before this date, and of which date it is, counted from 0.
        within_error: whether the change since the first date is within measurement error.
        missing: why the sum is not to be had, a phrase each.
        target: the response of the targets, by `RECIST_RULE`.
        non_target: that of the other lesions of the first date.
        new_lesions: the identities of lesions that are there and new since the first date.
    """

    sum_mm: float | None
    sum_sd_mm: float
    nadir_mm: float | None
    nadir_date: int | None
    from_first_percent: float | None
    from_nadir_percent: float | None
    within_error: bool
    missing: tuple[str, ...]
    target: Response
    non_target: NonTarget
    new_lesions: tuple[int, ...]
    response: Response


@dataclass(frozen=True, repr=False)
class Targets(Shown):
    """The targets, by their identities, and their sums on every date; `nodes` are those that are measured across."""

    numbers: tuple[int, ...]
    nodes: tuple[int, ...]
    sums: tuple[TargetSum, ...]


@dataclass(frozen=True)
class _Group:
    """Some lesions on one date.

    Attributes:
        sizes: of those that are seen, with whether they are nodes; a merged one is there once.
        missing: why others are not, a phrase each.
    """

    sizes: tuple[tuple[Size, bool], ...]
    missing: tuple[str, ...]

    @property
    def diameter_mm(self) -> float:
        return sum(_diameter(size, node) for size, node in self.sizes)

    @property
    def sd_mm(self) -> float:
        return float(np.linalg.norm([0.0, *(size.longest_axial_sd_mm for size, _ in self.sizes)]))

    @property
    def is_gone(self) -> bool:
        return not self.missing and all(node and _is_normal(size) for size, node in self.sizes)


def choose_targets(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], named: Sequence[int], slice_mm: float
) -> tuple[int, ...]:
    """The identities of the targets: those named, else the largest measurable ones of the first date.

    Args:
        tracks, measured: the lesions, and their sizes on every date.
        slice_mm: the distance of the first scan's slices.

    Raises:
        UsageError: a named one is not there on the first date, or there are more than five.
    """
    first = {
        each.number: (days[0].size, _is_node(each))
        for each, days in zip(tracks, measured, strict=True)
        if days[0].size is not None
    }
    require_targets(named, len(first))
    large = sorted(
        (-_diameter(size, node), number)
        for number, (size, node) in first.items()
        if not size.cut and _is_measurable(size, node, slice_mm)
    )
    return tuple(dict.fromkeys(named)) or tuple(number for _, number in large[:MOST_TARGETS])


def require_targets(named: Sequence[int], there: int | None = None) -> None:
    """Refuse what cannot be targets.

    Args:
        named: identities.
        there: how many lesions the first date has, which are numbered from 1; None if that is not known yet.

    Raises:
        UsageError: a named one is not there on the first date, or there are more than five.
    """
    if there is not None and (strangers := sorted(set(named) - set(range(1, there + 1)))):
        listed = ", ".join(map(str, range(1, there + 1))) or "none"
        raise UsageError.of_keyword(
            f"targets: lesion {strangers[0]} is not there on the first date; its lesions are {listed}"
        )
    if (count := len(set(named))) > MOST_TARGETS:
        raise UsageError.of_keyword(
            f"targets: {count} lesions; RECIST 1.1 takes {MOST_TARGETS} at most, so leave some out"
        )


def is_measurable(lesion: Track, size: Size, slice_mm: float) -> bool:
    """Whether a lesion of that size on the first date may be a target by RECIST 1.1; see `choose_targets`."""
    return _is_measurable(size, _is_node(lesion), slice_mm)


def _is_measurable(size: Size, node: bool, slice_mm: float) -> bool:
    if node:
        return size.perpendicular_mm >= MEASURABLE_NODE_MM - _ROUNDING
    least = 2 * slice_mm if slice_mm > THICK_SLICE_MM else MEASURABLE_MM
    return size.longest_axial_mm >= max(MEASURABLE_MM, least) - _ROUNDING


def sum_targets(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], numbers: Sequence[int], quantile: float
) -> Targets | None:
    """The sums of the targets and the response on every date; None without targets.

    Args:
        tracks, measured: the lesions, and their sizes on every date.
        quantile: see `MeasurementError.quantile`.
    """
    if not numbers:
        return None
    targets = [row for row, each in enumerate(tracks) if each.number in numbers]
    others = [row for row in range(len(tracks)) if row not in targets and _is_disease(tracks, measured, row)]
    sums: list[TargetSum] = []
    rest: list[_Group] = []
    for day in range(len(measured[0])):
        seen = _group(tracks, measured, targets, day)
        rest.append(_group(tracks, measured, others, day))
        new = tuple(each.number for row, each in enumerate(tracks) if _is_new(each, measured[row], day))
        non_target = _non_target(rest, bool(others), quantile, any(each.response == "CR" for each in sums))
        sums.append(_sum(seen, sums, non_target, new, quantile))
    nodes = tuple(tracks[row].number for row in targets if _is_node(tracks[row]))
    return Targets(tuple(numbers), nodes, tuple(sums))


def _sum(
    seen: _Group, sums: Sequence[TargetSum], non_target: NonTarget, new: tuple[int, ...], quantile: float
) -> TargetSum:
    """The targets on a date, after the sums of those before it."""
    whole, sd = seen.diameter_mm if not seen.missing else None, seen.sd_mm
    if not sums:
        return TargetSum(
            whole, sd, None, None, None, None, False, seen.missing, "baseline", non_target, new, "baseline"
        )
    first = sums[0].sum_mm
    known = [(each.sum_mm, day) for day, each in enumerate(sums) if each.sum_mm is not None]
    nadir, nadir_date = min(known, default=(None, None))
    from_first = None if whole is None or first is None else 100 * (whole / first - 1)
    from_nadir = None if whole is None or not nadir else 100 * (whole / nadir - 1)
    target = _target(seen, nadir, from_first, was_gone=any(each.target == "CR" for each in sums))
    missing = seen.missing
    if first is None and not missing:
        missing = ("the sum of the first date misses a target",)
    return TargetSum(
        whole,
        sd,
        nadir,
        nadir_date,
        from_first,
        from_nadir,
        whole is not None
        and first is not None
        and abs(whole - first) <= quantile * float(np.hypot(sd, sums[0].sum_sd_mm)),
        missing,
        target,
        non_target,
        new,
        _overall(target, non_target, new),
    )


def _target(seen: _Group, nadir: float | None, from_first: float | None, *, was_gone: bool) -> Response:
    if seen.is_gone:
        return "CR"
    if was_gone and any(not node for _, node in seen.sizes):
        return "PD"
    if nadir is not None and _has_progressed(seen.diameter_mm, nadir):
        return "PD"
    if from_first is None:
        return "NE"
    return "PR" if from_first <= -PARTIAL_PERCENT + _ROUNDING else "SD"


def _has_progressed(total_mm: float, nadir_mm: float) -> bool:
    least = max(PROGRESSION_MM, PROGRESSION_PERCENT / 100 * nadir_mm)
    return total_mm - nadir_mm >= least - _ROUNDING


def _non_target(rest: Sequence[_Group], any_there: bool, quantile: float, was_gone: bool) -> NonTarget:
    """The response of the non-targets on the last of some dates."""
    now, before = rest[-1], [each for each in rest[:-1] if not each.missing]
    if not any_there:
        return "none"
    if now.is_gone:
        return "CR"
    if was_gone and now.sizes:
        return "PD"
    if now.sizes and before:
        after = together([size for size, _ in now.sizes])
        least = min(before, key=lambda each: sum(size.volume_mm3 for size, _ in each.sizes))
        if least.sizes:
            start = together([size for size, _ in least.sizes])
            rise = float(np.log(after.volume_mm3 / start.volume_mm3))
            error = quantile * float(
                np.hypot(after.volume_sd_mm3 / after.volume_mm3, start.volume_sd_mm3 / start.volume_mm3)
            )
            longer = now.diameter_mm - least.diameter_mm >= PROGRESSION_MM - _ROUNDING
            if longer and rise > error and np.expm1(rise) >= NON_TARGET_PERCENT / 100 - _ROUNDING:
                return "PD"
    return "NE" if now.missing else "non-CR/non-PD"


def _overall(target: Response, non_target: NonTarget, new: Sequence[int]) -> Response:
    """Table 1 of RECIST 1.1."""
    if new or "PD" in (target, non_target):
        return "PD"
    if target == "CR" and non_target not in ("none", "CR"):
        return "PR"
    return target


def _group(
    tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], rows: Sequence[int], day: int
) -> _Group:
    """The sizes of some lesions on a date."""
    sizes: dict[int, tuple[Size, bool]] = {}
    missing: list[str] = []
    for row in rows:
        owner, number = part_of(tracks, row, day), tracks[row].number
        status, size = tracks[owner].sightings[day].status, measured[owner][day].size
        strangers = [
            tracks[other].number
            for other in range(len(tracks))
            if other not in rows and part_of(tracks, other, day) == owner
        ]
        if status == "gone":
            continue
        if status not in THERE or size is None:
            why = "is outside of the scan" if status == "outside" else "could not be looked up"
            missing.append(f"lesion {number} {why}")
        elif strangers:
            missing.append(f"lesion {number} has merged with lesion {strangers[0]}, which is not a target")
        else:
            sizes[owner] = size, _is_node(tracks[row])
            if size.cut:
                missing.append(f"lesion {number} is cut off by the border of the scan")
    return _Group(tuple(sizes.values()), tuple(missing))


def _diameter(size: Size, node: bool) -> float:
    return size.perpendicular_mm if node else size.longest_axial_mm


def _is_node(lesion: Track) -> bool:
    return _NODE.search(lesion.name) is not None


def _is_normal(node: Size) -> bool:
    return node.perpendicular_mm < DISEASED_NODE_MM - _ROUNDING


def _is_disease(tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]], row: int) -> bool:
    """Whether a lesion is there on the first date, and no normal lymph node."""
    size = measured[row][0].size
    return size is not None and not (_is_node(tracks[row]) and _is_normal(size))


def _is_new(lesion: Track, days: Sequence[LesionDay], day: int) -> bool:
    """Whether a lesion is there on a date, also as a part of another one, and was not on the first."""
    statuses = [each.status for each in lesion.sightings]
    if statuses[day] not in (*THERE, "merged"):
        return False
    start = next(number for number, each in enumerate(lesion.sightings) if each.pieces)
    never_shown = start > 0 and set(statuses[:start]) == {"outside"}
    if statuses[start] != "new" and not never_shown:
        return False
    size = days[day].size
    return size is None or not (_is_node(lesion) and _is_normal(size))

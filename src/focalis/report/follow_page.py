"""The report on lesions over dates: a row each with the same place on every date, and its size over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from focalis.files import write_text
from focalis.followup import (
    THERE,
    Change,
    LesionDay,
    MeasurementError,
    Placement,
    Sighting,
    Study,
    Targets,
    Track,
)
from focalis.report.figure import DARK, PREDICTION_COLOUR, png, style
from focalis.report.page import DASH, number, render, signed
from focalis.report.slice_drawing import (
    BACKGROUND,
    SOFT,
    TEXT,
    bare,
    draw_slice,
    grey_window,
    scale_bar,
    zoom,
)
from focalis.volume import Volume, to_canonical

_SIDE_IN, _HEAD_IN, _GAP_IN, _CURVE_IN = 2.0, 0.24, 0.06, 3.0
_LEAST_SIDE_MM, _MOST_SIDE_MM = 30.0, 160.0
_FIRST = ("new", "gone", "returned", "merged", "split")
"""Lesions that are one of these on the last date on which anything is known come first, in this order."""
_MOST_PICTURES = 60
_LEAST_CONTRAST = 0.25
"""A scan whose values span less than this share of the common grey window is shown in its own."""


def write_follow_report(
    path: Path,
    studies: Sequence[Study],
    placements: Sequence[Placement],
    tracks: Sequence[Track],
    measured: Sequence[Sequence[LesionDay]],
    error: MeasurementError,
    targets: Targets | None,
    notes: Sequence[str],
    rules: Sequence[str],
) -> None:
    """Write what became of the lesions as one self-contained HTML page: new and gone ones first.

    Args:
        path: the page; written whole or not at all.
        studies, placements: the dates, and how their scans lie to each other.
        tracks, measured: the lesions, and their size and change on every date.
        error: how well sizes are measured.
        targets: targets of RECIST 1.1; None without.
        notes: what a reader should know, a sentence each.
        rules: how the figures are made, a paragraph each.

    Raises:
        DataError: the page cannot be written.
    """
    order = sorted(range(len(tracks)), key=lambda row: _urgency(tracks[row], measured[row]))
    page = render(
        "follow.html.j2",
        title="Lesions over time",
        dates=[
            _date(study, placement, studies) for study, placement in zip(studies, placements, strict=True)
        ],
        counts=_counts(tracks, measured),
        verdict=_verdict(tracks, measured, studies, targets),
        lesions=[
            {
                "number": tracks[row].number,
                "name": tracks[row].name,
                "target": targets is not None and tracks[row].number in targets.numbers,
                "rows": [_row(tracks[row], measured[row], day, studies) for day in range(len(studies))],
                "png": lesion_figure(tracks[row], measured[row], studies) if place < _MOST_PICTURES else None,
            }
            for place, row in enumerate(order)
        ],
        targets=targets,
        names=[_title(study) for study in studies],
        error=error,
        notes=notes,
        rules=rules,
        more=max(0, len(tracks) - _MOST_PICTURES),
    )
    write_text(path, page)


def lesion_figure(track: Track, days: Sequence[LesionDay], studies: Sequence[Study]) -> bytes:
    """Draw a lesion's place on every date at one scale, in axial slices, and its volume over the dates.

    The patient's right is on the left. Each scan shows its own voxels, in the grey window of all dates together.

    Returns:
        A PNG file.
    """
    sizes = [day.size.longest_3d_mm for day in days if day.size is not None]
    side_mm = float(np.clip(2.2 * max(sizes), _LEAST_SIDE_MM, _MOST_SIDE_MM))
    width_in = len(studies) * (_SIDE_IN + _GAP_IN) + _CURVE_IN
    height_in = _SIDE_IN + _HEAD_IN
    figure = Figure(figsize=(width_in, height_in), facecolor=BACKGROUND)
    cuts = [
        None if each.centre_lps_mm is None else _slice(study, each.centre_lps_mm, side_mm)
        for each, study in zip(track.sightings, studies, strict=True)
    ]
    windows = _windows([None if cut is None else cut[0].array for cut in cuts])
    own = len(set(windows) - {None}) > 1
    for day, study in enumerate(studies):
        left = day * (_SIDE_IN + _GAP_IN)
        axes = figure.add_axes((left / width_in, 0, _SIDE_IN / width_in, _SIDE_IN / height_in))
        _draw(axes, track.sightings[day], cuts[day], windows[day], side_mm)
        figure.text(
            (left + 0.03) / width_in,
            1 - _HEAD_IN / 2 / height_in,
            f"{_title(study)}: {track.sightings[day].status}{', own window' if own else ''}",
            color=TEXT,
            fontsize=7.5,
            va="center",
            parse_math=False,
        )
    left = len(studies) * (_SIDE_IN + _GAP_IN)
    area = figure.add_axes((left / width_in, 0, _CURVE_IN / width_in, 1), facecolor=DARK.background)
    area.set_xticks([])
    area.set_yticks([])
    axes = figure.add_axes(
        (
            (left + 0.75) / width_in,
            0.36 / height_in,
            (_CURVE_IN - 0.95) / width_in,
            (height_in - 0.55) / height_in,
        )
    )
    _curve(axes, track, days, studies)
    return png(figure)


def _windows(planes: Sequence[np.ndarray | None]) -> list[tuple[float, float] | None]:
    """The grey window of each plane: one for all, or each its own where one would leave a plane without contrast."""
    there = [plane for plane in planes if plane is not None]
    low, high = grey_window(there)
    own = [grey_window([plane]) for plane in there if np.ptp(plane) > 0]
    if all(_LEAST_CONTRAST * (high - low) <= white - black for black, white in own):
        return [(low, high)] * len(planes)
    return [None if plane is None else grey_window([plane]) for plane in planes]


def _draw(
    axes: Axes,
    sighting: Sighting,
    cut: tuple[Volume, np.ndarray, tuple[float, float]] | None,
    window: tuple[float, float] | None,
    side_mm: float,
) -> None:
    if cut is None:
        bare(axes)
        axes.text(0.5, 0.5, "not in this scan", color=SOFT, fontsize=9, ha="center", va="center")
        return
    image, numbered, (row, column) = cut
    spacing = image.grid.spacing_zyx_mm[1:]
    own = np.isin(numbered, np.add(sighting.pieces, 1)) & (numbered > 0)
    others = (numbered > 0) & ~own
    outlines = [(others.astype(np.uint8), SOFT, 0.8), (own.astype(np.uint8), PREDICTION_COLOUR, 1.4)]
    draw_slice(axes, image.array[0], outlines, spacing, window)
    y, x = (row + 0.5) * spacing[0], (column + 0.5) * spacing[1]
    if not sighting.pieces:
        axes.plot(x, y, "+", color=PREDICTION_COLOUR, markersize=9, markeredgewidth=1.2)
    zoom(axes, (y, x), side_mm)
    scale_bar(axes)


def _slice(
    study: Study, centre_lps_mm: tuple[float, float, float], side_mm: float
) -> tuple[Volume, np.ndarray, tuple[float, float]] | None:
    """The axial slice nearest to a place, with the lesions' numbers on it, and the place's row and column."""
    grid = study.image.grid
    steps = grid.to_indices(centre_lps_mm)
    reach = np.ceil(0.75 * side_mm / np.asarray(grid.spacing_xyz_mm)) + 1
    low = np.clip(np.floor(steps - reach), 0, grid.size_xyz).astype(int)
    high = np.clip(np.ceil(steps + reach) + 1, 0, grid.size_xyz).astype(int)
    if (high <= low).any():
        return None
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = grid.part(low.tolist(), (high - low).tolist())
    image = to_canonical(Volume(study.image.array[z, y, x], part))
    numbered = to_canonical(Volume(study.numbered[z, y, x], part))
    near = image.grid
    place = near.to_indices(centre_lps_mm)
    level = round(float(place[2]))
    if not 0 <= level < near.size_xyz[2]:
        return None
    plane = near.part((0, 0, level), (*near.size_xyz[:2], 1))
    return (
        Volume(image.array[level : level + 1], plane),
        numbered.array[level],
        (float(place[1]), float(place[0])),
    )


def _curve(axes: Axes, track: Track, days: Sequence[LesionDay], studies: Sequence[Study]) -> None:
    """The volume over the dates, with its error; 0 where a scan shows the place without the lesion."""
    dated = [study.day for study in studies]
    first = dated[0]
    known = first is not None and None not in dated and len(set(dated)) == len(dated)
    places = [(day - first).days if known and day and first else number for number, day in enumerate(dated)]
    shown = [
        (x, day.size.volume_mm3 if day.size else 0.0, 1.96 * day.size.volume_sd_mm3 if day.size else 0.0)
        for x, day, sighting in zip(places, days, track.sightings, strict=True)
        if day.size or sighting.status in ("gone", "absent")
    ]
    style(axes, DARK, "mm³")
    axes.errorbar(
        [x for x, _, _ in shown],
        [volume for _, volume, _ in shown],
        yerr=[error for _, _, error in shown],
        color=DARK.line,
        ecolor=DARK.text,
        marker="o",
        markersize=4,
        linewidth=1.4,
        capsize=3,
    )
    axes.set_ylim(bottom=0)
    axes.set_xlim(min(places) - 0.08 * (np.ptp(places) or 1), max(places) + 0.08 * (np.ptp(places) or 1))
    axes.set_xticks(places, [str(x) if known else str(number + 1) for number, x in enumerate(places)])
    axes.set_xlabel("days" if known else "scan", color=DARK.text, fontsize=8, labelpad=1)
    axes.yaxis.label.set_fontsize(8)
    axes.tick_params(labelsize=7.5)


def _urgency(track: Track, days: Sequence[LesionDay]) -> tuple[int, float, int]:
    """Sorts new lesions first, then gone ones and what else `_FIRST` names, then the others by how far they changed."""
    known = [each.status for each in track.sightings if each.status not in ("unknown", "outside", "absent")]
    latest = known[-1] if known else "baseline"
    if latest == "persistent" and "new" in known:
        latest = "new"
    rank = _FIRST.index(latest) if latest in _FIRST else len(_FIRST)
    changes = [abs(each.since_first.volume_percent) for each in days if each.since_first is not None]
    return rank, -max(changes, default=0.0), track.number


def _title(study: Study) -> str:
    return str(study.day) if study.day is not None else study.name


def _date(study: Study, placement: Placement, studies: Sequence[Study]) -> dict[str, object]:
    found = placement.registration
    onto = "first scan" if found is None else "could not be registered"
    if placement.onto is not None:
        onto = f"to {_title(studies[placement.onto])}"
    return {
        "name": study.name,
        "day": study.day or DASH,
        "onto": onto,
        "bad": found is not None and placement.onto is None,
        "similarity": None if found is None else found.similarity,
        "overlap": None if found is None else 100 * found.overlap,
        "miss": None if found is None or not np.isfinite(found.inconsistency_mm) else found.inconsistency_mm,
        "lesions": len(study.pieces),
    }


def _verdict(
    tracks: Sequence[Track],
    measured: Sequence[Sequence[LesionDay]],
    studies: Sequence[Study],
    targets: Targets | None,
) -> str:
    values = {title: value for title, value, _ in _counts(tracks, measured)}
    if values["grown"] == DASH:
        changed = "whether others changed is not known, as the measurement error is not"
    else:
        changed = f"{values['grown']} grown and {values['shrunk']} shrunk beyond the measurement error"
    response = "" if targets is None else f" Response by RECIST 1.1: {targets.sums[-1].response}."
    return f"{_title(studies[-1])}: {values['new']} new, {values['gone']} gone; {changed}.{response}"


def _counts(tracks: Sequence[Track], measured: Sequence[Sequence[LesionDay]]) -> list[tuple[str, str, str]]:
    last = [each.sightings[-1].status for each in tracks]
    changes = [days[-1].since_last for days in measured if days[-1].size is not None]
    sure = [
        each.volume_percent
        for each in changes
        if each and each.volume_beyond_error and each.reliable and each.error_known
    ]
    grown, shrunk = sum(percent > 0 for percent in sure), sum(percent < 0 for percent in sure)
    beyond = "beyond the measurement error"
    values = [str(grown), str(shrunk)]
    if changes and not any(each and each.error_known for each in changes):
        beyond, values = "measurement error not known", [DASH, DASH]
    there = sum(status in THERE for status in last)
    return [
        ("new", str(last.count("new")), "on the last date"),
        ("gone", str(last.count("gone")), "on the last date"),
        ("grown", values[0], beyond),
        ("shrunk", values[1], beyond),
        ("there", str(there), "lesions on the last date"),
    ]


def _row(track: Track, days: Sequence[LesionDay], day: int, studies: Sequence[Study]) -> dict[str, object]:
    sighting, found = track.sightings[day], days[day]
    status = sighting.status
    if sighting.merged_into is not None:
        status_text = f"merged into {sighting.merged_into}"
    elif sighting.distance_mm is not None:
        status_text = f"{status}, matched by distance ({sighting.distance_mm:.0f} mm)"
    else:
        status_text = status
    return {
        "date": _title(studies[day]),
        "status": status_text,
        "urgent": status in _FIRST,
        "size": found.size,
        "last": None if found.since_last is None else _told(found.since_last, studies),
        "first": None if found.since_first is None or day < 2 else _told(found.since_first, studies),
        "similarity": sighting.similarity,
    }


def _told(change: Change, studies: Sequence[Study]) -> dict[str, object]:
    low, high = change.volume_limits_percent
    doubling = DASH
    if change.doubling_days is not None:
        verb = "doubles" if change.doubling_days > 0 else "halves"
        doubling = f"{verb} in {abs(change.doubling_days):,.0f} days"
    verdict = change.verdict(beyond=change.volume_beyond_error)
    return {
        "since": _title(studies[change.since]),
        "volume": f"{signed(change.volume_percent, 0)} %",
        "limits": f"{number(low, 0)} to +{number(high, 0)} %" if change.error_known else "",
        "beyond": change.volume_beyond_error and change.error_known,
        "verdict": verdict if change.reliable else f"{verdict}, but cut off",
        "diameter": f"{signed(change.diameter_mm, 1)} mm",
        "diameter_limit": f"±{change.diameter_limit_mm:.1f} mm" if change.error_known else "",
        "doubling": doubling,
    }

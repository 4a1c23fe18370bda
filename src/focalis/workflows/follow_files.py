"""The files of a follow-up: tables, masks, the report, and the DICOM objects of each date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from focalis.files import write_text
from focalis.followup import Change, Study
from focalis.followup.timeline import Status
from focalis.lesions import as_csv
from focalis.report import write_follow_report
from focalis.volume import Volume, write_volume
from focalis.workflows.follow_inputs import Scan
from focalis.workflows.followed import RULES, Followed
from focalis.workflows.record import write_json

if TYPE_CHECKING:
    from focalis.dicom import ReportedChange
    from focalis.dicom.reported_change import Verdict


def write_files(followed: Followed, scans: Sequence[Scan], folder: Path) -> None:
    """Write all files into a folder."""
    write_json(folder / "follow.json", followed.to_json())
    rows = [
        _row(followed, number, day) for number in range(len(followed.tracks)) for day in range(len(scans))
    ]
    write_text(folder / "lesions.csv", as_csv(rows, COLUMNS))
    for day, (study, scan) in enumerate(zip(followed.studies, scans, strict=True)):
        label = np.zeros(study.numbered.shape, dtype=np.uint16)
        for each in followed.tracks:
            if each.sightings[day].pieces:
                z, y, x = study.voxels_zyx(each.sightings[day].pieces).T
                label[z, y, x] = each.number
        write_volume(Volume(label, study.image.grid), folder / "masks" / f"{study.name}.nii.gz")
        if scan.source is not None:
            _write_dicom(followed, day, label, scan, folder / "dicom")
    write_follow_report(
        folder / "report.html",
        followed.studies,
        followed.placements,
        followed.tracks,
        followed.measured,
        followed.error,
        followed.targets,
        followed.notes,
        RULES,
    )


def _write_dicom(followed: Followed, day: int, label: np.ndarray, scan: Scan, folder: Path) -> None:
    from focalis.dicom import Origin, ReportedLesion, ReportedResponse, write_report, write_segmentation
    from focalis.dicom.derived import GIVEN_MASKS
    from focalis.workflows.cautions import cautions_of

    assert scan.source is not None
    study, targets = followed.studies[day], followed.targets
    known = {each.number: f"{each.name[:55]} {each.number}" for each in followed.tracks}
    uids = dict(zip(known, followed.uids, strict=True))
    there = [row for row, each in enumerate(followed.tracks) if each.sightings[day].pieces]
    names = {number: known[number] for number in (followed.tracks[row].number for row in there)}
    cautions = cautions_of(missing=scan.missing)
    origin = Origin(
        followed.model or GIVEN_MASKS, version("focalis"), cautions=cautions, pointed=followed.pointed
    )
    segmentation = folder / f"{study.name}_seg.dcm"
    tracking = {number: uids[number] for number in names}
    write_segmentation(label, names or study.names, scan.source, segmentation, origin, tracking=tracking)
    lesions = []
    for segment, (row, number) in enumerate(zip(there, names, strict=True), start=1):
        found, sighting = followed.measured[row][day], followed.tracks[row].sightings[day]
        size, centre = found.size, sighting.centre_lps_mm
        assert size is not None
        assert centre is not None
        remark, change = _change(found.since_last, sighting.status, followed.studies)
        sizes = size.volume_mm3, size.longest_axial_mm
        lesions.append(
            ReportedLesion(number, segment, *sizes, centre, uids[number], names[number], remark, change)
        )
    summed = None if targets is None else targets.sums[day]
    write_report(
        lesions,
        label,
        names or study.names,
        scan.source,
        segmentation,
        folder / f"{study.name}_sr.dcm",
        origin,
        remarks=[] if targets is None else [f"Target lesions: {', '.join(map(str, targets.numbers))}"],
        gone={
            known[each.number]: uids[each.number]
            for each in followed.tracks
            if each.sightings[day].status == "gone"
        },
        response=None
        if summed is None
        else ReportedResponse(summed.sum_mm, summed.target, summed.non_target, summed.response),
    )


def _change(
    change: Change | None, status: Status, studies: Sequence[Study]
) -> tuple[str, ReportedChange | None]:
    """What a report says of a lesion's change: a comment and the figures."""
    from focalis.dicom import ReportedChange

    if change is None:
        return "", ReportedChange("new") if status == "new" else None
    verdict: Verdict = "no change"
    if not change.error_known or not change.reliable:
        verdict = "unknown"
    elif change.volume_beyond_error:
        verdict = "increase" if change.volume_percent > 0 else "decrease"
    said = change.verdict(beyond=change.volume_beyond_error)
    cut = "" if change.reliable else "; it reaches the border of a scan"
    since = studies[change.since].day or "the scan before"
    remark = f"volume {change.volume_percent:+.0f} % since {since}, {said}{cut}"
    return remark, ReportedChange(verdict, change.volume_percent, change.diameter_mm)


COLUMNS = (
    *("lesion", "name", "tracking_uid", "date_number", "scan", "day", "status", "merged_into", "pieces"),
    *(
        "volume_mm3",
        "volume_sd_mm3",
        "longest_axial_mm",
        "longest_axial_sd_mm",
        "perpendicular_mm",
        "longest_3d_mm",
        "cut",
    ),
    *("since_scan", "days", "volume_percent", "volume_low_percent", "volume_high_percent", "volume_change"),
    *("diameter_percent", "diameter_mm", "diameter_limit_mm", "diameter_change", "reliable"),
    *(
        "doubling_days",
        "growth_percent_per_30_days",
        "since_first_volume_percent",
        "since_first_diameter_percent",
    ),
    *("centre_x_mm", "centre_y_mm", "centre_z_mm", "similarity", "moved_mm", "distance_mm", "target"),
)
"""Of lesions.csv: a row per lesion and date; changes are since the last date on which it was there."""


def _row(followed: Followed, number: int, day: int) -> dict[str, Any]:
    found, measured, study = followed.tracks[number], followed.measured[number][day], followed.studies[day]
    sighting = found.sightings[day]
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "lesion": found.number,
        "name": found.name,
        "tracking_uid": followed.uids[number],
        "date_number": day + 1,
        "scan": study.name,
        "day": study.day,
        "status": sighting.status,
        "merged_into": sighting.merged_into,
        "pieces": len(sighting.pieces),
        "target": followed.targets is not None and found.number in followed.targets.numbers,
        **{name: getattr(sighting, name) for name in ("similarity", "moved_mm", "distance_mm")},
    }
    if sighting.centre_lps_mm is not None:
        row |= {f"centre_{axis}_mm": mm for axis, mm in zip("xyz", sighting.centre_lps_mm, strict=True)}
    if measured.size is not None:
        row |= {
            name: value
            for name, value in asdict(measured.size).items()
            if name in COLUMNS and name != "pieces"
        }
    if (last := measured.since_last) is not None:
        row |= {name: value for name, value in asdict(last).items() if name in COLUMNS}
        row |= {
            "since_scan": followed.studies[last.since].name,
            "volume_change": last.verdict(beyond=last.volume_beyond_error),
            "diameter_change": last.verdict(beyond=last.diameter_beyond_error),
        }
        if last.error_known:
            row["volume_low_percent"], row["volume_high_percent"] = last.volume_limits_percent
    if (first := measured.since_first) is not None:
        row["since_first_volume_percent"] = first.volume_percent
        row["since_first_diameter_percent"] = first.diameter_percent
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}

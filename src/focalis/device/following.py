"""The follow-up of a segmented series: the same lesions in an earlier study of the person. Runs in the child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from focalis.device.records import EarlierStudy
from focalis.dicom import Series, read_segmentation, read_series
from focalis.dicom.headers import read_header, text
from focalis.dicom.points import read_points
from focalis.dicom.structured_report import read_tracking
from focalis.errors import DataError
from focalis.followup import Change, Piece, Study, Track, estimate_error, make_study, measure, place, track
from focalis.workflows.follow_inputs import day_of

if TYPE_CHECKING:
    from focalis.model import Model
    from focalis.prediction import Settings

MOST_LESIONS = 100
"""Of either study: each is registered on its own, and hundreds of findings are noise that nobody follows."""
_SAME_CENTRE_MM = 0.01
"""A report rounds centres to 0.001 mm."""


@dataclass(frozen=True)
class FollowUp:
    """What became of the lesions of an earlier study.

    Attributes:
        content: all of it, for the page, as JSON.
        tracking: number of a lesion to the Tracking UID that the earlier report gave it.
        remarks: number of a lesion to what is to be said of it.
        summary: a sentence on all of them.
    """

    content: Mapping[str, Any]
    tracking: Mapping[int, str]
    remarks: Mapping[int, str]
    summary: str


def choose_earlier(series: Series, candidates: Sequence[EarlierStudy], charset: str) -> EarlierStudy | None:
    """The latest study before a series that is certainly of the same person; None if there is none.

    Of several series of that day one with the same description comes first, then one of about as many images.

    Args:
        series: the new series.
        candidates: what may be of the same person.
        charset: as for `read_series`.
    """
    day = day_of(series.header)
    found = []
    for each in candidates:
        header = read_header(Path(each.files[0]), charset=charset)
        earlier = day_of(header)
        if day is None or earlier is None or earlier >= day or not is_same_person(series.header, header):
            continue
        alike = text(header, "SeriesDescription") == text(series.header, "SeriesDescription")
        found.append((earlier, alike, -abs(len(each.files) - len(series.files)), each.task_id, each))
    return max(found)[-1] if found else None


def is_same_person(one: Dataset, other: Dataset) -> bool:
    """By Patient ID with its issuer, both of which must agree, and by the birth date where both state it."""
    if not text(one, "PatientID"):
        return False
    if any(text(one, keyword) != text(other, keyword) for keyword in ("PatientID", "IssuerOfPatientID")):
        return False
    born = {text(each, "PatientBirthDate") for each in (one, other)} - {""}
    return len(born) < 2


def follow_up(
    series: Series,
    mask: NDArray[np.integer],
    earlier: EarlierStudy,
    model: Model,
    model_sha256: str,
    settings: Settings,
    charset: str,
) -> FollowUp:
    """Compare a segmented series with an earlier study.

    Args:
        series: the series.
        mask: what the model found in it, (z, y, x).
        earlier: the study to compare with.
        model: the model; the measurement error is estimated by a second prediction.
        model_sha256: of its file.
        settings: as for the first prediction.
        charset: as for `read_series`.

    Raises:
        FocalisError: a file cannot be read, or there are too many lesions.
    """
    from focalis.workflows.second_look import describe_second_look, second_look

    before = read_series([Path(file) for file in earlier.files], charset=charset)
    names = {value: name for value, name in model.plan.labels.items() if value}
    drawn = read_segmentation(Path(earlier.segmentation), before)
    label = np.zeros(before.volume.grid.shape_zyx, dtype=np.uint16)
    for value, name in names.items():
        if name in drawn:
            label[drawn[name]] = value
    old = make_study("earlier", before.volume, label, names, day_of(before.header))
    new = make_study("new", series.volume, mask, names, day_of(series.header))
    if (most := max(len(old.pieces), len(new.pieces))) > MOST_LESIONS:
        raise DataError(f"one of both studies has {most} lesions; up to {MOST_LESIONS} are followed")
    again = make_study("again", series.volume, second_look(model, [series.volume], settings), names)
    error = estimate_error([old, new], [[], [again]], describe_second_look(model))
    placements = place([old, new])
    tracks = track([old, new], placements)
    measured = measure(tracks, [old, new], error)
    uids = _tracking_of(earlier.report, old.pieces)
    rows = []
    tracking: dict[int, str] = {}
    remarks: dict[int, str] = {}
    registration = placements[1].registration
    assert registration is not None
    assert old.day is not None
    for each, (first, last) in zip(tracks, measured, strict=True):
        was, now = each.sightings
        rows.append(
            {
                "earlier": [piece + 1 for piece in was.pieces],
                "lesions": [piece + 1 for piece in now.pieces],
                "name": each.name,
                "status": now.status,
                "merged_into": _number_of(tracks, now.merged_into),
                "earlier_size": first.size and asdict(first.size),
                "size": last.size and asdict(last.size),
                "change": last.since_last and asdict(last.since_last),
                "earlier_centre_lps_mm": was.centre_lps_mm,
                "centre_lps_mm": now.centre_lps_mm,
            }
        )
        for piece in now.pieces:
            remarks[piece + 1] = describe(each, last.since_last, old.day)
            if was.pieces and was.pieces[0] in uids:
                tracking[piece + 1] = uids[was.pieces[0]]
    notes = []
    if registration.problem:
        notes.append(
            f"The studies could not be registered: {registration.problem}. Look at both side by side."
        )
    if earlier.model_sha256 != model_sha256:
        notes.append("The earlier study was segmented by another version of the model.")
    summary = _summary(tracks, old, notes)
    content = {
        "task": earlier.task_id,
        "day": old.day.isoformat(),
        "registered": not registration.problem,
        "similarity": registration.similarity,
        "matrix": registration.transform.matrix.tolist(),
        "offset_mm": registration.transform.offset.tolist(),
        "error": asdict(error),
        "lesions": rows,
        "notes": notes,
        "tracking": tracking,
        "remarks": remarks,
        "summary": summary,
    }
    return FollowUp(content, tracking, remarks, summary)


def _tracking_of(report: str, pieces: Sequence[Piece]) -> dict[int, str]:
    """Place of a lesion in `pieces` to its Tracking UID in a report, by its centre.

    Numbers do not do: lesions that a person pointed at come last in a report, wherever they lie.
    """
    uids = list(read_tracking(Path(report)).values()) if report and pieces else []
    points = read_points(Path(report)) if uids else ()
    if len(points) != len(uids):
        return {}
    centres = np.asarray([piece.lesion.centroid_lps_mm for piece in pieces])
    found: dict[int, str] = {}
    for uid, point in zip(uids, points, strict=True):
        same = np.flatnonzero(np.linalg.norm(centres - point.ends[0], axis=1) < _SAME_CENTRE_MM)
        if len(same) == 1:
            found[int(same[0])] = uid
    return found


def describe(found: Track, change: Change | None, since: date) -> str:
    """What became of a lesion since a date, a sentence."""
    before, now = (each.status for each in found.sightings)
    status = "unknown" if before == "unknown" else now
    if change is None:
        words = {
            "new": "new: not there",
            "first view": "not shown by the study",
            "unknown": "not compared with the study",
        }
        return f"{words.get(status, status)} on {since.isoformat()}"
    beyond = "beyond" if change.volume_beyond_error else "within"
    return f"volume {change.volume_percent:+.0f} % since {since.isoformat()}, {beyond} measurement error" + (
        "" if change.reliable else "; it reaches the border of a scan"
    )


def _number_of(tracks: Sequence[Track], merged_into: int | None) -> int | None:
    """The number of the lesion, on the new date, that another one is a part of."""
    if merged_into is None:
        return None
    pieces = tracks[merged_into - 1].sightings[1].pieces
    return pieces[0] + 1 if pieces else None


def _summary(tracks: Sequence[Track], old: Study, notes: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for each in tracks:
        status = each.sightings[1].status
        counts[status] = counts.get(status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no lesion on either date"
    return " ".join([f"Follow-up since {old.day}: {told}.", *notes])

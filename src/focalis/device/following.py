"""The follow-up of a segmented series: the same lesions in earlier studies of the person. Runs in the child."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from focalis.device.records import EarlierStudy
from focalis.dicom import Series, read_segmentation, read_series
from focalis.dicom.drawn_points import read_points, read_tracking
from focalis.dicom.headers import read_header, text
from focalis.errors import DataError, FocalisError
from focalis.followup import Change, Piece, Study, Track, estimate_error, make_study, measure, place, track
from focalis.workflows.follow_inputs import day_of

if TYPE_CHECKING:
    from focalis.model import Model
    from focalis.prediction import Settings

MOST_LESIONS = 100
"""Of either study: each is registered on its own, and hundreds of findings are noise that nobody follows."""
MOST_EARLIER = 5
_OLDER_SHARE, _OLDER_VOXEL_BYTES = 0.25, 8
"""Studies before the latest one are read as long as they take no more than this share of the memory."""
_SAME_CENTRE_MM = 0.01
"""A report rounds centres to 0.001 mm."""


@dataclass(frozen=True)
class FollowUp:
    """What became of the lesions of an earlier study.

    Attributes:
        content: all of it, for the page, as JSON.
        tracking: number of a lesion to the Tracking UID that the earlier report gave it.
        remarks: number of a lesion to what is to be said of it.
    """

    content: Mapping[str, Any]
    tracking: Mapping[int, str]
    remarks: Mapping[int, str]
    summary: str


def choose_earlier(
    series: Series, candidates: Sequence[EarlierStudy], charset: str
) -> tuple[EarlierStudy, ...]:
    """The latest studies before a series that are certainly of the same person, one per day, the earliest first.

    Among several series of a day, one with the same description is taken, else one of about as many images.
    """
    day = day_of(series.header)
    found: dict[date, tuple[bool, int, str, EarlierStudy]] = {}
    for each in candidates:
        header = read_header(Path(next(iter(each.files))), charset=charset)
        earlier = day_of(header)
        if day is None or earlier is None or earlier >= day or not is_same_person(series.header, header):
            continue
        alike = text(header, "SeriesDescription") == text(series.header, "SeriesDescription")
        rank = alike, -abs(len(each.files) - len(series.files)), each.task_id
        found[earlier] = max(found.get(earlier, (*rank, each)), (*rank, each), key=lambda one: one[:3])
    return tuple(found[each][-1] for each in sorted(found)[-MOST_EARLIER:])


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
    earlier: Sequence[EarlierStudy],
    model: Model,
    settings: Settings,
    charset: str,
) -> FollowUp:
    """Compare a segmented series with earlier studies; the page and the summary tell the change since the latest.

    Args:
        mask: what the model found in it, (z, y, x).
        model: the model; the measurement error is estimated by a second prediction.

    Raises:
        FocalisError: a file of the latest one cannot be read, or there are too many lesions.
    """
    from focalis.workflows.repeated_prediction import describe_second_look, second_look

    names = {value: name for value, name in model.plan.labels.items() if value}
    new = _require_few(make_study("new", series.volume, mask, names, day_of(series.header)))
    again = make_study("again", series.volume, second_look(model, [series.volume], settings), names)
    latest = _read(earlier[-1], names, charset)
    dated = [*_read_older(earlier[:-1], latest, names, charset, settings.memory_gb), (earlier[-1], latest)]
    studies = [*(study for _, study in dated), new]
    error = estimate_error(studies, [*([] for _ in dated), [again]], describe_second_look(model))
    placements = place(studies)
    tracks = track(studies, placements)
    measured = measure(tracks, studies, error)
    uids = [_tracking_of(each.report, study.pieces) for each, study in dated]
    days = [study.day for study in studies if study.day is not None]
    last = placements[-2]
    registered = last.root == placements[-1].root
    registration = placements[-1].registration
    assert registration is not None
    way = last.to_root.then(placements[-1].to_root.inverse())
    rows = []
    tracking: dict[int, str] = {}
    remarks: dict[int, str] = {}
    for each, found in zip(tracks, measured, strict=True):
        was, now = each.sightings[-2:]
        if not (was.pieces or now.pieces or (now.status == "gone" and was.status != "gone")):
            continue
        change = found[-1].since_last
        rows.append(
            {
                "earlier": [piece + 1 for piece in was.pieces],
                "lesions": [piece + 1 for piece in now.pieces],
                "name": each.name,
                "status": now.status,
                "merged_into": _number_of(tracks, now.merged_into),
                "earlier_size": found[-2].size and asdict(found[-2].size),
                "size": found[-1].size and asdict(found[-1].size),
                "change": change and asdict(change),
                "since": change and days[change.since].isoformat(),
                "older": [
                    {"status": sighting.status, "volume_mm3": of.size and of.size.volume_mm3}
                    for sighting, of in zip(each.sightings[:-2], found[:-2], strict=True)
                ],
                "earlier_centre_lps_mm": was.centre_lps_mm,
                "centre_lps_mm": now.centre_lps_mm,
            }
        )
        known = [
            of[sighting.pieces[0]]
            for sighting, of in zip(each.sightings, uids, strict=False)
            if sighting.pieces and sighting.pieces[0] in of
        ]
        for piece in now.pieces:
            remarks[piece + 1] = describe(each, change, days)
            if known:
                tracking[piece + 1] = known[0]
    notes = []
    if registration.problem:
        notes.append(
            f"The studies could not be registered: {registration.problem}. Look at both side by side."
        )
    elif not registered:
        notes.append(f"The study of {days[-2]} could not be registered; an older one was compared.")
    if any(each.model_sha256 != model.identity.file_sha256 for each, _ in dated):
        notes.append("An earlier study was segmented by another version of the model.")
    summary = _summary([str(row["status"]) for row in rows], days[-2], notes)
    content = {
        "task": earlier[-1].task_id,
        "day": days[-2].isoformat(),
        "older": [
            {"task": each.task_id, "day": day.isoformat()}
            for (each, _), day in zip(dated[:-1], days, strict=False)
        ],
        "registered": registered,
        "similarity": registration.similarity,
        "matrix": way.matrix.tolist(),
        "offset_mm": way.offset.tolist(),
        "error": asdict(error),
        "lesions": rows,
        "notes": notes,
        "tracking": tracking,
        "remarks": remarks,
        "summary": summary,
    }
    return FollowUp(content, tracking, remarks, summary)


def _read(earlier: EarlierStudy, names: Mapping[int, str], charset: str) -> Study:
    before = read_series([Path(file) for file in earlier.files], charset=charset)
    drawn = read_segmentation(Path(earlier.segmentation), before)
    label = np.zeros(before.volume.grid.shape_zyx, dtype=np.uint16)
    for value, name in names.items():
        if name in drawn:
            label[drawn[name]] = value
    return _require_few(make_study("earlier", before.volume, label, names, day_of(before.header)))


def _read_older(
    earlier: Sequence[EarlierStudy], latest: Study, names: Mapping[int, str], charset: str, memory_gb: float
) -> list[tuple[EarlierStudy, Study]]:
    """Studies before the latest one, as many as the memory holds; one that cannot be read is left out."""
    left = _OLDER_SHARE * memory_gb * 1e9
    found: list[tuple[EarlierStudy, Study]] = []
    slice_bytes = _OLDER_VOXEL_BYTES * latest.numbered[0].size
    for each in reversed(earlier):
        left -= slice_bytes * len(each.files)
        if left < 0:
            break
        with suppress(FocalisError):
            found.insert(0, (each, _read(each, names, charset)))
    return found


def _require_few(study: Study) -> Study:
    if len(study.pieces) > MOST_LESIONS:
        raise DataError(f"a study has {len(study.pieces)} lesions; up to {MOST_LESIONS} are followed")
    return study


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


def describe(found: Track, change: Change | None, days: Sequence[date]) -> str:
    """What became of a lesion since an earlier date, a sentence; `days` are all of its dates."""
    statuses = [each.status for each in found.sightings]
    if change is None:
        absent = [day for day, status in zip(days, statuses, strict=False) if status == "absent"]
        since = absent[-1] if statuses[-1] == "new" else days[-2]
        status = "unknown" if statuses[-1] != "new" and statuses[-2] == "unknown" else statuses[-1]
        words = {
            "new": "new: not there",
            "first view": "not shown by the study",
            "unknown": "not compared with the study",
        }
        return f"{words.get(status, status)} on {since.isoformat()}"
    beyond, since = change.verdict(beyond=change.volume_beyond_error), days[change.since]
    return f"volume {change.volume_percent:+.0f} % since {since.isoformat()}, {beyond}" + (
        "" if change.reliable else "; it reaches the border of a scan"
    )


def _number_of(tracks: Sequence[Track], merged_into: int | None) -> int | None:
    """The number of the lesion, on the new date, that another one is a part of."""
    if merged_into is None:
        return None
    pieces = tracks[merged_into - 1].sightings[-1].pieces
    return pieces[0] + 1 if pieces else None


def _summary(statuses: Sequence[str], since: date, notes: Sequence[str]) -> str:
    counts = Counter(statuses)
    told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no lesion on either date"
    return " ".join([f"Follow-up since {since}: {told}.", *notes])

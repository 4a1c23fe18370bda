"""The objects that the device makes of a segmented series: SEG, RTSTRUCT, SR, summary picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from focalis.device.picture import draw_summary
from focalis.device.records import ResultKind
from focalis.device.study_lesions import StudyLesion, list_lesions
from focalis.device.written import FOLLOW_UP
from focalis.dicom import (
    Caution,
    ReportedLesion,
    Series,
    Superseded,
    write_capture,
    write_report,
    write_segmentation,
    write_structures,
)
from focalis.files import sha256_of, write_text

if TYPE_CHECKING:
    from focalis.device.following import FollowUp

MOST_LISTED = 500
"""A report lists no more lesions than this, the largest ones: thousands of specks help nobody, and cost minutes."""


@dataclass(frozen=True)
class Made:
    """One file that was made.

    Attributes:
        kind: which object it is.
        file: its name in the folder of results.
        sop_uid: its SOP Instance UID.
        sha256: of the file.
        lesions: how many were found in the series.
    """

    kind: ResultKind
    file: str
    sop_uid: str
    sha256: str
    lesions: int


def make_results(
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    folder: Path,
    *,
    model: str,
    version: str,
    supersedes: Mapping[ResultKind, Path],
    created: datetime | None = None,
    edition: int = 1,
    by: str = "",
    cautions: Sequence[Caution] = (),
    promise: str = "",
    follow_up: FollowUp | None = None,
) -> list[Made]:
    """Write all results of a segmented series into a folder; nothing found is a result too, without RTSTRUCT.

    UIDs and bytes depend on the images, the label map, the model, the version and `created` alone.

    Args:
        label: label values, (z, y, x).
        names: label value to name.
        series: the series that was segmented.
        folder: where to write.
        model: the hash of the model's weights.
        version: the version of Focalis.
        supersedes: the files of the earlier results that these replace, by kind.
        created: when the task was made; by default the results bear the time of the images.
        edition: which results of the series these are, from 1.
        by: the model's name, if the descriptions are to tell it.
        cautions: why not to take them at their word, written into each of them.
        promise: what the model's operating point holds on new scans, for the report.
        follow_up: what became of the lesions of an earlier study, for the report, and in a file of its own.

    Raises:
        DataError: a file cannot be written, or a label has a name that DICOM does not take.
    """
    earlier = {kind: superseded(path) for kind, path in supersedes.items()}
    paths: dict[ResultKind, Path] = {
        kind: folder / f"{kind}-1.dcm" for kind in ("seg", "rtstruct", "sr", "capture")
    }
    lesions = reported_lesions(label, names, series)
    remarks = []
    if follow_up is not None:
        lesions = tracked(lesions, follow_up.tracking, follow_up.remarks)
        remarks = [follow_up.summary]
        write_text(folder / FOLLOW_UP, json.dumps(follow_up.content))
    picture = draw_summary(label, names, series, lesions, version, cautions)
    shared: dict[str, Any] = {"model": model, "version": version, "created": created}
    shared |= {"edition": edition, "by": by, "cautions": cautions}
    mask, seg = (label, names, series), paths["seg"]
    write_segmentation(*mask, seg, supersedes=earlier.get("seg"), **shared)
    drawn = write_structures(*mask, paths["rtstruct"], supersedes=earlier.get("rtstruct"), **shared)
    told = {"total": len(lesions), "promise": promise, "remarks": remarks, **shared}
    write_report(listed(lesions), *mask, seg, paths["sr"], supersedes=earlier.get("sr"), **told)
    write_capture(picture, *mask, paths["capture"], supersedes=earlier.get("capture"), **shared)
    if not drawn:
        del paths["rtstruct"]
    return [_made(kind, path, len(lesions)) for kind, path in paths.items()]


def reported_lesions(
    label: NDArray[np.integer], names: Mapping[int, str], series: Series
) -> tuple[ReportedLesion, ...]:
    """The lesions of a label map, numbered as in the page and the report: by label, then by place."""
    named = [(value, name) for value, name in sorted(names.items()) if value != 0]
    found, _ = list_lesions({name: label == value for value, name in named}, series.volume)
    return as_reported(found, [name for _, name in named])


def as_reported(lesions: Iterable[StudyLesion], names: Sequence[str]) -> tuple[ReportedLesion, ...]:
    """Lesions as a report lists them; `names` are those of the segments, in their order."""
    segments = {name: number for number, name in enumerate(names, start=1)}
    return tuple(
        ReportedLesion(
            number=lesion.number,
            segment=segments[lesion.label],
            volume_mm3=lesion.volume_mm3,
            longest_axial_mm=lesion.longest_mm,
            centroid_xyz_mm=lesion.centroid_lps_mm,
        )
        for lesion in lesions
    )


def listed(lesions: Sequence[ReportedLesion]) -> list[ReportedLesion]:
    """The largest of the lesions, as many as a report lists, by number."""
    largest = sorted(lesions, key=lambda lesion: -lesion.volume_mm3)[:MOST_LISTED]
    return sorted(largest, key=lambda lesion: lesion.number)


def tracked(
    lesions: Iterable[ReportedLesion], uids: Mapping[int, str], remarks: Mapping[int, str]
) -> tuple[ReportedLesion, ...]:
    """Lesions with the Tracking UIDs of an earlier study, and what became of them, each by its number."""
    return tuple(
        replace(each, tracking_uid=uids.get(each.number, ""), remark=remarks.get(each.number, ""))
        for each in lesions
    )


def superseded(path: Path) -> Superseded:
    """The UIDs by which an object refers to the one in `path`, which it replaces."""
    header = dcmread(path, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"])
    return Superseded(str(header.SOPInstanceUID), str(header.SeriesInstanceUID))


def _made(kind: ResultKind, path: Path, lesions: int) -> Made:
    header = dcmread(path, specific_tags=["SOPInstanceUID"])
    content = sha256_of(path)
    return Made(kind, path.name, str(header.SOPInstanceUID), content, lesions)

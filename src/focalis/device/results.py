"""The objects that the device makes of a segmented series: SEG, RTSTRUCT, SR, summary picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from focalis.device.picture import draw_summary
from focalis.device.records import ResultKind
from focalis.device.written import FOLLOW_UP
from focalis.dicom import (
    Origin,
    ReportedLesion,
    Series,
    Superseded,
    as_reported,
    write_capture,
    write_report,
    write_segmentation,
    write_structures,
)
from focalis.files import sha256_of, write_text
from focalis.lesions import measure_lesions

if TYPE_CHECKING:
    from focalis.device.following import FollowUp

MOST_LISTED = 500
"""A report lists no more lesions than this, the largest ones: thousands of specks help nobody, and cost minutes."""


@dataclass(frozen=True)
class Made:
    """One file that was made."""

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
    origin: Origin,
    *,
    supersedes: Mapping[ResultKind, Path],
    promise: str = "",
    follow_up: FollowUp | None = None,
) -> list[Made]:
    """Write all results of a segmented series into a folder; nothing found is a result too.

    It has no RTSTRUCT then, unless an earlier one is to be replaced.

    UIDs and bytes depend on the images, the label map and the origin alone.

    Args:
        supersedes: the files of the earlier results that these replace, by kind.
        promise: what the model's operating point holds on new scans, for the report.
        follow_up: what became of the lesions of an earlier study, for the report, and in a file of its own.

    Raises:
        DataError: a file cannot be written, or a label has a name that DICOM does not take.
    """
    earlier = {kind: superseded(path) for kind, path in supersedes.items()}
    paths: dict[ResultKind, Path] = {
        kind: folder / f"{kind}-1.dcm" for kind in ("seg", "rtstruct", "sr", "capture")
    }
    found = measure_lesions(label, series.volume.grid, {key: name for key, name in names.items() if key})
    lesions = as_reported(enumerate(found, start=1), names)
    remarks = []
    if follow_up is not None:
        lesions = tracked(lesions, follow_up.tracking, follow_up.remarks)
        remarks = [follow_up.summary]
        write_text(folder / FOLLOW_UP, json.dumps(follow_up.content))
    picture = draw_summary(label, names, series, lesions, origin.version, origin.cautions)
    mask, seg = (label, names, series), paths["seg"]
    write_segmentation(*mask, seg, origin, supersedes=earlier.get("seg"))
    drawn = write_structures(*mask, paths["rtstruct"], origin, supersedes=earlier.get("rtstruct"))
    told: dict[str, Any] = {"total": len(lesions), "promise": promise, "remarks": remarks}
    write_report(listed(lesions), *mask, seg, paths["sr"], origin, supersedes=earlier.get("sr"), **told)
    write_capture(picture, *mask, paths["capture"], origin, supersedes=earlier.get("capture"))
    if not drawn:
        del paths["rtstruct"]
    return [_made(kind, path, len(lesions)) for kind, path in paths.items()]


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

"""What `follow` was given: the scans of one person by their dates, and their masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from focalis.errors import DataError, UsageError, not_there, refused
from focalis.files import states_of
from focalis.volume import Absent, Grid, Volume, image_stem
from focalis.workflows.case_images import CaseInput, read_images
from focalis.workflows.inputs import find_cases
from focalis.workflows.label_maps import label_maps, read_label_map

if TYPE_CHECKING:
    from pydicom import Dataset

    from focalis.dicom import Series

_DATES = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate", "StudyDate")
"""Where a DICOM header says when the images were taken, the surest first."""
_PERSON = {
    "PatientID": "Patient ID",
    "IssuerOfPatientID": "Issuer of Patient ID",
    "PatientBirthDate": "birth date",
}


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of one date.

    Attributes:
        volumes: one per channel, on one grid, `Absent` for one that it lacks.
        source: its DICOM series; None for image files.
        day: when it was taken; None if that is not known.
        doubts: what may be wrong with its DICOM series, a line each.
        state: of its files when they were read, see `focalis.files.states_of`.
        missing: the names of the channels that it lacks.
    """

    path: Path
    case: CaseInput
    volumes: tuple[Volume, ...]
    source: Series | None
    day: date | None
    doubts: tuple[str, ...] = ()
    state: Sequence[int] = ()
    missing: tuple[str, ...] = ()

    @property
    def image(self) -> Volume:
        """The first channel that it has."""
        return next(volume for volume in self.volumes if not isinstance(volume, Absent))

    def require_unchanged(self) -> None:
        """DataError if its files are no longer those that were read."""
        if list(self.state) != states_of(self.case.all_files):
            raise DataError.at(self.path, "changed after it was read", "start again")


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one date: the one that is measured, and others of the same scan."""

    label: Volume
    others: tuple[Volume, ...]
    names: Mapping[int, str]


def parse_dates(dates: Sequence[str], count: int) -> tuple[date, ...] | None:
    """Dates as YYYY-MM-DD or YYYYMMDD, one per scan; None if none were given.

    Raises:
        UsageError: there are not as many as scans, or one is not a date.
    """
    if not dates:
        return None
    if len(dates) != count:
        raise UsageError.of_keyword(
            f"dates: {len(dates)} for {count} scans; give one date per scan, in their order"
        )
    found = []
    for text in dates:
        try:
            found.append(date.fromisoformat(text.strip()))
        except ValueError as error:
            raise UsageError.of_keyword(f"dates: {text!r} is not a date; write it as 2026-03-31") from error
    return tuple(found)


def read_scans(
    paths: Sequence[Path],
    channels: tuple[str, ...],
    dates: tuple[date, ...] | None,
    *,
    same_person: bool,
    may_miss: Collection[str] = (),
) -> list[Scan]:
    """Read the scans, and make sure that they are of one person, one modality, and in the order of their dates.

    Args:
        channels: of each scan, by name.
        may_miss: those that a scan may lack.

    Raises:
        UsageError: there are fewer than two, one is not there or several cases, or they are not in order.
        DataError: one cannot be read, or they are of different persons or modalities.
    """
    if len(paths) < 2:
        raise UsageError("to follow lesions takes two scans or more; give the earlier one first")
    scans = []
    for number, path in enumerate(paths):
        found = find_cases([path], channels, may_miss)
        if len(found) != 1:
            raise UsageError.at(path, f"holds {len(found)} cases", "give the scan of one date")
        if found[0].problem:
            raise DataError(found[0].problem)
        state = states_of(found[0].all_files)
        with refused(path):
            images = read_images(found[0])
        day = (
            dates[number]
            if dates is not None
            else None
            if images.source is None
            else day_of(images.source.header)
        )
        volumes, missing = tuple(images.volumes), tuple(channels[place] for place in sorted(found[0].lacks))
        scans.append(Scan(path, found[0], volumes, images.source, day, images.doubts, state, missing))
    for one, other in combinations(scans, 2):
        _require_one_modality(one, other)
        if not same_person:
            _require_one_person(one, other)
        if one.day is not None and other.day is not None and one.day > other.day:
            raise UsageError.at(
                other.path,
                f"is of {other.day}, and {one.path}, given before it, of {one.day}",
                "give the earlier one first",
            )
    return scans


def images_of(scans: Sequence[Scan]) -> list[Volume]:
    """Of each scan the channel by which it is compared with the others: the first that all of them have."""
    of_each_channel = zip(*(scan.volumes for scan in scans), strict=True)
    return list(
        next(found for found in of_each_channel if not any(isinstance(each, Absent) for each in found))
    )


def scan_notes(scans: Sequence[Scan]) -> list[str]:
    """What a reader should know of whose scans these are and of their dates, a sentence each."""
    notes = []
    for one, other in pairwise(scans):
        if name := _other_person(one, other):
            notes.append(
                f"{other.path} has another {name} than {one.path}; both were taken as one person's, as --same-person "
                "says."
            )
        if one.day is not None and one.day == other.day:
            notes.append(
                f"{one.path} and {other.path} are of one day, so there is no growth rate between them."
            )
    for scan in scans:
        said = None if scan.source is None else day_of(scan.source.header)
        if said is not None and said != scan.day:
            notes.append(
                f"{scan.path} is of {said} by its header, and was taken as of {scan.day}, as --dates says."
            )
    notes += [
        f"{scan.path} lacks the channel {', '.join(scan.missing)}: what differs from a scan that has it may come from "
        "that."
        for scan in scans
        if scan.missing
    ]
    if not all(_said(scan.source, "PatientID") for scan in scans):
        notes.append(
            "Not every scan states a Patient ID, so that they are of one person could not be checked."
        )
    return notes


def read_masks(path: Path, scan: Scan, doubts: list[str]) -> Masks:
    """The mask of a scan; of a folder the first mask by name, and the others as those of other readers.

    Args:
        path: a label map on the scan's grid, a DICOM Segmentation or RT Structure Set of its series, or a folder of
            them.
        doubts: takes up what was passed over in contours, a line each.

    Raises:
        UsageError: nothing is there.
        DataError: a mask cannot be read, or lies on another grid.
    """
    if not path.exists():
        raise not_there(path, "give a mask, or a folder with one per reader")
    files = [path]
    if path.is_dir():
        from focalis.dicom import is_dicom

        files = list(label_maps(path).values()) or [file for file in sorted(path.iterdir()) if is_dicom(file)]
        if not files:
            raise UsageError.at(path, "holds no mask", "give a label map, or a folder with one per reader")
    names: dict[int, str] = {}
    labels = []
    for file in files:
        with refused(file):
            labels.append(_read_mask(file, scan, names, doubts))
    return Masks(labels[0], tuple(labels[1:]), names)


def common_names(masks: Sequence[Masks]) -> dict[int, str]:
    """The labels of all dates: what their files call them, else "lesion", or "label N" where there are several."""
    values = sorted(
        {int(v) for each in masks for label in (each.label, *each.others) for v in np.unique(label.array)}
    )
    known = {value: name for each in masks for value, name in each.names.items()}
    values = [value for value in values if value > 0] or [1]
    plain = "lesion" if values == [1] else ""
    return {value: known.get(value) or plain or f"label {value}" for value in values}


def _read_mask(file: Path, scan: Scan, names: dict[int, str], doubts: list[str]) -> Volume:
    grid = scan.volumes[0].grid
    if image_stem(file) is not None:
        label = read_label_map(file)
        if differences := grid.differences(label.grid):
            raise DataError.at(file, f"lies on another grid than {scan.path}: {'; '.join(differences)}")
        return Volume(label.array, grid)
    from focalis.dicom import is_dicom, read_segmentation, read_structures
    from focalis.dicom.headers import read_header, sop_class
    from focalis.dicom.structures import STRUCTURE_CLASSES

    if scan.source is None or not is_dicom(file):
        raise DataError.at(file, f"is not a mask of {scan.path}", "give a label map on its grid")
    if sop_class(read_header(file, ("SOPClassUID",))) in STRUCTURE_CLASSES:
        return _merged(read_structures(file, scan.source, doubts=doubts), grid, names)
    return _merged(read_segmentation(file, scan.source), grid, names)


def _merged(masks: Mapping[str, np.ndarray], grid: Grid, names: dict[int, str]) -> Volume:
    """Named masks as one label map; a name keeps its value from mask to mask; where they overlap, the last wins."""
    label = np.zeros(grid.shape_zyx, dtype=np.uint16)
    for name, mask in masks.items():
        value = next((value for value, known in names.items() if known == name), len(names) + 1)
        names[value] = name
        label[mask] = value
    return Volume(label, grid)


def day_of(header: Dataset) -> date | None:
    """When the images of a DICOM series were taken; None if its header does not say."""
    from focalis.dicom.headers import text

    for keyword in _DATES:
        try:
            return datetime.strptime(text(header, keyword)[:8], "%Y%m%d").date()
        except ValueError:
            continue
    return None


def _said(source: Series | None, keyword: str) -> str:
    if source is None:
        return ""
    from focalis.dicom.headers import text

    return text(source.header, keyword)


def _require_one_modality(one: Scan, other: Scan) -> None:
    first, second = _said(one.source, "Modality"), _said(other.source, "Modality")
    if first and second and first != second:
        raise DataError.at(
            other.path, f"is {second}, and {one.path} is {first}", "give two scans of one modality"
        )


def _require_one_person(one: Scan, other: Scan) -> None:
    """The message quotes no identifier."""
    if name := _other_person(one, other):
        raise DataError.at(
            other.path,
            f"has another {name} than {one.path}",
            "give scans of one person, or say --same-person if they are",
        )


def _other_person(one: Scan, other: Scan) -> str:
    """Which of Patient ID, its issuer and the birth date differ where both have it; empty if none does."""
    for keyword, name in _PERSON.items():
        first, second = _said(one.source, keyword), _said(other.source, keyword)
        if first and second and first != second:
            return name
    return ""

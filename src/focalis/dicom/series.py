"""Find and read the image series of DICOM folders."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, FileDataset

from focalis.charsets import DEFAULT_CHARSET, guesses_told
from focalis.dicom.headers import (
    IMAGE_CLASSES,
    modality_of,
    read_header,
    read_header_and_guesses,
    sniff,
    sop_class,
    text,
)
from focalis.dicom.pixels import read_values, signed_doubt
from focalis.dicom.slices import read_slices
from focalis.dicom.stack import stack
from focalis.dicom.uniform import doubts
from focalis.display import counted
from focalis.errors import DataError
from focalis.files import SETTLED_NS, states_of
from focalis.volume import Outline, Volume

_KEYWORDS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "StudyDate",
    "PatientID",
    "Modality",
    "SeriesDescription",
)
_LISTED = 6
_LEAST_BYTES = 2
"""Per voxel: int16."""


class Listed:
    """The files that lay in folders when series were found there, and those that have come since.

    All series of one search share one. A folder is listed again only if its time has changed, or is so young that it
    could change once more without showing it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._names: dict[Path, set[str]] = {}
        for file in files:
            self._names.setdefault(file.parent, set()).add(file.name)
        self._came: dict[Path, tuple[int, tuple[Path, ...]]] = {}

    def came_into(self, folder: Path) -> tuple[Path, ...]:
        """The files that have come into a folder since, sorted."""
        now, changed = time.time_ns(), folder.stat().st_mtime_ns
        before, came = self._came.get(folder, (None, ()))
        if before != changed or changed > now - SETTLED_NS:
            names = self._names.get(folder, set())
            with os.scandir(folder) as entries:
                came = tuple(
                    sorted(
                        folder / each.name for each in entries if each.name not in names and each.is_file()
                    )
                )
            # listed while it was young, it may have changed since within the same tick of its clock
            self._came[folder] = (changed if changed < now - SETTLED_NS else -1, came)
        return came


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one image series; their pixel data have not been read.

    Attributes:
        modality: CT, MR or PT, as the first file says.
        description: the Series Description; empty if there is none.
        study_date: the Study Date, YYYYMMDD; empty if there is none.
        patient_id: the Patient ID; empty if there is none.
        files: the files, sorted by path.
        others: how many files of the series are images of another class, which are not read.
        listed: what lay in the folder when the series was found; None if the files were named.
    """

    uid: str
    modality: str
    description: str
    study_uid: str
    study_date: str
    patient_id: str
    files: tuple[Path, ...]
    others: int = 0
    listed: Listed | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Series:
    """One image series, read.

    Attributes:
        volume: the rescaled values, z, y, x, slices by ascending position along the normal; int16 or int32 if
            all slopes and intercepts are whole numbers, else float32.
        files: per slice z its file (the same one throughout for a multi-frame file).
        instance_uids: per slice z the SOP Instance UID of its file.
        frame_numbers: per slice z its frame in the file, from 1.
        positions_xyz_mm: per slice z the patient position (LPS) of its first pixel, as its file says: it may lie
            a little off its place on the even grid, and what is drawn on it must lie where the image does.
        header: the data set of the first slice's file without pixel data: patient, study, series.
        doubts: what may be wrong with it, a phrase each; empty as a rule.
    """

    volume: Volume
    files: tuple[Path, ...]
    instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    positions_xyz_mm: tuple[tuple[float, float, float], ...]
    header: Dataset
    doubts: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the first slice's file."""
        return self.files[0].parent

    @property
    def modality(self) -> str:
        """CT, MR or PT, as the first slice's file says; empty if it says nothing."""
        return modality_of(self.header)


def find_series(
    folder: Path, damaged: dict[Path, str] | None = None, charset: str = DEFAULT_CHARSET
) -> tuple[SeriesFiles, ...]:
    """Every CT, MR and PET series below a folder, searched to the bottom; headers only.

    Files that are not DICOM, and other objects (segmentations, contours, directories), are passed over.

    Args:
        folder: where to search.
        damaged: takes up the DICOM files that cannot be used, with the reason; without it the first one is an error.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Returns:
        The series, sorted by patient, study and series UID; files of one series may lie in several folders.

    Raises:
        DataError: the folder is missing; without `damaged`, a DICOM file is damaged, or an image names no series.
    """
    below = tuple(files_below(folder))
    listed, (found, others) = Listed(below), _by_series(below, damaged, charset)
    return tuple(
        SeriesFiles(
            uid=uid,
            modality=modality_of(first),
            description=text(first, "SeriesDescription"),
            study_uid=text(first, "StudyInstanceUID"),
            study_date=text(first, "StudyDate"),
            patient_id=text(first, "PatientID"),
            files=tuple(files),
            others=others[uid],
            listed=listed,
        )
        for uid, (first, files) in sorted(found.items(), key=_patient_study_series)
    )


def only_series(folder: Path) -> SeriesFiles:
    """The one image series below a folder.

    Raises:
        DataError: there is none, or more than one; then the message lists them.
    """
    found = find_series(folder)
    if not found:
        raise DataError.at(folder, "holds no CT, MR or PET image", "give a folder with a DICOM series")
    if len(found) > 1:
        listed = "; ".join(_described(series, folder) for series in found[:_LISTED])
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise DataError.at(
            folder, f"holds {len(found)} image series ({listed}{more})", "give a folder with one"
        )
    return found[0]


def read_series(
    files: SeriesFiles | Sequence[Path],
    admit: Callable[[Outline, str], None] | None = None,
    charset: str = DEFAULT_CHARSET,
) -> Series:
    """Read one image series, single-frame or multi-frame, of any supported transfer syntax.

    Slices are sorted by their position along the normal, whatever their names and instance numbers. Values are
    rescaled (PS3.3 C.11.1), slice by slice; PET keeps its stored units.

    Args:
        files: the files of one series, in any order.
        admit: called before pixel data are read, with the grid and the least memory that the values take, and with the
            modality; what it raises stops the reading.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Raises:
        DataError: a file is not a CT, MR or PET image, a colour image, damaged, cut short or not decodable, or a
            PET image without Rescale Slope; the slices do not form one regular stack of one patient, unit and
            acquisition (see `focalis.dicom.stack`); or the series changed while it was read.
    """
    paths = files.files if isinstance(files, SeriesFiles) else tuple(files)
    if not paths:
        raise DataError("a series of no files; give the files of an image series")
    before = states_of(paths)
    slices, grid = stack([each for path in paths for each in read_slices(path)])
    header, guessed = read_header_and_guesses(slices[0].file, charset=charset)
    if admit is not None:
        admit(Outline(grid, _LEAST_BYTES * math.prod(grid.size_xyz)), modality_of(header))
    values = read_values(slices)
    if states_of(paths) != before:
        raise DataError.at(paths[0].parent, "changed while it was read", "wait until the series is complete")
    if isinstance(files, SeriesFiles):
        _require_no_more(files)
    found = (*doubts([each.said for each in slices]), *signed_doubt(values, slices))
    if guessed:
        found += (guesses_told(guessed),)
    if isinstance(files, SeriesFiles) and files.others:
        found += (f"{files.others} files of the series are not CT, MR or PET images and were passed over",)
    return Series(
        volume=Volume(values, grid),
        files=tuple(each.file for each in slices),
        instance_uids=tuple(each.instance_uid for each in slices),
        frame_numbers=tuple(each.frame for each in slices),
        positions_xyz_mm=tuple(each.position_xyz_mm for each in slices),
        header=header,
        doubts=tuple(found),
    )


def _require_no_more(files: SeriesFiles) -> None:
    """DataError if a file of the series came into one of its folders since it was found."""
    if files.listed is None:
        return
    folders = dict.fromkeys(path.parent for path in files.files)
    for path in (path for folder in folders for path in files.listed.came_into(folder)):
        if sniff(path) == "other":
            continue
        if text(read_header(path, ("SeriesInstanceUID",)), "SeriesInstanceUID") == files.uid:
            raise DataError.at(
                path, "came into the series while it was read", "wait until the series is complete"
            )


def _by_series(
    files: Sequence[Path], damaged: dict[Path, str] | None, charset: str
) -> tuple[dict[str, tuple[FileDataset, list[Path]]], Counter[str]]:
    """Series UID to its first file's header and its files, and to the number of its images of other classes."""
    others: Counter[str] = Counter()
    found: dict[str, tuple[FileDataset, list[Path]]] = {}
    for path in files:
        try:
            header = _image_header(path, charset, others)
        except DataError as error:
            if damaged is None:
                raise
            damaged[path] = str(error)
            continue
        if header is not None:
            found.setdefault(text(header, "SeriesInstanceUID"), (header, []))[1].append(path)
    return found, others


def _image_header(path: Path, charset: str, others: Counter[str]) -> FileDataset | None:
    """The header of a CT, MR or PET image; None for any other file. Images of other classes count in `others`."""
    kind = sniff(path)
    if kind == "other":
        return None
    try:
        header = read_header(path, _KEYWORDS, charset)
    except DataError:
        if kind == "dicom":
            raise
        return None
    found = sop_class(header)
    if not found and kind == "dicom":
        raise DataError.at(path, "is a DICOM file without SOP Class UID, perhaps cut short", "copy it again")
    if found not in IMAGE_CLASSES:
        # An image by its file meta information whose data set says something else has a torn UID.
        if text(getattr(header, "file_meta", Dataset()), "MediaStorageSOPClassUID") in IMAGE_CLASSES:
            raise DataError.at(path, "is an image whose header is cut short", "copy or export it again")
        others[text(header, "SeriesInstanceUID")] += "Image Storage" in found.name
        return None
    if not text(header, "SeriesInstanceUID"):
        raise DataError.at(
            path, "is an image without Series Instance UID, perhaps cut short", "copy or export it again"
        )
    return header


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in the order of their paths; DataError if it is not a folder."""
    if not folder.is_dir():
        raise DataError.at(folder, "is not a folder", "give a folder with DICOM files")
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file():
                yield path


def _patient_study_series(item: tuple[str, tuple[FileDataset, list[Path]]]) -> tuple[str, str, str]:
    uid, (first, _) = item
    return text(first, "PatientID"), text(first, "StudyInstanceUID"), uid


def _described(series: SeriesFiles, folder: Path) -> str:
    place = Path(os.path.commonpath([file.parent for file in series.files])).relative_to(folder)
    name = " ".join(part for part in (series.modality, series.description) if part)
    return f"{name or series.uid}, {counted(len(series.files), 'file')} in {place}"

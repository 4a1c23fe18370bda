"""Find what was drawn on image series: Segmentations and RT Structure Sets, and the series each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom.uid import RTStructureSetStorage

from focalis.charsets import DEFAULT_CHARSET
from focalis.dicom.headers import read_header, read_header_and_guesses, sniff, sop_class, text
from focalis.dicom.objects import referenced_uids
from focalis.dicom.segmentation import SEGMENTATION_CLASSES
from focalis.dicom.series import SeriesFiles, files_below
from focalis.errors import DataError


@dataclass(frozen=True)
class DrawnObject:
    """A file with contours or segments; its pixel data and points have not been read.

    Attributes:
        kind: SEG or RTSTRUCT.
        uids: the UIDs of series, instances and frames of reference that it names.
        guessed: the attributes whose character set had to be guessed.
    """

    path: Path
    kind: Literal["SEG", "RTSTRUCT"]
    study_uid: str
    uids: frozenset[str]
    guessed: tuple[str, ...] = ()


def find_drawn(
    folder: Path, damaged: dict[Path, str] | None = None, charset: str = DEFAULT_CHARSET
) -> tuple[DrawnObject, ...]:
    """Every Segmentation and RT Structure Set below a folder, searched to the bottom, sorted by path.

    Args:
        folder: where to search.
        damaged: takes up the DICOM files that cannot be read, with the reason; without it the first one is an error.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Raises:
        DataError: the folder is missing; without `damaged`, a DICOM file is damaged.
    """
    found = []
    for path in files_below(folder):
        kind = sniff(path)
        if kind == "other":
            continue
        try:
            of = sop_class(read_header(path, ("SOPClassUID",)))
        except DataError as error:
            if kind == "dicom" and damaged is None:
                raise
            if kind == "dicom" and damaged is not None:
                damaged[path] = str(error)
            continue
        if of in SEGMENTATION_CLASSES or of == RTStructureSetStorage:
            header, guessed = read_header_and_guesses(path, charset=charset)
            uids = referenced_uids(header) | {text(header, "FrameOfReferenceUID")}
            found.append(
                DrawnObject(
                    path=path,
                    kind="RTSTRUCT" if of == RTStructureSetStorage else "SEG",
                    study_uid=text(header, "StudyInstanceUID"),
                    uids=frozenset(uids - {""}),
                    guessed=guessed,
                )
            )
    return tuple(found)


def series_of(drawn: DrawnObject, candidates: Sequence[SeriesFiles]) -> SeriesFiles:
    """The series that an object was drawn on.

    It is the one that the object names; failing that, the only one of its study that shares its frame of
    reference, or the only one of its study at all (anonymised files often name series that no longer exist).

    Raises:
        DataError: there is none, or more than one.
    """
    named = [series for series in candidates if series.uid in drawn.uids]
    if not named:
        study = [series for series in candidates if series.study_uid == drawn.study_uid]
        named = [series for series in study if _frame_of_reference(series) in drawn.uids] or study
    if not named:
        raise DataError.at(drawn.path, "the images that it was drawn on are not there", "add their series")
    if len(named) > 1:
        listed = "; ".join(
            f"{series.modality} {series.description} in {series.files[0].parent}" for series in named[:4]
        )
        raise DataError.at(
            drawn.path,
            f"may have been drawn on any of {len(named)} series ({listed})",
            "take the others away",
        )
    return named[0]


def _frame_of_reference(series: SeriesFiles) -> str:
    return text(read_header(series.files[0], ("FrameOfReferenceUID",)), "FrameOfReferenceUID")

"""Read objects drawn on a series: which file it is, whether it belongs to the series, what its parts are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydicom import Dataset, FileDataset

from focalis.charsets import DEFAULT_CHARSET
from focalis.dicom.headers import read_header, sop_class, text
from focalis.dicom.series import Series
from focalis.errors import DataError

# where SEG (PS3.3 C.12.4) and RT Structure Set (C.8.8.5) name what they were drawn on, and by which UIDs
_REFERENCES = (
    "ReferencedSeriesSequence",
    "ReferencedInstanceSequence",
    "ReferencedFrameOfReferenceSequence",
    "RTReferencedStudySequence",
    "RTReferencedSeriesSequence",
    "ContourImageSequence",
    "StructureSetROISequence",
)
_UIDS = (
    "SeriesInstanceUID",
    "ReferencedSOPInstanceUID",
    "FrameOfReferenceUID",
    "ReferencedFrameOfReferenceUID",
)


def read_object(
    path: Path, classes: Collection[str], wanted: str, charset: str = DEFAULT_CHARSET
) -> FileDataset:
    """The data set of an object of one of the given SOP classes, without pixel data.

    Raises:
        DataError: the file is missing, not DICOM, damaged, or another object; the message then asks for what is
            `wanted`.
    """
    dataset = read_header(path, charset=charset)
    found = sop_class(dataset)
    if found not in classes:
        raise DataError.at(path, f"is a {found.name or 'file without SOP class'}", f"give {wanted}")
    return dataset


def require_same_patient_space(dataset: Dataset, path: Path, reference: Series) -> None:
    """Refuse an object that was drawn on another series, in another frame of reference.

    It belongs if it names the series or one of its instances, or shares its frame of reference
    (PS3.3 C.7.4.1). Anonymised files often keep only one of the two intact. Either makes its positions
    comparable; where in the series each part lies is then decided by position alone.

    Raises:
        DataError: it does neither, though it names a series or a frame of reference.
    """
    series = text(reference.header, "SeriesInstanceUID")
    own = {series, text(reference.header, "FrameOfReferenceUID"), *reference.instance_uids}
    named = {text(dataset, "FrameOfReferenceUID")} | referenced_uids(dataset)
    if named != {""} and not (named & own) - {""}:
        raise DataError.at(
            path,
            f"was not drawn on the series {series}, and not in its frame of reference",
            "give the series that it was drawn on",
        )


def keyed_names(parts: Iterable[tuple[int, str]], path: Path, noun: str) -> list[str]:
    """A name for each numbered part: its label, with its number where several bear one label or none.

    Raises:
        DataError: two parts cannot be told apart.
    """
    parts = list(parts)
    counts = Counter(label for _, label in parts)
    names = [
        label if label and counts[label] == 1 else f"{label or noun} #{number}" for number, label in parts
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError.at(path, f"holds {count} times the {noun} {name!r}", "number and name them apart")
    return names


def select(names: Sequence[str], wanted: Collection[str] | None, path: Path, noun: str) -> set[str]:
    """The names that are wanted; all of them for None.

    Raises:
        DataError: a name is not there.
    """
    if wanted is None:
        return set(names)
    if strangers := sorted(set(wanted) - set(names)):
        listed = ", ".join(names) or f"no {noun}"
        raise DataError.at(path, f"has no {noun} {strangers[0]!r}", f"it has {listed}")
    return set(wanted)


def referenced_uids(dataset: Dataset) -> set[str]:
    """The UIDs by which an object names series, instances and frames of reference; "" if one is empty."""
    found = set()
    for keyword in _REFERENCES:
        for item in dataset.get(keyword) or ():
            found |= {text(item, uid) for uid in _UIDS if uid in item} | referenced_uids(item)
    return found

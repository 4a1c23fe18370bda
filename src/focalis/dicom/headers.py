"""Read DICOM headers: tolerant of old or sloppy files, one kind of error for unusable ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pydicom
from pydicom import Dataset, FileDataset, uid
from pydicom.datadict import dictionary_description

from focalis.charsets import DEFAULT_CHARSET, settle_text
from focalis.errors import DataError

IMAGE_CLASSES = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.EnhancedPETImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage,
)
"""The SOP classes that are read as images: CT, MR and PET, single-frame and multi-frame (PS3.4 B.5)."""

_MODALITIES = {"CT": "CT", "MR": "MR", "Positron": "PT", "PET": "PT"}
"""Word of an image class's name to the modality whose images it holds."""

_PREAMBLE_BYTES = 128
# the first group of a file without preamble: 0002 (file meta) or 0008 (identification); 0008 in big endian too
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def sniff(path: Path) -> Literal["dicom", "perhaps", "other"]:
    """What a file is by its first bytes.

    Returns:
        "dicom" with the letters DICM after 128 bytes (PS3.10 7.1); "perhaps" if it begins like a data set that
        was stored without them, as old files are; else "other".

    Raises:
        DataError: the file cannot be read.
    """
    with DataError.of_system(path, "check path and permissions"), path.open("rb") as stream:
        start = stream.read(_PREAMBLE_BYTES + 4)
    if start[_PREAMBLE_BYTES:] == b"DICM":
        return "dicom"
    return "perhaps" if start[:2] in _FIRST_GROUPS else "other"


def is_dicom(path: Path) -> bool:
    """Whether a file is there and says that it is DICOM."""
    return path.is_file() and sniff(path) == "dicom"


def read_header(path: Path, keywords: Sequence[str] = (), charset: str = DEFAULT_CHARSET) -> FileDataset:
    """The data set of a file without its pixel data; text that is not encoded as announced is guessed.

    Args:
        path: a DICOM file, with or without preamble.
        keywords: read these attributes only; all of them if empty.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Raises:
        DataError: the file is missing, not DICOM, or damaged.
    """
    return read_header_and_guesses(path, keywords, charset)[0]


def read_header_and_guesses(
    path: Path, keywords: Sequence[str] = (), charset: str = DEFAULT_CHARSET
) -> tuple[FileDataset, tuple[str, ...]]:
    """As `read_header`, and the names of the attributes whose character set had to be guessed."""
    if sniff(path) == "other":
        raise DataError.at(path, "is not a DICOM file", "give DICOM images")
    try:
        with quiet():
            dataset = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=list(keywords) or None
            )
            return dataset, settle_text(dataset, charset)
    except Exception as error:  # pydicom raises many kinds on damaged data
        raise DataError.at(
            path, f"is a damaged DICOM file ({gist(error)})", "copy or export it again, or take it away"
        ) from error


def sop_class(header: Dataset) -> uid.UID:
    """The SOP class by the data set, else by its file meta information; empty if neither names it."""
    meta = getattr(header, "file_meta", Dataset())
    with quiet():
        return uid.UID(text(header, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID"))


def class_modality(header: Dataset) -> str:
    """CT, MR or PT by the SOP class; empty for other classes."""
    kind = sop_class(header)
    words = kind.name.split() if kind in IMAGE_CLASSES else ()
    return next((_MODALITIES[word] for word in words if word in _MODALITIES), "")


def modality_of(header: Dataset) -> str:
    """CT, MR or PT, as the header says, or as its SOP class does if it says none of them."""
    named = text(header, "Modality").upper()
    return named if named in _MODALITIES.values() else class_modality(header) or named


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text; empty if it is absent or cannot be decoded."""
    try:
        with quiet():
            value = dataset.get(keyword)
            return "" if value is None else str(value).strip()
    except Exception:  # an unknown character set, say; such text is only shown
        return ""


def numbers(dataset: Dataset, keyword: str, count: int, where: str) -> tuple[float, ...]:
    """A numeric attribute of `count` finite values.

    Raises:
        DataError: it is absent, no number, or has another count; `where` (file and frame) begins the message.
    """
    name = dictionary_description(keyword)
    try:
        with quiet():
            value = dataset.get(keyword)
            parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            values = tuple(float(part) for part in parts if part not in (None, ""))
    except Exception as error:  # text that is not a number
        raise DataError.at(where, f"its {name} is not a number", "export the image again") from error
    if not values:
        raise DataError.at(where, f"lacks {name}", "export the image again, with its whole header")
    if len(values) != count or not all(math.isfinite(number) for number in values):
        shown = "\\".join(f"{number:g}" for number in values)
        raise DataError.at(
            where, f"its {name} is {shown}, not {count} finite numbers", "export the image again"
        )
    return values


def items(dataset: Dataset, keyword: str, where: str) -> list[Dataset]:
    """The items of a sequence; none if it is absent or empty.

    Raises:
        DataError: it cannot be decoded; `where` (file) begins the message.
    """
    try:
        with quiet():
            return list(dataset.get(keyword) or [])
    except Exception as error:  # a malformed sequence
        name = dictionary_description(keyword)
        raise DataError.at(
            where, f"its {name} is damaged ({gist(error)})", "export the image again"
        ) from error


def value_is_absent(dataset: Dataset, keyword: str) -> bool:
    """Whether an attribute is missing or empty."""
    if keyword not in dataset:
        return True
    try:
        with quiet():
            return bool(dataset[keyword].is_empty)
    except Exception:  # something is there, though it cannot be decoded
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about sloppy values; unusable ones raise an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def gist(error: Exception) -> str:
    """The first line of what went wrong underneath."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__

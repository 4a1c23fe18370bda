"""Examine one untrusted DICOM file: is it a complete image of a kind that the device accepts, with a truthful size?

Runs as the child of `focalis.device.parsing`. Pixel data are measured, never decoded. It imports pydicom and nothing
larger, because the child must start quickly and stay small.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import resource
import struct
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import Dataset, FileDataset, uid
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue

from focalis.charsets import DEFAULT_CHARSET, settle_text
from focalis.device.parsing import ForeignError, RejectedError, UnsafeError
from focalis.device.records import Header
from focalis.dicom.headers import IMAGE_CLASSES
from focalis.patterns import without_spelling

TRANSFER_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.RLELossless,
)
"""What is accepted, in this order of preference. No deflated syntax: 194 KB of one expand to 200 MB. No lossy one."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_DEPTH = 32
_MOST_VALUES = 16
_MOST_COUNT = 1_000_000_000
_PIXEL_DATA = (0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)


def examine(
    path: Path, most_pixel_bytes: int, charset: str = DEFAULT_CHARSET, keywords: Sequence[str] = ()
) -> Header:
    """Read what the device needs to know about a file.

    Args:
        most_pixel_bytes: the greatest size of its decoded pixels.
        charset: the Python codec for text of no or a wrong character set.
        keywords: attributes that routes ask for.

    Raises:
        ForeignError: it is not DICOM, or of another SOP class or transfer syntax.
        UnsafeError: it is damaged, its UIDs are malformed or contradict each other, its sequences are nested too
            deeply, or its pixel data are cut short or larger than allowed.
    """
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if stream.read(132)[128:] != b"DICM":
            raise ForeignError("is not a DICOM file")
        stream.seek(0)
        try:
            meta = read_file_meta_info(path)
            syntax = uid.UID(_text(meta, "TransferSyntaxUID"))
            if syntax not in TRANSFER_SYNTAXES:
                raise ForeignError(f"has the transfer syntax {syntax.name[:64]}, which is not accepted")
            dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            kind = uid.UID(_text(dataset, "SOPClassUID"))
            if kind not in IMAGE_CLASSES:
                raise ForeignError(f"is of the class {kind.name[:64]}, no CT, MR or PET image")
            _measure_depth(dataset, 1)
            settle_text(dataset, charset)
            _require_whole_pixels(stream, dataset, most_pixel_bytes)
            return _header(dataset, meta, keywords)
        except RejectedError:
            raise
        except RecursionError as error:
            raise UnsafeError("nests its sequences too deeply") from error
        except MemoryError as error:
            raise UnsafeError("needs too much memory") from error
        except Exception as error:  # pydicom raises many kinds on damaged data
            raise UnsafeError(f"is a damaged DICOM file ({type(error).__name__})") from error


def _header(dataset: FileDataset, meta: Dataset, keywords: Sequence[str]) -> Header:
    sop_uid = _uid(dataset, "SOPInstanceUID")
    for keyword, value in (
        ("MediaStorageSOPInstanceUID", sop_uid),
        ("MediaStorageSOPClassUID", _text(dataset, "SOPClassUID")),
    ):
        named = _text(meta, keyword)
        if named and named != value:
            raise UnsafeError(f"contradicts its file meta information ({keyword})")
    return Header(
        sop_uid=sop_uid,
        sop_class=_text(dataset, "SOPClassUID"),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        study_uid=_uid(dataset, "StudyInstanceUID"),
        transfer_syntax=_text(meta, "TransferSyntaxUID"),
        modality=_short(dataset, "Modality"),
        body_part=_short(dataset, "BodyPartExamined"),
        description=_short(dataset, "SeriesDescription"),
        manufacturer_model=_short(dataset, "ManufacturerModelName"),
        expected=_expected(dataset),
        frames=_whole(dataset, "NumberOfFrames") or 1,
        number=_whole(dataset, "InstanceNumber"),
        acquisition=_short(dataset, "AcquisitionNumber"),
        acquisition_images=_whole(dataset, "ImagesInAcquisition"),
        person=_person(dataset),
        namesake=_hash(without_spelling(_text(dataset, "PatientID"))),
        told={name: "\\".join(values) for name in keywords if (values := _values(dataset, name))},
        **_place(dataset),
    )


def _person(dataset: Dataset) -> str:
    """A hash of Patient ID and its issuer, by which studies of one person are found; the store keeps no more of it."""
    patient, issuer = (_text(dataset, keyword) for keyword in ("PatientID", "IssuerOfPatientID"))
    return _hash(json.dumps([patient, issuer])) if patient else ""


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest() if value else ""


def _uid(dataset: Dataset, keyword: str) -> str:
    """A UID of up to 64 digits and dots (PS3.5 9.1). Leading zeros, common in practice, are kept."""
    value = str(dataset.get(keyword) or "")
    if len(value) > 64 or not _UID.fullmatch(value):
        raise UnsafeError(f"has a malformed {keyword}")
    return value


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _values(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute that may have several; printable, without spaces around, 64 characters each."""
    try:
        found = dataset.get(keyword)
        values = found if isinstance(found, MultiValue) else [] if found is None else [found]
        texts = [str(value) for value in values][:_MOST_VALUES]
    except Exception:  # an unknown character set, say; such text is only shown
        return []
    return ["".join(letter for letter in text if letter.isprintable()).strip()[:64] for text in texts]


def _short(dataset: Dataset, keyword: str) -> str:
    """Text for people and rules; several values with a backslash between them, as in the file."""
    return "\\".join(_values(dataset, keyword))


def _expected(dataset: Dataset) -> int | None:
    """How many instances the series has, where the standard lets it say so.

    Number of Series Related Instances (PS3.4 C.3.4); the parts of a concatenation (PS3.3 C.7.6.16.2.2.4); of PET the
    slices of every time slot and interval (PS3.3 C.8.9.1).
    """
    for keyword in ("NumberOfSeriesRelatedInstances", "InConcatenationTotalNumber"):
        if count := _whole(dataset, keyword):
            return count
    if dataset.get("Modality") != "PT" or _whole(dataset, "NumberOfFrames"):
        return None
    times = {
        "STATIC": (),
        "WHOLE BODY": (),
        "DYNAMIC": ("NumberOfTimeSlices",),
        "GATED": ("NumberOfRRIntervals", "NumberOfTimeSlots"),
    }
    kind = next((value for value in times if value in _values(dataset, "SeriesType")), None)
    if kind is None:
        return None
    counts = [_whole(dataset, keyword) for keyword in ("NumberOfSlices", *times[kind])]
    return None if None in counts else math.prod(count or 0 for count in counts)


def _whole(dataset: Dataset, keyword: str) -> int | None:
    """A whole number above 0 that a file may state, of a size that the store takes; None without one.

    Instance Number may be 0 or below as well.
    """
    try:
        number = int(_text(dataset, keyword))
    except Exception:  # pydicom raises many kinds on malformed values
        return None
    lowest = -_MOST_COUNT if keyword == "InstanceNumber" else 1
    return number if lowest <= number <= _MOST_COUNT else None


def _place(dataset: Dataset) -> dict[str, Any]:
    """The direction across a slice and its place along it; None if the header lacks it."""
    try:
        x1, y1, z1, x2, y2, z2 = map(float, dataset.ImageOrientationPatient)
        x, y, z = map(float, dataset.ImagePositionPatient)
    except Exception:  # not there, or malformed
        return {}
    normal = (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)
    position = normal[0] * x + normal[1] * y + normal[2] * z
    if not all(map(math.isfinite, (*normal, position))):
        return {}
    return {"normal": " ".join(f"{round(part, 2) + 0.0:g}" for part in normal), "position_mm": position}


def _measure_depth(dataset: Dataset, depth: int) -> None:
    """Refuse sequences in sequences in sequences; those of explicit length are only parsed when they are asked for."""
    if depth > _MAX_DEPTH:
        raise UnsafeError("nests its sequences too deeply")
    for tag in dataset.keys():  # noqa: SIM118 (a data set iterates over decoded elements)
        element = dataset.get_item(tag)
        kind = element.VR if element is not None else None
        if kind is None and not tag.is_private:
            try:
                kind = dictionary_VR(tag)
            except KeyError:
                continue
        if kind == "SQ":
            for item in dataset[tag].value or ():
                _measure_depth(item, depth + 1)


def _require_whole_pixels(stream: BinaryIO, dataset: FileDataset, most_bytes: int) -> None:
    """Refuse pixel data that are missing, cut short, or larger than allowed; `stream` stands before them."""
    rows, columns, bits = (_count(dataset, keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    frames = _count(dataset, "NumberOfFrames", 1)
    if bits not in (1, 8, 16, 32, 64):
        raise UnsafeError("has pixels of an unknown size", f"{bits} bits")
    frame_bits = rows * columns * _count(dataset, "SamplesPerPixel", 1) * bits
    wanted = (frame_bits * frames + 7) // 8
    if wanted > most_bytes:
        raise UnsafeError("has too many pixels when decoded", f"{wanted} bytes, the limit is {most_bytes}")
    big = dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRBigEndian
    order = ">" if big else "<"
    if struct.unpack(f"{order}HH", _exactly(stream, 4)) != _PIXEL_DATA:
        raise UnsafeError("has no pixel data")
    if dataset.file_meta.TransferSyntaxUID.is_implicit_VR:
        (length,) = struct.unpack("<I", _exactly(stream, 4))
    else:
        (length,) = struct.unpack(f"{order}4xI", _exactly(stream, 8))
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        if length != _UNDEFINED:
            raise UnsafeError("has compressed pixel data without fragments")
        fragments = _count_fragments(stream)
        if fragments < frames:
            raise UnsafeError("lacks compressed pixel data", f"{fragments} fragments for {frames} frames")
        return
    here = stream.tell()
    there = stream.seek(0, 2) - here
    if length == _UNDEFINED or not wanted <= length <= there:
        raise UnsafeError(
            "has pixel data cut short", f"{wanted} bytes needed, {length} announced, {there} there"
        )


def _count_fragments(stream: BinaryIO) -> int:
    """The fragments of encapsulated pixel data behind the offset table, to the end of the sequence (PS3.5 A.4)."""
    count = -1
    end = stream.seek(0, 1)
    size = stream.seek(0, 2)
    stream.seek(end)
    while True:
        group, element, length = struct.unpack("<HHI", _exactly(stream, 8))
        if (group, element) == _SEQUENCE_END:
            return count
        if (group, element) != _ITEM or stream.seek(length, 1) > size:
            raise UnsafeError("has damaged compressed pixel data")
        count += 1


def _count(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    if value in (None, "") and default is not None:
        return default
    try:
        number = int(str(value))
    except ValueError as error:
        raise UnsafeError(f"has no valid {keyword}") from error
    if number < 1:
        raise UnsafeError(f"has a {keyword} below 1", str(number))
    return number


def _exactly(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise UnsafeError("has pixel data cut short")
    return found


def _identity(path: Path, foreign: bool) -> dict[str, str]:
    """Which series and instance a rejected file says it is, if that can be read; for foreign ones, images only."""
    found: dict[str, str] = {}
    try:
        dataset = pydicom.dcmread(
            path,
            stop_before_pixels=True,
            specific_tags=["SOPClassUID", "SeriesInstanceUID", "SOPInstanceUID"],
        )
        if foreign and "Image Storage" not in uid.UID(_text(dataset, "SOPClassUID")).name:
            return found
        for name, keyword in (("series_uid", "SeriesInstanceUID"), ("sop_uid", "SOPInstanceUID")):
            found[name] = _uid(dataset, keyword)
    except Exception:  # it is damaged
        return found
    return found


def _serve(memory_bytes: int, most_pixel_bytes: int, charset: str, keywords: Sequence[str]) -> None:
    """The child: limits first, then an answer for each line until the parent goes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: dict[str, Any] = {}
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        answer = {"file": json.loads(line)}
        try:
            answer["header"] = asdict(examine(Path(answer["file"]), most_pixel_bytes, charset, keywords))
        except RejectedError as error:
            foreign = isinstance(error, ForeignError)
            answer |= {"cause": error.cause, "numbers": error.numbers, "foreign": foreign}
            answer |= _identity(Path(answer["file"]), foreign)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4].split())

"""Where the frames of DICOM files lie, so that they can be given without being decoded. Runs in the worker."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
_UNDEFINED = 0xFFFFFFFF


def frames(files: list[str]) -> list[dict[str, Any]]:
    """The transfer syntax of each file, and the pieces of each of its frames.

    Returns:
        "syntax", and "frames": of each frame a list of (offset, length) in bytes. Empty for a file whose frames cannot
        be told apart, or do not begin at a byte.
    """
    return [_frames(Path(file)) for file in files]


def _frames(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = dcmread(file, stop_before_pixels=True)
            header = file.read(8)
            if header[:4] != _PIXEL_DATA:
                return {}
            implicit = data.file_meta.TransferSyntaxUID.is_implicit_VR
            (length,) = struct.unpack("<I", header[4:] if implicit else file.read(4))
            pieces = _items(file, data) if length == _UNDEFINED else _native(file.tell(), length, data)
    except Exception:  # whatever a reader may fall over
        return {}
    return {"syntax": str(data.file_meta.TransferSyntaxUID), "frames": pieces} if pieces else {}


def _count(data: Dataset) -> int:
    return int(data.get("NumberOfFrames") or 1)


def _native(start: int, length: int, data: Dataset) -> list[list[tuple[int, int]]]:
    """Frames of one size, one after the other (PS3.5 8.1)."""
    bits = data.Rows * data.Columns * data.SamplesPerPixel * data.BitsAllocated
    count, size = _count(data), bits // 8
    if bits % 8 or count * size > length:
        return []
    return [[(start + number * size, size)] for number in range(count)]


def _items(file: BinaryIO, data: Dataset) -> list[list[tuple[int, int]]]:
    """Frames in fragments (PS3.5 A.4): one each, all of a single frame, or as the Basic Offset Table says."""
    found: list[tuple[int, int]] = []
    table: list[int] = []
    first = 0
    while True:
        tag, length = struct.unpack("<II", file.read(8))
        if tag != _ITEM:
            break
        at = file.tell()
        if not first:
            table = list(struct.unpack(f"<{length // 4}I", file.read(length)))
            first = file.tell()
        else:
            found.append((at, length))
            file.seek(length, 1)
    count = _count(data)
    if tag != _DELIMITER or not found:
        return []
    if len(found) == count:
        return [[each] for each in found]
    if count == 1:
        return [found]
    if len(table) != count:
        return []
    ends = [*table[1:], _UNDEFINED]
    return [
        [each for each in found if begin <= each[0] - 8 - first < end]
        for begin, end in zip(table, ends, strict=True)
    ]

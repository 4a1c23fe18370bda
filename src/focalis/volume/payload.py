"""Where NRRD and MetaImage files keep their values, and whether all of them are there.

The readers underneath go on with what they could unpack from a damaged compressed MetaImage, and print to the
terminal. So the headers are read here first, and the values are unpacked once without being kept.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from focalis.errors import DataError, near
from focalis.files import require_regular
from focalis.volume.written_placement import (
    meta_contradiction,
    meta_lacks,
    nrrd_lacks,
    require_meta_placement,
    require_nrrd_placement,
)

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE_BYTES = 1 << 20
_GZIP_MEMBER = b"\x1f\x8b"
_NRRD_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2,
    "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2,
    "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4,
    "longlong": 8, "long long": 8, "long long int": 8, "signed long long": 8, "signed long long int": 8,
    "int64": 8, "int64_t": 8, "ulonglong": 8, "unsigned long long": 8, "unsigned long long int": 8,
    "uint64": 8, "uint64_t": 8, "float": 4, "double": 8,
}  # fmt: skip
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip

_SLOPE, _INTERCEPT = "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"

Packing = Literal["none", "deflate", "other"]


@dataclass(frozen=True)
class Payload:
    """The values of an image file.

    Attributes:
        path: the file that holds them: the image file itself, or the data file that its header names.
        offset: bytes before them.
        packing: how they are stored; `other` (text, say) is left to the reader, which notices what is missing.
        nbytes: their length, unpacked.
        lacks: what the header would need to say how the image lies in the patient, a phrase; empty if it says so.
        contradiction: how its fields contradict each other, a phrase; empty if they agree.
    """

    path: Path
    offset: int
    packing: Packing
    nbytes: int
    lacks: str = ""
    contradiction: str = ""


def find_payload(path: Path) -> Payload:
    """Read the header of a NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file.

    Sources: the NRRD format definition (teem.sourceforge.net/nrrd/format.html), sections 3 to 5; the MetaIO
    documentation, "MetaImage tags".

    Raises:
        DataError: the file is missing or of another kind, its values are spread over several files, or it says
            something of its placement that cannot be.
    """
    require_regular(path)
    nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    try:
        with path.open("rb") as file:
            return _nrrd_payload(path, file) if nrrd else _meta_payload(path, file)
    except FileNotFoundError as error:
        raise DataError.at(path, "does not exist", f"check the path{near(path)}") from error
    except OSError as error:
        raise DataError.at(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except (KeyError, ValueError) as error:
        kind = "NRRD" if nrrd else "MetaImage"
        raise DataError.at(
            path, f"is not a {kind} file, or cut short in its header", "export it again"
        ) from error


def require_whole(path: Path) -> tuple[str, ...]:
    """Read a NRRD or MetaImage file to its end without keeping it.

    Returns:
        What its header says wrongly, a phrase each; empty as a rule.

    Raises:
        DataError: as `find_payload`, or values are missing or damaged.
    """
    payload = find_payload(path)
    if payload.path != path and not payload.path.is_file():
        raise DataError.at(
            path, f"its data file {payload.path.name} is not there", "copy it beside the header"
        )
    said = (payload.contradiction,) if payload.contradiction else ()
    if payload.packing == "other":
        return said
    try:
        with payload.path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(payload.offset)
            found = length - payload.offset if payload.packing == "none" else _unpacked_bytes(file)
    except (EOFError, zlib.error) as error:
        raise DataError.at(
            payload.path, "is cut short or damaged", "copy or export the file again"
        ) from error
    except OSError as error:
        raise DataError.at(
            payload.path, f"cannot be read ({error.strerror})", "check its permissions"
        ) from error
    if found < payload.nbytes:
        raise DataError.at(
            payload.path,
            f"is cut short ({max(0, found)} of {payload.nbytes} bytes of values)",
            "copy or export it again",
        )
    return (*said, surplus_of(found - payload.nbytes)) if found > payload.nbytes else said


def surplus_of(nbytes: int) -> str:
    """The phrase about bytes behind the last value: type, size or offset in the header may be wrong."""
    return f"it holds {nbytes} bytes more than the values that its header describes"


def _unpacked_bytes(file: BinaryIO) -> int:
    """The length of a zlib or gzip stream (or of several gzip members), unpacked; checksums are verified."""
    total = 0
    waiting = file.read(_CHUNK_BYTES)
    while True:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: either kind of header
        while not unpacker.eof:
            waiting = waiting or file.read(_CHUNK_BYTES)
            if not waiting:
                raise EOFError
            total += len(unpacker.decompress(waiting, _CHUNK_BYTES))
            waiting = unpacker.unconsumed_tail
        waiting = unpacker.unused_data or file.read(_CHUNK_BYTES)
        if not waiting.startswith(_GZIP_MEMBER):
            return total


def _nrrd_payload(path: Path, file: BinaryIO) -> Payload:
    if not file.readline(_LONGEST_LINE_BYTES).startswith(b"NRRD000"):
        raise ValueError
    fields: dict[str, str] = {}
    ended = False
    for raw in iter(lambda: file.readline(_LONGEST_LINE_BYTES), b""):
        line = raw.decode("utf-8", "replace").strip("\r\n")
        if not line:
            ended = True
            break
        if not line.startswith("#") and ":=" not in line:
            field, _, description = line.partition(":")
            fields[field.strip().lower()] = description.strip()
    require_nrrd_placement(path, fields)
    data = fields.get("data file", fields.get("datafile"))
    if data is None and not ended:
        raise ValueError
    if data is not None:
        _require_one_file(path, data)
    nbytes = math.prod(int(size) for size in fields["sizes"].split()) * _NRRD_BYTES[fields["type"].lower()]
    packings: dict[str, Packing] = {"raw": "none", "gzip": "deflate", "gz": "deflate"}
    packing: Packing = packings.get(fields["encoding"].lower(), "other")
    skips = [int(fields.get(f"{unit} skip", fields.get(f"{unit}skip", "0"))) for unit in ("line", "byte")]
    if any(skips):
        packing = "other"
    if data is None:
        return Payload(path, file.tell(), packing, nbytes, nrrd_lacks(fields))
    return Payload(path.parent / data, 0, packing, nbytes, nrrd_lacks(fields))


def _meta_payload(path: Path, file: BinaryIO) -> Payload:
    tags: dict[str, str] = {}
    while "ElementDataFile" not in tags:
        line = file.readline(_LONGEST_LINE_BYTES)
        tag, mark, value = line.decode("latin-1").partition("=")
        if not mark:
            raise ValueError
        tags[tag.strip()] = value.strip()
    require_meta_placement(path, tags)
    data = tags["ElementDataFile"]
    local = data.upper() == "LOCAL"
    if not local:
        _require_one_file(path, data)
    values = math.prod(int(size) for size in tags["DimSize"].split())
    values *= int(tags.get("ElementNumberOfChannels", "1"))
    nbytes = values * _META_BYTES[tags["ElementType"]]
    packing: Packing = "deflate" if _says_yes(tags.get("CompressedData")) else "none"
    if local and int(tags.get("HeaderSize", "0")) > 0:  # SimpleITK would take part of the header for values
        raise DataError.at(
            path, "its HeaderSize leads into the header", "leave it out or export the image again"
        )
    if (float(tags.get(_SLOPE, "1")), float(tags.get(_INTERCEPT, "0"))) != (1, 0):
        raise DataError.at(
            path,
            f"its values are scaled by {_SLOPE} and {_INTERCEPT}, which programs read differently",
            "export the image with its true values",
        )
    offset = file.tell() if local else int(tags.get("HeaderSize", "0"))
    if not _says_yes(tags.get("BinaryData", "True")) or offset < 0:
        packing = "other"
    place = path if local else path.parent / data
    return Payload(place, offset, packing, nbytes, meta_lacks(tags), meta_contradiction(tags))


def _says_yes(value: str | None) -> bool:
    return (value or "")[:1].upper() in {"T", "Y", "1"}


def _require_one_file(path: Path, data: str) -> None:
    if data.upper().startswith("LIST") or "%" in data:
        raise DataError.at(path, "its values lie in several files", "save the image as one file")

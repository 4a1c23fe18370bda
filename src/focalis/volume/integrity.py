"""Find what the NIfTI reader underneath does not report: truncated files, and values that are not numbers.

The reader fills what is missing with zeros and turns NaN and infinity into zero. Both would train a network
on something that nobody measured, so a file is read through once before.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError, near
from focalis.files import require_regular

_Stream = BinaryIO | gzip.GzipFile
_CHUNK_BYTES = 1 << 20
_HEADER_BYTES, _NIFTI_2_BYTES = 348, 540
_FLOAT_TYPES = {16: "f4", 64: "f8"}
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Bits of the datatypes of one real number: readers go by them, and do not look at bitpix."""
REAL_TYPES = frozenset(_BITS)
_MAGIC = (b"n+1\0", b"ni1\0")
"""Without it the file is Analyze 7.5, which does not say how it lies."""
_LEAST_OFFSET = 352
_LEAST_SLOPE = float(np.finfo(np.float64).eps)
"""ITK takes a smaller slope for none."""


@dataclass(frozen=True)
class NonFinite:
    """The values of a file that are NaN or infinite.

    Attributes:
        positions: their places in the flattened (z, y, x) array, int64.
        values: the values themselves, float64.
        surplus: bytes behind the last value, which the header does not explain.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    surplus: int = 0


@dataclass(frozen=True)
class _Header:
    offset: int
    data_bytes: int
    value_type: np.dtype[np.floating] | None


def inspect_nifti(path: Path) -> NonFinite:
    """Read a NIfTI file (.nii, .nii.gz by its name) to its end without keeping it.

    Returns:
        Its NaN and infinite values; empty for whole-number types.

    Raises:
        DataError: the file is missing, cut short, damaged or not NIfTI; its values have no scale that is a number; or
            its header does not say where they begin or how many there are.
    """
    require_regular(path)
    compressed = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as raw:
            stream: _Stream = gzip.GzipFile(fileobj=raw) if compressed else raw
            return _inspect(path, stream)
    except FileNotFoundError as error:
        raise DataError.at(path, "does not exist", f"check the path{near(path)}") from error
    except gzip.BadGzipFile as error:
        raise DataError.at(path, "is not an intact gzip file", "export the file again") from error
    except (EOFError, zlib.error) as error:
        raise DataError.at(path, "is cut short or damaged", "copy or export the file again") from error
    except OSError as error:
        raise DataError.at(path, f"cannot be read ({error.strerror})", "check its permissions") from error


def _inspect(path: Path, stream: _Stream) -> NonFinite:
    start = stream.read(_HEADER_BYTES)
    header = _parse(path, start)
    early = start[header.offset :]
    if header.offset > len(start):
        stream.read(header.offset - len(start))
    positions = [np.empty(0, dtype=np.int64)]
    values = [np.empty(0, dtype=np.float64)]
    done = 0
    while chunk := early + stream.read(_CHUNK_BYTES - len(early)):
        early = b""
        if header.value_type is not None:
            usable = min(len(chunk), header.data_bytes - done) // header.value_type.itemsize
            numbers = np.frombuffer(chunk, dtype=header.value_type, count=max(0, usable))
            if not np.isfinite(numbers).all():
                wrong = np.flatnonzero(~np.isfinite(numbers))
                positions.append(wrong + done // header.value_type.itemsize)
                values.append(numbers[wrong].astype(np.float64))
        done += len(chunk)
    if done < header.data_bytes:
        raise DataError.at(
            path, f"is cut short ({done} of {header.data_bytes} bytes of values)", "copy or export it again"
        )
    return NonFinite(np.concatenate(positions), np.concatenate(values), done - header.data_bytes)


def _parse(path: Path, start: bytes) -> _Header:
    """The fields of a NIfTI-1 header in either byte order."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) == _HEADER_BYTES else 0
        if size == _NIFTI_2_BYTES:
            raise DataError.at(path, "is a NIfTI-2 file, which is not supported", "save the image as NIfTI-1")
        if size == _HEADER_BYTES and start[344:348] in _MAGIC:
            dim = struct.unpack_from(f"{order}8h", start, 40)
            kind, bits = struct.unpack_from(f"{order}2h", start, 70)
            offset, slope, intercept = struct.unpack_from(f"{order}3f", start, 108)
            _require_scale(path, slope, intercept)
            _require_extent(path, dim[1 : 1 + max(0, min(3, dim[0]))], offset)
            voxels = math.prod(max(1, length) for length in dim[1 : 1 + max(0, min(7, dim[0]))])
            name = _FLOAT_TYPES.get(kind)
            return _Header(
                offset=int(offset),
                data_bytes=(voxels * _BITS.get(kind, bits) + 7) // 8,
                value_type=None if name is None else np.dtype(order + name),
            )
    raise DataError.at(path, "is not a NIfTI file", "export the image as NIfTI")


def _require_extent(path: Path, sizes: Sequence[int], offset: float) -> None:
    """Refuse sizes below 1, and values that begin within the header: readers put other numbers in their place."""
    for axis, size in enumerate(sizes, start=1):
        if size < 1:
            raise DataError.at(
                path,
                f"its size along axis {axis} (dim[{axis}]) is {size}",
                "correct the header or export the image again",
            )
    if not _LEAST_OFFSET <= offset < math.inf:
        raise DataError.at(
            path,
            f"its values begin at byte {offset:g} (vox_offset), within its header of {_LEAST_OFFSET} bytes",
            "correct the header or export the image again",
        )


def _require_scale(path: Path, slope: float, intercept: float) -> None:
    """Refuse what programs read differently: a slope that is infinite or nearly 0, and an intercept without slope or
    that is not a number.

    Without scaling, both are 0, or NaN as nibabel writes them.
    """
    unscaled = math.isnan(slope) or slope == 0
    if (
        math.isinf(slope)
        or 0 < abs(slope) < _LEAST_SLOPE
        or not (math.isfinite(intercept) or unscaled)
        or (unscaled and abs(intercept) > 0)
    ):
        raise DataError.at(
            path,
            f"its scl_slope is {slope:g} and its scl_inter {intercept:g}, which gives its values no scale",
            "correct the header or export the image again",
        )

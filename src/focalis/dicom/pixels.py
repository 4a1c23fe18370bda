"""Decode stored values, of any transfer syntax, and rescale them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options

from focalis.dicom.headers import quiet
from focalis.dicom.slices import Slice
from focalis.errors import DataError

_MEMORY_BYTES = 1 << 20
"""Pixel data larger than this are left in the file and decoded frame by frame."""

_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)


def value_type(slices: Sequence[Slice]) -> np.dtype[Any]:
    """The dtype that holds every value the slices can have.

    int16, else int32, if all slopes and intercepts are whole numbers; float32 otherwise, and where int32 is too
    small.
    """
    if all(float(number).is_integer() for each in slices for number in (each.slope, each.intercept)):
        ends = [end * each.slope + each.intercept for each in slices for end in each.stored_range]
        for kind in (np.int16, np.int32):
            limits = np.iinfo(kind)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return np.dtype(kind)
    return np.dtype(np.float32)


def read_values(slices: Sequence[Slice]) -> NDArray[Any]:
    """The rescaled values of slices of equal size, stacked in the given order.

    One slice at a time is decoded; beside the result, no more than one file's encoded pixel data (and of large
    uncompressed files one frame) is in memory.

    Returns:
        (slice, y, x); value = stored * slope + intercept, computed in float64, of `value_type`.

    Raises:
        DataError: a file lacks pixel data, is cut short or damaged, or has a transfer syntax that cannot be
            decoded.
    """
    columns, rows = slices[0].size_xy
    values = np.empty((len(slices), rows, columns), dtype=value_type(slices))
    by_file: dict[Path, dict[int, int]] = {}
    for z, each in enumerate(slices):
        by_file.setdefault(each.file, {})[each.frame] = z
    for path, places in by_file.items():
        _fill(values, slices, path, places)
    return values


def signed_doubt(values: NDArray[Any], slices: Sequence[Slice]) -> tuple[str, ...]:
    """One phrase if signed values seem to be stored as unsigned ones; else none.

    Negative numbers that are read as unsigned fill the top quarter of the range, and nothing lies in its middle half.
    """
    low = high = 0
    for plane, each in zip(values, slices, strict=True):
        least, greatest = each.stored_range
        if least < 0 or greatest < 0xFFF:
            return ()
        stored = (plane.astype(np.float64) - each.intercept) / each.slope
        share = stored / greatest
        if ((share >= 0.25) & (share < 0.75)).any():
            return ()
        low += int(np.count_nonzero(share < 0.25))
        high += int(np.count_nonzero(share >= 0.75))
    if not low or not high:
        return ()
    return (
        f"{high} values of Pixel Representation 0 lie near the top of their range and none in its middle: they may "
        "be negative numbers; if so, set Pixel Representation to 1",
    )


def surplus(dataset: Dataset, held_bytes: int) -> str:
    """A phrase if uncompressed pixel data are too long for what the header says; empty if not.

    A few bytes behind the last frame are padding, but single bits run on from frame to frame: there, more than one
    means that each frame was padded.
    """
    frame_bits = (
        dataset.Rows * dataset.Columns * dataset.BitsAllocated * int(dataset.get("SamplesPerPixel") or 1)
    )
    frames = int(dataset.get("NumberOfFrames") or 1)
    wanted = (frame_bits * frames + 7) // 8
    padding = 1 if dataset.BitsAllocated == 1 else frame_bits // 8 - 1
    if held_bytes <= wanted + padding:
        return ""
    return f"holds {held_bytes} bytes of pixel data, but its header says {wanted}"


def _fill(values: NDArray[Any], slices: Sequence[Slice], path: Path, places: dict[int, int]) -> None:
    """Put the frames of a file (number to z) into their places."""
    syntax = uid.UID(slices[next(iter(places.values()))].transfer_syntax)
    decoder = _decoder(path, syntax)
    try:
        with quiet(), path.open("rb") as stream:
            # the deflated syntax is inflated as a whole; offsets into the file mean nothing there
            deflated = syntax == uid.DeflatedExplicitVRLittleEndian
            dataset = pydicom.dcmread(
                stream,
                force=True,
                defer_size=None if deflated else _MEMORY_BYTES,
                specific_tags=list(_KEYWORDS),
            )
            element: Any = dataset.get_item("PixelData", keep_deferred=True)
            if element is None or (element.value is None and not element.length):
                raise DataError.at(
                    path, "holds no pixel data, or only part of them", "copy or export the file again"
                )
            held = element.length if element.value is None else len(element.value)
            if not syntax.is_encapsulated and (phrase := surplus(dataset, held)):
                raise DataError.at(path, phrase, "export the file again")
            options = as_pixel_options(dataset, pixel_keyword="PixelData", pixel_vr=element.VR)
            for number, z in places.items():
                source: Any = element.value
                if source is None:
                    stream.seek(element.value_tell)
                    source = stream
                stored, _ = decoder.as_array(source, index=number - 1, raw=True, **options)
                values[z] = _rescaled(path, stored, slices[z], values.dtype)
    except DataError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged data
        raise DataError.at(
            path, f"its pixel data ({syntax.name}) are cut short or damaged", "copy or export the file again"
        ) from error


def _rescaled(path: Path, stored: NDArray[Any], each: Slice, dtype: np.dtype[Any]) -> NDArray[Any]:
    least, greatest = each.stored_range
    if stored.min() < least or stored.max() > greatest:
        raise DataError.at(
            path, f"holds values beyond its Bits Stored ({least} to {greatest})", "export the file again"
        )
    if each.slope == 1 and each.intercept == 0:
        return stored
    return (stored.astype(np.float64) * each.slope + each.intercept).astype(dtype)


def _decoder(path: Path, syntax: uid.UID) -> Any:
    try:
        decoder = get_decoder(syntax)
        available = decoder.is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError.at(
            path,
            f"its transfer syntax {syntax.name} cannot be decoded",
            "export it uncompressed, or convert it with `gdcmconv --raw` or `dcmdjpeg`",
        )
    return decoder

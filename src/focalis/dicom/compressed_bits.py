"""Frames of a Segmentation that pydicom does not decode: single bits in RLE, and the deflated image frame syntax."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID, RLELossless

DEFLATED_IMAGE_FRAME = UID("1.2.840.10008.1.2.8.1")
_RLE_HEADER_BYTES = 64


def is_compressed_bits(dataset: Dataset, syntax: UID) -> bool:
    """Whether `compressed_frames` decodes such pixel data."""
    return syntax == DEFLATED_IMAGE_FRAME or (syntax == RLELossless and dataset.BitsAllocated == 1)


def compressed_frames(dataset: Dataset, syntax: UID, indices: Sequence[int]) -> Iterator[NDArray[np.integer]]:
    """The stored values of some frames, (rows, columns), one at a time.

    Raises:
        ValueError: a frame holds more or less than its pixels.
    """
    rows, columns, bits = dataset.Rows, dataset.Columns, dataset.BitsAllocated
    size = (rows * columns * bits + 7) // 8
    for index in indices:
        encoded = get_frame(dataset.PixelData, index, number_of_frames=int(dataset.NumberOfFrames))
        content = inflate(encoded, size) if syntax == DEFLATED_IMAGE_FRAME else unpack_rle(encoded, size)
        if len(content) != size:
            raise ValueError(f"frame {index + 1} holds {len(content)} bytes, not {size}")
        if bits == 1:
            unpacked = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
            yield unpacked[: rows * columns].reshape(rows, columns)
        else:
            yield np.frombuffer(content, f"<u{bits // 8}").reshape(rows, columns)


def inflate(encoded: bytes, size: int) -> bytes:
    """A deflated frame (RFC 1951; PS3.5 A.4.13), of which no more than the expected bytes and a few are made.

    Raises:
        ValueError: it is damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(encoded, size + 2)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    # one byte of padding may make an even length
    return content[:size] if len(content) == size + size % 2 else content


def unpack_rle(encoded: bytes, size: int) -> bytes:
    """A frame of one RLE segment (PS3.5 G.3).

    Raises:
        ValueError: it has several segments, or is cut short.
    """
    header = np.frombuffer(encoded[:_RLE_HEADER_BYTES], "<u4")
    if len(header) != 16 or header[0] != 1:
        raise ValueError("its RLE data are not one segment per frame")
    place = int(header[1])
    content = bytearray()
    while len(content) <= size + 1 and place < len(encoded):
        count = encoded[place]
        if count < 128:
            content += encoded[place + 1 : place + 2 + count]
            place += count + 2
        else:
            if count > 128:
                content += encoded[place + 1 : place + 2] * (257 - count)
            place += 1 + (count > 128)
    # one byte of padding may make an even length
    return bytes(content[:size]) if len(content) == size + size % 2 else bytes(content)

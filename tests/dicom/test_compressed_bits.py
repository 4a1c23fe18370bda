"""Single bits in RLE and deflated frames, against encoders of their own."""

import zlib

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import RLELossless

from focalis.dicom.compressed_bits import DEFLATED_IMAGE_FRAME, compressed_frames


def packed(frame: np.ndarray) -> bytes:
    return np.packbits(frame.ravel(), bitorder="little").tobytes()


def rle(content: bytes) -> bytes:
    """By pydicom, as a row of single bytes."""
    return RLELosslessEncoder.encode(
        content,
        rows=1,
        columns=len(content),
        samples_per_pixel=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )


def deflate(content: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return encoder.compress(content) + encoder.flush()


def dataset(frames: np.ndarray, encode) -> Dataset:
    found = Dataset()
    found.Rows, found.Columns, found.NumberOfFrames = frames.shape[1], frames.shape[2], len(frames)
    found.BitsAllocated = 1
    found.PixelData = encapsulate([encode(packed(frame)) for frame in frames])
    return found


@pytest.mark.parametrize(("syntax", "encode"), [(RLELossless, rle), (DEFLATED_IMAGE_FRAME, deflate)])
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 7, 5), (4, 33, 21)])
def test_frames_come_back(syntax, encode, shape) -> None:
    frames = np.random.default_rng(1).random(shape) < 0.2
    found = list(compressed_frames(dataset(frames, encode), syntax, range(len(frames))))
    np.testing.assert_array_equal(found, frames)
    (last,) = compressed_frames(dataset(frames, encode), syntax, [len(frames) - 1])
    np.testing.assert_array_equal(last, frames[-1])


@pytest.mark.parametrize(("syntax", "encode"), [(RLELossless, rle), (DEFLATED_IMAGE_FRAME, deflate)])
@pytest.mark.parametrize("damage", [lambda content: content[:-12], lambda content: content + bytes(12)])
def test_a_frame_of_another_size_is_an_error(syntax, encode, damage) -> None:
    frames = np.random.default_rng(2).random((2, 32, 32)) < 0.5
    with pytest.raises(ValueError, match="frame 1 holds"):
        list(compressed_frames(dataset(frames, lambda content: encode(damage(content))), syntax, [0, 1]))

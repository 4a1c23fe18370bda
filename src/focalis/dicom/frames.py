"""The frames of a Segmentation object: which segment each belongs to, and which voxels of a series it covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.pixels.utils import iter_pixels

from focalis.dicom.compressed_bits import compressed_frames, is_compressed_bits
from focalis.dicom.headers import gist, numbers, quiet, text
from focalis.dicom.pixels import surplus
from focalis.errors import DataError
from focalis.volume import Grid

PLACE_TOLERANCE = 0.2
"""A frame may lie off the series' voxels by this share of a voxel.

The slices of a series may themselves lie a tenth off their even places; a grid that is another one is mostly
off by half a voxel or more somewhere.
"""


@dataclass(frozen=True)
class Frame:
    """One frame's place in the object and in the series.

    Attributes:
        index: its number in the pixel data, from 0.
        segment: the segment it belongs to; None in a label map, whose values are the segments.
        first_xyz: the series' voxel under the frame's first pixel.
        along_row_xyz: the step to the voxel under the next pixel of a row: one voxel along one axis.
        down_column_xyz: the step to the voxel under the next pixel of a column.
    """

    index: int
    segment: int | None
    first_xyz: NDArray[np.int64]
    along_row_xyz: NDArray[np.int64]
    down_column_xyz: NDArray[np.int64]

    def add_to(self, mask: NDArray[np.bool_], pixels: NDArray[np.bool_], path: Path) -> None:
        """Set the voxels under the foreground pixels in a mask of the series (z, y, x), in place.

        Raises:
            DataError: a foreground pixel lies outside the series.
        """
        row, column = np.nonzero(pixels)
        xyz = self.first_xyz + np.outer(column, self.along_row_xyz) + np.outer(row, self.down_column_xyz)
        outside = ((xyz < 0) | (xyz >= mask.shape[::-1])).any(axis=1)
        if outside.any():
            x, y, z = xyz[outside][0]
            raise DataError.at(
                path,
                f"{outside.sum()} voxels of frame {self.index + 1} lie outside the series, the first at "
                f"({x}, {y}, {z}) (x, y, z)",
                "give the whole series that it was drawn on",
            )
        mask[xyz[:, 2], xyz[:, 1], xyz[:, 0]] = True


def locate_frames(dataset: FileDataset, path: Path, grid: Grid) -> list[Frame]:
    """Find every frame's segment and voxels by the functional groups, never by its order (PS3.3 C.7.6.16).

    The frames may be turned by right angles against the series' axes and mirrored, as long as voxels fall on
    voxels.

    Raises:
        DataError: a frame lacks its segment or place, or lies on another grid than the series.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    count = round(numbers(dataset, "NumberOfFrames", 1, str(path))[0])
    if len(per_frame) != count:
        raise DataError.at(path, f"has {count} frames but the places of {len(per_frame)}", "export it again")
    columns = round(numbers(dataset, "Columns", 1, str(path))[0])
    rows = round(numbers(dataset, "Rows", 1, str(path))[0])
    is_label_map = text(dataset, "SegmentationType") == "LABELMAP"
    found = []
    for index, own in enumerate(per_frame):
        where = f"{path} frame {index + 1}"
        segment = None
        if not is_label_map:
            identity = _group("SegmentIdentificationSequence", own, shared)
            segment = round(numbers(identity, "ReferencedSegmentNumber", 1, where)[0])
        first, along, down = _place(own, shared, (columns, rows), grid, where)
        found.append(Frame(index, segment, first, along, down))
    return found


def read_frames(
    path: Path, indices: Sequence[int], doubts: list[str] | None = None
) -> Iterator[NDArray[np.integer]]:
    """The stored values of some frames, (rows, columns), one at a time.

    Args:
        path: a Segmentation object.
        indices: the numbers of the frames, from 0.
        doubts: takes up a phrase if single bits can be read in two ways.

    Raises:
        DataError: the pixel data are missing, damaged, or in an encoding that cannot be decoded.
    """
    if not indices:
        return
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        if is_compressed_bits(dataset, syntax):
            frames = compressed_frames(dataset, syntax, indices)
        elif not syntax.is_encapsulated and (phrase := surplus(dataset, len(dataset.PixelData))):
            raise ValueError(phrase)
        elif dataset.BitsAllocated == 1 and not syntax.is_encapsulated:
            stored = _in_order(dataset)
            if (doubt := _padding_doubt(dataset, stored)) and doubts is not None:
                doubts.append(f"{path}: {doubt}")
            frames = _unpacked(dataset, stored, indices)
        else:
            frames = iter_pixels(dataset, indices=indices, raw=True)
        for _ in indices:
            with quiet():
                pixels = next(frames)
            yield pixels
    except Exception as error:  # decoders raise many kinds on damaged data
        raise DataError.at(
            path,
            f"its pixel data cannot be decoded ({gist(error)})",
            "export it uncompressed, or copy it again if it is damaged",
        ) from error


def _in_order(dataset: FileDataset) -> NDArray[np.uint8]:
    """The bytes of uncompressed single bits; big-endian words are turned around (PS3.5 7.3)."""
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    if not dataset.original_encoding[1] and dataset["PixelData"].VR == "OW":
        stored = stored.reshape(-1, 2)[:, ::-1].ravel()
    return stored


def _padding_doubt(dataset: FileDataset, stored: NDArray[np.uint8]) -> str:
    """A phrase if frames of single bits may each be padded to whole bytes, which the standard forbids; empty if not.

    For a few small frames, both ways take equally many bytes. Padding holds no set bits.

    Raises:
        ValueError: what would lie between padded frames is empty, and what would lie behind others is not.
    """
    size, frames = dataset.Rows * dataset.Columns, int(dataset.NumberOfFrames)
    padded_bytes = (size + 7) // 8 * frames
    if size % 8 == 0 or frames == 1 or padded_bytes > len(stored):
        return ""
    bits = np.unpackbits(stored, bitorder="little")
    padded = bits[: 8 * padded_bytes].reshape(frames, -1)
    if padded[:, size:].any() or np.array_equal(padded[:, :size].ravel(), bits[: frames * size]):
        return ""
    if bits[frames * size :].any():
        raise ValueError("each frame seems to be padded to whole bytes")
    return "its frames are read as unpadded, but may each be padded to whole bytes: compare the masks with the images"


def _unpacked(
    dataset: FileDataset, stored: NDArray[np.uint8], indices: Sequence[int]
) -> Iterator[NDArray[np.integer]]:
    """Frames of uncompressed single bits: one runs on where the last ends, within a byte (PS3.5 8.1.1).

    pydicom 3.0 decodes such frames one by one only where each fills whole bytes.
    """
    rows, columns = dataset.Rows, dataset.Columns
    for index in indices:
        first = index * rows * columns
        last = first + rows * columns
        bits = np.unpackbits(stored[first // 8 : (last + 7) // 8], bitorder="little")
        yield bits[first % 8 :][: rows * columns].reshape(rows, columns)


def _group(keyword: str, own: Dataset, shared: Dataset) -> Dataset:
    """A functional group of a frame: its own, else the shared one."""
    items = own.get(keyword) or shared.get(keyword)
    return items[0] if items else Dataset()


def _place(
    own: Dataset, shared: Dataset, size_xy: tuple[int, int], grid: Grid, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The voxel under a frame's first pixel, and the steps along a row and down a column."""
    position = numbers(_group("PlanePositionSequence", own, shared), "ImagePositionPatient", 3, where)
    axes = numbers(_group("PlaneOrientationSequence", own, shared), "ImageOrientationPatient", 6, where)
    measures = _group("PixelMeasuresSequence", own, shared)
    row_spacing, column_spacing = numbers(measures, "PixelSpacing", 2, where)
    along_mm = np.multiply(axes[:3], column_spacing)
    down_mm = np.multiply(axes[3:], row_spacing)
    exact = np.stack(
        [
            grid.to_indices(position),
            grid.to_indices(np.add(grid.origin_xyz_mm, along_mm)),
            grid.to_indices(np.add(grid.origin_xyz_mm, down_mm)),
        ]
    )
    first, along, down = whole = np.rint(exact).astype(np.int64)
    # how far the four corner pixels are from the centres of their voxels
    ends = [(1, x * (size_xy[0] - 1), y * (size_xy[1] - 1)) for x in (0, 1) for y in (0, 1)]
    off = float(np.abs(np.array(ends) @ (exact - whole)).max())
    steps = np.abs(whole[1:]).sum(axis=1)
    if off > PLACE_TOLERANCE or (steps != 1).any() or along @ down != 0:
        normal = np.cross(axes[:3], axes[3:])
        drawn = Grid(
            size_xyz=(*size_xy, grid.size_xyz[2]),
            spacing_xyz_mm=(column_spacing, row_spacing, grid.spacing_xyz_mm[2]),
            # the part of the shift that is not whole voxels
            origin_xyz_mm=_triple(grid.to_patient(exact[0] - first)),
            direction=tuple(np.stack([axes[:3], axes[3:], normal], axis=1).ravel().tolist()),
        )
        listed = ", ".join(drawn.differences(grid)) or f"off by {off:.2f} voxels"
        raise DataError.at(
            where, f"lies on another grid than the series: {listed}", "give the series that it was drawn on"
        )
    return first, along, down


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z

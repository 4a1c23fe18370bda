"""DICOM Segmentation objects (SEG; PS3.3 A.51, label maps A.90): read by position, write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.uid import UID, SegmentationStorage

from focalis.charsets import DEFAULT_CHARSET
from focalis.dicom.derived import Origin, Superseded, describe_result
from focalis.dicom.frames import locate_frames, read_frames
from focalis.dicom.headers import numbers, text
from focalis.dicom.objects import keyed_names, read_object, require_same_patient_space, select
from focalis.dicom.segmentation_encoding import encode_segmentation
from focalis.dicom.series import Series
from focalis.dicom.storing import save
from focalis.errors import DataError

# pydicom 3.0 does not know the class of label maps yet
SEGMENTATION_CLASSES = frozenset({SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7")})


@dataclass(frozen=True)
class Segment:
    """One segment of a Segmentation object, as it describes itself.

    Attributes:
        name: its label; "LABEL #NUMBER" where several segments bear one label, "segment #NUMBER" without one.
        description: its Segment Description; empty if there is none.
        category: what kind of thing it is, in words, e.g. "Morphologically Abnormal Structure".
        property_type: what it is, in words, e.g. "Lesion".
    """

    number: int
    name: str
    description: str
    category: str
    property_type: str


def list_segments(path: Path, charset: str = DEFAULT_CHARSET) -> tuple[Segment, ...]:
    """The segments of a Segmentation object, in its order; no pixel data are read.

    Args:
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Raises:
        DataError: the file is missing, damaged, or no Segmentation object, or two segments share a number.
    """
    return _segments(read_object(path, SEGMENTATION_CLASSES, "a DICOM Segmentation", charset), path)


def read_segmentation(
    path: Path,
    reference: Series,
    wanted: Collection[str] | None = None,
    doubts: list[str] | None = None,
    charset: str = DEFAULT_CHARSET,
) -> dict[str, NDArray[np.bool_]]:
    """The segments of a Segmentation object as masks on the grid of the series it was drawn on.

    Frames find their slice by position, never by their order; slices without a frame are empty. Segments may
    overlap. In a fractional object, a voxel belongs to a segment where its value is at least half of the
    greatest (Maximum Fractional Value): where it is at least as likely inside as outside, or half covered.

    Args:
        path: a Segmentation object: BINARY, FRACTIONAL or LABELMAP, of any encoding that pydicom decodes.
        reference: the series it was drawn on, or another one on the same voxels in the same patient space.
        wanted: the names of the segments to read, as `list_segments` gives them; all by default.
        doubts: takes up what is doubtful about the object, a line each.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Returns:
        Segment name to mask (z, y, x), in the object's order.

    Raises:
        DataError: the file is missing, damaged, or no Segmentation object; it was drawn on another series or
            another grid; a foreground voxel lies outside the series; or a wanted segment is not there.
    """
    dataset = read_object(path, SEGMENTATION_CLASSES, "a DICOM Segmentation", charset)
    require_same_patient_space(dataset, path, reference)
    segments = _segments(dataset, path)
    chosen = select([segment.name for segment in segments], wanted, path, "segment")
    masks = {
        segment.number: np.zeros(reference.volume.array.shape, dtype=bool)
        for segment in segments
        if segment.name in chosen
    }
    frames = locate_frames(dataset, path, reference.volume.grid)
    numbered = {frame.segment for frame in frames if frame.segment is not None}
    known = {segment.number for segment in segments}
    if strangers := sorted(numbered - known):
        raise DataError.at(
            path, f"has frames of segment {strangers[0]}, which it does not describe", "export it again"
        )
    frames = [frame for frame in frames if frame.segment is None or frame.segment in masks]
    kind = text(dataset, "SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise DataError.at(path, f"is of the unknown Segmentation Type {kind!r}", "export it as BINARY")
    half, greatest = 1, None
    if kind == "FRACTIONAL":
        greatest = round(numbers(dataset, "MaximumFractionalValue", 1, str(path))[0])
        half = (greatest + 1) // 2
        if half < 1:
            raise DataError.at(path, f"its Maximum Fractional Value is {greatest}", "export it again")
    if kind != "BINARY" and text(dataset, "BitsStored") != text(dataset, "BitsAllocated"):
        raise DataError.at(
            path,
            f"stores {text(dataset, 'BitsStored')} of {text(dataset, 'BitsAllocated')} bits per value",
            "export it again",
        )
    stored = read_frames(path, [frame.index for frame in frames], doubts)
    nonzero: set[int] = set()
    for frame, pixels in zip(frames, stored, strict=True):
        if kind == "BINARY" and not nonzero:
            nonzero = {int(pixels.max())} - {0}
        if (kind == "BINARY" and not np.isin(pixels, [0, *nonzero]).all()) or (
            pixels.min() < 0 or (greatest is not None and pixels.max() > greatest)
        ):
            raise DataError.at(
                path,
                f"frame {frame.index + 1} holds values that a {kind} object cannot have",
                "export it again",
            )
        if frame.segment is not None:
            frame.add_to(masks[frame.segment], pixels >= half, path)
            continue
        for number in np.unique(pixels[pixels > 0]):
            if int(number) not in known:
                raise DataError.at(
                    path, f"has voxels of segment {number}, which it does not describe", "export it again"
                )
            if int(number) in masks:
                frame.add_to(masks[int(number)], pixels == number, path)
    return {segment.name: masks[segment.number] for segment in segments if segment.number in masks}


def write_segmentation(
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    path: Path,
    origin: Origin,
    *,
    supersedes: Superseded | None = None,
    tracking: Mapping[int, str] | None = None,
) -> None:
    """Write a label map as a binary Segmentation object that refers to its source images.

    Each named label becomes a segment, numbered from 1 by ascending label value; frames without foreground are
    left out. A label map without foreground becomes a valid object with one empty frame per segment. Each frame
    has the position of its source slice. UIDs are derived from the content, see `focalis.dicom.derived`: the same
    call writes the same bytes.

    A segment is coded as a lesion, or as what its name says: cyst, edema, mass, necrosis, neoplasm (tumour),
    nodule.

    Args:
        label: integer values on the series' grid, z, y, x; 0 is the background.
        names: label value to name, up to 64 characters; 0 may be named and is passed over.
        series: the series that was labelled.
        origin: how the labels were made; with a reviewer the segments count as made semi-automatically.
        supersedes: the earlier object that this one replaces, told in its Derivation Description.
        tracking: label value to the Tracking UID by which the segment is known in other objects; its Tracking ID is its
            name.

    Raises:
        DataError: the label map does not fit the series, a value has no name, a name cannot be stored, or the
            file cannot be written.
    """
    result = describe_result("SEG", label, names, series, origin, supersedes, tracking)
    save(lambda: encode_segmentation(result), path, series)


def _segments(dataset: FileDataset, path: Path) -> tuple[Segment, ...]:
    items = [
        (round(numbers(item, "SegmentNumber", 1, f"{path} segment")[0]), item)
        for item in dataset.get("SegmentSequence") or ()
    ]
    # in a label map, number 0 may describe the background (PS3.3 C.8.20.2)
    items = [(number, item) for number, item in items if number > 0]
    if len({number for number, _ in items}) != len(items):
        raise DataError.at(path, "two segments share a number", "export it again")
    names = keyed_names(((number, text(item, "SegmentLabel")) for number, item in items), path, "segment")
    return tuple(
        Segment(
            number=number,
            name=name,
            description=text(item, "SegmentDescription"),
            category=_meaning(item, "SegmentedPropertyCategoryCodeSequence"),
            property_type=_meaning(item, "SegmentedPropertyTypeCodeSequence"),
        )
        for name, (number, item) in zip(names, items, strict=True)
    )


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword)
    return text(codes[0], "CodeMeaning") if codes else ""

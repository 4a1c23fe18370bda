"""The slices of image files: their positions, and how stored values become measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, FileDataset, uid

from focalis.dicom import private
from focalis.dicom.headers import IMAGE_CLASSES, items, numbers, read_header, sop_class, text, value_is_absent
from focalis.dicom.uniform import KEYWORDS, MAPPING, told
from focalis.errors import DataError

_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    MAPPING,
    *KEYWORDS,
    *private.WORDS,
    *private.TAGS,
)
_MULTIFRAME_CLASSES = {*IMAGE_CLASSES} - {
    uid.CTImageStorage,
    uid.MRImageStorage,
    uid.PositronEmissionTomographyImageStorage,
}


@dataclass(frozen=True)
class Slice:
    """One slice: a single-frame file, or one frame of a multi-frame file.

    Attributes:
        frame: the frame's number in its file, from 1.
        frames: how many frames the file holds.
        frame_of_reference: the Frame of Reference UID; empty if the file names none.
        size_xy: columns, rows.
        position_xyz_mm: patient position of the centre of the first pixel (Image Position, PS3.3 C.7.6.2.1.1).
        orientation: six direction cosines: of the axis along a row, then of the axis down a column.
        spacing_xy_mm: distance between columns, between rows.
        thickness_mm: Spacing Between Slices, else Slice Thickness; None if the file names neither.
        slope: Rescale Slope; value = stored * slope + intercept (PS3.3 C.11.1).
        stored_range: the least and the greatest value that the stored bits can hold.
        said: what else the slice says of itself, see `focalis.dicom.uniform.told`.
    """

    file: Path
    frame: int
    frames: int
    transfer_syntax: str
    instance_uid: str
    series_uid: str
    frame_of_reference: str
    size_xy: tuple[int, int]
    position_xyz_mm: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_xy_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float
    stored_range: tuple[int, int]
    said: Mapping[str, str] = field(default_factory=dict)


def read_slices(path: Path) -> list[Slice]:
    """The slices of one CT, MR or PET file, in the order of its frames; no pixel data is read.

    In a multi-frame file, the functional groups Plane Position, Plane Orientation, Pixel Measures and Pixel
    Value Transformation are taken per frame or shared (PS3.3 C.7.6.16).

    Raises:
        DataError: the file is damaged, no CT, MR or PET image, a colour image, or lacks part of its geometry.
    """
    header = read_header(path, _KEYWORDS)
    _require_grey_image(path, header)
    frames = _whole(header, "NumberOfFrames", str(path), default=1)
    per_frame = items(header, "PerFrameFunctionalGroupsSequence", str(path))
    if sop_class(header) not in _MULTIFRAME_CLASSES and frames == 1:
        return [_slice(path, header, 1, 1, {}, told(header, None, None, str(path)))]
    if frames < 1 or len(per_frame) != frames:
        raise DataError.at(
            path, f"has {frames} frames but the positions of {len(per_frame)}", "export the series again"
        )
    shared = (items(header, "SharedFunctionalGroupsSequence", str(path)) or [Dataset()])[0]
    return [
        _slice(path, header, i + 1, frames, _groups(path, shared, own), told(header, own, shared, str(path)))
        for i, own in enumerate(per_frame)
    ]


def _require_grey_image(path: Path, header: FileDataset) -> None:
    kind = sop_class(header)
    if kind not in IMAGE_CLASSES:
        name = f"a {kind.name}" if kind else "a file of unknown class"
        raise DataError.at(path, f"is {name}, no CT, MR or PET image", "give the image series")
    colour = text(header, "PhotometricInterpretation")
    samples = text(header, "SamplesPerPixel")
    if samples not in ("", "1") or colour not in ("", "MONOCHROME1", "MONOCHROME2"):
        raise DataError.at(
            path,
            f"is a colour image ({samples or 1} samples per pixel, {colour})",
            "give the series of measured values, not its colour rendering",
        )
    if items(header, "ModalityLUTSequence", str(path)):
        raise DataError.at(
            path,
            "its values go through a lookup table (Modality LUT)",
            "export it with Rescale Slope instead",
        )


def _groups(path: Path, shared: Dataset, own: Dataset) -> Mapping[str, Dataset]:
    """The functional groups that hold for a frame: its own before the shared ones."""
    keywords = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )
    found = {}
    for keyword in keywords:
        held = items(own, keyword, str(path)) or items(shared, keyword, str(path))
        found[keyword] = held[0] if held else Dataset()
    return found


def _slice(
    path: Path,
    header: FileDataset,
    frame: int,
    frames: int,
    groups: Mapping[str, Dataset],
    said: Mapping[str, str],
) -> Slice:
    """One slice; an attribute without a functional group (single-frame files) stands in the header."""
    where = f"{path} frame {frame}" if frames > 1 else str(path)
    measures = groups.get("PixelMeasuresSequence", header)
    values = groups.get("PixelValueTransformationSequence", header)
    x, y, z = numbers(groups.get("PlanePositionSequence", header), "ImagePositionPatient", 3, where)
    orientation = groups.get("PlaneOrientationSequence", header)
    row_spacing, column_spacing = numbers(measures, "PixelSpacing", 2, where)
    spacing = _number(measures, "SpacingBetweenSlices", where, default=0)
    thickness = abs(spacing or _number(measures, "SliceThickness", where, default=0))
    if said["Modality"] == "PT" and not said["RescaleSlope"]:
        raise DataError.at(
            where,
            "is a PET image without Rescale Slope, so its values have no scale",
            "export the series again, with its whole headers",
        )
    # some multi-frame files keep the scale of all frames in the header
    slope = _number(values, "RescaleSlope", where, _number(header, "RescaleSlope", where, default=1))
    if slope == 0 or min(row_spacing, column_spacing) <= 0:
        wrong = "Rescale Slope" if slope == 0 else "Pixel Spacing"
        raise DataError.at(where, f"its {wrong} is 0 or below", "export the image again")
    return Slice(
        file=path,
        frame=frame,
        frames=frames,
        transfer_syntax=_transfer_syntax(header),
        instance_uid=text(header, "SOPInstanceUID"),
        series_uid=text(header, "SeriesInstanceUID"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        size_xy=(_whole(header, "Columns", where), _whole(header, "Rows", where)),
        position_xyz_mm=(x, y, z),
        orientation=numbers(orientation, "ImageOrientationPatient", 6, where),
        spacing_xy_mm=(column_spacing, row_spacing),
        thickness_mm=thickness or None,
        slope=slope,
        intercept=_number(
            values, "RescaleIntercept", where, _number(header, "RescaleIntercept", where, default=0)
        ),
        stored_range=_stored_range(header, where),
        said=said,
    )


def _stored_range(header: FileDataset, where: str) -> tuple[int, int]:
    allocated, stored = _whole(header, "BitsAllocated", where), _whole(header, "BitsStored", where)
    high = _whole(header, "HighBit", where, default=stored - 1)
    if not 1 <= stored <= allocated or allocated not in (8, 16, 32) or high != stored - 1:
        raise DataError.at(
            where,
            f"stores {stored} of {allocated} bits below bit {high + 1}",
            "only the lowest bits of 8, 16 or 32 can be read: export the image again",
        )
    signed = _whole(header, "PixelRepresentation", where) == 1
    return (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)


def _transfer_syntax(header: FileDataset) -> str:
    """The transfer syntax of the file meta information; without it, uncompressed in the encoding that was read."""
    named = text(header.file_meta, "TransferSyntaxUID")
    if named:
        return named
    implicit, little = header.original_encoding
    if implicit:
        return str(uid.ImplicitVRLittleEndian)
    return str(uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian)


def _number(dataset: Dataset, keyword: str, where: str, default: float) -> float:
    return default if value_is_absent(dataset, keyword) else numbers(dataset, keyword, 1, where)[0]


def _whole(dataset: Dataset, keyword: str, where: str, default: int | None = None) -> int:
    if default is not None and value_is_absent(dataset, keyword):
        return default
    return round(numbers(dataset, keyword, 1, where)[0])

"""What Structured Reports and RT Structure Sets tell of single lesions: points, lines, and Tracking UIDs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, uid

from focalis.dicom.headers import read_header, sop_class, text
from focalis.dicom.objects import read_object
from focalis.dicom.structured_report import CENTROID
from focalis.errors import DataError, FileWarning

_TRACKING_IDENTIFIER, _TRACKING_UID = "112039", "112040"
_POINTS = ("POINT", "MULTIPOINT")


@dataclass(frozen=True)
class DrawnPoint:
    """A point, or the two ends of a line.

    Attributes:
        ends: one or two, x, y, z each: mm in the patient (LPS); or, on an image, its column and row as fractional
            indices from 0 at the centre of the first pixel, and its frame, from 1.
        name: of its structure, or the tracking identifier of its group; empty if it has none.
        frame: the Frame of Reference UID; empty if none is named.
        image: the SOP Instance UID of the image that it was drawn on; empty for one in mm.
    """

    ends: tuple[tuple[float, ...], ...]
    name: str = ""
    frame: str = ""
    image: str = ""


def read_points(path: Path) -> tuple[DrawnPoint, ...]:
    """Every point, and every line of two points, of an RT Structure Set or a Structured Report.

    In a report, these include the centroids that Focalis writes. Other drawings are passed over with a `FileWarning`.

    Raises:
        DataError: it is another object, cannot be read, or holds no point.
    """
    dataset = read_header(path)
    try:
        if sop_class(dataset) == uid.RTStructureSetStorage:
            found = list(_structures(dataset))
        elif "ContentSequence" in dataset:
            found = list(_items(dataset, ""))
        else:
            raise DataError.at(
                path, "is neither an RT Structure Set nor a Structured Report", "give one with points"
            )
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError.at(path, f"its points cannot be read ({error})", "export it again") from error
    points = tuple(each for each in found if isinstance(each, DrawnPoint))
    others = [each for each in found if isinstance(each, str)]
    if not points:
        had = f"; it holds {', '.join(dict.fromkeys(others))}" if others else ""
        raise DataError.at(path, f"holds no point and no line{had}", "mark each lesion by one of them")
    if others:
        listed = ", ".join(dict.fromkeys(others))
        warnings.warn(
            FileWarning(path, f"only its points and lines are used, not {len(others)} others ({listed})"),
            stacklevel=2,
        )
    return points


def _structures(dataset: Dataset) -> Iterator[DrawnPoint | str]:
    """The points and lines of a structure set; for any other contour what it is."""
    rois = {int(item.ROINumber): item for item in dataset.get("StructureSetROISequence") or ()}
    for drawn in dataset.get("ROIContourSequence") or ():
        roi = rois.get(int(drawn.ReferencedROINumber), Dataset())
        name, frame = text(roi, "ROIName"), text(roi, "ReferencedFrameOfReferenceUID")
        for contour in drawn.get("ContourSequence") or ():
            ends = _tuples(contour.get("ContourData") or (), 3)
            if len(ends) in (1, 2):
                yield DrawnPoint(ends, name, frame)
            else:
                yield text(contour, "ContourGeometricType") or "a contour"


def _items(parent: Dataset, name: str) -> Iterator[DrawnPoint | str]:
    """The points and lines of a report's content, at any depth; for any other graphic what it is."""
    items = list(parent.get("ContentSequence") or ())
    name = next((text(item, "TextValue") for item in items if _code(item)[0] == _TRACKING_IDENTIFIER), name)
    numbers = {_code(item): item for item in items if text(item, "ValueType") == "NUM"}
    axes = [numbers.get((code.value, code.scheme_designator)) for code in CENTROID]
    if all(axes):
        yield DrawnPoint(
            (tuple(float(axis.MeasuredValueSequence[0].NumericValue) for axis in axes if axis),), name
        )
    for item in items:
        if text(item, "ValueType") in ("SCOORD", "SCOORD3D"):
            yield from _graphic(item, name)
        yield from _items(item, name)


def _graphic(item: Dataset, name: str) -> Iterator[DrawnPoint | str]:
    kind, in_patient = text(item, "GraphicType"), text(item, "ValueType") == "SCOORD3D"
    places = _tuples(item.GraphicData, 3 if in_patient else 2)
    frame, image = text(item, "ReferencedFrameOfReferenceUID"), ""
    if not in_patient:
        source = next(
            (each for each in item.get("ContentSequence") or () if "ReferencedSOPSequence" in each), None
        )
        if source is None:
            raise ValueError("a graphic names no image that it was drawn on")
        reference = source.ReferencedSOPSequence[0]
        image, frame = text(reference, "ReferencedSOPInstanceUID"), ""
        number = int(str(reference.get("ReferencedFrameNumber") or 1))
        # the corner of the first pixel is 0, 0 in a report (PS3.3 C.18.6.1.2); of an array its centre is
        places = tuple((column - 0.5, row - 0.5, float(number)) for column, row in places)
    if kind in _POINTS:
        yield from (DrawnPoint((place,), name, frame, image) for place in places)
    elif kind == "POLYLINE" and len(places) == 2:
        yield DrawnPoint(places, name, frame, image)
    else:
        yield kind


def _tuples(values: Sequence[float], width: int) -> tuple[tuple[float, ...], ...]:
    numbers = [float(value) for value in (values if isinstance(values, Sequence) else list(values))]
    if len(numbers) % width:
        raise ValueError(f"{len(numbers)} coordinates are not points of {width}")
    return tuple(tuple(numbers[at : at + width]) for at in range(0, len(numbers), width))


def _code(item: Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    return text(names[0], "CodeValue"), text(names[0], "CodingSchemeDesignator")


def read_tracking(path: Path) -> dict[int, str]:
    """The Tracking UIDs of the lesions in a report that `write_report` wrote, by their numbers.

    Raises:
        DataError: the file is not a report.
    """
    report = read_object(path, (uid.Comprehensive3DSRStorage,), "a measurement report")
    found = {}
    for content in report.get("ContentSequence") or ():
        for group in content.get("ContentSequence") or ():
            told = {
                item.ConceptNameCodeSequence[0].CodeValue: item.get("TextValue") or item.get("UID")
                for item in group.get("ContentSequence") or ()
                if item.get("ConceptNameCodeSequence")
            }
            number = re.search(r" ([0-9]+)$", str(told.get(_TRACKING_IDENTIFIER, "")))
            if number and told.get(_TRACKING_UID):
                found[int(number[1])] = str(told[_TRACKING_UID])
    return found

"""Structured Reports of what was found (PS3.3 A.35.13 Comprehensive 3D SR; PS3.16 TID 1500): write, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from focalis.dicom.headers import quiet, text
from focalis.dicom.objects import read_object
from focalis.dicom.report_encoding import ABSENT, CENTROID, COUNT, DIAMETER, MODEL, VOLUME, encode_report
from focalis.dicom.results import Caution, Superseded, describe_result
from focalis.dicom.series import Series
from focalis.dicom.storing import save
from focalis.errors import DataError


@dataclass(frozen=True)
class ReportedLesion:
    """One lesion of a report.

    Attributes:
        number: its number among all lesions, from 1.
        segment: the Segment Number of the label it bears, in the Segmentation.
        volume_mm3: its volume.
        longest_axial_mm: its longest diameter in one slice.
        centroid_xyz_mm: its centre of mass in the patient (LPS).
        tracking_uid: the UID that follows it through other objects; given by `write_report`.
    """

    number: int
    segment: int
    volume_mm3: float
    longest_axial_mm: float
    centroid_xyz_mm: tuple[float, float, float]
    tracking_uid: str = ""


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        lesions: one per measurement group; none if nothing was found.
        total: how many lesions there are; more than `lesions` where only some of them are listed.
        segmentation_uid: the SOP Instance UID of the Segmentation that it refers to.
        model: the model's name or hash.
        version: the version of Focalis.
        supersedes: the SOP Instance UIDs of the reports that this one replaces.
        cautions: why not to take it at its word, a line each.
        absence: whether it says that there is no lesion.
    """

    lesions: tuple[ReportedLesion, ...]
    total: int
    segmentation_uid: str
    model: str
    version: str
    supersedes: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    absence: bool = False


def write_report(
    lesions: Sequence[ReportedLesion],
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    segmentation: Path,
    path: Path,
    *,
    model: str,
    version: str,
    total: int | None = None,
    created: datetime | None = None,
    supersedes: Superseded | None = None,
    reviewer: str = "",
    edition: int = 1,
    cautions: Sequence[Caution] = (),
) -> None:
    """Write a measurement report (TID 1500) with one volumetric group (TID 1411) per lesion.

    Each group has a tracking identifier and UID, the referenced segment, the algorithm, volume (mm3), longest axial
    diameter (mm) and centroid (mm, LPS). Without lesions the report says that there are none; with cautions, that it is
    open whether there are. UIDs and times are
    derived as in `write_segmentation`: the same call writes the same bytes.

    Args:
        lesions: what is listed, by ascending number; tracking UIDs are derived.
        label: the label map they were found in, z, y, x.
        names: label value to name, as in the Segmentation.
        series: the series that was labelled.
        segmentation: the Segmentation object of this label map.
        path: the file to write.
        model: the model's name or hash.
        version: the version of Focalis.
        total: how many lesions there are, if not all are listed.
        created: the date and time to bear; by default those of the series' first image.
        supersedes: the report that this one replaces.
        reviewer: the person who judged it lesion by lesion; empty if it is the model's alone.
        edition: which result of its series this is, from 1.
        cautions: why not to take it at its word, a comment each; of an incomplete series the document is partial.

    Raises:
        DataError: as for `write_segmentation`; or the Segmentation cannot be read.
    """
    result = describe_result(
        "SR", label, names, series, model, version, created, supersedes, reviewer, edition, cautions
    )
    reference = _segmentation_reference(segmentation)
    save(
        encode_report(result, tuple(lesions), len(lesions) if total is None else total, reference),
        path,
        series,
    )


def read_report(path: Path) -> Report:
    """Read a report that Focalis wrote.

    Raises:
        DataError: the file is missing, damaged, or no report of Focalis.
    """
    dataset = read_object(path, {Comprehensive3DSRStorage}, "a Structured Report of Focalis")
    try:
        with quiet():
            return _read(dataset)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no measurement report of Focalis; give one that it wrote") from error


def _read(dataset: Dataset) -> Report:
    measured = _child(dataset, "126010")
    groups = [group for group in measured.ContentSequence if _find(group, "121191") is not None]
    summary = next(group for group in measured.ContentSequence if _find(group, "121191") is None)
    lesions = []
    for group in groups:
        reference = _child(group, "121191").ReferencedSOPSequence[0]
        centre = [_number(group, code.value) for code in CENTROID]
        lesions.append(
            ReportedLesion(
                number=int(str(_child(group, "112039").TextValue).rsplit(" ", 1)[1]),
                segment=int(reference.ReferencedSegmentNumber),
                volume_mm3=_number(group, VOLUME.value),
                longest_axial_mm=_number(group, DIAMETER.value),
                centroid_xyz_mm=(centre[0], centre[1], centre[2]),
                tracking_uid=str(_child(group, "112040").UID),
            )
        )
    evidence = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    segmentation = next(
        item.ReferencedSOPInstanceUID
        for series in evidence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    )
    parameters = [str(item.TextValue) for item in summary.ContentSequence if _code(item) == "111002"]
    return Report(
        lesions=tuple(lesions),
        total=round(_number(summary, COUNT.value)),
        segmentation_uid=str(segmentation),
        model=next(value.removeprefix(MODEL) for value in parameters if value.startswith(MODEL)),
        version=str(_child(summary, "111003").TextValue),
        cautions=tuple(str(item.TextValue) for item in summary.ContentSequence if _code(item) == "121106"),
        absence=any(
            text(item.ConceptCodeSequence[0], "CodeValue") == ABSENT.value
            for item in summary.ContentSequence
            if item.ValueType == "CODE" and "ConceptCodeSequence" in item
        ),
        supersedes=tuple(
            str(instance.ReferencedSOPInstanceUID)
            for study in dataset.get("PredecessorDocumentsSequence") or ()
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ),
    )


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return text(names[0], "CodeValue") if names else ""


def _find(item: Dataset, code: str) -> Dataset | None:
    return next((child for child in item.ContentSequence if _code(child) == code), None)


def _child(item: Dataset, code: str) -> Dataset:
    found = _find(item, code)
    if found is None:
        raise KeyError(code)
    return found


def _number(group: Dataset, code: str) -> float:
    return float(_child(group, code).MeasuredValueSequence[0].NumericValue)


def _segmentation_reference(path: Path) -> Dataset:
    """The UIDs of a Segmentation object, as evidence of a report."""
    from focalis.dicom.segmentation import SEGMENTATION_CLASSES

    found = read_object(path, SEGMENTATION_CLASSES, "a DICOM Segmentation")
    reference = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(reference, keyword, found[keyword].value)
    return reference

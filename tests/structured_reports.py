"""Reads the Structured Reports that Focalis writes, with pydicom alone."""

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset

from focalis.dicom import ReportedLesion
from focalis.identity import ModelIdentity


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        lesions: one per measurement group; none if nothing was found.
        total: how many lesions there are; more than `lesions` where only some of them are listed.
        segmentation_uid: the SOP Instance UID of the Segmentation that it refers to.
        model: the model.
        version: the version of Focalis.
        supersedes: the SOP Instance UIDs of the reports that this one replaces.
        cautions: why not to take it at its word, a line each.
        absence: whether it says that there is no lesion.
    """

    lesions: tuple[ReportedLesion, ...]
    total: int
    segmentation_uid: str
    model: ModelIdentity
    version: str
    supersedes: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    absence: bool = False


def read_report(path: Path) -> Report:
    dataset = pydicom.dcmread(path)
    measured = _child(dataset, "126010")
    groups = [group for group in measured.ContentSequence if _find(group, "121191") is not None]
    summary = next(group for group in measured.ContentSequence if _find(group, "121191") is None)
    lesions = []
    for group in groups:
        reference = _child(group, "121191").ReferencedSOPSequence[0]
        centre = [_number(group, f"centroid-{axis}") for axis in "xyz"]
        lesions.append(
            ReportedLesion(
                number=int(str(_child(group, "112039").TextValue).rsplit(" ", 1)[1]),
                segment=int(reference.ReferencedSegmentNumber),
                volume_mm3=_number(group, "118565006"),
                longest_axial_mm=_number(group, "103339001"),
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
        total=round(_number(summary, "lesions")),
        segmentation_uid=str(segmentation),
        model=ModelIdentity.parse(parameters[0], str(dataset.DeviceSerialNumber)),
        version=str(_child(summary, "111003").TextValue),
        cautions=tuple(str(item.TextValue) for item in summary.ContentSequence if _code(item) == "121106"),
        absence=any(
            item.ConceptCodeSequence[0].CodeValue == "2667000"
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
    return str(names[0].CodeValue) if names else ""


def _find(item: Dataset, code: str) -> Dataset | None:
    return next((child for child in item.ContentSequence if _code(child) == code), None)


def _child(item: Dataset, code: str) -> Dataset:
    found = _find(item, code)
    if found is None:
        raise KeyError(code)
    return found


def _number(group: Dataset, code: str) -> float:
    return float(_child(group, code).MeasuredValueSequence[0].NumericValue)

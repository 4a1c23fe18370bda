"""Structured Reports of lesions (PS3.3 A.35.13 Comprehensive 3D SR; PS3.16 TID 1500), made by highdicom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, Comprehensive3DSRStorage
from pydicom.valuerep import DA, TM

from focalis.dicom.derived import MANUFACTURER, NOTICE, LabelledSeries, Origin, Superseded, describe_result
from focalis.dicom.headers import quiet, sop_class, text
from focalis.dicom.objects import read_object
from focalis.dicom.provenance import series_number, stamp
from focalis.dicom.reported_change import ReportedChange, ReportedResponse
from focalis.dicom.segmentation import SEGMENTATION_CLASSES
from focalis.dicom.segmentation_encoding import property_type
from focalis.dicom.series import Series
from focalis.dicom.storing import save
from focalis.lesions import Lesion

if TYPE_CHECKING:
    import highdicom
    from highdicom.sr import (
        AlgorithmIdentification,
        MeasurementsAndQualitativeEvaluations,
        TextContentItem,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

VOLUME = Code("118565006", "SCT", "Volume")
DIAMETER = Code("103339001", "SCT", "Long Axis")
# no coding scheme has these (PS3.16 8.2: a scheme of one's own begins with 99)
CENTROID = tuple(Code(f"centroid-{axis}", "99FOCALIS", f"Centroid {axis} (LPS)") for axis in "xyz")
COUNT = Code("lesions", "99FOCALIS", "Number of lesions")

_LESION = Code("52988006", "SCT", "Lesion")
_PRESENT, ABSENT = Code("52101004", "SCT", "Present"), Code("2667000", "SCT", "Absent")
_INDETERMINATE = Code("82334004", "SCT", "Indeterminate")
_COMMENT = Code("121106", "DCM", "Comment")
_MM, _MM3 = Code("mm", "UCUM", "millimeter"), Code("mm3", "UCUM", "cubic millimeter")
_EACH = Code("1", "UCUM", "no units")
_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
_PROCEDURES = {
    "CT": Code("77477000", "SCT", "Computed Tomography"),
    "MR": Code("113091000", "SCT", "Magnetic Resonance Imaging"),
    "PT": Code("82918005", "SCT", "Positron emission tomography"),
}
_IMAGING = Code("363679005", "SCT", "Imaging procedure")


@dataclass(frozen=True)
class ReportedLesion:
    """One lesion of a report.

    Attributes:
        number: its number among all lesions, from 1.
        segment: the Segment Number of the label it bears, in the Segmentation.
        longest_axial_mm: its longest diameter in one slice.
        centroid_xyz_mm: its centre of mass in the patient (LPS).
        tracking_uid: the UID that follows it through other objects; derived by `write_report` if it is empty.
        identifier: its tracking identifier; by default its label's name and its number.
        remark: a comment on it; none if empty.
        change: how it changed since an earlier scan; None if that is not told.
    """

    number: int
    segment: int
    volume_mm3: float
    longest_axial_mm: float
    centroid_xyz_mm: tuple[float, float, float]
    tracking_uid: str = ""
    identifier: str = ""
    remark: str = ""
    change: ReportedChange | None = None


def as_reported(
    lesions: Iterable[tuple[int, Lesion]], names: Mapping[int, str]
) -> tuple[ReportedLesion, ...]:
    """Measured lesions as a report lists them.

    Args:
        lesions: each with its number among those of all labels.
        names: label value to name, as in the Segmentation; 0 may be named and is passed over.
    """
    segments = {names[value]: number for number, value in enumerate(sorted({*names} - {0}), start=1)}
    return tuple(
        ReportedLesion(
            number=number,
            segment=segments[lesion.name],
            volume_mm3=lesion.volume_mm3,
            longest_axial_mm=lesion.longest_axial.length_mm,
            centroid_xyz_mm=lesion.centroid_lps_mm,
        )
        for number, lesion in lesions
    )


def write_report(
    lesions: Sequence[ReportedLesion],
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    segmentation: Path,
    path: Path,
    origin: Origin,
    *,
    total: int | None = None,
    supersedes: Superseded | None = None,
    promise: str = "",
    remarks: Sequence[str] = (),
    gone: Mapping[str, str] | None = None,
    response: ReportedResponse | None = None,
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
        origin: how the labels were made; with cautions, a comment each, the document is partial.
        total: how many lesions there are, if not all are listed.
        promise: what the model's operating point holds on new scans; a comment, unless there are cautions.
        remarks: more comments on all of it.
        gone: tracking identifier to Tracking UID of lesions that an earlier scan showed; each is reported as absent,
            with cautions as indeterminate.
        response: by RECIST 1.1; None if it is not told.

    Raises:
        DataError: as for `write_segmentation`; or the Segmentation cannot be read.
    """
    told = {each.number: each.tracking_uid + each.remark + str(each.change or "") for each in lesions}
    general = " ".join([*remarks, *(gone or {}).values(), str(response or "")]).strip()
    told = {number: text for number, text in {0: general, **told}.items() if text}
    result = describe_result("SR", label, names, series, origin, supersedes, told)
    comments = [f"{each.mark}: {each.text}" for each in result.origin.cautions]
    if promise and not comments:
        comments = [f"Promise of the model's operating point: {promise}"]
    comments += remarks
    with quiet():
        reference = _segmentation_reference(segmentation)
    save(
        lambda: _encode(
            result,
            [
                _summary(result, len(lesions) if total is None else total, comments, response),
                *(_group(result, lesion, reference) for lesion in lesions),
                *(_absent(result, identifier, uid) for identifier, uid in (gone or {}).items()),
            ],
            reference,
        ),
        path,
        series,
    )


def _encode(
    result: LabelledSeries,
    groups: Sequence[
        MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    ],
    segmentation: Dataset,
) -> highdicom.sr.Comprehensive3DSR:
    """The object, ready to be stored."""
    from highdicom.sr import (
        CodedConcept,
        Comprehensive3DSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        PersonObserverIdentifyingAttributes,
    )

    device = DeviceObserverIdentifyingAttributes(
        uid=result.uid("observer"),
        name=f"{MANUFACTURER}, {NOTICE}",
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
        serial_number=result.origin.model.short,
    )
    person = None
    if result.origin.reviewer:
        with quiet():  # highdicom warns about names of one word
            name = PersonObserverIdentifyingAttributes(result.origin.reviewer)
        person = ObserverContext(CodedConcept("121006", "DCM", "Person"), name)
    context = ObservationContext(
        observer_device_context=ObserverContext(CodedConcept("121007", "DCM", "Device"), device),
        observer_person_context=person,
    )
    content = MeasurementReport(
        observation_context=context,
        procedure_reported=_PROCEDURES.get(text(result.series.header, "Modality"), _IMAGING),
        imaging_measurements=groups,
    )
    dataset = Comprehensive3DSR(
        evidence=_evidence(result, segmentation),
        content=content,
        series_instance_uid=result.uid("series"),
        series_number=series_number(result.series, 3000),
        sop_instance_uid=result.uid("instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=not result.origin.cautions,
    )
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):  # the clock's
        if keyword in dataset:
            delattr(dataset, keyword)
    if result.origin.cautions:
        marks = ", ".join(each.mark for each in result.origin.cautions)
        dataset.CompletionFlagDescription = marks[:64]
    stamp(dataset, result, "Focalis measurements")
    # of the image's frame, which a report is not part of
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    dataset.ContentDate, dataset.ContentTime = DA(result.moment.date()), TM(result.moment.time())
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime
    if result.supersedes is not None:
        dataset.PredecessorDocumentsSequence = [_predecessor(result, result.supersedes)]
    return dataset


def _algorithm(result: LabelledSeries) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=MANUFACTURER,
        version=result.origin.version,
        parameters=[str(result.origin.model), NOTICE],
        family=_ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _summary(
    result: LabelledSeries, count: int, comments: Sequence[str], response: ReportedResponse | None
) -> MeasurementsAndQualitativeEvaluations:
    """The number of lesions; "none" is a finding too, unless there are cautions (TID 1501)."""
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )

    present = _PRESENT if count else _INDETERMINATE if result.origin.cautions else ABSENT
    summary = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=result.uid("summary"), identifier="all lesions"),
        algorithm_id=_algorithm(result),
        measurements=[
            Measurement(name=COUNT, value=count, unit=_EACH),
            *([] if response is None else response.measurements()),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(name=_LESION, value=present),
            *([] if response is None else response.evaluations()),
        ],
    )
    summary[0].ContentSequence.extend(_comment(value) for value in comments)
    return summary


def _absent(result: LabelledSeries, identifier: str, uid: str) -> MeasurementsAndQualitativeEvaluations:
    """A lesion that an earlier scan showed and this one does not; with cautions that is no finding."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )

    present = _INDETERMINATE if result.origin.cautions else ABSENT
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=UID(uid), identifier=identifier),
        algorithm_id=_algorithm(result),
        qualitative_evaluations=[QualitativeEvaluation(name=_LESION, value=present)],
    )


def _comment(value: str) -> TextContentItem:
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    return TextContentItem(name=_COMMENT, value=value, relationship_type=RelationshipTypeValues.CONTAINS)


def _group(
    result: LabelledSeries, lesion: ReportedLesion, segmentation: Dataset
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        Measurement,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    values = [(VOLUME, lesion.volume_mm3, _MM3), (DIAMETER, lesion.longest_axial_mm, _MM)]
    values += [(code, mm, _MM) for code, mm in zip(CENTROID, lesion.centroid_xyz_mm, strict=True)]
    name = list(result.names.values())[lesion.segment - 1]
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=lesion.tracking_uid or result.uid(f"lesion {lesion.number}"),
            identifier=lesion.identifier or f"{name} {lesion.number}",
        ),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=lesion.segment,
            source_series=SourceSeriesForSegmentation(UID(result.series.header.SeriesInstanceUID)),
        ),
        finding_type=property_type(name),
        algorithm_id=_algorithm(result),
        # decimal strings hold 16 characters; a thousandth of a millimetre is finer than any image
        measurements=[
            *(Measurement(name=code, value=round(value, 3), unit=unit) for code, value, unit in values),
            *([] if lesion.change is None else lesion.change.measurements()),
        ],
        qualitative_evaluations=None if lesion.change is None else lesion.change.evaluations(),
    )
    if lesion.remark:
        group[0].ContentSequence.append(_comment(lesion.remark))
    return group


def _evidence(result: LabelledSeries, segmentation: Dataset) -> list[Dataset]:
    """The evidence of the report, Segmentation and images, as highdicom expects it.

    Patient and study are set afterwards, from the source, as for every result.
    """
    found = [segmentation]
    for instance in dict.fromkeys(result.series.instance_uids):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = sop_class(result.series.header), instance
        image.StudyInstanceUID = result.identity.study_uid
        image.SeriesInstanceUID = result.series.header.SeriesInstanceUID
        found.append(image)
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
    ):
        setattr(segmentation, keyword, "")
    segmentation.StudyDate = segmentation.StudyTime = None
    return found


def _predecessor(result: LabelledSeries, earlier: Superseded) -> Dataset:
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = earlier.instance_uid
    series.SeriesInstanceUID = earlier.series_uid
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = result.identity.study_uid
    study.ReferencedSeriesSequence = [series]
    return study


def _segmentation_reference(path: Path) -> Dataset:
    """The UIDs of a Segmentation object, as evidence of a report."""
    found = read_object(path, SEGMENTATION_CLASSES, "a DICOM Segmentation")
    reference = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(reference, keyword, found[keyword].value)
    return reference

"""A measurement report (PS3.16 TID 1500) as a Comprehensive 3D SR document, made by highdicom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, Comprehensive3DSRStorage
from pydicom.valuerep import DA, TM

from focalis.dicom.headers import quiet, sop_class, text
from focalis.dicom.provenance import series_number, stamp
from focalis.dicom.results import MANUFACTURER, NOTICE, Result, Superseded
from focalis.dicom.segmentation_encoding import property_type

if TYPE_CHECKING:
    import highdicom
    from highdicom.sr import (
        AlgorithmIdentification,
        MeasurementsAndQualitativeEvaluations,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    from focalis.dicom.report import ReportedLesion

VOLUME = Code("118565006", "SCT", "Volume")
DIAMETER = Code("103339001", "SCT", "Long Axis")
# no coding scheme has these (PS3.16 8.2: a scheme of one's own begins with 99)
CENTROID = tuple(Code(f"centroid-{axis}", "99FOCALIS", f"Centroid {axis} (LPS)") for axis in "xyz")
COUNT = Code("lesions", "99FOCALIS", "Number of lesions")
MODEL = "model "

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


def encode_report(
    result: Result, lesions: tuple[ReportedLesion, ...], total: int, segmentation: Dataset
) -> highdicom.sr.Comprehensive3DSR:
    """The object, ready to be stored; see `focalis.dicom.report.write_report`."""
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
        serial_number=result.model_short,
    )
    person = None
    if result.reviewer:
        with quiet():  # highdicom doubts names of one word
            name = PersonObserverIdentifyingAttributes(result.reviewer)
        person = ObserverContext(CodedConcept("121006", "DCM", "Person"), name)
    context = ObservationContext(
        observer_device_context=ObserverContext(CodedConcept("121007", "DCM", "Device"), device),
        observer_person_context=person,
    )
    content = MeasurementReport(
        observation_context=context,
        procedure_reported=_PROCEDURES.get(text(result.series.header, "Modality"), _IMAGING),
        imaging_measurements=[
            _summary(result, total),
            *(_group(result, lesion, segmentation) for lesion in lesions),
        ],
    )
    dataset = Comprehensive3DSR(
        evidence=_evidence(result, segmentation),
        content=content,
        series_instance_uid=result.uid("series"),
        series_number=series_number(result.series, 3000),
        sop_instance_uid=result.uid("instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=not result.cautions,
    )
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):  # the clock's
        if keyword in dataset:
            delattr(dataset, keyword)
    if result.cautions:
        marks = ", ".join(each.mark for each in result.cautions)
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


def _algorithm(result: Result) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=MANUFACTURER,
        version=result.version,
        parameters=[f"{MODEL}{result.model}", NOTICE],
        family=_ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _summary(result: Result, count: int) -> MeasurementsAndQualitativeEvaluations:
    """How many lesions there are; that there is none is a finding too, if nothing is doubtful (TID 1501)."""
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        RelationshipTypeValues,
        TextContentItem,
        TrackingIdentifier,
    )

    value = _PRESENT if count else _INDETERMINATE if result.cautions else ABSENT
    summary = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=result.uid("summary"), identifier="all lesions"),
        algorithm_id=_algorithm(result),
        measurements=[Measurement(name=COUNT, value=count, unit=_EACH)],
        qualitative_evaluations=[QualitativeEvaluation(name=_LESION, value=value)],
    )
    for each in result.cautions:
        comment = TextContentItem(
            name=_COMMENT,
            value=f"{each.mark}: {each.text}",
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        summary[0].ContentSequence.append(comment)
    return summary


def _group(
    result: Result, lesion: ReportedLesion, segmentation: Dataset
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
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=result.uid(f"lesion {lesion.number}"), identifier=f"{name} {lesion.number}"
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
            Measurement(name=code, value=round(value, 3), unit=unit) for code, value, unit in values
        ],
    )


def _evidence(result: Result, segmentation: Dataset) -> list[Dataset]:
    """What the report is drawn from: the Segmentation and the images, as highdicom wants to see them.

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


def _predecessor(result: Result, earlier: Superseded) -> Dataset:
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = earlier.instance_uid
    series.SeriesInstanceUID = earlier.series_uid
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = result.identity.study_uid
    study.ReferencedSeriesSequence = [series]
    return study

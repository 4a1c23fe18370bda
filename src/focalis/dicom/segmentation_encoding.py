"""A label map as a Segmentation object (PS3.3 A.51), made by highdicom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DA, TM

from focalis.colours import label_colour
from focalis.dicom.derived import MANUFACTURER, NOTICE, LabelledSeries, Superseded
from focalis.dicom.headers import text
from focalis.dicom.provenance import (
    decimals,
    series_number,
    source_instances,
    source_references,
    stamp,
)
from focalis.dicom.series import Series
from focalis.dicom.source_identity import LOSSY

if TYPE_CHECKING:
    import highdicom

_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_LESION = Code("52988006", "SCT", "Lesion")
_NEOPLASM = Code("108369006", "SCT", "Neoplasm")
_EDEMA = Code("79654002", "SCT", "Edema")
# a word of a label's name to what the segment is, of CID 7151
_PROPERTY_TYPES = {
    "cyst": Code("367643001", "SCT", "Cyst"),
    "edema": _EDEMA,
    "mass": Code("4147007", "SCT", "Mass"),
    "necrosis": Code("6574001", "SCT", "Necrosis"),
    "neoplasm": _NEOPLASM,
    "nodule": Code("27925004", "SCT", "Nodule"),
    "oedema": _EDEMA,
    "tumor": _NEOPLASM,
    "tumour": _NEOPLASM,
}
_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")


def encode_segmentation(result: LabelledSeries) -> highdicom.seg.Segmentation:
    """The object, ready to be stored; see `focalis.dicom.segmentation.write_segmentation`."""
    # highdicom takes half a second to import and only writing needs it
    from highdicom.seg import Segmentation, SegmentationTypeValues

    numbered = np.zeros(result.label.shape, dtype=np.uint16)
    for number, value in enumerate(result.names, start=1):
        numbered[result.label == value] = number
    sources = _stand_ins(result)
    if not numbered.any():
        # an object must have a frame; one empty one per segment says what hundreds would
        numbered, sources = numbered[:1], sources[:1]
    dataset = Segmentation(
        source_images=sources,
        pixel_array=numbered,
        segmentation_type=SegmentationTypeValues.BINARY,
        omit_empty_frames=bool(numbered.any()),
        segment_descriptions=_descriptions(result),
        series_instance_uid=result.uid("series"),
        series_number=series_number(result.series, 1000),
        sop_instance_uid=result.uid("instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=result.origin.version,
        device_serial_number=result.origin.model.short,
        content_label="SEGMENTATION",
        content_description=f"Focalis segmentation, {NOTICE}",
    )
    # the clock's time, which would make every repetition another file
    del dataset.InstanceCreationDate, dataset.InstanceCreationTime
    stamp(dataset, result, "Focalis segmentation")
    if result.origin.reviewer:
        dataset.ContentCreatorName = result.origin.reviewer
    dataset.ContentDate, dataset.ContentTime = DA(result.moment.date()), TM(result.moment.time())
    for equipment in dataset.ContributingEquipmentSequence:
        del equipment.ContributionDateTime
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = result.uid("dimensions")
    _refer_to_sources(dataset, sources, result.series)
    if result.supersedes is not None:
        dataset.ReferencedSeriesSequence.append(_predecessor(dataset.SOPClassUID, result.supersedes))
    if result.derivation:
        dataset.DerivationDescription = result.derivation
    return dataset


def _predecessor(sop_class_uid: str, earlier: Superseded) -> Dataset:
    """The Segmentation that is replaced, as an item of the Referenced Series Sequence (PS3.3 C.12.2)."""
    instance, series = Dataset(), Dataset()
    instance.ReferencedSOPClassUID = sop_class_uid
    instance.ReferencedSOPInstanceUID = earlier.instance_uid
    series.SeriesInstanceUID = earlier.series_uid
    series.ReferencedInstanceSequence = [instance]
    return series


def property_type(name: str) -> Code:
    """The coded type of a label, by the words of its name; a lesion by default (PS3.16 CID 7151)."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    return next((_PROPERTY_TYPES[word] for word in words if word in _PROPERTY_TYPES), _LESION)


def _descriptions(result: LabelledSeries) -> list[highdicom.seg.SegmentDescription]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    found = []
    kind = SegmentAlgorithmTypeValues(result.origin.algorithm_type)
    is_given = kind is SegmentAlgorithmTypeValues.MANUAL
    algorithm = AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=_ARTIFICIAL_INTELLIGENCE,
        version=result.origin.version,
        source=MANUFACTURER,
        parameters=result.origin.model.record(),
    )
    for number, (value, name) in enumerate(result.names.items(), start=1):
        tracked = result.tracking.get(value)
        segment = SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=_ABNORMAL,
            segmented_property_type=property_type(name),
            algorithm_type=kind,
            algorithm_identification=None if is_given else algorithm,
            tracking_uid=tracked,
            tracking_id=name if tracked else None,
            display_color=CIELabColor.from_rgb(*label_colour(number - 1)),
        )
        reviewed = f", reviewed by {result.origin.reviewer}" if result.origin.reviewer else ""
        marks = "".join(f"{each.mark}: " for each in result.origin.cautions)
        verb = "Given to Focalis as a mask, followed" if is_given else "Followed" if tracked else "Found"
        segment.SegmentDescription = f"{marks}{verb} by Focalis{reviewed}, {NOTICE}"
        found.append(segment)
    return found


def _stand_ins(result: LabelledSeries) -> list[Dataset]:
    """A plain single-frame image per slice, with the position of the source slice and nothing else.

    highdicom refuses sources that lack type 2 attributes or bear values of its disliking, and it must be given
    multi-frame sources another way. So it sees these; patient, study and references are set afterwards.
    """
    grid = result.series.volume.grid
    orientation = grid.direction_matrix[:, :2].T.ravel()
    found = []
    for z, position in enumerate(result.series.positions_xyz_mm):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, result.uid(f"stand-in {z}")
        image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.1", "2.25.2"
        image.FrameOfReferenceUID = result.identity.frame_of_reference
        image.Modality = text(result.series.header, "Modality")
        image.PatientID = image.PatientName = image.PatientBirthDate = image.PatientSex = ""
        image.AccessionNumber = image.StudyID = ""
        image.StudyDate = image.StudyTime = None
        image.Columns, image.Rows = grid.size_xyz[:2]
        image.ImagePositionPatient = decimals(position)
        image.ImageOrientationPatient = decimals(orientation)
        image.PixelSpacing = decimals(grid.spacing_xyz_mm[1::-1])
        for keyword in LOSSY:
            if keyword in result.identity.values:
                setattr(image, keyword, result.identity.values[keyword])
        image.SliceThickness = image.SpacingBetweenSlices = decimals([grid.spacing_xyz_mm[2]])[0]
        found.append(image)
    return found


def _refer_to_sources(dataset: Dataset, stand_ins: list[Dataset], series: Series) -> None:
    """Put the references to the real images in place of those to the stand-ins."""
    references = {
        image.SOPInstanceUID: reference
        for image, reference in zip(stand_ins, source_references(series), strict=False)
    }
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for source in group.DerivationImageSequence[0].SourceImageSequence:
            # segments may share an item
            source.update(references.get(source.ReferencedSOPInstanceUID, Dataset()))
    dataset.SourceImageSequence = source_instances(series)
    referenced = dataset.ReferencedSeriesSequence[0]
    referenced.SeriesInstanceUID = series.header.SeriesInstanceUID
    referenced.ReferencedInstanceSequence = source_instances(series)

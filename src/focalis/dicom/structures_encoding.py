"""A label map as an RT Structure Set (PS3.3 A.19) whose contours follow the voxels' edges."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DA, TM

from focalis.colours import label_colour
from focalis.dicom.contours import trace_contours
from focalis.dicom.derived import NOTICE, LabelledSeries
from focalis.dicom.provenance import (
    new_object,
    series_number,
    source_instances,
    source_references,
    stamp,
)
from focalis.errors import DataError


def encode_structures(result: LabelledSeries) -> FileDataset:
    """The object, ready to be stored; see `focalis.dicom.structures.write_structures`."""
    # with explicit VR a contour of more than 64 kB of text could not state its length
    dataset = new_object(RTStructureSetStorage, ImplicitVRLittleEndian, "RTSTRUCT", result)
    stamp(dataset, result, "Focalis contours")
    dataset.SeriesNumber = series_number(result.series, 2000)
    dataset.InstanceNumber = 1
    reviewed = f", reviewed by {result.origin.reviewer}" if result.origin.reviewer else ""
    dataset.StructureSetLabel = "Focalis"
    told = f"Found by Focalis {result.origin.version}, {result.origin.model}{reviewed}; {NOTICE}"
    told = "; ".join([*(f"{each.mark}: {each.text}" for each in result.origin.cautions), told])
    dataset.StructureSetDescription = told[:1024]
    dataset.StructureSetDate, dataset.StructureSetTime = DA(result.moment.date()), TM(result.moment.time())
    dataset.ApprovalStatus = "UNAPPROVED"
    if result.supersedes is not None:
        earlier = Dataset()
        earlier.ReferencedSOPClassUID = RTStructureSetStorage
        earlier.ReferencedSOPInstanceUID = result.supersedes.instance_uid
        dataset.PredecessorStructureSetSequence = [earlier]
    dataset.ReferencedFrameOfReferenceSequence = [_referenced(result)]
    rois = list(enumerate(result.names.items()))
    dataset.StructureSetROISequence = [_roi(value, name, result) for _, (value, name) in rois]
    references = source_references(result.series)
    dataset.ROIContourSequence = [
        _roi_contours(value, label_colour(place), result, references) for place, (value, _) in rois
    ]
    dataset.RTROIObservationsSequence = [_observation(place + 1, value) for place, (value, _) in rois]
    return dataset


def _referenced(result: LabelledSeries) -> Dataset:
    header = result.series.header
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = source_instances(result.series)
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # retired, but still what this must name (type 1)
    study.ReferencedSOPInstanceUID = result.identity.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = result.identity.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(value: int, name: str, result: LabelledSeries) -> Dataset:
    item = Dataset()
    item.ROINumber = value
    item.ReferencedFrameOfReferenceUID = result.identity.frame_of_reference
    item.ROIName = name
    item.ROIGenerationAlgorithm = result.origin.algorithm_type
    return item


def _observation(number: int, value: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = value
    item.RTROIInterpretedType = ""  # whether it is a target or an organ is for a person to decide
    item.ROIInterpreter = ""
    return item


def _roi_contours(
    value: int,
    colour: tuple[int, int, int],
    result: LabelledSeries,
    references: list[Dataset],
) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = value
    item.ROIDisplayColor = list(colour)
    grid = result.series.volume.grid
    found: list[Dataset] = []
    for z in np.flatnonzero((result.label == value).any(axis=(1, 2))).tolist():
        for polygon in trace_contours(result.label[z] == value):
            flat = np.column_stack([polygon, np.zeros(len(polygon))])
            points = grid.to_patient(flat) - grid.origin_xyz_mm + result.series.positions_xyz_mm[z]
            contour = Dataset()
            contour.ContourImageSequence = [references[z]]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [_decimal(number) for number in points.ravel()]
            contour.ContourNumber = len(found) + 1
            found.append(contour)
    if found:
        item.ContourSequence = found
    return item


def _decimal(number: float) -> str:
    """A coordinate in mm as a decimal string of at most 16 bytes (PS3.5 6.2), to 1e-6 mm."""
    shown = f"{number:.6f}".rstrip("0").rstrip(".")
    if len(shown) > 16:
        raise DataError(f"a contour point at {number:g} mm cannot be written; check the series' positions")
    return "0" if shown == "-0" else shown

"""DICOM objects: image series; segmentations, contours and reports, read and written."""

from focalis.dicom.capture import write_capture
from focalis.dicom.derived import Caution, Origin, Superseded, read_origin
from focalis.dicom.drawn import DrawnObject, find_drawn, series_of
from focalis.dicom.headers import is_dicom
from focalis.dicom.reported_change import ReportedChange, ReportedResponse
from focalis.dicom.segmentation import list_segments, read_segmentation, write_segmentation
from focalis.dicom.series import Series, SeriesFiles, find_series, only_series, read_series
from focalis.dicom.structured_report import ReportedLesion, as_reported, write_report
from focalis.dicom.structures import list_structures, read_structures, write_structures

__all__ = [
    "Caution",
    "DrawnObject",
    "Origin",
    "ReportedChange",
    "ReportedLesion",
    "ReportedResponse",
    "Series",
    "SeriesFiles",
    "Superseded",
    "as_reported",
    "find_drawn",
    "find_series",
    "is_dicom",
    "list_segments",
    "list_structures",
    "only_series",
    "read_origin",
    "read_segmentation",
    "read_series",
    "read_structures",
    "series_of",
    "write_capture",
    "write_report",
    "write_segmentation",
    "write_structures",
]

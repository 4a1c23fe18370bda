"""What a result tells of its source: patient and study, the images it refers to, where their slices lie."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import DA, TM, PersonName, format_number_as_ds

from focalis.dicom.headers import quiet, sop_class, text
from focalis.dicom.results import MANUFACTURER, NOTICE, Result
from focalis.dicom.series import Series
from focalis.dicom.slices import read_slices

# PS3.3 C.7.1.1 Patient, C.7.2.1 General Study, C.7.2.2 Patient Study: of type 2, empty if the source lacks them
_IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
# of the same modules, of type 3
_IDENTITY_IF_PRESENT = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)


def stamp(dataset: Dataset, result: Result, description: str) -> None:
    """Set patient, study, series, equipment and time of an object, and the notice, in place.

    Patient and study are the source's, value for value, also where a value breaks the standard: another value
    would be another patient. Text is stored as UTF-8.
    """
    header = result.series.header
    dataset.SpecificCharacterSet = "ISO_IR 192"
    with quiet():
        for keyword in _IDENTITY:
            setattr(dataset, keyword, _copied(header, keyword) if header.get(keyword) else "")
        for keyword in _IDENTITY_IF_PRESENT:
            if header.get(keyword):
                setattr(dataset, keyword, _copied(header, keyword))
    dataset.StudyInstanceUID = header.StudyInstanceUID
    dataset.SOPInstanceUID = result.uid("instance")
    dataset.SeriesInstanceUID = result.uid("series")
    dataset.SeriesDescription = f"{description}, {NOTICE}"
    dataset.FrameOfReferenceUID = result.frame_of_reference
    dataset.PositionReferenceIndicator = text(header, "PositionReferenceIndicator")
    dataset.OperatorsName = ""
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.DeviceSerialNumber = result.model_short
    dataset.SoftwareVersions = result.version
    date, time = DA(result.moment.date()), TM(result.moment.time())
    dataset.SeriesDate, dataset.SeriesTime = date, time


def series_number(series: Series, first: int) -> int:
    """A Series Number for a result: the source's added to `first`, so that results sort by their sources."""
    number = text(series.header, "SeriesNumber")
    return first + (int(number) if number.isdecimal() and len(number) <= 6 else 0)


def source_references(series: Series) -> list[Dataset]:
    """One reference per slice z: its SOP class, its instance, and its frame if the source is multi-frame."""
    multiframe = "NumberOfFrames" in series.header
    found = []
    for instance, frame in zip(series.instance_uids, series.frame_numbers, strict=True):
        item = _reference(series, instance)
        if multiframe:
            item.ReferencedFrameNumber = frame
        found.append(item)
    return found


def source_instances(series: Series) -> list[Dataset]:
    """One reference per instance, in the order of their first slices."""
    return [_reference(series, instance) for instance in dict.fromkeys(series.instance_uids)]


def slice_positions(series: Series) -> list[tuple[float, float, float]]:
    """The patient position (LPS, mm) of the first pixel of every slice z, as its file says.

    A slice may lie a little off its place on the even grid; what is drawn on it must lie where the image does.

    Raises:
        DataError: a file of the series cannot be read any more.
    """
    positions = {
        (file, each.frame): each.position_xyz_mm
        for file in dict.fromkeys(series.files)
        for each in read_slices(file)
    }
    return [positions[place] for place in zip(series.files, series.frame_numbers, strict=True)]


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers as decimal strings (DS) of at most 16 bytes, as exact as these allow (PS3.5 6.2)."""
    return [format_number_as_ds(float(value)) for value in values]


def _reference(series: Series, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class(series.header)
    item.ReferencedSOPInstanceUID = instance
    return item


def _copied(header: Dataset, keyword: str) -> object:
    """An attribute's value, decoded, so that it can be written in another character set."""
    value = header[keyword].value
    if isinstance(value, PersonName):
        return str(value)
    if not isinstance(value, Sequence):
        return value
    items = []
    for item in value:
        code = Dataset()
        for part in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
            setattr(code, part, text(item, part))
        items.append(code)
    return items

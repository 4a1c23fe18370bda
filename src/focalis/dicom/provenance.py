"""What a result states about its source: patient, study, images and slice positions."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, format_number_as_ds

from focalis.dicom.derived import MANUFACTURER, NOTICE, LabelledSeries
from focalis.dicom.headers import sop_class, text
from focalis.dicom.series import Series
from focalis.dicom.source_identity import LOSSY

_LONG_STRING = 64


def new_object(kind: UID, syntax: UID, modality: str, result: LabelledSeries) -> FileDataset:
    """An object that holds nothing but what it is."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = result.uid("instance")
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.Modality = kind, modality
    return dataset


def stamp(dataset: Dataset, result: LabelledSeries, description: str) -> None:
    """Set patient, study, series, equipment and time of an object, and the notice, in place.

    Patient and study are the source's where its values are valid, see `focalis.dicom.source_identity`. Text is UTF-8.
    """
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in result.identity.values.items():
        if keyword not in LOSSY:
            setattr(dataset, keyword, value)
    dataset.StudyInstanceUID = result.identity.study_uid
    dataset.SOPInstanceUID = result.uid("instance")
    dataset.SeriesInstanceUID = result.uid("series")
    dataset.SeriesDescription = _described(result, description)
    dataset.FrameOfReferenceUID = result.identity.frame_of_reference
    dataset.OperatorsName = ""
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.DeviceSerialNumber = result.origin.model.short
    dataset.SoftwareVersions = result.origin.version
    date, time = DA(result.moment.date()), TM(result.moment.time())
    dataset.SeriesDate, dataset.SeriesTime = date, time
    if result.origin.created is not None:
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time


def _described(result: LabelledSeries, description: str) -> str:
    """A series description of 64 characters: the marks of doubt first, the notice where there is room for it."""
    marks = ", ".join(each.mark for each in result.origin.cautions)
    reviewed = ", reviewed" if result.origin.reviewer else ""
    edition = f", result {result.origin.edition}" if result.origin.edition > 1 else ""
    by = f" by {result.origin.by}" if result.origin.by else ""
    marked = (f"{marks}: " if marks else "") + description + by + reviewed + edition
    noticed = f"{marked}, {NOTICE}"
    return noticed if len(noticed) <= _LONG_STRING else marked[:_LONG_STRING]


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


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers as decimal strings (DS) of at most 16 bytes, as exact as these allow (PS3.5 6.2)."""
    return [format_number_as_ds(float(value)) for value in values]


def _reference(series: Series, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class(series.header)
    item.ReferencedSOPInstanceUID = instance
    return item

"""Secondary Captures (PS3.3 A.8.1): a picture for viewers that cannot show segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM

from focalis.dicom.derived import NOTICE, LabelledSeries, Origin, Superseded, describe_result
from focalis.dicom.provenance import new_object, series_number, source_instances, stamp
from focalis.dicom.series import Series
from focalis.dicom.storing import save


def write_capture(
    picture: NDArray[np.uint8],
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    path: Path,
    origin: Origin,
    *,
    supersedes: Superseded | None = None,
) -> None:
    """Write a picture of a result as a Secondary Capture that refers to its source images.

    Args:
        picture: red, green, blue; (y, x, 3).
        label: the label map that it shows, z, y, x.
        series: the series that was labelled.
        origin: how the labels were made.
        supersedes: the picture that this one replaces, told in its Derivation Description.

    Raises:
        DataError: as for `write_segmentation`.
    """
    result = describe_result("SC", label, names, series, origin, supersedes)
    save(lambda: _encode(result, picture), path, series)


def _encode(result: LabelledSeries, picture: NDArray[np.uint8]) -> FileDataset:
    dataset = new_object(SecondaryCaptureImageStorage, ExplicitVRLittleEndian, "OT", result)
    stamp(dataset, result, "Focalis summary picture")
    # a picture has no position in the patient
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    dataset.SeriesNumber = series_number(result.series, 4000)
    dataset.InstanceNumber = 1
    dataset.Laterality = ""
    dataset.ConversionType = "SYN"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.PatientOrientation = ""
    dataset.ContentDate, dataset.ContentTime = DA(result.moment.date()), TM(result.moment.time())
    dataset.ImageComments = f"Focalis {result.origin.version}, {result.origin.model}, {NOTICE}"
    if result.derivation:
        dataset.DerivationDescription = result.derivation
    dataset.SourceImageSequence = source_instances(result.series)
    _set_picture(dataset, picture)
    return dataset


def _set_picture(dataset: Dataset, picture: NDArray[np.uint8]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = np.ascontiguousarray(picture, dtype=np.uint8).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"

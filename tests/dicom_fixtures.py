"""Builders of small synthetic DICOM series, as fixtures that return functions; real data by FOCALIS_DATA.

    write_series(folder, stored, grid, modality="CT", slope=1.0, intercept=0.0, bits_stored=None, **attributes)
    write_multiframe(path, stored, grid, modality="CT", slope=1.0, intercept=0.0, order=None, shared=True)

`stored` are the stored values (z, y, x; uint8, int16, uint16), `grid` says where they lie; `slope` and
`intercept` may differ from slice to slice. File names and instance numbers never follow the position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from focalis.volume import Grid

CLASSES = {
    "CT": (CTImageStorage, EnhancedCTImageStorage),
    "MR": (MRImageStorage, EnhancedMRImageStorage),
    "PT": (PositronEmissionTomographyImageStorage, EnhancedPETImageStorage),
}
IMAGE_TYPES = {
    "CT": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "MR": ["ORIGINAL", "PRIMARY", "OTHER"],
    "PT": ["ORIGINAL", "PRIMARY"],
}
Builder = Callable[..., Any]


def _grids() -> dict[str, Grid]:
    """Every way to lay x, y and z along the patient's axes (24 right-handed ones), and three oblique grids."""
    found = {}
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            matrix = np.eye(3)[:, list(order)] * signs
            if np.linalg.det(matrix) > 0:
                name = "".join(
                    "LPS"[axis] if sign > 0 else "RAI"[axis] for axis, sign in zip(order, signs, strict=True)
                )
                found[name] = _grid(matrix)
    angles = (0.1, -0.4, 1.2), (2.5, 0.7, -2.0), (-0.02, 0.01, 0.015)
    for name, (a, b, c) in zip(("oblique", "double oblique", "nearly axial"), angles, strict=True):
        found[name] = _grid(_turn(0, a) @ _turn(1, b) @ _turn(2, c))
    return found


def _turn(axis: int, angle: float) -> np.ndarray:
    matrix = np.eye(3)
    i, j = [other for other in range(3) if other != axis]
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return matrix


def _grid(matrix: np.ndarray) -> Grid:
    return Grid((7, 6, 5), (0.75, 1.25, 2.5), (-31.25, 12.5, 104.75), tuple(matrix.ravel()))


GRIDS = _grids()


@pytest.fixture(params=sorted(GRIDS))
def any_grid(request: pytest.FixtureRequest) -> Grid:
    """Each right-handed direction in turn, oblique ones too; 7 x 6 x 5 voxels of three different lengths."""
    return GRIDS[request.param]


@pytest.fixture
def grid() -> Grid:
    """An axial grid of 7 x 6 x 5 voxels."""
    return GRIDS["LPS"]


@pytest.fixture
def oblique_grid() -> Grid:
    """An oblique grid of 7 x 6 x 5 voxels."""
    return GRIDS["oblique"]


@pytest.fixture
def stored(grid: Grid) -> np.ndarray:
    """Stored values for `grid` and the others: int16, every voxel different."""
    return (np.arange(np.prod(grid.shape_zyx)).reshape(grid.shape_zyx) * 7 - 500).astype(np.int16)


@pytest.fixture
def write_series() -> Builder:
    """See `_write_series`."""
    return _write_series


@pytest.fixture
def write_multiframe() -> Builder:
    """See `_write_multiframe`."""
    return _write_multiframe


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped without it."""
    if "FOCALIS_DATA" not in os.environ:
        pytest.skip("FOCALIS_DATA names no folder of real data")
    return Path(os.environ["FOCALIS_DATA"])


def _write_series(
    folder: Path,
    stored: np.ndarray,
    grid: Grid,
    *,
    modality: str = "CT",
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    bits_stored: int | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write one file per slice; returns the files by slice z.

    `attributes` (keyword=value) are set on every slice last; None removes the attribute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = _common(modality, grid)
    names = np.random.default_rng(0).permutation(len(stored))
    paths = []
    for z, plane in enumerate(stored):
        ds = _file(CLASSES[modality][0])
        ds.update(common)
        ds.InstanceNumber = int(names[-1 - z]) + 1
        ds.ImagePositionPatient = _numbers(_position(grid, z))
        ds.ImageOrientationPatient = _numbers(_orientation(grid))
        ds.PixelSpacing = _numbers(grid.spacing_xyz_mm[1::-1])
        ds.SliceThickness = _numbers([grid.spacing_xyz_mm[2]])[0]
        every = range(len(stored))
        if modality != "MR" or any(_each(slope, i) != 1 or _each(intercept, i) != 0 for i in every):
            ds.RescaleSlope = _numbers([_each(slope, z)])[0]
            ds.RescaleIntercept = _numbers([_each(intercept, z)])[0]
        _modality_module(ds, modality, z, len(stored))
        _set_pixels(ds, plane, bits_stored)
        for keyword, value in attributes.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
        path = folder / f"slice{names[z]:03d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _write_multiframe(
    path: Path,
    stored: np.ndarray,
    grid: Grid,
    *,
    modality: str = "CT",
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    bits_stored: int | None = None,
    order: Sequence[int] | None = None,
    shared: bool = True,
    **attributes: Any,
) -> Path:
    """Write an enhanced multi-frame object; frame i + 1 holds slice z = order[i] (by default reversed).

    With `shared`, orientation and pixel measures stand in the shared functional groups, otherwise per frame.
    Position and pixel value transformation always stand per frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    order = list(reversed(range(len(stored)))) if order is None else list(order)
    ds = _file(CLASSES[modality][1])
    ds.update(_common(modality, grid))
    ds.ImageType = [*IMAGE_TYPES[modality][:2], "VOLUME", "NONE"]
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = ds.SeriesDate, ds.SeriesTime

    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = _numbers(_orientation(grid))
    measures.PixelSpacing = _numbers(grid.spacing_xyz_mm[1::-1])
    measures.SliceThickness = _numbers([grid.spacing_xyz_mm[2]])[0]
    common = Dataset()
    common.PlaneOrientationSequence, common.PixelMeasuresSequence = [orientation], [measures]

    frames = []
    for index, z in enumerate(order):
        frame, position, values, content = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = _numbers(_position(grid, z))
        values.RescaleSlope = _numbers([_each(slope, z)])[0]
        values.RescaleIntercept = _numbers([_each(intercept, z)])[0]
        values.RescaleType = "US"
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = (
            "1",
            index + 1,
            [index + 1],
        )
        if not shared:
            frame.update(common)
        frame.FrameContentSequence, frame.PlanePositionSequence = [content], [position]
        frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = [common if shared else Dataset()]
    ds.PerFrameFunctionalGroupsSequence = frames
    _set_pixels(ds, stored[order], bits_stored)
    ds.NumberOfFrames = len(order)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def _file(sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return ds


def _common(modality: str, grid: Grid) -> Dataset:
    """What all slices of a series share: patient, study, series, frame of reference, equipment."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = IMAGE_TYPES[modality]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "101112"
    ds.AccessionNumber = "A1"
    ds.Modality = modality
    ds.Manufacturer = ds.ManufacturerModelName = "Synthetic"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "Study", f"Synthetic {modality}"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Test^Ärztin", "P1", "19700101", "O"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = "1", 3, 1
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = generate_uid(), ""
    ds.Columns, ds.Rows = grid.size_xyz[:2]
    return ds


def _modality_module(ds: Dataset, modality: str, z: int, count: int) -> None:
    """What the standard demands of a CT, MR or PET image beside its geometry (PS3.3 C.8.2, C.8.3, C.8.9)."""
    if modality == "CT":
        ds.KVP, ds.RescaleType = "120", "HU"
    elif modality == "MR":
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "3D"
        ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength, ds.MagneticFieldStrength = "10", "500", "1", "1.5"
    else:
        ds.Units, ds.CountsSource, ds.SeriesType, ds.DecayCorrection = (
            "BQML",
            "EMISSION",
            ["STATIC", "IMAGE"],
            "NONE",
        )
        ds.CorrectedImage, ds.CollimatorType, ds.NumberOfSlices, ds.ImageIndex = (
            ["ATTN"],
            "NONE",
            count,
            z + 1,
        )
        ds.FrameReferenceTime, ds.ActualFrameDuration = "0", "60000"
        ds.RadiopharmaceuticalInformationSequence = []


def _set_pixels(ds: Dataset, values: np.ndarray, bits_stored: int | None) -> None:
    bits = values.dtype.itemsize * 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored = bits, bits_stored or bits
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OW"


def _position(grid: Grid, z: int) -> np.ndarray:
    return np.asarray(grid.origin_xyz_mm) + grid.direction_matrix[:, 2] * grid.spacing_xyz_mm[2] * z


def _orientation(grid: Grid) -> np.ndarray:
    return grid.direction_matrix[:, :2].T.ravel()


def _each(value: float | Sequence[float], z: int) -> float:
    return float(value if isinstance(value, int | float) else value[z])


def _numbers(values: Any) -> list[str]:
    """Decimal strings of at most 16 bytes (PS3.5 6.2)."""
    found = []
    for value in values:
        text = repr(float(value))
        digits = 16
        while len(text) > 16:
            digits -= 1
            text = f"{float(value):.{digits}g}"
        found.append(text.removesuffix(".0"))
    return found

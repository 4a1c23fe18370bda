"""What cannot be one volume is refused; what may be is read and doubted."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from focalis.dicom import read_series
from focalis.errors import DataError


def change(file: Path, **attributes) -> None:
    """Set attributes of a slice; None removes one."""
    dataset = pydicom.dcmread(file)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(file)


def refusal(files: list[Path]) -> str:
    with pytest.raises(DataError) as caught:
        read_series(files)
    message = str(caught.value)
    assert message.startswith(str(files[0].parent))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("slope", [None, ""])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_slice_without_rescale_slope_is_named(
    tmp_path, write_series, stored, grid, modality, slope
) -> None:
    files = write_series(tmp_path, stored, grid, modality=modality, slope=0.25)
    change(files[3], RescaleSlope=slope)
    message = refusal(files)
    assert files[3].name in message
    assert "Rescale Slope" in message


def test_a_slice_without_rescale_intercept_is_named(tmp_path, write_series, stored, grid) -> None:
    files = write_series(tmp_path, stored, grid, intercept=-1024)
    change(files[1], RescaleIntercept=None)
    message = refusal(files)
    assert files[1].name in message
    assert "Rescale Intercept" in message


def test_pet_without_any_slope_is_refused_and_mr_is_not(tmp_path, write_series, stored, grid) -> None:
    pet = write_series(tmp_path / "pet", stored, grid, modality="PT", RescaleSlope=None)
    assert "PET image without Rescale Slope" in refusal(pet)
    mr = write_series(tmp_path / "mr", stored, grid, modality="MR")
    np.testing.assert_array_equal(read_series(mr).volume.array, stored)


@pytest.mark.parametrize(
    ("modality", "keyword", "value", "named"),
    [
        ("CT", "PatientID", "P2", "Patient ID"),
        ("CT", "PatientBirthDate", "19800202", "birth date"),
        ("CT", "PatientSex", "F", "sex"),
        ("CT", "IssuerOfPatientID", "HOSPITAL B", "issuer"),
        ("CT", "StudyInstanceUID", "1.2.3.4", "study"),
        ("MR", "Modality", "CT", "Modality"),
        ("PT", "Units", "CNTS", "Units"),
        ("PT", "SUVType", "LBM", "SUV Type"),
        ("PT", "CountsSource", "TRANSMISSION", "Counts Source"),
        ("PT", "DecayCorrection", "ADMIN", "Decay Correction"),
        ("PT", "CorrectedImage", ["ATTN", "SCAT"], "Corrected Image"),
        ("CT", "RescaleType", "US", "Rescale Type"),
        ("MR", "PixelRepresentation", 0, "Pixel Representation"),
        ("MR", "PhotometricInterpretation", "MONOCHROME1", "Photometric Interpretation"),
        ("MR", "EchoNumbers", 2, "Echo Numbers"),
        ("MR", "EchoTime", "92", "echo time"),
        ("MR", "DiffusionBValue", 800.0, "b-value"),
        ("MR", "DiffusionBValue", float("inf"), "b-value"),
        ("MR", "SequenceName", "*ep_b1000#3", "b-value"),
        ("MR", "TemporalPositionIdentifier", 2, "Temporal Position"),
        ("CT", "NominalPercentageOfCardiacPhase", 75.0, "cardiac phase"),
        ("CT", "NominalPercentageOfRespiratoryPhase", 50.0, "respiratory phase"),
        ("MR", "ImageType", ["ORIGINAL", "PRIMARY", "P", "ND"], "Image Type"),
        ("CT", "ImageType", ["DERIVED", "SECONDARY", "MIN_IP"], "Image Type"),
        ("MR", "ComplexImageComponent", "IMAGINARY", "Complex Image Component"),
        ("MR", "AcquisitionContrast", "PERFUSION", "Acquisition Contrast"),
    ],
)
def test_what_must_agree(tmp_path, write_series, stored, grid, modality, keyword, value, named) -> None:
    stored = np.abs(stored)
    files = write_series(tmp_path, stored, grid, modality=modality)
    for file in files[3:]:
        change(file, **{keyword: value})
    message = refusal(files)
    assert named in message
    assert files[4].name in message


def test_patients_without_id_are_told_apart_by_name(tmp_path, write_series, stored, grid) -> None:
    files = write_series(tmp_path, stored, grid, PatientID="")
    change(files[0], PatientName="Someone^Else")
    assert "Patient ID (or name)" in refusal(files)


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("AcquisitionNumber", 2, "acquisition, and take turns: 2 (2:"),
        ("KVP", "80", "tube voltage, and take turns"),
        ("SeriesNumber", 9, "series number, and take turns"),
    ],
)
def test_acquisitions_between_each_other_are_refused(
    tmp_path, write_series, stored, grid, keyword, value, named
) -> None:
    files = write_series(tmp_path, stored, grid)
    for file in files[1::2]:
        change(file, **{keyword: value})
    assert named in refusal(files)


@pytest.mark.parametrize("numbers", [(1, 1, 2, 2, 3), (5, 4, 3, 2, 1), (7, 7, 7, 7, 7)])
def test_bed_positions_and_steps_are_one_volume(tmp_path, write_series, stored, grid, numbers) -> None:
    files = write_series(tmp_path, stored, grid)
    for file, number in zip(files, numbers, strict=True):
        change(file, AcquisitionNumber=number)
    series = read_series(files)
    np.testing.assert_array_equal(series.volume.array, stored)
    assert series.doubts == ()


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("ConvolutionKernel", "B70f", "kernel"),
        ("KVP", "80", "tube voltage"),
        ("SliceThickness", "9", "Thickness"),
        ("PatientPosition", "FFS", "Patient Position"),
        ("ImageLaterality", "R", "Laterality"),
        ("ScanOptions", ["HELICAL MODE", "X"], "Scan Options"),
        ("ScanningSequence", ["GR", "IR"], "pulse sequence"),
        ("ManufacturerModelName", "Other", "scanner"),
        ("RandomsCorrectionMethod", "DLYD", "randoms correction"),
        ("RescaleIntercept", "-8192", "Rescale Slope or Intercept, although they are CT"),
    ],
)
def test_what_may_differ_is_doubted(tmp_path, write_series, stored, grid, keyword, value, named) -> None:
    files = write_series(tmp_path, stored, grid, ConvolutionKernel="B30f")
    change(files[4], **{keyword: value})
    (doubt,) = read_series(files).doubts
    assert doubt.startswith("the slices differ in ")
    assert named in doubt


def test_projections_are_doubted(tmp_path, write_series, stored, grid) -> None:
    files = write_series(tmp_path, stored, grid, ImageType=["DERIVED", "SECONDARY", "OTHER", "MIP"])
    (doubt,) = read_series(files).doubts
    assert doubt == "its images are projections by their Image Type (MIP), and no slices"


def test_signed_values_stored_as_unsigned_are_doubted(tmp_path, write_series, grid) -> None:
    hounsfield = np.tile(np.linspace(-1000, 900, 42).reshape(6, 7), (5, 1, 1)).astype(np.int16)
    files = write_series(tmp_path / "wrong", hounsfield.view(np.uint16), grid)
    (doubt,) = read_series(files).doubts
    assert "Pixel Representation 0" in doubt
    unsigned = write_series(tmp_path / "right", (hounsfield + 1000).astype(np.uint16), grid, intercept=-1000)
    assert read_series(unsigned).doubts == ()


def test_frames_of_several_b_values_are_refused(tmp_path, write_multiframe, stored, grid) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, modality="MR")
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence[:2]:
        diffusion = pydicom.Dataset()
        diffusion.DiffusionBValue = 600.0
        frame.MRDiffusionSequence = [diffusion]
    dataset.save_as(path)
    with pytest.raises(DataError, match="b-value"):
        read_series([path])


def mapping(slope: float, intercept: float, unit: str) -> pydicom.Dataset:
    item, code = pydicom.Dataset(), pydicom.Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.MeasurementUnitsCodeSequence = [code]
    return item


@pytest.mark.parametrize(("unit", "slope", "doubts"), [("g/ml", 0.003, 1), ("Bq/ml", 0.5, 0)])
def test_another_scale_than_the_rescale_is_doubted(
    tmp_path, write_series, write_multiframe, stored, grid, unit, slope, doubts
) -> None:
    stored = np.abs(stored)
    files = write_series(tmp_path, stored, grid, modality="PT", slope=0.5)
    for file in files:
        change(file, RealWorldValueMappingSequence=[mapping(slope, 0, unit)])
    frames = write_multiframe(tmp_path / "a.dcm", stored, grid, modality="MR")
    dataset = pydicom.dcmread(frames)
    dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping(2 * slope, 0, unit)]
    dataset.save_as(frames)
    for read in (read_series(files), read_series([frames])):
        assert len(read.doubts) == doubts
        assert all(unit in doubt and "Real World Value Mapping" in doubt for doubt in read.doubts)


def test_frames_without_a_scale_of_their_own_take_that_of_the_header(
    tmp_path, write_multiframe, stored, grid
) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, modality="MR")
    dataset = pydicom.dcmread(path)
    for groups in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
        if "PixelValueTransformationSequence" in groups:
            del groups.PixelValueTransformationSequence
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.25", "-3"
    dataset.save_as(path)
    np.testing.assert_allclose(read_series([path]).volume.array, stored * 0.25 - 3)


@pytest.mark.parametrize("said", ["", "PET", "OT", None])
def test_the_kind_of_image_tells_the_modality_where_the_header_does_not(
    tmp_path, write_series, stored, grid, said
) -> None:
    files = write_series(tmp_path, stored, grid, modality="PT", slope=0.5)
    for file in files:
        change(file, Modality=said)
    assert read_series(files).modality == "PT"
    for file in files:
        change(file, RescaleSlope=None)
    assert "PET image without Rescale Slope" in refusal(files)


def test_a_modality_that_contradicts_the_kind_of_image_is_doubted(
    tmp_path, write_series, stored, grid
) -> None:
    files = write_series(tmp_path, stored, grid, modality="CT", Modality="MR")
    (doubt,) = read_series(files).doubts
    assert doubt == "its Modality is MR, but it is stored as CT images"

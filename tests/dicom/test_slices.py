"""One file: what it must hold to be read as an image."""

import pydicom
import pytest
from pydicom import Dataset

from focalis.dicom import read_series
from focalis.errors import DataError


def refusal(file) -> str:
    with pytest.raises(DataError) as caught:
        read_series([file])
    message = str(caught.value)
    assert message.startswith(f"{file}")
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path, write_series, grid, stored):
    return write_series(tmp_path, stored, grid)[0]


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("ImagePositionPatient", "Image Position (Patient)"),
        ("ImageOrientationPatient", "Image Orientation (Patient)"),
        ("PixelSpacing", "Pixel Spacing"),
        ("Rows", "Rows"),
        ("BitsStored", "Bits Stored"),
        ("PixelRepresentation", "Pixel Representation"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_attribute_is_named(file, keyword, name, empty) -> None:
    dataset = pydicom.dcmread(file)
    if empty:
        dataset[keyword].value = None
    else:
        del dataset[keyword]
    dataset.save_as(file)
    assert f"lacks {name};" in refusal(file)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"0.75", b"O.75", "Pixel Spacing is not a number"),
        (b"1.25\\0.75", b"1.2500000", "Pixel Spacing is 1.25, not 2 finite numbers"),
        (b"0.75", b"-1.5", "Pixel Spacing is 0 or below"),
        (b"0.75", b"nan ", "Pixel Spacing is 1.25\\nan, not 2 finite numbers"),
    ],
)
def test_a_malformed_number_is_named(file, old, new, complaint) -> None:
    file.write_bytes(file.read_bytes().replace(old, new))
    assert complaint in refusal(file)


def test_a_slope_that_is_not_a_number_is_never_one(file) -> None:
    dataset = pydicom.dcmread(file)
    dataset.RescaleSlope = "0.25"
    dataset.save_as(file)
    file.write_bytes(file.read_bytes().replace(b"0.25", b"0,25"))
    assert "Rescale Slope is not a number" in refusal(file)
    file.write_bytes(file.read_bytes().replace(b"0,25", b"0.00"))
    assert "Rescale Slope is 0" in refusal(file)


def test_colour_is_refused(file) -> None:
    dataset = pydicom.dcmread(file)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3
    dataset.save_as(file)
    assert "is a colour image (3 samples per pixel, RGB); give the series of measured" in refusal(file)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
    dataset.save_as(file)
    assert "is a colour image" in refusal(file)


def test_other_objects_are_refused_by_their_name(file) -> None:
    dataset = pydicom.dcmread(file)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.save_as(file)
    assert "is a Segmentation Storage, no CT, MR or PET image" in refusal(file)


def test_a_modality_lookup_table_is_refused(file) -> None:
    dataset = pydicom.dcmread(file)
    table = Dataset()
    table.ModalityLUTType = "US"
    dataset.ModalityLUTSequence = [table]
    dataset.save_as(file)
    assert "lookup table" in refusal(file)


@pytest.mark.parametrize("attributes", [{"HighBit": 11}, {"BitsStored": 17}, {"BitsAllocated": 64}])
def test_odd_bit_layouts_are_refused(file, attributes) -> None:
    dataset = pydicom.dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)
    assert "bits below bit" in refusal(file)


def test_frames_without_positions_are_refused(file) -> None:
    dataset = pydicom.dcmread(file)
    dataset.NumberOfFrames = 3
    dataset.PixelData = dataset.PixelData * 3
    dataset.save_as(file)
    assert "has 3 frames but the positions of 0" in refusal(file)

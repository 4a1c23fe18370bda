"""What vendors say in attributes of their own: b-values must agree, a second scale should."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from focalis.dicom import read_series
from focalis.errors import DataError

GE = (0x0043, "GEMS_PARM_01", 0x39, "IS")


def put(file: Path, group: int, creators: tuple[str, ...], element: int, vr: str, value: object) -> None:
    """Set a private element in the last of the creators' blocks; without creators in the first block."""
    dataset = pydicom.dcmread(file)
    for each in creators:
        block = dataset.private_block(group, each, create=True)
    if creators:
        block.add_new(element, vr, value)
    else:
        dataset.add_new((group, 0x1000 + element), vr, value)
    dataset.save_as(file)


@pytest.mark.parametrize(
    ("group", "creator", "element", "vr", "values"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", ("50", "800")),
        (*GE, (["1000000400", "8", "0", "0"], ["1000001400", "8", "0", "0"])),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL", (0.0, 1000.0)),
        (0x2001, "Philips Imaging DD 001", 0x03, "UN", (struct.pack("<f", 500), struct.pack("<f", 1000))),
        (0x0065, "Image Private Header", 0x09, "FD", (50.0, 800.0)),
    ],
)
@pytest.mark.parametrize("neighbours", [(), ("SOMEBODY ELSE",), None])
def test_b_values_of_vendors_must_agree(
    tmp_path, write_series, stored, grid, group, creator, element, vr, values, neighbours
) -> None:
    files = write_series(tmp_path, stored, grid, modality="MR")
    creators = () if neighbours is None else (*neighbours, creator)  # an anonymiser may remove them
    for file, value in zip(files, [values[0]] * 3 + [values[1]] * 2, strict=True):
        put(file, group, creators, element, vr, value)
    with pytest.raises(DataError, match="the slices differ in b-value"):
        read_series(files)
    np.testing.assert_array_equal(read_series(files[:3]).volume.array, stored[:3])


def test_a_ge_slot_is_a_b_value_in_diffusion_series_only(tmp_path, write_series, stored, grid) -> None:
    plain = write_series(tmp_path / "plain", stored, grid, modality="MR")
    for number, file in enumerate(plain):
        put(file, GE[0], (GE[1],), *GE[2:], [str(number), "0", "0", "0"])
    assert read_series(plain).doubts == ()
    for file, value in zip(plain, (0, 0, 0, 800, 800), strict=True):
        put(file, GE[0], (GE[1],), *GE[2:], [str(value), "0", "0", "0"])
    (doubt,) = read_series(plain).doubts
    assert "may be a b-value" in doubt
    for file in plain:
        dataset = pydicom.dcmread(file)
        dataset.ScanningSequence = ["EP", "RM"]
        dataset.save_as(file)
    with pytest.raises(DataError, match="differ in b-value"):
        read_series(plain)


def test_several_philips_scales_are_doubted(tmp_path, write_series, stored, grid) -> None:
    files = write_series(tmp_path, stored, grid, modality="MR", slope=2)
    for number, file in enumerate(files):
        put(file, 0x2005, ("Philips MR Imaging DD 001",), 0x0E, "FL", 0.01 if number < 3 else 0.02)
    (doubt,) = read_series(files).doubts
    assert "Philips' own scale" in doubt
    assert read_series(files[:3]).doubts == ()


def nest(
    path: Path, place: str, values: list[float], element: tuple[int, str, int, str], nested: bool
) -> None:
    """Put a private value into each frame's functional groups, or into a private sequence in them."""
    group, creator, number, vr = element
    dataset = pydicom.dcmread(path)
    for own, value in zip(dataset.PerFrameFunctionalGroupsSequence, values, strict=True):
        target = Dataset() if nested else own
        target.private_block(group, creator, create=True).add_new(number, vr, value)
        if nested:
            own.private_block(group, place, create=True).add_new(0x0F, "SQ", [target])
    dataset.save_as(path)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("place", "element"),
    [
        ("Philips MR Imaging DD 005", (0x2001, "Philips Imaging DD 001", 0x03, "FL")),
        ("Image Private Header", (0x0065, "Image Private Header", 0x09, "FD")),
        ("SIEMENS MR HEADER", (0x0019, "SIEMENS MR HEADER", 0x0C, "IS")),
    ],
)
def test_b_values_in_private_sequences_of_frames_must_agree(
    tmp_path, write_multiframe, stored, grid, place, element, nested
) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, modality="MR")
    nest(path, place, [700] * 5, element, nested)
    np.testing.assert_array_equal(read_series([path]).volume.array, stored)
    nest(path, place, [0, 0, 700, 700, 700], element, nested)
    with pytest.raises(DataError, match="the slices differ in b-value"):
        read_series([path])


def test_philips_scales_in_private_sequences_of_frames_are_doubted(
    tmp_path, write_multiframe, stored, grid
) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, modality="MR")
    element = (0x2005, "Philips MR Imaging DD 001", 0x0E, "FL")
    nest(path, "Philips MR Imaging DD 005", [0.25] * 5, element, True)
    assert read_series([path]).doubts == ()
    nest(path, "Philips MR Imaging DD 005", [0.25, 0.5, 0.5, 0.5, 0.5], element, True)
    (doubt,) = read_series([path]).doubts
    assert "Philips' own scale" in doubt

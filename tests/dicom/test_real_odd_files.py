"""DICOM as it really comes: every file is read right, or refused with file and fault."""

from pathlib import Path

import numpy as np
import pytest

from focalis.dicom import find_series, read_series
from focalis.dicom.frames import read_frames
from focalis.errors import DataError

READ = {
    "dicom2nifti/failing_slicecount_001": (2, 256, 256),
    "dicom2nifti/generic_anatomical_001": (4, 256, 256),
    "dicom2nifti/generic_anatomical_002_non_isotropic": (4, 28, 64),
    "dicom2nifti/generic_compressed": (4, 256, 256),
    "dicom2nifti/generic_compressed_jpeg": (4, 256, 256),
    "dicom2nifti/generic_compressed_jpegls": (4, 256, 256),
    "dicom2nifti/generic_compressed_rle": (4, 256, 256),
    "dicom2nifti/hitachi_anatomical_001": (4, 64, 64),
    "dicom2nifti/hyperfine_anatomical_001": (8, 138, 112),
    "dicom2nifti/philips_anatomical_001": (4, 240, 240),
    "dicom2nifti/philips_enhanced_anatomical_001": (8, 256, 256),
    "dicom2nifti/siemens_multiframe_anatomical_001": (8, 256, 256),
    "pydicom_data/693_J2KR.dcm": (1, 512, 512),
    "pydicom_data/MR2_J2KI.dcm": (1, 1024, 1024),
    "pydicom_data/bad_sequence.dcm": (1, 512, 512),
    "pydicom_data/eCT_Supplemental.dcm": (2, 512, 512),
}
REFUSED = {
    "ct_ge_gantry_tilt_two_thicknesses": "unevenly spaced",
    "dicom2nifti/failing_sliceorientation_001": "differ in orientation",
    "dicom2nifti/ge_anatomical_001_single_slice": "single slice without Slice Thickness",
    "dicom2nifti/philips_enhanced_fmri_001": "Temporal Position",
    "dicom2nifti/philips_fmri_001": "two slices at one place",
    "pydicom_data/emri_small.dcm": "10 frames but the positions of 0",
    "pydicom_data/emri_small_RLE.dcm": "10 frames but the positions of 0",
    "pydicom_data/emri_small_big_endian.dcm": "10 frames but the positions of 0",
    "pydicom_data/emri_small_jpeg_2k_lossless.dcm": "10 frames but the positions of 0",
    "pydicom_data/emri_small_jpeg_2k_lossless_too_short.dcm": "10 frames but the positions of 0",
    "pydicom_data/emri_small_jpeg_ls_lossless.dcm": "10 frames but the positions of 0",
    "pydicom_data/explicit_VR-UN.dcm": "single slice without Slice Thickness",
}
NO_IMAGE = {"dicom2nifti/generic_rgb"}
SEGMENTATIONS = {
    f"pydicom_data/liver{size}{syntax}.dcm"
    for size, syntaxes in (
        ("", ("", "_expb", "_j2k", "_rle", "_deflate")),
        ("_nonbyte_aligned", ("", "_j2k", "_rle", "_deflate")),
    )
    for syntax in syntaxes
}


def series_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    (found,) = find_series(path)
    return list(found.files)


def test_the_table_is_complete(real_data) -> None:
    root = real_data / "dicom_odd"
    there = {str(path.relative_to(root)) for path in (root / "pydicom_data").iterdir()}
    there |= {str(path.relative_to(root)) for path in (root / "dicom2nifti").iterdir()}
    there.add("ct_ge_gantry_tilt_two_thicknesses")
    assert there == {*READ, *REFUSED, *NO_IMAGE, *SEGMENTATIONS}


@pytest.mark.parametrize("name", READ)
def test_read_right(real_data, name) -> None:
    series = read_series(series_in(real_data / "dicom_odd" / name))
    assert series.volume.array.shape == READ[name]
    assert series.doubts == ()


@pytest.mark.parametrize("syntax", ["jpeg", "jpegls", "rle"])
def test_compressed_series_equal_the_first(real_data, syntax) -> None:
    root = real_data / "dicom_odd/dicom2nifti"
    one, other = (
        read_series(series_in(root / name)).volume
        for name in ("generic_compressed", f"generic_compressed_{syntax}")
    )
    np.testing.assert_array_equal(one.array, other.array)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_file_and_fault(real_data, name) -> None:
    path = real_data / "dicom_odd" / name
    with pytest.raises(DataError) as caught:
        read_series(series_in(path))
    assert str(caught.value).startswith(str(path))
    assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize("name", sorted(NO_IMAGE))
def test_no_image(real_data, name) -> None:
    assert find_series(real_data / "dicom_odd" / name) == ()


@pytest.mark.parametrize("name", sorted(SEGMENTATIONS))
def test_every_segmentation_holds_the_same_frames(real_data, name) -> None:
    frames = np.stack(list(read_frames(real_data / "dicom_odd" / name, range(3))))
    plain = "liver_nonbyte_aligned.dcm" if "nonbyte" in name else "liver.dcm"
    expected = np.stack(list(read_frames(real_data / "dicom_odd/pydicom_data" / plain, range(3))))
    np.testing.assert_array_equal(frames, expected)
    assert frames.sum(axis=(1, 2)).tolist() == [36233, 35645, 35220]

"""What a file is by its first bytes, and what its attributes say."""

import pytest
from pydicom import Dataset

from focalis.dicom.headers import is_dicom, numbers, read_header, sniff, sop_class, text, value_is_absent
from focalis.errors import DataError


def test_a_file_is_known_by_its_first_bytes(tmp_path) -> None:
    for name, content, expected in (
        ("marked", bytes(128) + b"DICM", "dicom"),
        ("little endian", b"\x08\x00\x05\x00CS", "perhaps"),
        ("big endian", b"\x00\x08\x00\x05CS", "perhaps"),
        ("file meta only", b"\x02\x00\x00\x00UL", "perhaps"),
        ("text", b"some words", "other"),
        ("empty", b"", "other"),
        ("too early", b"DICM", "other"),
    ):
        (tmp_path / name).write_bytes(content)
        assert sniff(tmp_path / name) == expected
        assert is_dicom(tmp_path / name) == (expected == "dicom")
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "none")
    with pytest.raises(DataError, match="none: cannot be read"):
        sniff(tmp_path / "none")


def test_only_the_attributes_asked_for_are_read(tmp_path, write_series, grid, stored) -> None:
    file = write_series(tmp_path, stored, grid)[0]
    header = read_header(file, ["PatientID", "Rows"])
    assert [element.keyword for element in header] == ["SpecificCharacterSet", "PatientID", "Rows"]
    assert sop_class(header) == "1.2.840.10008.5.1.4.1.1.2"
    whole = read_header(file)
    assert whole.Manufacturer == "Synthetic"
    assert "PixelData" not in whole


def test_numbers_are_finite_and_as_many_as_wanted() -> None:
    dataset = Dataset()
    dataset.PixelSpacing = ["0.5", "1.25"]
    dataset.SliceThickness = ""
    assert numbers(dataset, "PixelSpacing", 2, "a.dcm") == (0.5, 1.25)
    with pytest.raises(DataError, match=r"a\.dcm: its Pixel Spacing is 0\.5\\1\.25, not 3 finite numbers"):
        numbers(dataset, "PixelSpacing", 3, "a.dcm")
    with pytest.raises(DataError, match=r"a\.dcm frame 2: lacks Slice Thickness"):
        numbers(dataset, "SliceThickness", 1, "a.dcm frame 2")


def test_absent_empty_and_present() -> None:
    dataset = Dataset()
    dataset.PatientID, dataset.PatientName = "", "A^B"
    assert value_is_absent(dataset, "StudyID")
    assert value_is_absent(dataset, "PatientID")
    assert not value_is_absent(dataset, "PatientName")
    assert (text(dataset, "StudyID"), text(dataset, "PatientID"), text(dataset, "PatientName")) == (
        "",
        "",
        "A^B",
    )

"""Text that does not decode as announced is guessed, and said so."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from focalis.charsets import codec_of
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.dicom.headers import read_header_and_guesses, text
from focalis.identity import ModelIdentity


def announce(file: Path, name: bytes, charset: str) -> None:
    """Store a patient's name as bytes of the same length as a placeholder, under a character set."""
    dataset = pydicom.dcmread(file)
    dataset.SpecificCharacterSet = charset
    dataset.PatientName = "X" * len(name)
    dataset.save_as(file)
    content = file.read_bytes()
    assert content.count(b"X" * len(name)) == 1
    file.write_bytes(content.replace(b"X" * len(name), name))


@pytest.mark.parametrize(
    ("announced", "codec", "name"),
    [
        ("ISO_IR 192", "latin-1", "Müller^Jürgen"),
        ("", "latin-1", "Gößmann^Ægir"),
        ("", "utf-8", "Łukasz^Żak"),
        ("ISO_IR 6", "utf-8", "Ñandú^Ana"),
        ("ISO_IR 100", "utf-8", "Żółć^Łucja"),
        ("ISO_IR 101", "utf-8", "Dvořák^Šárka"),
        ("ISO_IR 144", "utf-8", "Иванов^Пётр"),
        ("GB18030", "utf-8", "王^小东"),
    ],
)
def test_a_name_of_a_wrong_character_set(
    tmp_path, write_series, stored, grid, announced, codec, name
) -> None:
    files = write_series(tmp_path, stored, grid, modality="MR")
    for file in files:
        announce(file, name.encode(codec), announced)
    series = read_series(files)
    assert text(series.header, "PatientName") == name
    (doubt,) = series.doubts
    assert doubt == "the character set of Patient's Name is missing or wrong, and was guessed"
    label = np.zeros(stored.shape, np.uint8)
    label[2, 2, 2] = 1
    write_segmentation(label, {1: "lesion"}, series, tmp_path / "out.dcm", Origin(ModelIdentity("m"), "1"))
    assert str(pydicom.dcmread(tmp_path / "out.dcm").PatientName) == name


@pytest.mark.parametrize(
    ("announced", "codec", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jürgen"),
        ("ISO_IR 192", "utf-8", "Łukasz^Żak"),
        ("ISO_IR 144", "iso8859_5", "Иванов^Иван"),
        ("GB18030", "gb18030", "王^小东"),
        ("GB18030", "gb18030", "茅^盾"),  # é, if it were UTF-8
        ("ISO_IR 101", "iso8859_2", "RÓŻYCKI"),
    ],
)
def test_a_name_as_announced(tmp_path, write_series, stored, grid, announced, codec, name) -> None:
    file = write_series(tmp_path, stored, grid)[0]
    announce(file, name.encode(codec), announced)
    header, guessed = read_header_and_guesses(file)
    assert text(header, "PatientName") == name
    assert guessed == ()


def test_the_meaning_of_a_copied_code_is_guessed_too(tmp_path, write_series, stored, grid) -> None:
    method = pydicom.Dataset()
    method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = "1", "99X", "X" * 7
    file = write_series(tmp_path, stored, grid, DeidentificationMethodCodeSequence=[method])[0]
    file.write_bytes(file.read_bytes().replace(b"X" * 7, "geprüft".encode("latin-1")))
    header, guessed = read_header_and_guesses(file)
    assert header.DeidentificationMethodCodeSequence[0].CodeMeaning == "geprüft"
    assert guessed == ("Code Meaning",)


def test_the_default_character_set_can_be_chosen(tmp_path, write_series, stored, grid) -> None:
    file = write_series(tmp_path, stored, grid)[0]
    announce(file, "Иванов^Иван".encode("iso8859_5"), "")
    header, guessed = read_header_and_guesses(file, charset="iso8859_5")
    assert text(header, "PatientName") == "Иванов^Иван"
    assert guessed == ("Patient's Name",)


@pytest.mark.parametrize("charset", ["ISO_IR 144", "iso8859_5", "ISO-8859-5"])
def test_a_character_set_is_named_as_in_dicom_or_in_python(charset) -> None:
    assert "Иванов".encode("iso8859_5").decode(codec_of(charset)) == "Иванов"


@pytest.mark.parametrize("charset", ["ISO_IR 999", "utf-16", "hex", "cp037"])
def test_what_is_not_a_character_set_for_dicom_is_refused(charset) -> None:
    with pytest.raises(ValueError, match="not a character set that is known"):
        codec_of(charset)

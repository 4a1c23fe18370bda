"""What results copy from their source: valid values only, and a warning that names what is left out."""

import shutil
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from focalis.dicom import Origin
from focalis.dicom.segmentation import write_segmentation
from focalis.dicom.series import read_series
from focalis.dicom.source_identity import OPTIONAL, TYPE_2, AttributeWarning
from focalis.dicom.structured_report import write_report
from focalis.dicom.structures import write_structures
from focalis.errors import DataError
from focalis.identity import ModelIdentity

TOLD = Origin(ModelIdentity("abc"), "1.0")
NAMES = {1: "lesion"}
WRONG = {
    "PN": [b"a" * 65, b"a=b=c=d", b"a^b^c^d^e^f", b"one\\two", b"a\x01b"],
    "LO": [b"x" * 65, b"one\\two", b"a\x07b"],
    "SH": [b"x" * 17, b"one\\two", b"a\x07b"],
    "CS": [b"w", b"X" * 17, b"M\\F", b"FEMALE"],
    "DA": [b"2024.01.02", b"20240231", b"20240101-20240202", b"yesterday", b"20240101\\20240102"],
    "TM": [b"10:11:12", b"2511", b"1011-1213", b"noon"],
    "AS": [b"45", b"045X", b"45 years"],
    "DS": [b"1,75", b"1.75 m", b"1.7500000000000000001", b"1e999", b"nan", b"1\\2"],
}
VALUES = [
    (keyword, value)
    for keyword in (*TYPE_2, *OPTIONAL)
    if dictionary_VR(keyword) != "SQ"
    for value in WRONG[dictionary_VR(keyword)]
    if not (keyword == "DeidentificationMethod" and b"\\" in value)  # may have several values
] + [("TimezoneOffsetFromUTC", value) for value in (b"CET", b"+1", b"+2500")]
UIDS = [
    (keyword, value)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID")
    for value in (b"1.2.abc", b"1." * 32 + b"11", b"study one", b"1.2\\1.3")
]


@pytest.fixture
def folder(tmp_path, write_series, stored, grid):
    write_series(tmp_path / "images", stored[:2], grid, DeidentificationMethod="a")
    return tmp_path / "images"


def spoil(folder, keyword, value):
    """Set an attribute of every image to bytes that pydicom would not write."""
    tag = Tag(tag_for_keyword(keyword))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        raw = value + b" " * (len(value) % 2)
        dataset._dict[tag] = RawDataElement(tag, dictionary_VR(keyword), len(raw), raw, 0, False, True)
        dataset.save_as(path)
    return read_series(sorted(folder.iterdir()))


def write_all(series, folder):
    label = np.ones(series.volume.array.shape, np.uint8)
    seg, rtstruct, sr = (folder / f"{name}.dcm" for name in ("seg", "rtstruct", "sr"))
    write_segmentation(label, NAMES, series, seg, TOLD)
    write_structures(label, NAMES, series, rtstruct, TOLD)
    write_report([], label, NAMES, series, seg, sr, TOLD)
    return seg, rtstruct, sr


def require_valid(path):
    if shutil.which("dciodvfy"):
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize(("keyword", "value"), VALUES)
def test_an_invalid_value_is_left_out_and_named(folder, tmp_path, keyword, value):
    series = spoil(folder, keyword, value)
    path = tmp_path / "rtstruct.dcm"
    with pytest.warns(AttributeWarning, match=dictionary_description(keyword)):
        write_structures(np.ones(series.volume.array.shape, np.uint8), NAMES, series, path, TOLD)
    written = pydicom.dcmread(path)
    assert not written.get(keyword)
    assert (keyword in written) == (keyword in TYPE_2)
    require_valid(path)


@pytest.mark.parametrize(("keyword", "value"), [*UIDS, ("StudyInstanceUID", b"")])
def test_an_invalid_uid_is_replaced_alike_in_all_results(folder, tmp_path, keyword, value):
    series = spoil(folder, keyword, value)
    with pytest.warns(AttributeWarning, match=dictionary_description(keyword)):
        paths = write_all(series, tmp_path)
    written = [pydicom.dcmread(path) for path in paths]
    found = {dataset[keyword].value for dataset in written if keyword in dataset}
    assert len(found) == 1
    assert all(uid.is_valid for uid in found)
    for path in paths:
        require_valid(path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"])
def test_a_uid_with_leading_zeros_is_kept_so_that_results_stay_in_their_study(folder, tmp_path, keyword):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = spoil(folder, keyword, b"1.02.003.0004")
    paths = write_all(series, tmp_path)
    text = b"1.02.003.0004"
    assert all(text in path.read_bytes() for path in paths[:2])


def test_everything_invalid_at_once_is_left_out_of_every_kind(folder, tmp_path):
    for keyword in (*TYPE_2, *OPTIONAL):
        if dictionary_VR(keyword) != "SQ":
            spoil(folder, keyword, WRONG[dictionary_VR(keyword)][0])
    with pytest.warns(AttributeWarning):
        paths = write_all(read_series(sorted(folder.iterdir())), tmp_path)
    for path in paths:
        require_valid(path)


def test_valid_values_are_copied_without_a_word(folder, tmp_path, recwarn):
    told = {
        "PatientName": "Yamada^Tarou",
        "PatientSize": "1.75",
        "PatientWeight": "8.1e1",
        "PatientAge": "045Y",
        "PatientSex": "F",
        "StudyTime": "1011",
        "TimezoneOffsetFromUTC": "+0545",
        "PatientIdentityRemoved": "YES",
    }
    for keyword, value in told.items():
        spoil(folder, keyword, value.encode())
    paths = write_all(read_series(sorted(folder.iterdir())), tmp_path)
    for path in paths:
        written = pydicom.dcmread(path)
        assert {keyword: str(written[keyword].value) for keyword in told} == told
        assert written.DeidentificationMethod == "a"
    assert not [each for each in recwarn if issubclass(each.category, AttributeWarning)]


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "SOPInstanceUID"])
def test_images_that_cannot_be_referred_to_are_refused(folder, tmp_path, keyword):
    with pytest.raises(DataError, match="UID"):
        write_all(spoil(folder, keyword, b"1.2.x"), tmp_path)


def test_images_that_share_a_uid_are_refused_and_both_named(folder, tmp_path):
    first, second = sorted(folder.iterdir())
    with pytest.raises(DataError, match=f"({first.name}.*{second.name}|{second.name}.*{first.name})"):
        write_all(spoil(folder, "SOPInstanceUID", b"1.2.3.4"), tmp_path)


def test_the_warning_quotes_no_value(folder, tmp_path):
    with pytest.warns(AttributeWarning) as told:
        write_all(spoil(folder, "PatientName", b"Secret" * 12), tmp_path)
    assert all("Secret" not in str(each.message) for each in told)

"""What the parser says of honest, damaged and hostile files; limits on memory and time hold."""

import os
import struct
import time
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from focalis.device.examine import examine
from focalis.device.parsing import ForeignError, Parser, UnsafeError

LIMIT = 10_000_000


@pytest.fixture
def path(write_series, stored, grid, tmp_path):
    return write_series(
        tmp_path / "series", stored, grid, SeriesDescription="Chest <b>", BodyPartExamined="CHEST"
    )[0]


@pytest.fixture
def change(path):
    """Write the file again with attributes changed."""

    def _change(**attributes):
        ds = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.save_as(path, enforce_file_format=False)
        return path

    return _change


def test_an_honest_slice_says_what_it_is(path):
    ds = pydicom.dcmread(path)

    header = examine(path, LIMIT)

    assert header.sop_uid == ds.SOPInstanceUID
    assert header.series_uid == ds.SeriesInstanceUID
    assert header.study_uid == ds.StudyInstanceUID
    assert (header.modality, header.body_part, header.description) == ("CT", "CHEST", "Chest <b>")
    assert header.expected is None


def test_pet_says_how_many_slices_it_has(write_series, stored, grid, tmp_path):
    path = write_series(tmp_path, stored, grid, modality="PT")[0]

    assert examine(path, LIMIT).expected == len(stored)


def test_a_gated_pet_series_does_not(write_series, stored, grid, tmp_path):
    path = write_series(tmp_path, stored, grid, modality="PT", SeriesType=["GATED", "IMAGE"])[0]

    assert examine(path, LIMIT).expected is None


def test_a_series_that_was_counted_says_so(change):
    assert examine(change(NumberOfSeriesRelatedInstances=7), LIMIT).expected == 7


def test_a_multi_frame_object_is_taken(write_multiframe, stored, grid, tmp_path):
    assert examine(write_multiframe(tmp_path / "x.dcm", stored, grid), LIMIT).modality == "CT"


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, ImplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_taken(path, syntax):
    ds = pydicom.dcmread(path)
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path)

    assert examine(path, LIMIT).transfer_syntax == syntax


@pytest.mark.parametrize("name", ["Müller^Jürgen", "山田^太郎=やまだ^たろう", "<script>alert(1)</script>"])
def test_any_patients_name_is_taken_and_not_repeated(change, name):
    header = examine(change(PatientName=name), LIMIT)

    assert name not in repr(header)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_text_in_an_unknown_character_set_does_not_stop_a_file(change):
    assert examine(change(SpecificCharacterSet="ISO_IR 9999"), LIMIT).modality == "CT"


def test_other_objects_are_foreign(change, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")

    with pytest.raises(ForeignError, match="no CT, MR or PET image"):
        examine(change(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), LIMIT)
    with pytest.raises(ForeignError, match="not a DICOM file"):
        examine(text, LIMIT)


def test_a_deflated_bomb_is_never_inflated(path):
    ds = pydicom.dcmread(path)
    meta = DicomBytesIO()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.filewriter.write_file_meta_info(meta, ds.file_meta)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(20_000_000)) + deflate.flush()
    assert len(bomb) < 20_000
    path.write_bytes(bytes(128) + b"DICM" + meta.getvalue() + bomb)

    with pytest.raises(ForeignError, match="Deflated"):
        examine(path, LIMIT)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize(
    "value", ["../../x", "1.2\x003", "1." + "2" * 63, "", "1.2.", "1..2", "1.2\n3", "1.2/3", "1.2\\1.3"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_malformed_uids_are_unsafe(change, keyword, value):
    with pytest.raises(UnsafeError, match=f"malformed {keyword}"):
        examine(change(**{keyword: value}), LIMIT)


def test_a_contradicting_file_meta_is_unsafe(path):
    ds = pydicom.dcmread(path)
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.save_as(path)

    with pytest.raises(UnsafeError, match="MediaStorageSOPInstanceUID"):
        examine(path, LIMIT)


def test_pixels_cut_short_are_unsafe(path):
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(UnsafeError, match="cut short"):
        examine(path, LIMIT)


@pytest.mark.parametrize("length", [0, 100, 200, 400, 700])
def test_a_file_cut_short_anywhere_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises((UnsafeError, ForeignError)):
        examine(path, LIMIT)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_pixels_cut_short_are_unsafe(path, syntax):
    ds = pydicom.dcmread(path)
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path)
    path.write_bytes(path.read_bytes()[:-12])

    with pytest.raises(UnsafeError, match=r"cut short|damaged"):
        examine(path, LIMIT)


@pytest.mark.parametrize(
    "size",
    [
        {"Rows": 65535, "Columns": 65535},
        {"NumberOfFrames": 2_000_000_000},
        {"Rows": 0},
        {"BitsAllocated": 0},
        {"BitsAllocated": 24},
        {"NumberOfFrames": -1},
    ],
)
def test_sizes_far_from_the_files_are_unsafe(change, size):
    with pytest.raises(UnsafeError):
        examine(change(**size), LIMIT)


def test_more_frames_than_compressed_fragments_are_unsafe(path):
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.NumberOfFrames = 1000
    ds.save_as(path)

    with pytest.raises(UnsafeError, match="1000 frames"):
        examine(path, LIMIT)


def nested(count, *, explicit_length):
    """Sequences in sequences, explicit VR little endian."""
    if not explicit_length:
        opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
        opening += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        return opening * count + closing * count
    content = b""
    for _ in range(count):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        content = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(item)) + item
    return content


@pytest.mark.parametrize("explicit_length", [False, True])
def test_ten_thousand_nested_sequences_are_unsafe(path, explicit_length):
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(data[:at] + nested(10_000, explicit_length=explicit_length) + data[at:])

    with pytest.raises(UnsafeError, match="nests"):
        examine(path, LIMIT)


def test_a_few_nested_sequences_are_taken(path):
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(data[:at] + nested(10, explicit_length=True) + data[at:])

    assert examine(path, LIMIT).modality == "CT"


def test_the_child_answers_as_the_function_does(parser, path, tmp_path):
    assert parser.read(path) == examine(path, LIMIT)
    (tmp_path / "x").write_text("x")
    with pytest.raises(ForeignError, match="not a DICOM file"):
        parser.read(tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnsafeError, match="cut short"):
        parser.read(path)


def test_a_hang_ends_in_time_and_the_next_file_is_read(path, tmp_path):
    stuck = tmp_path / "stuck"
    os.mkfifo(stuck)
    parser = Parser(1_000_000_000, seconds=0.5, most_pixel_bytes=LIMIT, charset="latin-1")
    try:
        header = parser.read(path)
        start = time.monotonic()
        with pytest.raises(UnsafeError, match="in time"):
            parser.read(stuck)
        assert time.monotonic() - start < 5
        assert parser.read(path) == header
    finally:
        parser.close()


def test_the_child_cannot_take_more_memory_than_its_limit(parser, path, tmp_path):
    big = tmp_path / "big.dcm"
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    with big.open("wb") as file:
        file.write(data[:at] + struct.pack("<HH2sHI", 0x0043, 0x1010, b"OB", 0, 3_000_000_000))
        file.truncate(at + 12 + 3_000_000_000)

    with pytest.raises(UnsafeError):
        parser.read(big)

    assert parser.read(path).modality == "CT"


def test_the_child_may_not_write(parser, path):
    parser.read(path)
    child = parser._idle.queue[-1]
    lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split() for line in lines}
    assert limits["Max file size"][0] == "0"
    assert limits["Max address space"][0] == "2048000000"
    assert limits["Max core file size"][0] == "0"


@pytest.mark.parametrize(
    ("codec", "charset", "description"),
    [("utf-8", "latin-1", "Schädel"), ("latin-1", "latin-1", "Schädel"), ("cp1251", "cp1251", "Голова")],
)
def test_a_description_of_no_character_set_is_read_by_the_chosen_one(change, codec, charset, description):
    stored = description.encode(codec)
    path = change(SeriesDescription="X" * len(stored), SpecificCharacterSet=None)
    path.write_bytes(path.read_bytes().replace(b"X" * len(stored), stored))
    assert examine(path, LIMIT, charset).description == description

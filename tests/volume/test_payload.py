"""NRRD and MetaImage headers as other programs write them."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focalis.errors import DataError
from focalis.volume import payload, read_volume
from focalis.volume.payload import Payload, require_whole

VALUES = np.arange(24, dtype="<i2")
NRRD = "NRRD0004\n# a comment\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nBinaryData = True\n"


def find_payload(path: Path) -> Payload:
    """Where the values lie, and nothing else."""
    return replace(payload.find_payload(path), lacks="")


def put(path: Path, header: str, data: bytes = b"") -> Path:
    path.write_bytes(header.encode() + data)
    return path


def test_where_the_values_of_an_nrrd_lie(tmp_path: Path) -> None:
    header = NRRD + "encoding: raw\nkey:=value\n\n"
    path = put(tmp_path / "a.nrrd", header, VALUES.tobytes())
    assert find_payload(path) == Payload(path, len(header), "none", 48)
    np.testing.assert_array_equal(read_volume(path).array.ravel(), VALUES)
    path = put(tmp_path / "b.nhdr", NRRD.replace("short", "double") + "encoding: gz\ndata file: ./x.gz\n")
    assert find_payload(path) == Payload(tmp_path / "x.gz", 0, "deflate", 192)
    path = put(tmp_path / "c.nrrd", NRRD + "encoding: ascii\n\n", b"1 2 3")
    assert find_payload(path).packing == "other"


def test_where_the_values_of_a_metaimage_lie(tmp_path: Path) -> None:
    header = META + "ElementDataFile = LOCAL\n"
    path = put(tmp_path / "a.mha", header, VALUES.tobytes())
    assert find_payload(path) == Payload(path, len(header), "none", 48)
    np.testing.assert_array_equal(read_volume(path).array.ravel(), VALUES)
    channels = "ElementNumberOfChannels = 3\nCompressedData = True\nElementDataFile = x.zraw\n"
    path = put(tmp_path / "b.mhd", META + channels)
    assert find_payload(path) == Payload(tmp_path / "x.zraw", 0, "deflate", 144)
    path = put(tmp_path / "c.mhd", META + "HeaderSize = 10\nElementDataFile = x.raw\n")
    assert find_payload(path) == Payload(tmp_path / "x.raw", 10, "none", 48)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("HeaderSize = 4\n", "its HeaderSize leads into the header"),
        ("ElementToIntensityFunctionSlope = 2\n", "ElementToIntensityFunctionSlope"),
        ("ElementToIntensityFunctionOffset = -1024\n", "which programs read differently"),
    ],
)
def test_a_metaimage_whose_values_are_read_differently_is_refused(
    tmp_path: Path, tags: str, said: str
) -> None:
    path = put(tmp_path / "a.mha", f"{META}{tags}ElementDataFile = LOCAL\n", VALUES.tobytes())
    with pytest.raises(DataError, match=said):
        read_volume(path)


def test_windows_line_ends(tmp_path: Path) -> None:
    header = (NRRD + "encoding: raw\n\n").replace("\n", "\r\n")
    path = put(tmp_path / "a.nrrd", header, VALUES.tobytes())
    require_whole(path)
    np.testing.assert_array_equal(read_volume(path).array.ravel(), VALUES)


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    halves = gzip.compress(VALUES[:10].tobytes()) + gzip.compress(VALUES[10:].tobytes())
    path = put(tmp_path / "a.nrrd", NRRD + "encoding: gzip\n\n", halves)
    require_whole(path)
    np.testing.assert_array_equal(read_volume(path).array.ravel(), VALUES)
    put(path, NRRD + "encoding: gzip\n\n", halves[:30])
    with pytest.raises(DataError, match="cut short"):
        require_whole(path)


def test_compressed_values_that_are_whole_but_too_few(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nrrd", NRRD + "encoding: gzip\n\n", gzip.compress(VALUES[:20].tobytes()))
    with pytest.raises(DataError, match=r"a\.nrrd: is cut short \(40 of 48 bytes of values\)"):
        read_volume(path)


def test_text_values_that_are_too_few(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nrrd", NRRD + "encoding: ascii\n\n", b"1 2 3")
    with pytest.raises(DataError, match="cannot be read"):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nhdr", NRRD + "encoding: raw\ndata file: LIST\nx1.raw\n"),
        ("a.nhdr", NRRD + "encoding: raw\ndata file: x%02d.raw 1 2 1\n"),
        ("a.mhd", META + "ElementDataFile = LIST\n"),
        ("a.mhd", META + "ElementDataFile = x%02d.raw 1 2 1\n"),
    ],
)
def test_values_in_many_files_are_refused(tmp_path: Path, name: str, header: str) -> None:
    with pytest.raises(DataError, match="lie in several files"):
        read_volume(put(tmp_path / name, header))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nrrd", NRRD + "encoding: raw\n"),  # no end of the header
        ("a.nrrd", NRRD.replace("sizes", "size") + "encoding: raw\n\n"),
        ("a.nrrd", NRRD.replace("short", "block") + "encoding: raw\n\n"),
        ("a.mha", META),
        ("a.mha", META.replace("4 3 2", "4 x 2") + "ElementDataFile = LOCAL\n"),
    ],
)
def test_malformed_headers(tmp_path: Path, name: str, header: str) -> None:
    with pytest.raises(
        DataError, match=r"is not a (NRRD|MetaImage) file, or cut short in its header|its DimSize is"
    ):
        read_volume(put(tmp_path / name, header))

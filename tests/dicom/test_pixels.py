"""Every transfer syntax: written by DCMTK or pydicom, read back; what cannot be decoded is refused by name."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from focalis.dicom import only_series, read_series
from focalis.dicom.pixels import value_type
from focalis.dicom.slices import read_slices
from focalis.errors import DataError
from focalis.volume import Grid

GRID = Grid((48, 40, 2), (1.0, 1.0, 2.0))
LAYOUTS = [(np.uint8, 8), (np.uint16, 8), (np.uint16, 12), (np.int16, 12), (np.int16, 16)]
DCMTK = {
    uid.ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    uid.ExplicitVRBigEndian: ("dcmconv", "+tb"),
    uid.DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    uid.JPEGLossless: ("dcmcjpeg", "+el"),
    uid.JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    uid.JPEGLSLossless: ("dcmcjpls",),
    uid.RLELossless: ("dcmcrle",),
}
DCMTK_DECODERS = {
    uid.JPEGLosslessSV1: "dcmdjpeg",
    uid.JPEGLSLossless: "dcmdjpls",
    uid.RLELossless: "dcmdrle",
}
layouts = pytest.mark.parametrize(
    ("dtype", "bits"), LAYOUTS, ids=lambda value: value.__name__ if isinstance(value, type) else str(value)
)


def dcmtk(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"DCMTK's {command[0]} is not installed")
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def values(dtype: type, bits: int) -> np.ndarray:
    """Noise over the whole range of the stored bits, its ends included, and a smooth slice."""
    signed = np.dtype(dtype).kind == "i"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    array = np.random.default_rng(bits).integers(low, high + 1, size=GRID.shape_zyx)
    array[0] = np.linspace(low, high, array[0].size).reshape(array[0].shape)
    return array.astype(dtype)


def syntax_of(folder: Path) -> set[str]:
    return {pydicom.dcmread(file).file_meta.TransferSyntaxUID for file in folder.iterdir()}


def converted(folder: Path, files: list[Path], convert) -> Path:
    """A new folder with each file rewritten by `convert(source, target)`."""
    folder.mkdir()
    for file in files:
        convert(file, folder / file.name)
    return folder


@layouts
@pytest.mark.parametrize("syntax", DCMTK, ids=lambda syntax: syntax.keyword)
def test_what_dcmtk_writes(tmp_path, write_series, syntax, dtype, bits) -> None:
    stored = values(dtype, bits)
    files = write_series(tmp_path / "plain", stored, GRID, bits_stored=bits, intercept=-10)
    folder = converted(tmp_path / "new", files, lambda source, target: dcmtk(*DCMTK[syntax], source, target))
    assert syntax_of(folder) == {syntax}
    array = read_series(only_series(folder)).volume.array
    np.testing.assert_array_equal(array, stored.astype(np.int64) - 10)


# without 8 bits in 16, which pydicom's own RLE encoder writes as 8 in 8
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.int16, 12), (np.int16, 16)])
@pytest.mark.parametrize(
    ("syntax", "plugin"), [(uid.RLELossless, "pydicom"), (uid.JPEGLSLossless, "pyjpegls")]
)
def test_what_pydicom_writes(tmp_path, write_series, syntax, plugin, dtype, bits) -> None:
    def compress(source: Path, target: Path) -> None:
        dataset = pydicom.dcmread(source)
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.save_as(target)

    stored = values(dtype, bits)
    files = write_series(tmp_path / "plain", stored, GRID, bits_stored=bits)
    folder = converted(tmp_path / "new", files, compress)
    assert syntax_of(folder) == {syntax}
    np.testing.assert_array_equal(read_series(only_series(folder)).volume.array, stored)


def write_jpeg2000(openjpeg, source: Path, target: Path, **options) -> None:
    dataset = pydicom.dcmread(source)
    stream = openjpeg.encode(
        dataset.pixel_array, bits_stored=dataset.BitsStored, photometric_interpretation=2, **options
    )
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000 if options else uid.JPEG2000Lossless
    dataset.save_as(target)


@layouts
def test_jpeg_2000_lossless_as_openjpeg_writes_it(tmp_path, write_series, dtype, bits) -> None:
    openjpeg = pytest.importorskip("openjpeg")
    stored = values(dtype, bits)
    files = write_series(tmp_path / "plain", stored, GRID, bits_stored=bits)
    folder = converted(tmp_path / "new", files, lambda a, b: write_jpeg2000(openjpeg, a, b))
    np.testing.assert_array_equal(read_series(only_series(folder)).volume.array, stored)


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.int16, 12), (np.uint16, 16)])
def test_jpeg_2000_lossy_gives_what_openjpeg_gives(tmp_path, write_series, dtype, bits) -> None:
    openjpeg = pytest.importorskip("openjpeg")
    files = write_series(tmp_path / "plain", smooth(dtype, bits), GRID, bits_stored=bits)
    folder = converted(
        tmp_path / "new", files, lambda a, b: write_jpeg2000(openjpeg, a, b, compression_ratios=[4])
    )
    assert syntax_of(folder) == {uid.JPEG2000}
    series = read_series(only_series(folder))
    for file, plane in zip(series.files, series.volume.array, strict=True):
        dataset = pydicom.dcmread(file)
        (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
        np.testing.assert_array_equal(plane, openjpeg.decode(frame))
    assert not np.array_equal(series.volume.array, smooth(dtype, bits))
    assert np.abs(series.volume.array - smooth(dtype, bits).astype(int)).max() < 2**bits / 25


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
def test_jpeg_ls_near_lossless_keeps_its_promise(tmp_path, write_series, dtype, bits) -> None:
    stored = smooth(dtype, bits)
    files = write_series(tmp_path / "plain", stored, GRID, bits_stored=bits)
    folder = converted(tmp_path / "new", files, lambda a, b: dcmtk("dcmcjpls", "+en", "+md", 3, a, b))
    assert syntax_of(folder) == {uid.JPEGLSNearLossless}
    array = read_series(only_series(folder)).volume.array
    assert 0 < np.abs(array - stored.astype(int)).max() <= 3


def smooth(dtype: type, bits: int) -> np.ndarray:
    """A smooth bump with a little noise, within the range of the stored bits."""
    z, y, x = np.indices(GRID.shape_zyx)
    bump = np.exp(-((x - 20) ** 2 + (y - 15) ** 2) / 200 - z / 5) * 2 ** (bits - 2)
    return (bump + np.random.default_rng(0).normal(size=bump.shape) * 2 + 20).astype(dtype)


@pytest.mark.parametrize("syntax", DCMTK_DECODERS, ids=lambda syntax: syntax.keyword)
def test_dcmtk_decodes_the_same(tmp_path, write_series, syntax) -> None:
    files = write_series(tmp_path / "plain", values(np.int16, 12), GRID, bits_stored=12)
    packed = converted(tmp_path / "packed", files, lambda a, b: dcmtk(*DCMTK[syntax], a, b))
    plain = converted(
        tmp_path / "again", sorted(packed.iterdir()), lambda a, b: dcmtk(DCMTK_DECODERS[syntax], a, b)
    )
    ours, theirs = (read_series(only_series(folder)).volume for folder in (packed, plain))
    assert syntax_of(plain) == {uid.ExplicitVRLittleEndian}
    np.testing.assert_array_equal(ours.array, theirs.array)


@pytest.mark.parametrize(
    "syntax",
    [uid.RLELossless, uid.JPEGLosslessSV1, uid.ExplicitVRBigEndian],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("size", [(48, 40, 3), (448, 400, 6)], ids=["small", "large"])
def test_compressed_multi_frame_objects(tmp_path, write_multiframe, syntax, size) -> None:
    """The large one is decoded from the file, frame by frame, not from memory."""
    stored = np.random.default_rng(0).integers(-2000, 2000, size=size[::-1]).astype(np.int16)
    plain = write_multiframe(tmp_path / "plain.dcm", stored, Grid(size))
    dcmtk(*DCMTK[syntax], plain, tmp_path / "new.dcm")
    np.testing.assert_array_equal(read_series([tmp_path / "new.dcm"]).volume.array, stored)


def test_unused_bits_do_not_count(tmp_path, write_series) -> None:
    stored = values(np.uint16, 12)
    (plane,) = stored[:1]
    overlay = (np.arange(plane.size).reshape(plane.shape) % 16 << 12).astype(np.uint16)
    (file,) = write_series(tmp_path, (plane | overlay)[None], GRID, bits_stored=12)
    np.testing.assert_array_equal(read_series([file]).volume.array[0], plane)


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_series([file])
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "syntax", [None, *DCMTK], ids=lambda syntax: syntax.keyword if syntax else "Explicit"
)
def test_a_truncated_file_is_refused(tmp_path, write_series, syntax, capfd) -> None:
    (file,) = write_series(tmp_path, values(np.int16, 16)[:1], GRID)
    if syntax is not None:
        dcmtk(*DCMTK[syntax], file, tmp_path / "new.dcm")
        file = tmp_path / "new.dcm"
    whole = file.read_bytes()
    for lost in (8, 100, 400):
        file.write_bytes(whole[:-lost])
        assert "copy or export" in refusal(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("dcmcjpeg", "+e1"), ("dcmcjpls",), ("dcmcrle",)], ids=lambda c: c[0])
def test_a_stream_cut_short_inside_its_wrapping_is_refused(tmp_path, write_series, command) -> None:
    (file,) = write_series(tmp_path, values(np.int16, 16)[:1], GRID)
    dcmtk(*command, file, file)
    dataset = pydicom.dcmread(file)
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(file)
    assert "cut short or damaged" in refusal(file)


def test_a_file_without_pixel_data_is_refused(tmp_path, write_series) -> None:
    (file,) = write_series(tmp_path, values(np.int16, 16)[:1], GRID)
    dataset = pydicom.dcmread(file)
    del dataset.PixelData
    dataset.save_as(file)
    assert "holds no pixel data" in refusal(file)


@pytest.mark.parametrize(
    ("syntax", "name"), [("1.2.3.4", "1.2.3.4"), (uid.MPEG2MPML, "MPEG2"), (uid.JPEGExtended12Bit, "")]
)
def test_a_transfer_syntax_that_cannot_be_decoded_is_named(tmp_path, write_series, syntax, name) -> None:
    (file,) = write_series(tmp_path, values(np.uint16, 12)[:1], GRID, bits_stored=12)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([bytes(100)])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    assert name in refusal(file)


def test_values_beyond_the_stored_bits_are_refused(tmp_path, write_series) -> None:
    openjpeg = pytest.importorskip("openjpeg")
    (file,) = write_series(tmp_path, values(np.uint16, 16)[:1], GRID)
    write_jpeg2000(openjpeg, file, file)
    dataset = pydicom.dcmread(file)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(file)
    assert "beyond its Bits Stored (0 to 4095)" in refusal(file)


def test_one_fraction_makes_the_series_float(tmp_path, write_series) -> None:
    files = write_series(tmp_path, values(np.int16, 12), GRID, slope=[2, 0.5], bits_stored=12)
    slices = [each for file in files for each in read_slices(file)]
    assert value_type(slices) == np.float32
    assert value_type(slices[:1]) == np.int16


@pytest.mark.parametrize(("extra", "refused"), [(2, False), (84, True), (840, True)])
def test_more_pixel_data_than_the_header_says_are_refused(
    tmp_path, write_series, stored, grid, extra, refused
):
    files = write_series(tmp_path, stored, grid)
    dataset = pydicom.dcmread(files[2])
    dataset.PixelData += bytes(extra)
    dataset.save_as(files[2])
    if refused:
        with pytest.raises(
            DataError, match=f"holds {84 + extra} bytes of pixel data, but its header says 84"
        ):
            read_series(files)
    else:
        np.testing.assert_array_equal(read_series(files).volume.array, stored)

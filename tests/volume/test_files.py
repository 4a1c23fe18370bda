import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume import (
    IMAGE_SUFFIXES,
    Grid,
    Volume,
    data_files,
    files,
    image_stem,
    placement_lacks,
    read_volume,
    read_volumes,
    to_sitk,
    write_volume,
)

ANGLE = np.deg2rad(25.0)
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
PERMUTED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def a_volume(direction: tuple[float, ...] = IDENTITY, dtype: str = "int16") -> Volume:
    array = np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(dtype)
    return Volume(array, Grid((6, 5, 4), (0.7, 1.3, 5.0), (-12.5, 30.25, 101.0), direction))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("direction", [IDENTITY, OBLIQUE, FLIPPED, PERMUTED])
def test_round_trip_keeps_values_and_grid(tmp_path: Path, suffix: str, direction: tuple[float, ...]) -> None:
    volume = a_volume(direction)
    write_volume(volume, tmp_path / f"a{suffix}")
    back = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.array.dtype == volume.array.dtype
    assert back.grid.size_xyz == volume.grid.size_xyz
    np.testing.assert_allclose(back.grid.spacing_xyz_mm, volume.grid.spacing_xyz_mm, rtol=1e-6)
    np.testing.assert_allclose(back.grid.origin_xyz_mm, volume.grid.origin_xyz_mm, rtol=1e-6)
    np.testing.assert_allclose(back.grid.direction, volume.grid.direction, atol=1e-6)
    assert not volume.grid.differences(back.grid)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        ("int64", "int64"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("bool", "uint8"),
        ("float16", "float32"),
    ],
)
def test_dtypes(tmp_path: Path, suffix: str, dtype: str, stored: str) -> None:
    volume = a_volume(dtype=dtype)
    write_volume(volume, tmp_path / f"a{suffix}")
    back = read_volume(tmp_path / f"a{suffix}")
    assert back.array.dtype == stored
    np.testing.assert_array_equal(back.array, volume.array.astype(stored))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_axes_are_z_y_x_and_agree_with_simpleitk(tmp_path: Path, suffix: str) -> None:
    volume = a_volume(OBLIQUE)
    write_volume(volume, tmp_path / f"a{suffix}")
    peer = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    assert peer.GetPixel(5, 3, 2) == volume.array[2, 3, 5]
    expected = np.asarray(volume.grid.origin_xyz_mm) + volume.grid.direction_matrix @ (
        5 * 0.7,
        3 * 1.3,
        2 * 5.0,
    )
    np.testing.assert_allclose(peer.TransformIndexToPhysicalPoint((5, 3, 2)), expected, atol=1e-4)


def test_scale_slope_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_volume(a_volume(), path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2.0, -10.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path).array, a_volume().array * 2.0 - 10.0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_numbers_survive(tmp_path: Path, suffix: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(70, 80, 90)).astype(dtype)
    places = tuple(rng.integers(0, length, 40) for length in array.shape)
    array[places] = np.tile([np.nan, np.inf, -np.inf, 1.0], 10)
    array[0, 0, 0] = array[-1, -1, -1] = np.nan
    write_volume(Volume(array, Grid((90, 80, 70))), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, array)


def test_big_endian_files_and_extensions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    array[1, 2, 3] = np.nan
    write_volume(Volume(array, Grid((5, 4, 3))), path)
    content = path.read_bytes()
    longer = bytearray(content[:352] + bytes(1024) + content[352:])  # room for a header extension
    longer[108:112] = np.array(352 + 1024, dtype="<f4").tobytes()
    path.write_bytes(longer)
    np.testing.assert_array_equal(read_volume(path).array, array)
    path.write_bytes(swapped(content))
    np.testing.assert_array_equal(read_volume(path).array, array)


def swapped(content: bytes) -> bytes:
    """A little-endian NIfTI-1 file of 32-bit values in the other byte order."""
    parts = [("i4", 0, 1), ("i4", 32, 1), ("i2", 36, 1), ("i2", 40, 8), ("f4", 56, 3), ("i2", 68, 4)]
    parts += [("f4", 76, 8), ("f4", 108, 3), ("i2", 120, 1), ("f4", 124, 4), ("i4", 140, 2)]
    parts += [("i2", 252, 2), ("f4", 256, 6), ("f4", 280, 12), ("f4", 352, (len(content) - 352) // 4)]
    result = bytearray(content)
    for kind, offset, count in parts:
        values = np.frombuffer(content, dtype=f"<{kind}", count=count, offset=offset)
        result[offset : offset + values.nbytes] = values.astype(f">{kind}").tobytes()
    return bytes(result)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_values_are_compressed_where_the_format_allows(tmp_path: Path, suffix: str) -> None:
    write_volume(Volume(np.zeros((40, 40, 40), np.int16), Grid((40, 40, 40))), tmp_path / f"a{suffix}")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size > 128_000 if suffix == ".nii" else size < 2_000


def test_images_in_two_files(tmp_path: Path) -> None:
    for suffix, data in ((".nhdr", "a.raw.gz"), (".mhd", "a.zraw")):
        path = tmp_path / suffix[1:] / f"a{suffix}"
        write_volume(a_volume(), path)
        write_volume(Volume(a_volume().array + 1, a_volume().grid), path)
        np.testing.assert_array_equal(read_volume(path).array, a_volume().array + 1)
        assert data_files(path) == (path, path.parent / data)
        assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, data])
        (path.parent / data).unlink()
        assert f"its data file {data} is not there" in refusal(path)
    write_volume(a_volume(), tmp_path / "a.nrrd")
    assert data_files(tmp_path / "a.nrrd") == (tmp_path / "a.nrrd",)
    assert data_files(tmp_path / "a.nii.gz") == (tmp_path / "a.nii.gz",)


def test_a_data_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.zraw").write_text("precious")
    with pytest.raises(DataError, match=r"a\.zraw: is in the way of the values of a\.mhd"):
        write_volume(a_volume(), tmp_path / "a.mhd")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.zraw", "precious")]


def test_an_nrrd_of_another_patient_system(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 3 2\n"
        "space directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\nencoding: raw\n"
        "space origin: (1,2,3)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + np.arange(24, dtype="<i2").tobytes())
    found = read_volume(tmp_path / "a.nrrd")
    assert found.grid == Grid(
        (4, 3, 2), (1.0, 1.0, 2.0), (-1.0, -2.0, 3.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
    )
    np.testing.assert_array_equal(found.array.ravel(), np.arange(24))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_the_volumes_of_a_4d_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    channels = [a_volume(OBLIQUE), Volume(a_volume().array + 7, a_volume(OBLIQUE).grid)]
    sitk.WriteImage(sitk.JoinSeries([to_sitk(channel) for channel in channels]), str(path))
    found = read_volumes(path)
    assert len(found) == 2
    for one, other in zip(found, channels, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
        assert not one.grid.differences(other.grid)
    assert "4-dimensional (6 x 5 x 4 x 2)" in refusal(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_numbers_survive_in_nrrd_and_metaimage(
    tmp_path: Path, suffix: str, dtype: str
) -> None:
    array = a_volume(dtype=dtype).array
    array[0, 1, 2], array[3, 2, 1], array[3, 4, 5] = np.nan, np.inf, -np.inf
    write_volume(Volume(array, a_volume().grid), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, array)


def test_values_that_are_not_numbers_survive_in_4d(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    array[1, 2, 3, 4] = np.nan
    path = write_array(tmp_path / "a.nii.gz", array)
    np.testing.assert_array_equal(np.stack([volume.array for volume in read_volumes(path)]), array)


def test_5d_files_are_refused(tmp_path: Path) -> None:
    path = write_array(tmp_path / "a.nii.gz", np.ones((2, 3, 4, 5, 6), np.float32))
    with pytest.raises(DataError, match=r"5-dimensional \(6 x 5 x 4 x 3 x 2\)"):
        read_volumes(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_trailing_axis_of_one_is_3d(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(a_volume().array[None], isVector=False), str(path))
    assert read_volume(path).array.shape == (4, 5, 6)
    assert len(read_volumes(path)) == 1


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "sitk" not in message
    assert "itk::" not in message
    return message


def write_array(path: Path, array: np.ndarray, *, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_file_is_refused(
    tmp_path: Path, suffix: str, compressed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    values = np.random.default_rng(1).normal(size=(20, 20, 20))
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=compressed)
    data = data_files(path)[-1]
    whole = data.read_bytes()
    for kept in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 400, 100, 0):
        data.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"cut short|not a NIfTI"):
            read_volume(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_a_flipped_bit_in_the_compressed_data_is_refused(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(np.random.default_rng(1).normal(size=(20, 20, 20)), Grid((20, 20, 20))), path)
    data = data_files(path)[-1]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0x10
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|not an intact gzip file"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in IMAGE_SUFFIXES])
@pytest.mark.parametrize("content", ["", "not an image\n" * 100])
def test_other_content_under_an_image_name_is_refused(
    tmp_path: Path, name: str, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    refusal(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_2_file_is_refused_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    nibabel.save(nibabel.Nifti2Image(np.ones((4, 5, 6), np.int16), np.eye(4)), path)
    assert "is a NIfTI-2 file, which is not supported" in refusal(path)


def test_what_is_not_a_3d_scalar_image_is_refused(tmp_path: Path) -> None:
    flat = np.ones((4, 5), dtype=np.float32)
    assert "2-dimensional (5 x 4)" in refusal(write_array(tmp_path / "flat.nii.gz", flat))
    series = np.ones((2, 4, 5, 6), dtype=np.float32)
    assert "4-dimensional (6 x 5 x 4 x 2)" in refusal(write_array(tmp_path / "series.nii.gz", series))
    colours = np.ones((4, 5, 6, 3), dtype=np.uint8)
    for name in ("rgb.nii.gz", "rgb.nrrd", "rgb.mha"):
        assert "one real number per voxel" in refusal(write_array(tmp_path / name, colours, vector=True))
    waves = np.ones((4, 5, 6), dtype=np.complex64)
    assert "one real number per voxel" in refusal(write_array(tmp_path / "complex.nii.gz", waves))


def test_a_missing_file_a_folder_and_another_suffix_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.nii.gz")
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"folder{suffix}").mkdir()
        assert "is a folder" in refusal(tmp_path / f"folder{suffix}")
        assert "does not exist" in refusal(tmp_path / f"none{suffix}")
    (tmp_path / "a.png").touch()
    os.mkfifo(tmp_path / "pipe.nii.gz")  # opening it would wait forever
    os.mkfifo(tmp_path / "pipe.mha")
    for name in ("pipe.nii.gz", "pipe.mha"):
        assert "is not a regular file" in refusal(tmp_path / name)
        with pytest.raises(DataError, match="is not a regular file"):
            placement_lacks(tmp_path / name)
    assert ".nii.gz" in refusal(tmp_path / "a.png")


def test_writing_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nii.gz"
    write_volume(a_volume(), path)
    other = Volume(a_volume().array + 1, a_volume().grid)
    write_volume(other, path)
    np.testing.assert_array_equal(read_volume(path).array, other.array)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.nii.gz"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii.gz"
    write_volume(a_volume(), path)

    def half(_image: sitk.Image, name: str, **_options: object) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full\nsitk::ERROR: no space")

    monkeypatch.setattr(sitk, "WriteImage", half)
    with pytest.raises(DataError, match="no space"):
        write_volume(Volume(a_volume().array + 1, a_volume().grid), path)
    np.testing.assert_array_equal(read_volume(path).array, a_volume().array)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nii.gz"]


def test_writing_under_another_suffix_or_into_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.nii"):
        write_volume(a_volume(), tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_volume(a_volume(), tmp_path / "file" / "a.nii.gz")


def test_image_stem() -> None:
    assert image_stem(Path("x/case.1.nii.gz")) == "case.1"
    assert image_stem(Path("case.NII")) == "case"
    assert image_stem(Path("case.seg.nrrd")) == "case"
    assert image_stem(Path("case.SEG.nhdr")) == "case"
    assert image_stem(Path("case.seg.nii.gz")) == "case.seg"
    assert image_stem(Path("case.mhd")) == "case"
    assert image_stem(Path("case.zraw")) is None
    assert image_stem(Path(".case.nii.gz")) is None
    assert image_stem(Path("case.json")) is None


def test_the_file_that_is_named_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    volumes = {}
    for number, name in enumerate(("a.nii", "a.nii.gz", "b.nii.gz", "b.nii")):
        volumes[name] = Volume(np.full((4, 5, 6), number + 1, np.int16), Grid((6, 5, 4)))
        write_volume(volumes[name], tmp_path / name)
    sitk.WriteImage(to_sitk(a_volume()), str(tmp_path / "a.img"))
    for name, volume in volumes.items():
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, volume.array)


def test_a_link_reads_the_file_that_it_points_to(tmp_path: Path) -> None:
    write_volume(a_volume(), tmp_path / "object.nii.gz")
    (tmp_path / "a.nii.gz").symlink_to("object.nii.gz")
    write_volume(Volume(np.zeros((4, 5, 6), np.int16), Grid((6, 5, 4))), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, a_volume().array)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("stem", ["c0.nii", "scan.img", "x.hdr", "y.nii.gz", "z.nrrd", "w.nia", "v.mha"])
def test_a_stem_may_end_like_an_image_file(tmp_path: Path, stem: str, suffix: str) -> None:
    path = tmp_path / f"{stem}{suffix}"
    write_volume(a_volume(), path)
    np.testing.assert_array_equal(read_volume(path).array, a_volume().array)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in data_files(path)}


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    write_volume(a_volume(), tmp_path / "A.NII.GZ")
    np.testing.assert_array_equal(read_volume(tmp_path / "A.NII.GZ").array, a_volume().array)


@pytest.mark.parametrize(
    "error", [RuntimeError("std::bad_alloc"), MemoryError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")]
)
def test_whatever_the_library_raises_is_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_path: Path) -> None:
        raise error

    write_volume(a_volume(), path := tmp_path / "a.nrrd")
    monkeypatch.setattr(files, "image_reader", fail)
    for read in (read_volume, read_volumes):
        with pytest.raises(DataError, match=f"^{path}: "):
            read(path)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_that_changes_between_inspection_and_reading_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    write_volume(a_volume(), path := tmp_path / f"a{suffix}")
    write_volume(Volume(a_volume().array + 1, a_volume().grid), other := tmp_path / f"b{suffix}")

    def replaced(place: Path, read: Callable[[Path], Any] = files.image_reader) -> Any:
        other.replace(place)
        return read(place)

    monkeypatch.setattr(files, "image_reader", replaced)
    with pytest.raises(DataError, match=f"a{suffix}: changed while it was read"):
        read_volume(path)


def test_other_permissions_are_not_a_change_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(a_volume(), path := tmp_path / "a.nii.gz")

    def touched(place: Path, read: Callable[[Path], Any] = files.image_reader) -> Any:
        place.chmod(0o600)
        (tmp_path / "backup").hardlink_to(place)
        return read(place)

    monkeypatch.setattr(files, "image_reader", touched)
    np.testing.assert_array_equal(read_volume(path).array, a_volume().array)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_that_the_system_cuts_short_is_not_a_result(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 30_000, (20, 30, 40)).astype(np.int16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(DataError, match=f"a{suffix}: cannot be written"):
            write_volume(Volume(noise, Grid((40, 30, 20))), tmp_path / f"a{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(np.inf, 0), (-np.inf, 1), (2, np.nan), (2, np.inf), (0, 5), (np.nan, 7), (1e-20, 0)],
)
def test_values_without_a_scale_are_refused(tmp_path: Path, slope: float, intercept: float) -> None:
    path = scaled(tmp_path / "a.nii", slope, intercept)
    with pytest.raises(DataError, match=r"its scl_slope is .* and its scl_inter"):
        read_volume(path)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (np.nan, np.nan), (np.nan, 0), (0, np.nan), (1, 0)])
def test_values_that_are_not_scaled_are_as_stored(tmp_path: Path, slope: float, intercept: float) -> None:
    np.testing.assert_array_equal(read_volume(scaled(tmp_path / "a.nii", slope, intercept)).array, A_VALUES)


A_VALUES = np.arange(24, dtype=np.int16).reshape(4, 3, 2)


def scaled(path: Path, slope: float, intercept: float) -> Path:
    """A NIfTI file whose header has this scale, whatever it is."""
    write_volume(Volume(A_VALUES, Grid((2, 3, 4))), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)
    path.write_bytes(content)
    return path

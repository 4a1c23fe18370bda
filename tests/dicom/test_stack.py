"""What is not a regular stack of slices is refused, and the message names the slices."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from focalis.dicom import only_series, read_series
from focalis.errors import DataError


def rewrite(file, **attributes) -> None:
    dataset = pydicom.dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)


def move(file, grid, *, row=0.0, column=0.0, normal=0.0, digits=6) -> None:
    """Shift a slice in its own axes, in mm."""
    position = np.array(pydicom.dcmread(file).ImagePositionPatient, dtype=float)
    moved = position + grid.direction_matrix @ [row, column, normal]
    rewrite(file, ImagePositionPatient=[f"{value:.{digits}f}" for value in moved])


def refusal(folder) -> str:
    with pytest.raises(DataError) as caught:
        read_series(only_series(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


@pytest.fixture
def files(tmp_path, write_series, oblique_grid, stored):
    return write_series(tmp_path, stored, oblique_grid)


@pytest.fixture
def place(oblique_grid):
    """How a message gives the position of slice z."""
    first = oblique_grid.direction_matrix[:, 2] @ oblique_grid.origin_xyz_mm
    return lambda z: f"at {first + 2.5 * z:.2f} mm"


def test_a_missing_slice(tmp_path, files, place) -> None:
    files[2].unlink()
    message = refusal(tmp_path)
    assert "1 slice is missing: 5.00 mm between" in message
    assert f"between {files[1].name} {place(1)} and {files[3].name} {place(3)}, elsewhere 2.50 mm" in message
    assert "export the whole series" in message


def test_missing_slices_in_two_places(tmp_path, write_series, grid) -> None:
    grid = replace(grid, size_xyz=(7, 6, 20))
    files = write_series(tmp_path, np.zeros(grid.shape_zyx, dtype=np.int16), grid)
    for z in (3, 10, 11):
        files[z].unlink()
    message = refusal(tmp_path)
    assert "3 slices are missing" in message
    for z in (2, 4, 9, 12):
        assert files[z].name in message


def test_unevenly_spaced_slices(tmp_path, files, oblique_grid, place) -> None:
    move(files[2], oblique_grid, normal=0.6)
    message = refusal(tmp_path)
    assert "unevenly spaced: 3.10 mm between" in message
    assert f"{files[1].name} {place(1)}" in message
    assert f"{files[2].name} " in message
    assert f"{files[3].name} {place(3)}" in message


def test_slices_that_draw_apart(tmp_path, write_series, grid) -> None:
    grid = replace(grid, size_xyz=(7, 6, 40))
    files = write_series(tmp_path, np.zeros(grid.shape_zyx, dtype=np.int16), grid)
    for z, file in enumerate(files):
        move(file, grid, normal=0.002 * z**2)
    assert "unevenly spaced" in refusal(tmp_path)


def test_duplicate_slices(tmp_path, files, place) -> None:
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(files[3].read_bytes())
    message = refusal(tmp_path)
    assert "two slices at one place: " in message
    assert f"copy.dcm {place(3)}" in message
    assert f"{files[3].name} {place(3)}" in message
    assert "keep one" in message


def test_two_echoes_in_one_series(tmp_path, write_series, grid, stored) -> None:
    same = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.3"}
    for echo in ("a", "b"):
        write_series(tmp_path / echo, stored, grid, **same)
    message = refusal(tmp_path)
    assert "a/slice" in message
    assert "b/slice" in message
    assert "and 1 more pairs; keep one of each; echoes, phases" in message


@pytest.mark.parametrize("axis", ["row", "column"])
def test_gantry_tilt(tmp_path, files, oblique_grid, axis) -> None:
    for z, file in enumerate(files):
        move(file, oblique_grid, **{axis: 2.5 * z * np.tan(np.radians(12))})
    message = refusal(tmp_path)
    assert "tilted gantry" in message
    assert "12.0 degrees" in message
    assert files[0].name in message
    assert files[4].name in message
    assert "straighten" in message


def test_one_slice_off_to_the_side(tmp_path, files, oblique_grid) -> None:
    move(files[2], oblique_grid, row=0.3)
    assert f"{files[2].name}" in refusal(tmp_path)


def test_localizers_lie_in_several_orientations(tmp_path, write_series, stored, grid, oblique_grid) -> None:
    uid = generate_uid()
    write_series(tmp_path / "axial", stored, grid, SeriesInstanceUID=uid)
    (odd,) = write_series(tmp_path / "oblique", stored[:1], oblique_grid, SeriesInstanceUID=uid)
    message = refusal(tmp_path)
    assert "differ in orientation" in message
    assert "1 0 0 0 1 0 (5: axial/slice" in message
    assert f"(1: oblique/{odd.name} at" in message
    assert "localizers" in message


@pytest.mark.parametrize(
    ("attributes", "what", "shown"),
    [
        ({"Rows": 3, "Columns": 14}, "size (columns x rows)", "14 x 3 (1: "),
        ({"PixelSpacing": [1.25, 0.76]}, "pixel spacing (x, y)", "0.76 x 1.25 mm (1: "),
        ({"FrameOfReferenceUID": "1.2.3"}, "frame of reference", "1.2.3 (1: "),
        ({"SeriesInstanceUID": "1.2.3"}, "series", "1.2.3 (1: "),
    ],
)
def test_mixed_slices(tmp_path, files, attributes, what, shown) -> None:
    rewrite(files[1], **attributes)
    with pytest.raises(DataError) as caught:
        read_series(files)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: the slices differ in {what}: {shown}{files[1].name} at")


def test_an_orientation_that_is_none(tmp_path, files) -> None:
    for file in files:
        rewrite(file, ImageOrientationPatient=[1, 0, 0, 0.1, 1, 0])
    assert "right angle" in refusal(tmp_path)


def test_a_single_slice_without_thickness(tmp_path, write_series, grid, stored) -> None:
    (file,) = write_series(tmp_path, stored[:1], grid, SliceThickness=None)
    with pytest.raises(DataError, match=rf"{file.name}: a single slice without Slice Thickness"):
        read_series([file])


def test_positions_rounded_to_a_tenth_of_a_millimetre_pass(tmp_path, write_series, grid) -> None:
    grid = replace(grid, size_xyz=(7, 6, 60), spacing_xyz_mm=(0.7, 0.7, 0.625))
    files = write_series(tmp_path, np.zeros(grid.shape_zyx, dtype=np.int16), grid)
    for file in files:
        move(file, grid, digits=1)
    read = read_series(files)
    assert read.volume.grid.spacing_xyz_mm[2] == pytest.approx(0.625, abs=0.002)
    assert read.files == tuple(files)


def test_cosines_rounded_to_three_decimals_pass_as_exact_unit_vectors(files, oblique_grid) -> None:
    for file in files:
        cosines = np.array(pydicom.dcmread(file).ImageOrientationPatient, dtype=float)
        rewrite(file, ImageOrientationPatient=[f"{value:.3f}" for value in cosines])
    matrix = read_series(files).volume.grid.direction_matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix, oblique_grid.direction_matrix, atol=1e-3)

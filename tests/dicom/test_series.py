"""Image series as a person has them: found in folders, read into place, values kept."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from focalis.dicom import find_series, only_series, read_series
from focalis.errors import DataError
from focalis.volume import Grid


def place_mm(grid: Grid, x: int, y: int, z: int) -> np.ndarray:
    """Where a voxel lies, by the definition of the grid."""
    return grid.direction_matrix @ (np.array([x, y, z]) * grid.spacing_xyz_mm) + grid.origin_xyz_mm


def refusal(call, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_direction_comes_back_voxel_by_voxel(tmp_path, write_series, any_grid, stored) -> None:
    write_series(tmp_path, stored, any_grid)
    volume = read_series(only_series(tmp_path)).volume
    np.testing.assert_array_equal(volume.array, stored)
    assert volume.array.dtype == np.int16
    for x, y, z in np.ndindex(any_grid.size_xyz):
        np.testing.assert_allclose(
            place_mm(volume.grid, x, y, z), place_mm(any_grid, x, y, z), rtol=0, atol=1e-9
        )


def test_simpleitk_reads_the_same(tmp_path, write_series, any_grid, stored) -> None:
    files = write_series(tmp_path, stored, any_grid, modality="MR")
    image = sitk.ReadImage([str(file) for file in files])
    volume = read_series(files).volume
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.grid.origin_xyz_mm, image.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(volume.grid.spacing_xyz_mm, image.GetSpacing(), atol=1e-9)
    np.testing.assert_allclose(volume.grid.direction, image.GetDirection(), atol=1e-9)


def test_slices_stand_by_position_with_their_file_instance_and_header(
    tmp_path, write_series, oblique_grid, stored
) -> None:
    files = write_series(tmp_path, stored, oblique_grid)
    assert [file.name for file in files] != sorted(file.name for file in files)
    for given in (files, files[::-1], sorted(files)):
        series = read_series(given)
        assert series.files == tuple(files)
        np.testing.assert_array_equal(series.volume.array, stored)
    assert series.instance_uids == tuple(pydicom.dcmread(file).SOPInstanceUID for file in files)
    assert series.frame_numbers == (1,) * len(files)
    assert series.header.SOPInstanceUID == series.instance_uids[0]
    assert series.header.PatientName == "Test^Ärztin"
    assert series.header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "PixelData" not in series.header


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(2.5, -3), ([0.5, 1.25, 2, 3.0625, 0.001], 0), ([1, 1, 2, 1, 1], [0, 1, 2, 3, 4.5])],
)
def test_each_slice_has_its_own_slope(
    tmp_path, write_series, grid, stored, modality, slope, intercept
) -> None:
    files = write_series(tmp_path, stored, grid, modality=modality, slope=slope, intercept=intercept)
    slopes, intercepts = (
        np.broadcast_to(np.asarray(each, dtype=float), len(stored))[:, None, None]
        for each in (slope, intercept)
    )
    array = read_series(files).volume.array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, (stored * slopes + intercepts).astype(np.float32))
    peer = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files], sitk.sitkFloat64))
    np.testing.assert_array_equal(array, peer.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "bits", "slope", "intercept", "expected"),
    [
        (np.int16, 16, 1, 0, np.int16),
        (np.uint16, 12, 1, -1024, np.int16),
        (np.uint8, 8, 3, 7, np.int16),
        (np.uint16, 16, 1, -1024, np.int32),
        (np.int16, 16, -2, 0, np.int32),
        (np.uint16, 16, 100000, 0, np.float32),
        (np.int16, 16, 1, 0.5, np.float32),
    ],
)
def test_whole_slopes_keep_whole_numbers(
    tmp_path, write_series, grid, dtype, bits, slope, intercept, expected
) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype == np.int16 else (0, 2**bits - 1)
    stored = np.linspace(low, high, np.prod(grid.shape_zyx)).astype(dtype).reshape(grid.shape_zyx)
    files = write_series(tmp_path, stored, grid, slope=slope, intercept=intercept, bits_stored=bits)
    array = read_series(files).volume.array
    assert array.dtype == expected
    np.testing.assert_array_equal(array, (stored.astype(float) * slope + intercept).astype(expected))


def test_a_single_slice_takes_its_thickness(tmp_path, write_series, grid, stored) -> None:
    (file,) = write_series(tmp_path, stored[:1], grid)
    assert read_series([file]).volume.grid.spacing_xyz_mm == (0.75, 1.25, 2.5)


def test_series_are_found_to_the_bottom_and_other_files_passed_over(
    tmp_path, write_series, grid, stored
) -> None:
    study = generate_uid()
    ct = write_series(tmp_path / "deep/er/ct", stored, grid, StudyInstanceUID=study)
    mr = write_series(tmp_path / "mr", stored, grid, modality="MR", PatientID="P0", SeriesDescription="T1 Ä")
    moved = tmp_path / "elsewhere" / "no suffix"
    moved.parent.mkdir()
    ct[2] = ct[2].rename(moved)
    other = pydicom.dcmread(mr[0])
    for kind in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.1.3.10"):
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = kind
        other.save_as(tmp_path / f"{kind}.dcm")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "looks old").write_bytes(b"\x08\x00 but is not\xff\xff" * 20)

    first, second = find_series(tmp_path)
    assert (first.patient_id, first.modality, first.description) == ("P0", "MR", "T1 Ä")
    assert first.files == tuple(sorted(mr))
    assert (second.patient_id, second.modality, second.study_uid) == ("P1", "CT", study)
    assert second.files == tuple(sorted(ct))
    assert second.uid == pydicom.dcmread(ct[0]).SeriesInstanceUID
    np.testing.assert_array_equal(read_series(second).volume.array, stored)


def test_only_series_wants_one(tmp_path, monkeypatch, write_series, grid, stored) -> None:
    assert "none: is not a folder" in refusal(only_series, tmp_path / "none")
    assert "holds no CT, MR or PET image" in refusal(only_series, tmp_path)
    write_series(tmp_path / "a", stored, grid)
    assert only_series(tmp_path).modality == "CT"
    write_series(tmp_path / "b", stored[:1], grid, modality="PT")
    message = refusal(only_series, tmp_path)
    assert message.startswith(f"{tmp_path}: holds 2 image series (")
    assert "CT Synthetic CT, 5 files in a" in message
    assert "PT Synthetic PT, 1 file in b" in message
    monkeypatch.chdir(tmp_path)
    assert refusal(only_series, Path()).startswith(".: holds 2 image series (")
    assert "1 file in b" in refusal(only_series, Path("..", tmp_path.name))


def test_old_files_without_preamble_are_read(tmp_path, write_series, grid, stored) -> None:
    files = write_series(tmp_path / "new", stored, grid)
    for with_meta in (True, False):
        folder = tmp_path / f"old {with_meta}"
        folder.mkdir()
        for file in files:
            dataset = pydicom.dcmread(file)
            if with_meta:
                (folder / file.name).write_bytes(file.read_bytes()[132:])
            else:
                bare = Dataset()
                bare.update(dataset)
                bare.save_as(folder / file.name, implicit_vr=True, little_endian=True)
        series = read_series(only_series(folder))
        np.testing.assert_array_equal(series.volume.array, stored)


def test_a_damaged_image_is_named_not_passed_over(tmp_path, write_series, grid, stored) -> None:
    files = write_series(tmp_path, stored, grid)
    whole = files[2].read_bytes()
    header = len(whole) - 200
    for kept in (132, 140, 400, header // 2, header, len(whole) - 1):
        files[2].write_bytes(whole[:kept])
        message = refusal(lambda: read_series(only_series(tmp_path)))
        assert message.startswith(f"{files[2]}: ")
    files[2].write_bytes(whole)
    nameless = pydicom.dcmread(files[2])
    del nameless.SeriesInstanceUID
    nameless.save_as(files[2])
    assert "without Series Instance UID" in refusal(find_series, tmp_path)


def test_no_files_a_missing_one_and_other_files_are_refused(tmp_path) -> None:
    assert "no files" in refusal(read_series, [])
    assert refusal(read_series, [tmp_path / "none.dcm"]).startswith(
        f"{tmp_path / 'none.dcm'}: cannot be read"
    )
    (tmp_path / "a.dcm").write_text("nothing")
    assert "is not a DICOM file" in refusal(read_series, [tmp_path / "a.dcm"])


def test_sloppy_values_are_read_without_a_word(tmp_path, write_series, grid, stored, capfd) -> None:
    files = write_series(tmp_path, stored, grid)
    for file in files:
        content = (
            file.read_bytes().replace(b"Synthetic CT", b"Synth\xe9tic CT").replace(b"20240102", b"2024.1.2")
        )
        file.write_bytes(content)
    np.testing.assert_array_equal(read_series(only_series(tmp_path)).volume.array, stored)
    assert capfd.readouterr() == ("", "")


def test_images_of_another_class_in_a_series_are_reported(tmp_path, write_series, stored, grid) -> None:
    files = write_series(tmp_path, stored, grid)
    dataset = pydicom.dcmread(files[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.save_as(files[0])
    (doubt,) = read_series(only_series(tmp_path)).doubts
    assert doubt == "1 files of the series are not CT, MR or PET images and were passed over"


def test_a_series_that_changes_while_it_is_read_is_refused(tmp_path, write_series, grid, stored) -> None:
    first, *others = write_series(tmp_path / "scan", stored, grid)

    def replace(*_) -> None:
        dataset = pydicom.dcmread(first)
        dataset.RescaleSlope = 2
        dataset.save_as(first)

    with pytest.raises(
        DataError, match=r"scan: changed while it was read; wait until the series is complete"
    ):
        read_series([first, *others], replace)


def test_a_folder_of_several_series_is_listed_once(tmp_path, monkeypatch, write_series, grid, stored) -> None:
    for name in ("a", "b"):
        for file in write_series(tmp_path / name, stored, grid):
            file.rename(tmp_path / f"{name}{file.name}")
        (tmp_path / name).rmdir()
    os.utime(tmp_path, (0, 0))
    first, second = find_series(tmp_path)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    read_series(first)
    read_series(second)
    assert listed == [tmp_path]
    (tmp_path / "late.dcm").write_bytes(second.files[0].read_bytes())
    with pytest.raises(DataError, match=r"late\.dcm: came into the series"):
        read_series(second)


def test_an_image_that_comes_into_the_series_while_it_is_read_is_reported(
    tmp_path, write_series, grid, stored
) -> None:
    """What is found is the beginning of a series that is still being copied."""
    files = write_series(tmp_path / "scan", stored, grid)
    above = read_series(files).files[-1]
    above.rename(late := tmp_path / above.name)
    found = only_series(tmp_path / "scan")
    with pytest.raises(DataError, match="came into the series while it was read"):
        read_series(found, lambda *_: late.rename(above))
    read_series(only_series(tmp_path / "scan"))
    note = tmp_path / "scan" / "result.txt"
    read_series(
        only_series(tmp_path / "scan"), lambda *_: note.write_text("another file is none of its images")
    )

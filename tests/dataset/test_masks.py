"""Masks of separate structures, and a case that reads them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import Case
from focalis.dataset.masks import read_masks
from focalis.errors import DataError
from focalis.volume import Grid, Volume, to_sitk, write_volume

GRID = Grid((6, 5, 4), (1.0, 1.5, 2.0))


def mask(path: Path, low: int, high: int, value: float = 1, grid: Grid = GRID, dtype: str = "uint8") -> Path:
    array = np.zeros(grid.shape_zyx, dtype)
    array[:, :, low:high] = value
    write_volume(Volume(array, grid), path)
    return path


def test_masks_become_the_numbers_of_their_places(tmp_path: Path) -> None:
    one, two = mask(tmp_path / "1.nii.gz", 0, 2, 255), mask(tmp_path / "2.nrrd", 4, 6, 1.0, dtype="float32")
    label = read_masks([one, two])
    assert label.array.dtype == np.uint8
    assert label.array[3, 4].tolist() == [1, 1, 0, 0, 2, 2]
    assert not label.grid.differences(GRID)
    assert read_masks([two, one]).array[0, 0].tolist() == [2, 2, 0, 0, 1, 1]
    assert read_masks([two]).array[0, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_an_empty_mask_is_an_absent_structure(tmp_path: Path) -> None:
    files = [mask(tmp_path / f"{name}.nii.gz", 0, end) for name, end in (("none", 0), ("some", 3))]
    assert np.unique(read_masks(files).array).tolist() == [0, 2]


def test_overlap_names_both_masks(tmp_path: Path) -> None:
    files = [mask(tmp_path / f"{n}.nii.gz", n, n + 2) for n in (0, 2, 3)]
    with pytest.raises(DataError, match=r"3\.nii\.gz: shares 20 voxels with .*2\.nii\.gz; a voxel has one"):
        read_masks(files)


def test_other_grids_and_label_maps_are_refused(tmp_path: Path) -> None:
    one = mask(tmp_path / "1.nii.gz", 0, 2)
    other = mask(tmp_path / "2.nii.gz", 4, 6, grid=Grid((6, 5, 4), (1.0, 1.5, 2.5)))
    with pytest.raises(DataError, match=r"2\.nii\.gz: is not on the grid of 1\.nii\.gz: spacing"):
        read_masks([one, other])
    several = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    write_volume(Volume(several, GRID), tmp_path / "3.nii.gz")
    with pytest.raises(DataError, match=r"3\.nii\.gz: is not a mask, it holds 1, 2, 3 besides 0"):
        read_masks([tmp_path / "3.nii.gz"])
    broken = mask(tmp_path / "4.nii.gz", 0, 2, np.nan, dtype="float32")
    with pytest.raises(DataError, match="is not a mask, it holds nan"):
        read_masks([broken])


def test_a_case_reads_its_label_and_its_channels(tmp_path: Path) -> None:
    one, two = mask(tmp_path / "1.mhd", 0, 2), mask(tmp_path / "2.nii.gz", 4, 6)
    volumes = [Volume(np.full(GRID.shape_zyx, value, np.int16), GRID) for value in (3, 4)]
    both = tmp_path / "both.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([to_sitk(volume) for volume in volumes]), str(both))
    case = Case("c", (both, both), (one, two))
    assert case.patient == "c"
    assert [volume.array.max() for volume in case.read_images()] == [3, 4]
    np.testing.assert_array_equal(case.read_label().array, read_masks([one, two]).array)
    assert case.files() == (both, one, tmp_path / "1.zraw", two)
    assert Case("c", (both, both), two, "p").read_label().array[0, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert Case("c", (both, both), None).label_files == ()


def test_a_missing_and_a_4d_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="c: has no label"):
        Case("c", (), None).read_label()
    path = tmp_path / "4d.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 4, 5, 6), np.uint8), isVector=False), str(path))
    with pytest.raises(DataError, match=r"4d\.nii\.gz: is 4-dimensional"):
        Case("c", (), path).read_label()


def test_a_mask_per_drawn_structure_keeps_the_structures_numbers(tmp_path: Path) -> None:
    one, two = mask(tmp_path / "1.nii.gz", 0, 2), mask(tmp_path / "2.nii.gz", 4, 6)
    case = Case("c", (), (one, two), drawn=frozenset({7, 3}))
    assert case.read_label().array[0, 0].tolist() == [3, 3, 0, 0, 7, 7]

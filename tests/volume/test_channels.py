from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume import (
    Grid,
    GridWarning,
    Volume,
    read_channels,
    read_entries,
    to_sitk,
    write_volume,
)

GRID = Grid((6, 5, 4), (1.0, 1.5, 2.0), (3.0, -2.0, 7.0))


def an_image(seed: int, grid: Grid = GRID) -> Volume:
    return Volume(np.random.default_rng(seed).integers(0, 100, grid.shape_zyx).astype(np.int16), grid)


def put(path: Path, *volumes: Volume) -> Path:
    if len(volumes) == 1:
        write_volume(volumes[0], path)
    else:
        sitk.WriteImage(sitk.JoinSeries([to_sitk(volume) for volume in volumes]), str(path))
    return path


def test_one_file_per_channel_in_the_order_given(tmp_path: Path) -> None:
    one, two = put(tmp_path / "1.nii.gz", an_image(1)), put(tmp_path / "2.mha", an_image(2))
    found = read_channels((two, one))
    np.testing.assert_array_equal(found[0].array, an_image(2).array)
    np.testing.assert_array_equal(found[1].array, an_image(1).array)
    assert found[1].array.dtype == np.int16


def test_a_4d_file_stands_for_its_volumes_and_may_stand_beside_another(tmp_path: Path) -> None:
    both = put(tmp_path / "both.nii.gz", an_image(1), an_image(2))
    third = put(tmp_path / "third.nii.gz", an_image(3))
    found = read_channels((both, third, both))
    for volume, seed in zip(found, (1, 3, 2), strict=True):
        np.testing.assert_array_equal(volume.array, an_image(seed).array)


def test_a_file_of_another_number_of_volumes_is_refused(tmp_path: Path) -> None:
    one = put(tmp_path / "1.nii.gz", an_image(1))
    three = put(tmp_path / "3.nii.gz", an_image(1), an_image(2), an_image(3))
    with pytest.raises(DataError, match=r"1\.nii\.gz: holds one 3D image where 2 channels are wanted"):
        read_channels((one, one))
    with pytest.raises(DataError, match=r"3\.nii\.gz: holds 3 volumes where 2 channels are wanted"):
        read_channels((three, three))
    with pytest.raises(DataError, match=r"3\.nii\.gz: holds 3 volumes where one channel is wanted"):
        read_entries(three, 1)


def ramp(grid: Grid) -> Volume:
    """Values that grow linearly in the patient, so that linear interpolation gives them exactly."""
    z, y, x = (np.arange(count) for count in grid.shape_zyx)
    steps, origin = grid.spacing_xyz_mm, grid.origin_xyz_mm
    values = 3.0 * (origin[0] + steps[0] * x) + (origin[1] + steps[1] * y)[:, None]
    return Volume((values - 2.0 * (origin[2] + steps[2] * z)[:, None, None]).astype(np.float32), grid)


def test_a_channel_on_another_grid_is_resampled_onto_the_first(tmp_path: Path) -> None:
    other = Grid((10, 10, 11), (0.9, 1.1, 1.7), (1.5, -4.0, 2.0))
    one, two = put(tmp_path / "1.nii.gz", an_image(1)), put(tmp_path / "2.nii.gz", ramp(other))
    text = r"2\.nii\.gz: is resampled onto the grid of 1\.nii\.gz, of which it covers 100%: size 6 x 5 x 4 against"
    with pytest.warns(GridWarning, match=text):
        first, second = read_channels((one, two))
    assert first.array.dtype == np.int16
    assert second.grid == first.grid
    np.testing.assert_allclose(second.array, ramp(GRID).array, atol=1e-4)


def test_how_much_is_covered_is_said(tmp_path: Path) -> None:
    first = Grid((10, 10, 10))
    left_part = Grid((3, 10, 10))  # voxel centres 0, 1 and 2 of ten
    one, two = (
        put(tmp_path / "1.nii.gz", an_image(1, first)),
        put(tmp_path / "2.nii.gz", an_image(2, left_part)),
    )
    with pytest.warns(GridWarning, match="covers 30%"):
        read_channels((one, two))


def test_a_channel_of_another_place_is_refused(tmp_path: Path) -> None:
    far = Grid((6, 5, 4), (1.0, 1.5, 2.0), (300.0, -2.0, 7.0))
    one, two = put(tmp_path / "1.nii.gz", an_image(1)), put(tmp_path / "2.nii.gz", an_image(2, far))
    with pytest.raises(DataError, match=r"2\.nii\.gz: shows nothing of what 1\.nii\.gz shows"):
        read_channels((one, two))

"""What headers tell of an image's size."""

import numpy as np
import pytest

from focalis.volume import Grid, Volume, read_channels, read_outlines, write_volume

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_grid_and_bytes_are_those_of_the_image(tmp_path, suffix, dtype):
    grid = Grid((5, 6, 7), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), TURNED)
    path = tmp_path / f"a.{suffix}"
    write_volume(Volume(np.arange(210, dtype=dtype).reshape(7, 6, 5), grid), path)
    (found,), (image,) = read_outlines([path]), read_channels([path])
    assert not found.grid.differences(image.grid)
    assert found.nbytes == image.array.nbytes


def test_every_channel_lies_on_the_first_ones_grid(tmp_path):
    for name, size, dtype in (("a", (5, 6, 7), np.uint8), ("b", (9, 9, 9), np.float32)):
        write_volume(
            Volume(np.ones(size[::-1], dtype), Grid(size, (1.0, 1.0, 1.0))), tmp_path / f"{name}.nii.gz"
        )
    first, second = read_outlines([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])
    assert second.grid == first.grid
    assert (first.nbytes, second.nbytes) == (210, 840)


@pytest.mark.parametrize("name", ["missing.nii.gz", "torn.nrrd", "torn.nii.gz", "notes.txt"])
def test_a_header_that_cannot_be_used_tells_nothing(tmp_path, name):
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"NRRD0004\nnonsense")
    assert read_outlines([tmp_path / name]) == []

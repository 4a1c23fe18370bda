"""The same image is recognised by its voxel values, whatever file it lies in."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from focalis.errors import DataError
from focalis.volume import (
    Grid,
    Volume,
    content_digest,
    content_profile,
    profile_similarity,
    read_volume,
    to_canonical,
    write_volume,
)


@pytest.fixture
def scan():
    return np.random.default_rng(3).integers(-1200, 400, (7, 9, 11)).astype(np.int16)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64, ">i2"])
def test_the_type_does_not_count(scan, dtype):
    assert content_digest(scan.astype(dtype)) == content_digest(scan)


def test_unsigned_and_signed_bytes_are_alike():
    array = np.random.default_rng(0).integers(0, 100, (4, 5, 6))
    assert (
        len({content_digest(array.astype(dtype)) for dtype in (np.uint8, np.int8, np.uint16, np.float16)})
        == 1
    )


def test_the_ends_of_sixteen_bits_are_counted():
    for dtype in (np.int16, np.uint16):
        ends = np.array([[[np.iinfo(dtype).min, np.iinfo(dtype).max, 5]]], dtype)
        assert content_digest(ends) == content_digest(ends.astype(np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_format_compression_and_header_do_not_count(scan, tmp_path, suffix):
    grid = Grid((11, 9, 7), (0.7, 0.7, 2.5), (3.0, -9.0, 4.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
    write_volume(Volume(scan, grid), tmp_path / f"other{suffix}")
    read = read_volume(tmp_path / f"other{suffix}")
    assert content_digest(read.array) == content_digest(scan)
    assert content_digest(to_canonical(read).array) == content_digest(scan)


def test_axes_do_not_count(scan):
    assert content_digest(scan.transpose(2, 0, 1)[:, ::-1]) == content_digest(scan)


def test_a_negative_zero_is_a_zero():
    one = np.array([[[0.0, 1.5, 2.0]]])
    assert content_digest(one * [-1, 1, 1]) == content_digest(one)


def test_another_image_has_another_digest(scan):
    changed = scan.copy()
    changed[0, 0, 0] += 1
    assert len({content_digest(each) for each in (scan, changed, scan[1:], scan * 0.5, scan + 1024)}) == 5


def test_a_constant_image_has_none():
    assert content_digest(np.zeros((3, 4, 5))) is None


def test_values_that_are_not_real_numbers_are_refused():
    with pytest.raises(DataError, match="no real values"):
        content_digest(np.zeros((2, 2, 2), complex))


def a_scan(seed: int) -> np.ndarray:
    """A noisy image of a body that holds other structures in each."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices((20, 30, 26))
    body = 100.0 * (((y - 15) / 12) ** 2 + ((x - 13) / 10) ** 2 < 1)
    structures = gaussian_filter(rng.normal(0, 600, body.shape), 1.5)
    return (body + structures + rng.normal(0, 5, body.shape)).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: np.round(array).astype(np.int16),
        lambda array: array.astype(np.float16),
        lambda array: array * 0.013 - 7,
        lambda array: array[1:],
        lambda array: array[:-1, 2:, 1:],
        lambda array: np.round(array, -1)[:, ::-1],
    ],
    ids=[
        "rounded",
        "float16",
        "rescaled",
        "a plane less",
        "cropped along three axes",
        "in steps of 10, turned over",
    ],
)
def test_a_changed_copy_keeps_its_profile_and_another_image_has_another(change) -> None:
    profiles = [content_profile(a_scan(seed)) for seed in range(12)]
    copy = content_profile(change(a_scan(4)))
    similar = [profile_similarity(copy, profile) for profile in profiles]
    assert similar.pop(4) > 0.9
    assert max(similar) < 0.75


def test_what_has_no_profile() -> None:
    assert content_profile(np.zeros((20, 20, 20))) is None
    assert content_profile(a_scan(0)[:11]) is None


def test_two_profiles_are_compared_no_further_than_it_matters() -> None:
    one, other = (content_profile(a_scan(seed)) for seed in range(2))
    copy = content_profile(np.round(a_scan(0)))
    assert profile_similarity(one, copy, least=0.9) == profile_similarity(one, copy) > 0.9
    assert profile_similarity(one, other) <= profile_similarity(one, other, least=0.9) < 0.9
    assert profile_similarity(one, content_profile(a_scan(0)[:, 4:])) == -1

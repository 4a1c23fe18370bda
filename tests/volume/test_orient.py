from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.volume import Grid, Volume, from_sitk, resample_label, to_canonical, to_sitk

PERMUTATIONS = list(permutations(range(3)))
SIGNS = list(product((1, -1), repeat=3))


def rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """A rotation about a random axis (Rodrigues)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def a_volume(order: tuple[int, ...], signs: tuple[int, ...], tilt: np.ndarray) -> Volume:
    direction = tilt @ (np.eye(3)[:, order] * signs)
    array = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    return Volume(array, Grid((5, 4, 3), (0.8, 1.1, 3.0), (10.0, -20.0, 5.5), tuple(direction.ravel())))


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("order", PERMUTATIONS)
@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_agrees_with_dicom_orient(order: tuple[int, ...], signs: tuple[int, ...], degrees: float) -> None:
    volume = a_volume(order, signs, rotation(np.random.default_rng(sum(order) + signs[0]), degrees))
    canonical = to_canonical(volume)
    peer = from_sitk(sitk.DICOMOrient(to_sitk(volume), "LPS"))
    np.testing.assert_array_equal(canonical.array, peer.array)
    assert canonical.grid.size_xyz == peer.grid.size_xyz
    np.testing.assert_allclose(canonical.grid.spacing_xyz_mm, peer.grid.spacing_xyz_mm)
    np.testing.assert_allclose(canonical.grid.origin_xyz_mm, peer.grid.origin_xyz_mm, atol=1e-9)
    np.testing.assert_allclose(canonical.grid.direction, peer.grid.direction, atol=1e-12)
    assert canonical.array.flags.c_contiguous


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("order", PERMUTATIONS)
@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_labels_return_exactly(order: tuple[int, ...], signs: tuple[int, ...], degrees: float) -> None:
    volume = a_volume(order, signs, rotation(np.random.default_rng(7), degrees))
    back = resample_label(to_canonical(volume), volume.grid)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.array.dtype == volume.array.dtype
    assert back.grid == volume.grid


def test_canonical_stays() -> None:
    volume = a_volume((0, 1, 2), (1, 1, 1), np.eye(3))
    canonical = to_canonical(volume)
    np.testing.assert_array_equal(canonical.array, volume.array)
    assert canonical.grid == volume.grid

import numpy as np
import pytest
from scipy import ndimage

from focalis.volume import (
    Grid,
    Volume,
    grid_with_spacing,
    resample_image,
    resample_label,
    resample_probabilities,
    to_canonical,
)

ANGLE = np.deg2rad(20.0)
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)


def centres_mm(grid: Grid) -> np.ndarray:
    """Patient positions (z, y, x, 3) of all voxel centres."""
    z, y, x = np.meshgrid(*(np.arange(count) for count in grid.shape_zyx), indexing="ij")
    index = np.stack([x, y, z], axis=-1) * np.asarray(grid.spacing_xyz_mm)
    return index @ grid.direction_matrix.T + np.asarray(grid.origin_xyz_mm)


def voxel_places(source: Grid, target: Grid) -> np.ndarray:
    """Where the target's voxel centres lie in the source's array, (3, z, y, x), in voxels."""
    offsets = centres_mm(target) - np.asarray(source.origin_xyz_mm)
    return np.moveaxis((offsets @ source.direction_matrix / source.spacing_xyz_mm)[..., ::-1], -1, 0)


def corners_mm(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The first and last corner of the box that the voxels fill."""
    half = np.asarray(grid.spacing_xyz_mm) / 2
    length = np.asarray(grid.size_xyz) * np.asarray(grid.spacing_xyz_mm)
    first = np.asarray(grid.origin_xyz_mm) - grid.direction_matrix @ half
    return first, first + grid.direction_matrix @ length


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 0.5, 2.0), (8.0, 4.0, 6.0)])
def test_whole_ratios_keep_the_corners(spacing: tuple[float, float, float]) -> None:
    grid = Grid((12, 8, 6), (1.0, 2.0, 4.0), (5.0, -7.0, 9.0), OBLIQUE)
    new = grid_with_spacing(grid, spacing)
    assert new.spacing_zyx_mm == spacing
    assert new.direction == grid.direction
    np.testing.assert_allclose(corners_mm(new), corners_mm(grid), atol=1e-9)


def test_other_ratios_keep_the_centre_and_nearly_the_box() -> None:
    grid = Grid((37, 50, 11), (0.7, 0.9, 3.3), (5.0, -7.0, 9.0), OBLIQUE)
    new = grid_with_spacing(grid, (2.0, 1.0, 1.0))
    np.testing.assert_allclose(sum(corners_mm(new)), sum(corners_mm(grid)), atol=1e-9)
    length = np.multiply(new.size_xyz, new.spacing_xyz_mm) - np.multiply(grid.size_xyz, grid.spacing_xyz_mm)
    assert np.all(np.abs(length) <= np.asarray(new.spacing_xyz_mm) / 2 + 1e-9)


def test_equal_spacing_gives_the_same_grid_and_values() -> None:
    grid = Grid((4, 3, 2), (1.0, 1.0, 2.0))
    assert grid_with_spacing(grid, (2.001, 1.0, 0.9995)) is grid
    volume = Volume(np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32), grid)
    np.testing.assert_array_equal(resample_image(volume, grid).array, volume.array)


def test_a_linear_ramp_is_reproduced_between_oblique_grids() -> None:
    slope = np.array([0.3, -1.2, 0.7])
    source = Grid((30, 30, 20), (1.0, 1.0, 1.5), (-3.0, 2.0, 1.0))
    target = Grid((12, 10, 9), (0.6, 0.5, 0.8), (8.0, 8.0, 8.0), OBLIQUE)
    volume = Volume((centres_mm(source) @ slope).astype(np.float32), source)
    found = resample_image(volume, target)
    assert found.array.dtype == np.float32
    np.testing.assert_allclose(found.array, centres_mm(target) @ slope, atol=1e-4)


def test_agrees_with_scipy_and_repeats_the_edge() -> None:
    array = np.random.default_rng(1).normal(size=(6, 7, 8))
    source = Grid((8, 7, 6))
    target = Grid((24, 19, 16), (0.5, 0.5, 0.5), (-2.0, -1.0, -0.25))
    found = resample_image(Volume(array, source), target)
    places = voxel_places(source, target)
    expected = ndimage.map_coordinates(array.astype(np.float32), places, order=1, mode="nearest")
    inside = np.all((places >= 0) & (places <= np.reshape([5, 6, 7], (3, 1, 1, 1))), axis=0)
    np.testing.assert_allclose(found.array[inside], expected[inside], atol=1e-5)
    assert found.array[0, 0, 0] == pytest.approx(array[0, 0, 0])  # far outside: the nearest voxel
    near = resample_image(Volume(array, source), grid_with_spacing(source, (0.5, 0.5, 0.5)))
    places = voxel_places(source, near.grid)
    expected = ndimage.map_coordinates(array.astype(np.float32), places, order=1, mode="nearest")
    np.testing.assert_allclose(near.array, expected, atol=1e-5)


def test_smooths_before_down_sampling_only() -> None:
    noise = Volume(
        np.random.default_rng(2).normal(size=(32, 32, 32)).astype(np.float32),
        Grid((32, 32, 32), (1.0, 1.0, 2.0)),
    )
    coarse = grid_with_spacing(noise.grid, (2.0, 4.0, 1.0))
    smoothed = ndimage.gaussian_filter(noise.array, (0.0, 1.5, 0.0), mode="nearest")
    expected = (smoothed[:, 1::4] + smoothed[:, 2::4]) / 2  # the centre of four voxels
    np.testing.assert_allclose(resample_image(noise, coarse).array, expected, atol=1e-5)


def test_smoothing_follows_the_axes_of_the_image() -> None:
    array = np.random.default_rng(2).normal(size=(8, 12, 16)).astype(np.float32)
    turned = Volume(array, Grid((16, 12, 8), direction=(0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    canonical = to_canonical(turned)
    coarse = grid_with_spacing(canonical.grid, (3.0, 1.0, 2.0))
    np.testing.assert_allclose(
        resample_image(turned, coarse).array, resample_image(canonical, coarse).array, atol=1e-5
    )


def naive_label(volume: Volume, target: Grid) -> np.ndarray:
    """One-hot, scipy's linear interpolation, argmax over ascending values."""
    places = voxel_places(volume.grid, target)
    values = np.unique(np.append(volume.array, 0))
    shares = [
        ndimage.map_coordinates((volume.array == value).astype(float), places, order=1, mode="nearest")
        for value in values
    ]
    return values[np.argmax(np.round(shares, 4), axis=0)]


@pytest.mark.parametrize("spacing", [(0.7, 0.6, 0.9), (2.0, 1.5, 1.3), (1.0, 3.0, 0.4)])
def test_labels_agree_with_a_naive_reference(spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(3)
    array = np.zeros((10, 12, 11), dtype=np.uint8)
    array[ndimage.gaussian_filter(rng.normal(size=array.shape), 1) > 0.05] = 2
    array[ndimage.gaussian_filter(rng.normal(size=array.shape), 1) > 0.1] = 5
    volume = Volume(array, Grid((11, 12, 10), (1.0, 1.2, 1.5), (3.0, 4.0, 5.0), OBLIQUE))
    target = grid_with_spacing(volume.grid, spacing)
    found = resample_label(volume, target)
    assert found.array.dtype == np.uint8
    assert set(np.unique(found.array)) <= {0, 2, 5}
    assert np.mean(found.array != naive_label(volume, target)) < 1e-3  # ties within rounding


def test_the_background_wins_ties_and_no_value_is_invented() -> None:
    array = np.zeros((4, 4, 4), dtype=np.int16)
    array[:, :, 2:] = 7
    volume = Volume(array, Grid((4, 4, 4)))
    halfway = Grid((3, 4, 4), origin_xyz_mm=(0.5, 0.0, 0.0))
    np.testing.assert_array_equal(np.unique(resample_label(volume, halfway).array[:, :, 1]), [0])
    np.testing.assert_array_equal(np.unique(resample_label(volume, halfway).array[:, :, 2]), [7])


def test_a_label_does_not_spread_outside_its_map() -> None:
    volume = Volume(np.full((4, 4, 4), 3, dtype=np.uint8), Grid((4, 4, 4)))
    wide = Grid((12, 12, 12), origin_xyz_mm=(-4.0, -4.0, -4.0))
    expected = np.zeros((12, 12, 12), dtype=np.uint8)
    expected[4:8, 4:8, 4:8] = 3
    found = resample_label(volume, wide).array
    np.testing.assert_array_equal(found[4:8, 4:8, 4:8], 3)
    assert found[:3].sum() == found[9:].sum() == 0


def test_a_coarse_label_covers_its_whole_box_on_a_fine_grid() -> None:
    volume = Volume(np.ones((3, 3, 3), dtype=np.uint8), Grid((3, 3, 3), (3.0, 3.0, 3.0)))
    fine = grid_with_spacing(volume.grid, (0.5, 1.0, 0.7))
    np.testing.assert_array_equal(resample_label(volume, fine).array, 1)


def test_probabilities_stay_a_distribution_and_end_outside_as_background() -> None:
    rng = np.random.default_rng(4)
    raw = rng.random((3, 6, 7, 8)).astype(np.float32)
    probabilities = raw / raw.sum(axis=0)
    source = Grid((8, 7, 6), (1.0, 2.0, 3.0), direction=OBLIQUE)
    target = Grid((30, 30, 30), (0.9, 0.9, 0.9), (-8.0, -8.0, -5.0))
    found = resample_probabilities(probabilities, source, target)
    assert found.shape == (3, 30, 30, 30)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [1, 0, 0])
    places = voxel_places(source, target)
    inside = np.all((places >= 0) & (places <= np.reshape([5, 6, 7], (3, 1, 1, 1))), axis=0)
    for label in range(3):
        expected = ndimage.map_coordinates(probabilities[label], places, order=1)
        np.testing.assert_allclose(found[label][inside], expected[inside], atol=1e-5)
    np.testing.assert_array_equal(resample_probabilities(probabilities, source, source), probabilities)


def test_a_prediction_returns_to_an_oblique_flipped_anisotropic_grid() -> None:
    direction = tuple((np.reshape(OBLIQUE, (3, 3)) @ np.diag([-1.0, 1.0, -1.0])).ravel())
    grid = Grid((24, 20, 10), (0.8, 0.8, 2.4), (40.0, -10.0, 70.0), direction)
    z, y, x = np.meshgrid(*(np.arange(count) for count in grid.shape_zyx), indexing="ij")
    ball = ((z - 5) * 2.4) ** 2 + ((y - 8) * 0.8) ** 2 + ((x - 14) * 0.8) ** 2 < 6.0**2
    volume = Volume(ball.astype(np.uint8), grid)
    canonical = to_canonical(volume)
    working = grid_with_spacing(canonical.grid, (0.8, 0.8, 0.8))
    foreground = resample_image(canonical, working).array
    back = resample_probabilities(np.stack([1 - foreground, foreground]), working, grid)
    np.testing.assert_array_equal(back.argmax(axis=0), volume.array)


@pytest.mark.parametrize("first_slice", [0, 7, 15, 39, 55])
def test_a_slab_far_smaller_than_the_volume_has_the_values_of_the_whole(first_slice: int) -> None:
    """Only the part that a slab lies in is looked at, also where it lies askew, at the border, or outside."""
    rng = np.random.default_rng(5)
    raw = rng.random((2, 18, 20, 22)).astype(np.float32)
    probabilities = raw / raw.sum(axis=0)
    source = Grid((22, 20, 18), (1.1, 0.9, 1.3), (3.0, -2.0, 5.0), OBLIQUE)
    whole = Grid((25, 24, 60), (0.8, 0.8, 0.6), (2.0, -1.0, 4.0))
    slab = Grid((25, 24, 3), whole.spacing_xyz_mm, (2.0, -1.0, 4.0 + 0.6 * first_slice))
    found = resample_probabilities(probabilities, source, slab)
    wanted = resample_probabilities(probabilities, source, whole)[:, first_slice : first_slice + 3]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    if first_slice == 55:
        np.testing.assert_array_equal(found[1], 0)

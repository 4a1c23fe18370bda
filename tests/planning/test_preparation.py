"""What the network sees of a case."""

import numpy as np
import pytest

from focalis.dataset import IGNORED
from focalis.errors import DataError
from focalis.planning import Normalisation, Plan, prepare_image, prepare_label
from focalis.planning.preparation import normalise
from focalis.volume import Grid, Volume, to_canonical


def plan(channels=("image",), spacing=(1.0, 1.0, 1.0), labels=(1,), normalisation=None):
    return Plan(
        channels=channels,
        labels={value: f"label {value}" for value in labels},
        spacing_zyx_mm=spacing,
        normalisation=normalisation or (Normalisation(),) * len(channels),
        patch_zyx=(8, 8, 8),
        batch=1,
    )


def noise(shape=(6, 7, 8), grid=None, seed=0):
    array = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    return Volume(array, grid or Grid(shape[::-1]))


def test_zscore_gives_mean_0_and_std_1():
    prepared = prepare_image([noise()], plan())
    assert prepared.array.dtype == np.float32
    assert prepared.array.shape == (1, 6, 7, 8)
    assert prepared.array.mean() == pytest.approx(0, abs=1e-5)
    assert prepared.array.std() == pytest.approx(1, abs=1e-5)


def test_zscore_passes_over_a_background_that_equals_the_minimum():
    image = noise()
    image.array[:, :, :4] = 0
    prepared = prepare_image([image], plan()).array[0]
    assert prepared[:, :, 4:].mean() == pytest.approx(0, abs=1e-5)
    assert prepared[:, :, 4:].std() == pytest.approx(1, abs=1e-5)
    assert (prepared[:, :, :4] < -3).all()


def test_zscore_takes_all_voxels_where_few_equal_the_minimum():
    image = noise()
    image.array[0, 0, 0] = 0
    assert prepare_image([image], plan()).array.mean() == pytest.approx(0, abs=1e-5)


def test_window_clips_then_scales():
    values = normalise(
        np.array([-2000, -1000, 0, 400, 3000], dtype=np.int16),
        Normalisation(kind="window", low=-1000, high=400, mean=-300, std=100),
    )
    np.testing.assert_allclose(values, [-7, -7, 3, 7, 7])


@pytest.mark.parametrize("array", [np.full(27, 5), np.repeat([0, 7], [20, 7])])
def test_plateaus_do_not_divide_by_zero(array):
    assert np.isfinite(normalise(array.astype(np.float32), Normalisation())).all()


def test_the_callers_array_is_not_touched():
    image = noise()
    before = image.array.copy()
    prepare_image([image], plan())
    np.testing.assert_array_equal(image.array, before)


def test_a_turned_image_comes_in_canonical_orientation_at_the_plans_spacing():
    direction = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    image = noise((10, 12, 8), Grid((8, 12, 10), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0), direction))
    prepared = prepare_image([image], plan(spacing=(2.0, 1.5, 1.5)))
    canonical = to_canonical(image).grid
    assert prepared.grid.spacing_zyx_mm == (2.0, 1.5, 1.5)
    assert prepared.grid.direction == canonical.direction
    assert prepared.array.shape[1:] == prepared.grid.shape_zyx
    assert prepared.input_grid == image.grid


def test_an_image_at_the_plans_spacing_is_not_interpolated():
    image = noise()
    prepared = prepare_image([image], plan())
    expected = (image.array - image.array.mean()) / image.array.std()
    np.testing.assert_allclose(prepared.array[0], expected, atol=1e-5)
    assert prepared.grid == image.grid


def test_channels_keep_their_order():
    window = Normalisation(kind="window", low=-1e6, high=1e6)
    two = plan(channels=("T1", "FLAIR"), normalisation=(window, window))
    images = [noise(seed=1), noise(seed=2)]
    np.testing.assert_array_equal(prepare_image(images, two).array, [image.array for image in images])


def test_channels_on_different_grids_are_refused_with_the_difference():
    images = [noise(), noise(grid=Grid((8, 7, 6), (1.0, 1.0, 2.0)))]
    with pytest.raises(DataError, match=r"FLAIR is not on the grid of channel T1: spacing"):
        prepare_image(images, plan(channels=("T1", "FLAIR")))


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(DataError, match=r"1 channels given, but the plan wants 2 \(T1, FLAIR\)"):
        prepare_image([noise()], plan(channels=("T1", "FLAIR")))


def test_label_values_become_class_indices_on_the_images_grid():
    grid = Grid((8, 12, 10), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0), (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    array = np.zeros(grid.shape_zyx, dtype=np.int16)
    array[:3], array[5:8] = 7, 300
    wanted = plan(spacing=(2.0, 1.5, 1.5), labels=(300, 7))
    indices = prepare_label(Volume(array, grid), wanted)
    assert indices.dtype == np.uint8
    assert indices.shape == prepare_image([noise(grid.shape_zyx, grid)], wanted).array.shape[1:]
    assert set(np.unique(indices)) == {0, 1, 2}
    volume_mm3 = 2.0 * 1.5 * 1.5
    assert (indices == 1).sum() * volume_mm3 == pytest.approx((array == 7).sum() * 6.0, rel=0.1)


def test_what_nobody_judged_is_marked():
    array = np.zeros((6, 7, 8), np.uint8)
    array[2], array[4] = 1, 9
    indices = prepare_label(Volume(array, Grid((8, 7, 6))), plan().model_copy(update={"ignore": 9}))
    assert [int(plane[0, 0]) for plane in indices] == [0, 0, 1, 0, IGNORED, 0]


def test_a_label_map_of_floats_is_read_by_value():
    array = np.zeros((6, 7, 8))
    array[2] = 3.0
    indices = prepare_label(Volume(array, Grid((8, 7, 6))), plan(labels=(1, 3)))
    np.testing.assert_array_equal(indices, (array == 3) * 2)


def test_an_unknown_label_value_is_refused():
    array = np.full((6, 7, 8), 4)
    with pytest.raises(DataError, match=r"label values 4 are not in the plan \(0, 1, 3\)"):
        prepare_label(Volume(array, Grid((8, 7, 6))), plan(labels=(1, 3)))


def test_an_image_too_large_for_the_machine_is_refused_before_it_is_made():
    image = noise(grid=Grid((8, 7, 6), (500.0, 500.0, 500.0)))
    with pytest.raises(DataError, match=r"at the plan's spacing it takes .* GB.*500, 500, 500 mm"):
        prepare_image([image], plan(spacing=(0.05, 0.05, 0.05)))

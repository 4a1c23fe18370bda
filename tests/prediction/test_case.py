"""A case comes back on its own grid, in the right place."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from focalis.errors import DataError, ModelError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import Settings, segment
from focalis.prediction.restore import restore, turn_back
from focalis.volume import Grid, Volume, grid_with_spacing, to_canonical

AS_IT_IS = Normalisation(kind="window", low=-1e6, high=1e6)


class Threshold(nn.Module):
    """Foreground where the sum of the channels is positive; label 2 where it exceeds 2 as well."""

    def __init__(self, outputs=2, gain=50.0):
        super().__init__()
        self.outputs = outputs
        self.gain = gain

    def forward(self, x):
        x = self.gain * x.sum(dim=1, keepdim=True)
        return torch.cat([-x, x, 2 * x - 2 * self.gain][: self.outputs], dim=1)


def model(spacing=(1.0, 1.0, 1.0), channels=("image",), labels=(1,), threshold=0.5, gain=50.0):
    plan = Plan(
        channels=channels,
        labels={value: str(value) for value in labels},
        spacing_zyx_mm=spacing,
        normalisation=(AS_IT_IS,) * len(channels),
        patch_zyx=(8, 8, 8),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, (Threshold(len(labels) + 1, gain),), OperatingPoint(threshold))


def turned(order, signs):
    """A direction whose columns are signed unit vectors."""
    matrix = np.zeros((3, 3))
    for axis in range(3):
        matrix[order[axis], axis] = signs[axis]
    return tuple(matrix.ravel().tolist())


def oblique(degrees=(20, -35, 50)):
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        rotation = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        rotation[[i, j], [i, j]] = np.cos(angle)
        rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ rotation
    return tuple(turn.ravel().tolist())


def noise(grid, seed=0):
    return Volume(np.random.default_rng(seed).normal(size=grid.shape_zyx).astype(np.float32), grid)


DIRECTIONS = [
    turned(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
] + [oblique(), oblique((80, 170, -100))]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_turned_flipped_and_oblique_images_come_back_voxel_by_voxel(direction):
    grid = Grid((7, 9, 12), (1.5, 0.7, 3.0), (-12.5, 30.0, 4.25), direction)
    image = noise(grid)
    canonical_spacing = to_canonical(image).grid.spacing_zyx_mm
    prediction = segment(model(canonical_spacing), [image])
    assert prediction.grid == grid
    np.testing.assert_array_equal(prediction.mask, image.array > 0)
    np.testing.assert_array_equal(prediction.probability >= 0.5, image.array > 0)


@pytest.mark.parametrize("direction", [DIRECTIONS[0], DIRECTIONS[13], DIRECTIONS[30], oblique()])
@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (1.0, 1.3, 1.1)])
def test_a_resampled_case_lies_where_it_was(direction, spacing):
    grid = Grid((40, 30, 16), (1.0, 1.2, 2.5), (50.0, -20.0, 300.0), direction)
    z, y, x = np.indices(grid.shape_zyx)
    distance_mm = np.sqrt((2.5 * (z - 9)) ** 2 + (1.2 * (y - 12)) ** 2 + (x - 25) ** 2)
    image = Volume((9 - distance_mm).astype(np.float32), grid)
    found = segment(model(spacing, gain=0.1), [image])
    label = found.mask
    assert found.grid == grid
    truth = image.array > 0
    dice = 2 * (truth & (label > 0)).sum() / (truth.sum() + label.sum())
    assert dice > 0.97
    assert np.allclose(ndimage.center_of_mass(label), (9, 12, 25), atol=0.05)


@pytest.mark.parametrize("spacing", [(1.0, 2.0, 3.0), (2.0, 2.0, 2.0)])
def test_slabs_add_up_to_the_whole(spacing):
    grid = Grid((9, 8, 11), (3.0, 2.0, 1.0), (1.0, 2.0, 3.0), oblique())
    canonical = to_canonical(noise(grid)).grid
    prepared = grid_with_spacing(canonical, spacing)
    p = np.random.default_rng(0).random((3, *prepared.shape_zyx), dtype=np.float32)
    ((_, whole),) = restore(p, prepared, grid)
    slabs = list(restore(p, prepared, grid, slab_bytes=4 * 3 * 9 * 8 * 4))
    assert [where for where, _ in slabs] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    np.testing.assert_allclose(np.concatenate([slab for _, slab in slabs], axis=1), whole, atol=1e-5)


def test_other_voxels_cannot_be_turned_back():
    grid = Grid((4, 4, 4))
    assert turn_back(np.zeros((2, 4, 4, 4), np.float32), Grid((4, 4, 4), (1.0, 1.0, 1.1)), grid) is None


def test_original_label_values_return():
    image = noise(Grid((8, 8, 8)))
    image.array[0] = 3
    label = segment(model(labels=(4, 9)), [image]).mask
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, np.select([image.array > 2, image.array > 0], [9, 4], 0))
    assert set(np.unique(label)) == {0, 4, 9}


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (255, np.uint8),
        (256, np.uint16),
        (65_535, np.uint16),
        (65_536, np.uint32),
        (2**31, np.uint32),
        (2**32 - 1, np.uint32),
    ],
)
def test_the_type_of_a_mask_holds_its_greatest_value(value, dtype):
    image = noise(Grid((8, 8, 8)))
    label = segment(model(labels=(value,)), [image]).mask
    assert label.dtype == dtype
    assert set(np.unique(label)) == {0, value}


def test_the_threshold_is_the_models_unless_given():
    image = Volume(np.linspace(-0.02, 0.02, 512, dtype=np.float32).reshape(8, 8, 8), Grid((8, 8, 8)))
    probability = 1 / (1 + np.exp(-100 * image.array))
    for given, used in ((None, 0.2), (0.7, 0.7)):
        label = segment(model(threshold=0.2), [image], Settings(threshold=given)).mask
        np.testing.assert_array_equal(label, probability >= used)


def test_another_threshold_size_or_confidence_takes_the_place_of_the_second_look():
    looking = replace(model(), operating_point=OperatingPoint(second_look=(-1.0, 0.0, 0.0, 0.0, 0.0)))
    image = noise(Grid((8, 8, 8)))
    assert not segment(looking, [image]).mask.any()
    for settings in (Settings(minimum_mm3=0.0), Settings(minimum_confidence=0.0), Settings(threshold=0.4)):
        assert segment(looking, [image], settings).mask.any()
    assert not segment(looking, [image], Settings(threshold=looking.operating_point.threshold)).mask.any()


def test_channels_are_taken_together():
    grid = Grid((8, 8, 8))
    one, two = noise(grid, 1), noise(grid, 2)
    label = segment(model(channels=("T1", "T2")), [one, two]).mask
    np.testing.assert_array_equal(label, one.array + two.array > 0)


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ModelError, match=r"1 channels given, the model wants 2 \(T1, T2\)"):
        segment(model(channels=("T1", "T2")), [noise(Grid((8, 8, 8)))])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_count(value):
    image = noise(Grid((8, 8, 8)))
    image.array[0, 0, :3] = value
    with pytest.raises(ModelError, match="holds 3 voxels that are NaN or infinite"):
        segment(model(), [image])


def test_a_constant_channel_is_refused_by_name():
    grid = Grid((8, 8, 8))
    flat = Volume(np.full(grid.shape_zyx, 7, dtype=np.int16), grid)
    with pytest.raises(ModelError, match="channel T2 has one value everywhere"):
        segment(model(channels=("T1", "T2")), [noise(grid), flat])


def test_channels_on_two_grids_are_refused():
    images = [noise(Grid((8, 8, 8))), noise(Grid((8, 8, 9)))]
    with pytest.raises(DataError, match="not on the grid"):
        segment(model(channels=("T1", "T2")), images)

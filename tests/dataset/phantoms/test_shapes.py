import time
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from focalis.dataset.phantoms.shapes import (
    BLOB,
    SHEET,
    TUBE,
    ShapePatch,
    blob_distance,
    block_mask,
    make_shapes,
)

PATCH = (40, 40, 40)
CUBE = np.ones((3, 3, 3))


@pytest.fixture(scope="module")
def patches() -> list[ShapePatch]:
    return [make_shapes(PATCH, 5, step) for step in range(150)]


def share(patches: list[ShapePatch], value: int) -> float:
    return float(np.mean([np.mean(patch.label == value) for patch in patches]))


def blobs_of(patch: ShapePatch) -> list[np.ndarray]:
    components, count = ndimage.label(patch.label == BLOB, CUBE)
    return [components == number for number in range(1, count + 1)]


def contrast(patch: ShapePatch, blob: np.ndarray) -> float:
    """A blob's brightness less that of the background around it, without noise; NaN where there is none."""
    around = ndimage.binary_dilation(blob, CUBE, 3) & ~ndimage.binary_dilation(blob, CUBE)
    around &= patch.label == 0
    return float(patch.clean[blob].mean() - patch.clean[around].mean()) if around.any() else np.nan


def test_a_patch_is_a_function_of_seed_step_and_sample() -> None:
    first = make_shapes((16, 24, 20), 3, 14, 1)
    np.random.seed(99)  # noqa: NPY002
    make_shapes((16, 24, 20), 8)
    again = make_shapes((16, 24, 20), 3, 14, 1)

    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.clean, again.clean)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.spacing_zyx_mm == again.spacing_zyx_mm


def test_seed_step_and_sample_each_give_another_patch() -> None:
    images = [
        make_shapes((16, 16, 16), *which).image for which in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]

    assert all((one != other).any() for one, other in pairwise([*images, images[0]]))


@pytest.mark.parametrize("shape", [(8, 8, 8), (12, 40, 64), (48, 24, 16)])
def test_shapes_and_types(shape: tuple[int, int, int]) -> None:
    for step in range(20):
        patch = make_shapes(shape, 0, step)

        assert patch.image.shape == patch.clean.shape == patch.label.shape == shape
        assert (patch.image.dtype, patch.clean.dtype, patch.label.dtype) == (np.float32, np.float32, np.uint8)
        assert np.isfinite(patch.image).all()
        assert np.isfinite(patch.clean).all()
        assert set(np.unique(patch.label)) <= {0, BLOB, TUBE, SHEET}


def test_images_have_mean_zero_and_deviation_one(patches: list[ShapePatch]) -> None:
    for patch in patches:
        assert abs(float(patch.image.mean(dtype=np.float64))) < 1e-3
        assert abs(float(patch.image.std(dtype=np.float64)) - 1) < 1e-3


def test_every_class_is_common_and_none_prevails(patches: list[ShapePatch]) -> None:
    assert 0.85 < share(patches, 0) < 0.98
    assert 0.003 < share(patches, BLOB) < 0.03
    assert 0.002 < share(patches, TUBE) < 0.03
    assert 0.02 < share(patches, SHEET) < 0.1
    for value in (BLOB, TUBE, SHEET):
        without = np.mean([not (patch.label == value).any() for patch in patches])
        assert 0.05 < without < 0.5


def test_blobs_reach_from_below_two_voxels_to_a_third_of_the_patch(patches: list[ShapePatch]) -> None:
    cubes = [patch for patch in patches if max(patch.spacing_zyx_mm) == 1]
    voxels = np.array([blob.sum() for patch in cubes for blob in blobs_of(patch)])
    widths = 2 * (3 * voxels / (4 * np.pi)) ** (1 / 3)

    assert np.mean(widths < 2) > 0.03
    assert np.mean(widths > 40 / 3) > 0.03
    assert 3 < np.median(widths) < 9


def test_voxels_are_cubes_or_slices_of_up_to_ten_times_their_width(patches: list[ShapePatch]) -> None:
    thick = np.array([max(patch.spacing_zyx_mm) for patch in patches])

    assert all(min(patch.spacing_zyx_mm) == 1 for patch in patches)
    assert 0.5 < np.mean(thick == 1) < 0.8
    assert np.mean(thick > 5) > 0.05
    assert thick.max() <= 10


def test_blobs_are_brighter_or_darker_and_some_hardly_stand_out(patches: list[ShapePatch]) -> None:
    found = []
    for patch in patches:
        noise = float((patch.image - patch.clean).std())
        found += [(contrast(patch, blob), noise) for blob in blobs_of(patch) if blob.sum() > 30]
    contrasts, noises = np.array([row for row in found if np.isfinite(row[0])]).T

    assert np.mean(contrasts > 0) > 0.3
    assert np.mean(contrasts < 0) > 0.15
    assert np.mean(np.abs(contrasts) < noises) > 0.05
    assert np.mean(np.abs(contrasts) > 3 * noises) > 0.3


def test_some_blobs_lie_on_tubes_and_on_sheets(patches: list[ShapePatch]) -> None:
    touching = dict.fromkeys((TUBE, SHEET), 0)
    for patch in patches:
        near = ndimage.binary_dilation(patch.label == BLOB, CUBE)
        for value in touching:
            touching[value] += bool((near & (patch.label == value)).any())

    assert min(touching.values()) > 0.1 * len(patches)


def test_noise_is_all_that_the_clean_image_lacks(patches: list[ShapePatch]) -> None:
    """What differs is rough: neighbouring voxels of it are less alike than those of the clean image."""
    rough = 0
    for patch in patches:
        noise = patch.image - patch.clean
        rough += np.abs(np.diff(noise, axis=2)).mean() / noise.std() > (
            np.abs(np.diff(patch.clean, axis=2)).mean() / patch.clean.std()
        )

    assert rough > 0.9 * len(patches)


def test_distance_to_the_border_of_the_blobs() -> None:
    label = np.full((9, 9, 15), SHEET, dtype=np.uint8)
    label[2:7, 2:7, 2:7] = BLOB

    found = blob_distance(label, (1.0, 1.0, 1.0), 3.0)

    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found[4, 4], [-1.5, -0.5, 0.5, 1.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3, -3, -3, -3, -3]
    )


def test_distance_is_in_mm_of_the_patch() -> None:
    label = np.zeros((5, 5, 5), dtype=np.uint8)
    label[2, 2, 2] = BLOB

    found = blob_distance(label, (4.0, 1.0, 1.0), 9.0)

    assert found[1, 2, 2] == -3.5
    assert found[2, 1, 2] == -0.5
    assert found[2, 2, 2] == 0.5


def test_without_a_blob_all_is_outside() -> None:
    np.testing.assert_array_equal(blob_distance(np.zeros((3, 4, 5), np.uint8), (1.0, 1.0, 1.0), 2.0), -2.0)


@pytest.mark.parametrize("wanted", [0.25, 0.5])
def test_blocks_hide_the_wanted_share(wanted: float) -> None:
    masks = [block_mask((40, 32, 24), wanted, 0, step) for step in range(60)]

    assert all(mask.shape == (40, 32, 24) for mask in masks)
    assert abs(np.mean([mask.mean() for mask in masks]) - wanted) < 0.05
    np.testing.assert_array_equal(masks[7], block_mask((40, 32, 24), wanted, 0, 7))


def test_blocks_are_four_voxels_wide_or_more() -> None:
    mask = block_mask(PATCH, 0.5, 3)[5]
    edges = np.flatnonzero(np.diff(mask[5].astype(int))) + 1

    assert len(edges) > 1
    assert np.diff(edges).min() >= 4


@pytest.mark.slow
def test_a_patch_takes_less_than_50_ms_of_one_core() -> None:
    make_shapes(PATCH, 0)
    begin = time.process_time()
    for step in range(60):
        make_shapes(PATCH, 1, step)

    assert (time.process_time() - begin) / 60 < 0.05

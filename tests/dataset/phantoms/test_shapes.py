from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from focalis.dataset.phantoms.shapes import BACKGROUND, BLOB, SHEET, TUBE, make_shapes

SIDE = 40
CUBE = np.ones((3, 3, 3))
Volume = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return [make_shapes(SIDE, 5, number) for number in range(12)]


def test_a_volume_is_a_function_of_seed_and_number() -> None:
    image, label = make_shapes(32, 3, 14)
    np.random.seed(99)  # noqa: NPY002
    make_shapes(32, 8, 0)
    image_again, label_again = make_shapes(32, 3, 14)

    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(label, label_again)


def test_seed_and_number_each_give_another_volume() -> None:
    images = [make_shapes(32, *which)[0] for which in ((0, 0), (1, 0), (0, 1))]

    assert all((one != other).any() for one, other in pairwise([*images, images[0]]))


def test_images_have_mean_zero_and_deviation_one_and_every_voxel_has_a_class(volumes: list[Volume]) -> None:
    for image, label in volumes:
        assert (image.shape, label.shape) == ((SIDE,) * 3, (SIDE,) * 3)
        assert (image.dtype, label.dtype) == (np.float32, np.uint8)
        assert abs(float(image.mean(dtype=np.float64))) < 1e-3
        assert abs(float(image.std(dtype=np.float64)) - 1) < 1e-3
        assert set(np.unique(label)) <= {BACKGROUND, BLOB, TUBE, SHEET}


def test_every_class_is_common_and_background_prevails(volumes: list[Volume]) -> None:
    shares = {value: np.mean([np.mean(label == value) for _, label in volumes]) for value in range(4)}

    assert 0.85 < shares[BACKGROUND] < 0.99
    assert all(0.003 < shares[value] < 0.08 for value in (BLOB, TUBE, SHEET))
    assert all(np.mean([(label == value).any() for _, label in volumes]) > 0.4 for value in (TUBE, SHEET))


def test_blobs_are_thick_and_tubes_and_sheets_are_thin(volumes: list[Volume]) -> None:
    """The radius of the largest ball that fits into the class."""
    radii = {
        value: max(ndimage.distance_transform_edt(np.pad(label == value, 1)).max() for _, label in volumes)
        for value in (BLOB, TUBE, SHEET)
    }

    assert 5 < radii[BLOB] < 14
    assert 2 <= radii[TUBE] < 5
    assert 1 <= radii[SHEET] < 4


def test_shapes_stand_out_and_blobs_are_no_brighter_than_tubes(volumes: list[Volume]) -> None:
    """Brightness tells a shape from what is around it, and not which one it is."""
    contrasts: dict[int, list[float]] = {BLOB: [], TUBE: []}
    for image, label in volumes:
        for value, found in contrasts.items():
            around = ndimage.binary_dilation(label == value, CUBE, 3) & (label == BACKGROUND)
            if (label == value).any():
                found.append(float(image[label == value].mean() - image[around].mean()))

    for found in contrasts.values():
        assert np.median(np.abs(found)) > 0.8
        assert min(found) < 0 < max(found)
    assert abs(np.median(np.abs(contrasts[BLOB])) - np.median(np.abs(contrasts[TUBE]))) < 1

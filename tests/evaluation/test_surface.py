"""Surface distances, against hand-made cases and MONAI."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from focalis.evaluation import surface_points_mm, surface_scores

SPACING = (3.0, 0.8, 1.1)


def blob(seed: int, share: float = 0.1) -> NDArray[np.bool_]:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(14, 20, 18)), 2)
    return np.asarray(field > np.quantile(field, 1 - share))


def one_hot(mask: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [1.0, 2.5])
def test_agrees_with_monai_on_an_anisotropic_grid(seed: int, tolerance: float) -> None:
    truth, predicted = blob(seed), blob(seed + 100, 0.05) | np.roll(blob(seed), 1, axis=2)
    scores = surface_scores(truth, predicted, SPACING, tolerance)
    pair = one_hot(predicted), one_hot(truth)
    hd95 = compute_hausdorff_distance(*pair, percentile=95, spacing=SPACING)
    assd = compute_average_surface_distance(*pair, symmetric=True, spacing=SPACING)
    surface_dice = compute_surface_dice(*pair, class_thresholds=[tolerance], spacing=SPACING)
    assert scores.hd95_mm == pytest.approx(hd95.item(), rel=1e-5)
    assert scores.assd_mm == pytest.approx(assd.item(), rel=1e-5)
    assert scores.surface_dice == pytest.approx(surface_dice.item(), rel=1e-5)


def test_agrees_with_an_exact_distance_transform() -> None:
    truth, predicted = blob(1), blob(2)

    def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(mask & ~ndimage.binary_erosion(mask))

    a, b = surface(truth), surface(predicted)
    both = np.concatenate(
        [
            ndimage.distance_transform_edt(~b, sampling=SPACING)[a],
            ndimage.distance_transform_edt(~a, sampling=SPACING)[b],
        ]
    )
    assert surface_scores(truth, predicted, SPACING).assd_mm == pytest.approx(both.mean(), rel=1e-12)


def test_plane_shifted_by_two_slices_is_six_millimetres_off() -> None:
    truth, predicted = np.zeros((2, 10, 8, 8), bool)
    truth[2], predicted[4] = True, True
    scores = surface_scores(truth, predicted, SPACING)
    assert (scores.hd95_mm, scores.assd_mm, scores.surface_dice) == (6.0, 6.0, 0.0)
    assert surface_scores(truth, predicted, SPACING, tolerance_mm=6.0).surface_dice == 1.0


def test_cube_shifted_by_one_voxel() -> None:
    truth, predicted = np.zeros((2, 10, 10, 10), bool)
    truth[3:6, 3:6, 3:6], predicted[3:6, 3:6, 4:7] = True, True
    scores = surface_scores(truth, predicted, tolerance_mm=0.5)
    # Of 26 surface voxels each, the far face (9) and the one on the other's hidden centre lie 1 mm off.
    assert scores.assd_mm == pytest.approx(20 / 52)
    assert scores.surface_dice == pytest.approx(32 / 52)
    assert scores.hd95_mm == 1.0


@pytest.mark.parametrize("spacing", [0.1, 0.7, float(np.float32(0.7))])
def test_a_distance_equal_to_the_tolerance_is_within_it(spacing: float) -> None:
    truth, predicted = np.zeros((2, 60, 3, 3), bool)
    truth[47], predicted[50] = True, True
    assert (
        surface_scores(truth, predicted, (spacing, 1, 1), tolerance_mm=3 * round(spacing, 3)).surface_dice
        == 1
    )


def test_identical_masks() -> None:
    scores = surface_scores(blob(3), blob(3), SPACING)
    assert (scores.hd95_mm, scores.assd_mm, scores.surface_dice) == (0, 0, 1)


def test_empty_masks() -> None:
    nothing = np.zeros((14, 20, 18), bool)
    both, one = surface_scores(nothing, nothing), surface_scores(nothing, blob(0))
    assert (both.hd95_mm, both.assd_mm, both.surface_dice) == (0, 0, 1)
    assert (one.hd95_mm, one.assd_mm, one.surface_dice) == (None, None, 0)


def test_the_edge_of_the_volume_is_a_surface() -> None:
    points = surface_points_mm(np.ones((3, 3, 3), bool), (1, 1, 1))
    assert len(points) == 26
    assert [1, 1, 1] not in points.tolist()

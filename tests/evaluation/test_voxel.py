"""Overlap by voxels."""

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_iou,
    get_confusion_matrix,
)

from focalis.evaluation import voxel_scores


def cube(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((12, 12, 12), bool)
    mask[start:stop, 2:6, 2:6] = True
    return mask


def test_cube_shifted_by_a_quarter() -> None:
    scores = voxel_scores(cube(2, 6), cube(3, 7), voxel_volume_mm3=2.5)
    assert scores.dice == 0.75
    assert scores.iou == pytest.approx(3 / 5)
    assert scores.sensitivity == scores.precision == 0.75
    assert scores.volume_error_mm3 == 0
    assert scores.relative_volume_error == 0


def test_prediction_of_half_the_cube() -> None:
    scores = voxel_scores(cube(2, 6), cube(2, 4), voxel_volume_mm3=2.5)
    assert (scores.sensitivity, scores.precision) == (0.5, 1.0)
    assert scores.dice == pytest.approx(2 / 3)
    assert scores.volume_error_mm3 == -32 * 2.5
    assert scores.relative_volume_error == -0.5


def test_random_masks_have_monais_scores() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.7):
        truth, found = rng.random((2, 12, 12, 12)) < share
        scores = voxel_scores(truth, found)
        pair = [torch.from_numpy(mask[None, None].astype(float)) for mask in (found, truth)]
        assert scores.dice == pytest.approx(float(compute_dice(*pair)))
        assert scores.iou == pytest.approx(float(compute_iou(*pair)))
        counts = get_confusion_matrix(*pair)
        for name, value in (("sensitivity", scores.sensitivity), ("precision", scores.precision)):
            assert value == pytest.approx(float(compute_confusion_matrix_metric(name, counts)))


def test_both_empty_agree() -> None:
    scores = voxel_scores(cube(0, 0), cube(0, 0))
    assert (scores.dice, scores.iou) == (1, 1)
    assert scores.sensitivity is scores.precision is scores.relative_volume_error is None
    assert scores.volume_error_mm3 == 0


def test_one_empty() -> None:
    missed, invented = voxel_scores(cube(2, 6), cube(0, 0)), voxel_scores(cube(0, 0), cube(2, 6))
    assert (missed.dice, missed.iou, missed.sensitivity, missed.precision) == (0, 0, 0, None)
    assert (invented.dice, invented.iou, invented.sensitivity, invented.precision) == (0, 0, None, 0)
    assert (missed.relative_volume_error, invented.relative_volume_error) == (-1, None)

"""Matching of true and predicted lesions."""

from itertools import combinations, permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from focalis.lesions import MINIMUM_IOU, label_components, match_lesions

Mask = NDArray[np.bool_]


def boxes(*corners: tuple[int, int]) -> Mask:
    """Bars along x, each (start, stop), two voxels thick."""
    mask = np.zeros((4, 4, 40), bool)
    for start, stop in corners:
        mask[1:3, 1:3, start:stop] = True
    return mask


def brute_force(truth: Mask, predicted: Mask) -> float:
    """The greatest sum of admissible IoU over all one-to-one choices, by trying them all."""
    true_lesions, n = label_components(truth)
    predicted_lesions, m = label_components(predicted)
    iou = np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            a, b = true_lesions == i + 1, predicted_lesions == j + 1
            iou[i, j] = (a & b).sum() / (a | b).sum()
    iou[iou < MINIMUM_IOU] = 0
    if n > m:
        iou = iou.T
    few, many = iou.shape
    return max(
        (sum(iou[i, j] for i, j in enumerate(order)) for order in permutations(range(many), few)), default=0
    )


@pytest.mark.parametrize("seed", range(30))
def test_is_the_best_one_to_one_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 9, 9, 9), bool)
    for mask in (truth, predicted):
        for corner in rng.integers(0, 8, (5, 3)):
            size = rng.integers(1, 5, 3)
            mask[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = True
    matching = match_lesions(truth, predicted)

    assert sum(iou for _, _, iou in matching.pairs) == pytest.approx(brute_force(truth, predicted))
    assert all(iou >= MINIMUM_IOU for _, _, iou in matching.pairs)
    for a, b in combinations(matching.pairs, 2):
        assert a[0] != b[0]
        assert a[1] != b[1]
    assert matching.truth_count == label_components(truth)[1]
    assert matching.predicted_count == label_components(predicted)[1]


def test_a_pair_below_the_threshold_is_a_miss_and_a_false_positive() -> None:
    touching = match_lesions(boxes((0, 10)), boxes((9, 19)))  # 1 of 19 shared
    assert touching.pairs == ()
    assert touching.unmatched_truth == (1,)
    assert touching.unmatched_predicted == (1,)


def test_the_threshold_itself_counts() -> None:
    matching = match_lesions(boxes((0, 1)), boxes((0, 10)))  # exactly 1 of 10
    assert matching.pairs == ((1, 1, 0.1),)


def test_a_merge_detects_one_lesion_and_is_counted() -> None:
    matching = match_lesions(boxes((0, 4), (5, 9)), boxes((0, 9)))
    assert (
        len(matching.pairs),
        len(matching.unmatched_truth),
        len(matching.merged),
        len(matching.split),
    ) == (
        1,
        1,
        1,
        0,
    )


def test_a_split_leaves_one_false_positive_and_is_counted() -> None:
    matching = match_lesions(boxes((0, 9)), boxes((0, 3), (4, 9)))
    assert matching.pairs == ((1, 2, 5 / 9),)
    assert (matching.unmatched_predicted, len(matching.split), len(matching.merged)) == ((1,), 1, 0)


def test_nothing_against_nothing() -> None:
    nothing = boxes()
    matching = match_lesions(nothing, nothing)
    assert (matching.truth_count, matching.predicted_count, matching.pairs) == (0, 0, ())


def test_a_speckled_prediction_stays_affordable() -> None:
    speckle = np.zeros((60, 60, 60), bool)
    speckle[::2, ::2, ::2] = True  # 27 000 single voxels
    truth = np.zeros_like(speckle)
    truth[20:24, 20:24, 20:24] = True
    matching = match_lesions(truth, speckle)
    assert (matching.truth_count, matching.predicted_count, len(matching.split)) == (1, 27000, 1)

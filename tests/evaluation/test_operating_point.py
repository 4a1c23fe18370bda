"""The choice of the threshold."""

import numpy as np
import pytest
from numpy.typing import NDArray

from focalis.errors import UsageError
from focalis.evaluation import choose_threshold, voxel_scores

CANDIDATES = tuple(round(0.05 * i, 2) for i in range(1, 20))


def random_case(seed: int, dtype: type) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    truth = rng.random((6, 7, 8)) < 0.2
    return np.clip(0.4 * truth + 0.7 * rng.random(truth.shape), 0, 1).astype(dtype), truth


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_curve_is_the_mean_dice_of_each_threshold(dtype: type) -> None:
    cases = [random_case(seed, dtype) for seed in range(4)]
    probabilities, truths = zip(*cases, strict=True)
    threshold, curve = choose_threshold(probabilities, truths)
    for candidate, dice in curve:
        naive = np.mean([voxel_scores(t, p >= dtype(candidate)).dice for p, t in cases])
        assert dice == pytest.approx(naive, rel=1e-12)
    best = max(dice for _, dice in curve)
    assert dict(curve)[threshold] >= best - 0.002


def test_the_middle_of_a_plateau() -> None:
    truth = np.array([[[True, True, False, False]]])
    probability = np.array([[[0.82, 0.81, 0.22, 0.1]]])  # perfect from 0.25 to 0.80
    threshold, _ = choose_threshold([probability], [truth])
    assert threshold == 0.5


def test_a_sharp_peak() -> None:
    truth = np.array([[[True, False, True, True]]])
    probability = np.array([[[0.32, 0.28, 0.9, 0.9]]])
    assert choose_threshold([probability], [truth])[0] == 0.3


def test_a_probability_on_the_threshold_is_foreground() -> None:
    truth = np.ones((1, 1, 1), bool)
    for value in CANDIDATES:
        _, curve = choose_threshold([np.full((1, 1, 1), value, np.float32)], [truth], candidates=[value])
        assert curve == ((value, 1.0),)


def test_cases_without_any_foreground() -> None:
    empty = np.zeros((2, 2, 2), bool)
    quiet, loud = np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.42)
    assert choose_threshold([quiet], [empty])[0] == 0.5
    threshold, curve = choose_threshold([loud], [empty])
    assert threshold > 0.42
    assert dict(curve)[0.4] == 0
    assert dict(curve)[0.45] == 1


def test_wrong_input_is_refused() -> None:
    some = np.zeros((1, 1, 2))
    with pytest.raises(UsageError, match="one truth per probability map"):
        choose_threshold([], [])
    with pytest.raises(UsageError, match="ascending"):
        choose_threshold([some], [some > 0], candidates=[0.5, 0.4])
    with pytest.raises(UsageError, match="does not fit"):
        choose_threshold([some], [np.zeros((2, 1, 1), bool)])

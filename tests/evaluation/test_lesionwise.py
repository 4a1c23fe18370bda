"""Detection of lesions in one case."""

import numpy as np

from focalis.evaluation import lesion_scores


def mask(*starts: int) -> np.ndarray:
    out = np.zeros((3, 3, 40), bool)
    for start in starts:
        out[:, :, start : start + 3] = True
    return out


def test_two_of_three_found_and_one_invented() -> None:
    scores = lesion_scores(mask(0, 10, 20), mask(1, 10, 30))
    assert (scores.truth_lesions, scores.predicted_lesions, scores.detected_lesions) == (3, 3, 2)
    assert scores.false_positive_lesions == 1
    assert scores.sensitivity == scores.precision == scores.f1 == 2 / 3


def test_empty_conventions() -> None:
    both, missed, invented = (
        lesion_scores(mask(), mask()),
        lesion_scores(mask(0), mask()),
        lesion_scores(mask(), mask(0)),
    )
    assert (both.sensitivity, both.precision, both.f1) == (None, None, 1)
    assert (missed.sensitivity, missed.precision, missed.f1) == (0, None, 0)
    assert (invented.sensitivity, invented.precision, invented.f1) == (None, 0, 0)
    assert invented.false_positive_lesions == 1

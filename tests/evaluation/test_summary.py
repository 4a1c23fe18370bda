"""Summaries over cases."""

from dataclasses import replace

import numpy as np
import pytest

from focalis.evaluation import (
    METRICS,
    Score,
    bootstrap_interval,
    case_dice,
    evaluate_case,
    representative_cases,
    summarise,
)
from focalis.volume import Grid, Volume


def score(case: str, dice: float, label: int = 1, **changes: float | None) -> Score:
    """A score with this Dice; the other values are those of a perfect case with one lesion."""
    array = np.zeros((3, 3, 3), np.uint8)
    array[1, 1, 1] = label
    volume = Volume(array, Grid((3, 3, 3)))
    (perfect,) = evaluate_case(volume, volume, {label: f"label {label}"}, case=case)
    return replace(perfect, dice=dice, **changes)  # type: ignore[arg-type]


def test_mean_median_and_interval() -> None:
    values = [0.1, 0.8, 0.6, 0.9]
    summary = summarise([score(f"c{i}", v) for i, v in enumerate(values)], seed=5)
    dice = summary.labels[0]["dice"]
    assert (dice.mean, dice.median, dice.n, dice.undefined) == (pytest.approx(0.6), pytest.approx(0.7), 4, 0)
    assert (dice.low, dice.high) == bootstrap_interval(values, seed=5)
    assert [s.metric for s in summary.labels[0].statistics] == list(METRICS)


def test_undefined_values_are_left_out_and_counted() -> None:
    scores = [score("a", 0.5, hd95_mm=4.0), score("b", 0.0, hd95_mm=None), score("c", 0.5, hd95_mm=2.0)]
    hd95 = summarise(scores).overall["hd95_mm"]
    assert (hd95.mean, hd95.n, hd95.undefined) == (3.0, 2, 1)
    nothing = summarise([replace(s, hd95_mm=None) for s in scores]).overall["hd95_mm"]
    assert (nothing.mean, nothing.median, nothing.low, nothing.n, nothing.undefined) == (
        None,
        None,
        None,
        0,
        3,
    )


def test_one_case_has_no_interval() -> None:
    dice = summarise([score("a", 0.5)]).overall["dice"]
    assert (dice.mean, dice.low, dice.high) == (0.5, None, None)


def test_overall_is_the_mean_over_labels_of_each_case() -> None:
    scores = [score("a", 1.0, 1), score("a", 0.0, 2), score("b", 0.8, 1), score("b", 0.6, 2)]
    summary = summarise(scores)
    assert [s.label for s in summary.labels] == [1, 2]
    assert summary.labels[0]["dice"].mean == pytest.approx(0.9)
    assert summary.overall["dice"].mean == pytest.approx(0.6)
    assert summary.overall["dice"].median == pytest.approx(0.6)
    assert summary.overall.cases == 2


def test_lesions_are_pooled_before_dividing() -> None:
    few = score("a", 1.0)
    many = score("b", 0.5, truth_lesions=9, predicted_lesions=5, detected_lesions=3, false_positive_lesions=2)
    lesions = summarise([few, many]).overall.lesions
    assert lesions.sensitivity.value == pytest.approx(4 / 10)
    assert lesions.precision.value == pytest.approx(4 / 6)
    assert lesions.f1.value == pytest.approx(8 / 16)
    assert lesions.false_positives_per_scan.value == 1.0
    assert (lesions.sensitivity.low, lesions.sensitivity.high) == (pytest.approx(1 / 3), 1.0)


def test_no_lesion_anywhere() -> None:
    none = {"truth_lesions": 0, "predicted_lesions": 0, "detected_lesions": 0}
    lesions = summarise([score("a", 1.0, **none), score("b", 1.0, **none)]).overall.lesions
    assert lesions.sensitivity.value is None
    assert lesions.f1.value is None
    assert lesions.false_positives_per_scan.value == 0


def test_intervals_are_over_patients() -> None:
    scores = [score("a1", 0.0), score("a2", 0.0), score("b1", 1.0), score("b2", 1.0)]
    dice = summarise(scores, patients={"a1": "a", "a2": "a", "b1": "b", "b2": "b"}).overall["dice"]
    assert (dice.low, dice.high) == (0.0, 1.0)


def test_best_median_and_worst() -> None:
    scores = [score(name, dice) for name, dice in zip("abcde", [0.2, 0.9, 0.5, 0.7, 0.1], strict=True)]
    assert representative_cases(scores) == (("best", "b"), ("median", "c"), ("worst", "e"))
    assert representative_cases(scores[:2]) == (("best", "b"), ("worst", "a"))
    assert representative_cases(scores[:1]) == (("best", "a"),)
    assert representative_cases([]) == ()


def test_labels_that_are_empty_in_truth_and_mask_do_not_raise_the_dice_of_a_case() -> None:
    empty = score("a", 1.0, label=2, truth_voxels=0, predicted_voxels=0)
    false = score("a", 0.0, label=3, truth_voxels=0)
    assert case_dice([score("a", 0.4), empty]) == pytest.approx(0.4)
    assert case_dice([score("a", 0.4), false]) == pytest.approx(0.2)
    assert case_dice([empty]) == 1
    cases = [score("a", 0.6), empty, score("b", 0.7), score("b", 0.7, label=2)]
    assert representative_cases(cases) == (("best", "b"), ("worst", "a"))


def empty(case: str, dice: float = 1.0) -> Score:
    return score(case, dice, truth_voxels=0, truth_lesions=0, detected_lesions=0, hd95_mm=0.0)


def test_cases_with_a_lesion_are_summarised_apart() -> None:
    scores = [score("a", 0.2, hd95_mm=6.0), score("b", 0.4, hd95_mm=None), empty("c"), empty("d")]
    overall = summarise(scores).overall
    assert overall["dice"].mean == pytest.approx(0.65)
    assert (overall["dice_with_lesion"].mean, overall["dice_with_lesion"].n) == (pytest.approx(0.3), 2)
    assert (overall["hd95_with_lesion_mm"].mean, overall["hd95_with_lesion_mm"].n) == (6.0, 1)


def test_an_empty_case_is_neither_best_nor_worst_where_others_hold_a_lesion() -> None:
    scores = [score("a", 0.2), score("b", 0.4), empty("c"), empty("d", 0.0)]
    assert representative_cases(scores) == (("best", "b"), ("worst", "a"))
    assert representative_cases(scores[2:]) == (("best", "c"), ("worst", "d"))

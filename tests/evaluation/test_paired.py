"""Figures of several systems on the same cases: pooling of runs and paired differences."""

from dataclasses import replace

import numpy as np
import pytest

from focalis.errors import UsageError
from focalis.evaluation import (
    evaluate_case,
    figures_of,
    paired_difference_interval,
    paired_differences,
    ratio_difference_interval,
    summarise,
)
from focalis.volume import Grid, Volume


def cubes(case, shift, extra=False, label=1):
    """A cube of 4^3 voxels, predicted `shift` voxels off; with `extra`, a lesion is invented."""
    truth, guess = np.zeros((12, 12, 16), np.uint8), np.zeros((12, 12, 16), np.uint8)
    truth[2:6, 2:6, 2:6] = label
    if shift is not None:
        guess[2:6, 2:6, 2 + shift : 6 + shift] = label
    if extra:
        guess[9:11, 9:11, 12:14] = label
    grid = Grid((16, 12, 12))
    return evaluate_case(Volume(truth, grid), Volume(guess, grid), {label: "lesion"}, case=case)[0]


def test_one_run_has_the_figures_of_its_evaluation():
    run = [cubes("a", 0), cubes("b", 1, extra=True), cubes("c", 3), cubes("d", None)]

    figures, summary = figures_of([run]), summarise(run).overall

    assert figures["dice"].value == pytest.approx(summary["dice"].mean)
    assert (figures["dice"].low, figures["dice"].high) == pytest.approx(
        (summary["dice"].low, summary["dice"].high)
    )
    assert figures["hd95_mm"].value == pytest.approx(summary["hd95_mm"].mean)
    assert figures["hd95_mm"].cases == 3  # undefined where nothing was predicted
    assert figures["lesion_f1"].value == pytest.approx(summary.lesions.f1.value)
    found = figures["false_positives_per_scan"]
    assert found.value == pytest.approx(summary.lesions.false_positives_per_scan.value)


def test_a_second_seed_is_not_a_second_patient():
    """Two equal runs say as much as one: same figures, same intervals."""
    run = [cubes("a", 0), cubes("b", 1, extra=True), cubes("c", 2)]

    assert figures_of([run, run]) == figures_of([run])


def test_a_case_counts_with_the_mean_of_its_runs():
    first, second = [cubes("a", 0), cubes("b", 0)], [cubes("a", 2, extra=True), cubes("b", 0)]

    figures = figures_of([first, second])

    halves = (2 * 32) / (64 + 64 + 8)
    assert figures["dice"].value == pytest.approx(((1 + halves) / 2 + 1) / 2)
    assert figures["false_positives_per_scan"].value == pytest.approx((1 / 2 + 0) / 2)
    assert figures["dice"].cases == 2


def test_runs_of_several_folds_are_pooled():
    whole = [cubes("a", 0), cubes("b", 1), cubes("c", 2)]

    assert figures_of([whole[:1], whole[1:]]) == figures_of([whole])


def test_several_labels_of_a_case_are_averaged_first():
    run = [cubes("a", 0), replace(cubes("a", 2), label=2)]

    assert figures_of([run])["dice"].value == pytest.approx((1 + 0.5) / 2)
    assert figures_of([run])["dice"].low is None  # one patient


def test_the_paired_difference_is_that_of_the_means_with_its_interval():
    first = [cubes("a", 0), cubes("b", 1), cubes("c", 2), cubes("d", 0)]
    second = [cubes("a", 1), cubes("b", 2), cubes("c", 2), cubes("d", 1)]

    found = paired_differences([first], [second])["dice"]

    values = [[score.dice for score in run] for run in (first, second)]
    assert found.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert (found.low, found.high) == pytest.approx(paired_difference_interval(*values))


def test_a_difference_rests_on_the_cases_that_both_have():
    first, second = [cubes("a", 0), cubes("b", 1)], [cubes("b", 1), cubes("c", 0)]

    found = paired_differences([first], [second])

    assert found["dice"].cases == 1
    assert found["dice"].value == 0
    assert found["dice"].low is None


def test_a_figure_that_is_nowhere_defined_is_none():
    run = [cubes("a", None), cubes("b", None)]

    assert figures_of([run])["hd95_mm"].value is None
    assert paired_differences([run], [run])["hd95_mm"].value is None


def test_patients_are_drawn_with_all_of_their_cases():
    run = [cubes("a", 0), cubes("b", 2)]

    assert figures_of([run], {"a": "p", "b": "p"})["dice"].low is None


def test_the_difference_of_ratios_agrees_with_a_naive_bootstrap():
    rng = np.random.default_rng(3)
    tops, bottoms = rng.integers(0, 5, (2, 12)), rng.integers(5, 9, (2, 12))

    low, high = ratio_difference_interval((tops[0], bottoms[0]), (tops[1], bottoms[1]), seed=1, draws=300)

    naive = [
        sum(tops[0][i] for i in picks) / sum(bottoms[0][i] for i in picks)
        - sum(tops[1][i] for i in picks) / sum(bottoms[1][i] for i in picks)
        for picks in np.random.default_rng(1).integers(0, 12, size=(300, 12))
    ]
    assert (low, high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])))


@pytest.mark.parametrize(
    ("first", "second"),
    [(([1], [1]), ([1, 2], [1, 1])), (([], []), ([], [])), (([1], [0]), ([1], [1]))],
)
def test_what_cannot_be_paired_is_refused(first, second):
    with pytest.raises(UsageError):
        ratio_difference_interval(first, second)

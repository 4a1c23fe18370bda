"""Bootstrap intervals."""

import numpy as np
import pytest
from scipy import stats

from focalis.errors import UsageError
from focalis.evaluation import bootstrap_interval, paired_difference_interval, ratio_interval


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(rng.normal(5, 2, size=40), seed=seed, draws=400)
        covered += low <= 5 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_is_close_to_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(2).normal(0.7, 0.1, 400)
    half = stats.norm.ppf(0.975) * values.std() / 20
    assert bootstrap_interval(values) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.001
    )


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=60)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=0
    ).confidence_interval
    assert bootstrap_interval(values, draws=20000) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_equal_values_give_a_point() -> None:
    assert bootstrap_interval([0.5] * 7) == (0.5, 0.5)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(4).random(20)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_patients_are_drawn_whole() -> None:
    values = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert bootstrap_interval(values, groups=["a"] * 3 + ["b"] * 3) == (0.0, 1.0)
    low, high = bootstrap_interval(values, groups=list("abcdef"))
    assert (low, high) == bootstrap_interval(values)
    assert low > 0


def test_a_wider_level_is_a_wider_interval() -> None:
    values = np.random.default_rng(5).random(30)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_pairing_removes_what_the_cases_share() -> None:
    rng = np.random.default_rng(6)
    cases = rng.normal(0.6, 0.2, 50)
    better = cases + 0.02 + rng.normal(0, 0.01, 50)
    low, high = paired_difference_interval(better, cases)
    assert 0 < low < 0.02 < high < 0.03


def test_ratio_pools_before_dividing() -> None:
    low, high = ratio_interval([1, 9], [10, 10])
    assert (low, high) == (0.1, 0.9)
    assert ratio_interval([3, 0, 0], [3, 0, 0]) == (1.0, 1.0)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_no_values_are_refused(values: list[object]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        bootstrap_interval(values)  # type: ignore[arg-type]


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(UsageError, match="3 and 2 values"):
        paired_difference_interval([1, 2, 3], [1, 2])
    with pytest.raises(UsageError, match="as many groups"):
        bootstrap_interval([1, 2, 3], groups=["a"])
    with pytest.raises(UsageError, match="denominator"):
        ratio_interval([1], [0])

"""Unusual intensities: found where the images of a set are alike, and nobody is accused where they are not."""

import numpy as np
import pytest

from focalis.quality.intensity import far_from_the_others, lacks_hounsfield_units, no_common_unit


def ct(cases: int, seed: int = 0) -> np.ndarray:
    """Rows of low, middle, high of crops of the chest."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.normal(-930, 50, cases), rng.normal(-700, 150, cases), rng.normal(350, 100, cases)]
    )


def mr(cases: int, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    """The same of scans whose gain differs from one to the next."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([np.zeros(cases), rng.normal(0.4, 0.05, cases), rng.normal(1, 0.05, cases)])
    return 800 * np.exp(rng.normal(0, spread, (cases, 1))) * rows


def reported(rows: np.ndarray) -> list[int]:
    return np.flatnonzero(no_common_unit(far_from_the_others(rows))).tolist()


@pytest.mark.parametrize(("cases", "factor"), [(12, 0.001), (12, 1000), (50, 0.05), (50, 20)])
def test_an_image_in_another_unit(cases: int, factor: float) -> None:
    rows = mr(cases)
    rows[3] *= factor
    assert reported(rows) == [3]


def test_an_image_with_an_offset() -> None:
    rows = mr(30)
    rows[3] += 2000
    assert reported(rows) == [3]


def test_an_inverted_image() -> None:
    rows = mr(30)
    rows[3, 1] = rows[3, 2] * 0.95
    assert reported(rows) == [3]


def test_an_image_that_is_not_ct_among_ct() -> None:
    rows = ct(30)
    rows[3] += 1024
    assert np.flatnonzero(lacks_hounsfield_units(rows)).tolist() == [3]
    assert not lacks_hounsfield_units(mr(30)).any()


def test_two_groups_of_images_are_not_faults_of_the_smaller_one() -> None:
    rows = mr(200)
    rows[:26] *= 500
    assert reported(rows) == []


def test_few_images_are_not_judged() -> None:
    rows = mr(11)
    rows[3] *= 1000
    assert reported(rows) == []


def test_images_that_are_all_alike_may_differ_a_little() -> None:
    rows = np.tile([0.0, 40.0, 100.0], (20, 1))
    rows[3] = 5, 45, 120
    assert reported(rows) == []


@pytest.mark.parametrize(
    "draw", [ct, mr, lambda n, seed: mr(n, seed, 1.5)], ids=["ct", "mr", "mr of any gain"]
)
@pytest.mark.parametrize("cases", [12, 30, 100])
def test_false_alarms_on_clean_sets_are_rare(draw, cases: int) -> None:
    alarms = sum(bool(reported(draw(cases, seed))) for seed in range(500))
    assert alarms <= 5  # one in a hundred

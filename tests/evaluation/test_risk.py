"""Risk and coverage: known rankings."""

import numpy as np
import pytest

from focalis.evaluation import risk_coverage
from focalis.lesions import Candidates, Overlaps


def ranked(right: list[bool], confidence: list[float], uncertainty: list[float] | None = None) -> Candidates:
    """Predicted lesions of which the right ones each cover a true one."""
    true = np.flatnonzero(right)
    ones = np.ones(len(right), np.int64)
    pairs = np.arange(true.size)
    overlaps = Overlaps(
        np.ones(true.size, np.int64), ones, pairs, true, np.ones(true.size, np.int64), np.ones(true.size)
    )
    spread = None if uncertainty is None else np.array(uncertainty)
    return Candidates("a", 1.0, overlaps, np.array(confidence), spread)


def test_by_hand() -> None:
    (curve,) = risk_coverage([ranked([True, False, True, False], [0.9, 0.8, 0.7, 0.6])])
    assert [risk for _, risk in curve.curve] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert [coverage for coverage, _ in curve.curve] == [0.25, 0.5, 0.75, 1]
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.perfect == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert curve.chance == 0.5


def test_a_perfect_ranking_reaches_the_bound_and_ties_are_chance() -> None:
    right = [True, True, True, False, False]
    (best,) = risk_coverage([ranked(right, [0.9, 0.8, 0.7, 0.6, 0.5])])
    (tied,) = risk_coverage([ranked(right, [0.5] * 5)])
    assert best.aurc == best.perfect < tied.aurc
    assert tied.aurc == tied.chance == pytest.approx(0.4)


def test_chance_is_the_mean_over_random_rankings() -> None:
    rng = np.random.default_rng(0)
    right = [True] * 12 + [False] * 5
    areas = [risk_coverage([ranked(right, rng.random(17).tolist())])[0].aurc for _ in range(300)]
    assert np.mean(areas) == pytest.approx(5 / 17, abs=0.02)


def test_uncertainty_ranks_too_where_every_case_has_it() -> None:
    known = ranked([True, False], [0.5, 0.9], [0.1, 0.4])
    by_confidence, by_uncertainty = risk_coverage([known])
    assert (by_confidence.by, by_uncertainty.by) == ("confidence", "uncertainty")
    assert by_uncertainty.aurc == by_uncertainty.perfect < by_confidence.aurc
    assert len(risk_coverage([known, ranked([True], [0.3])])) == 1
    assert risk_coverage([ranked([], [])]) == ()

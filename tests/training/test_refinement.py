"""The search of the CRF's parameters: it finds what helps, and nothing where nothing helps."""

import numpy as np
import pytest

from focalis.dataset import IGNORED
from focalis.lesions import OperatingPoint, decide
from focalis.prediction import Runtime, refine_probabilities
from focalis.training import fit_refinement, refinement
from focalis.training.prepared import TrainingCase
from focalis.training.refinement import Predicted, search_refinement

POINT = OperatingPoint(0.5)


def watched(seed, wrong=0.1, spacing=(2.0, 1.0, 1.0)):
    """A bright ball; the network is unsure, and wrong in a share of the voxels."""
    rng = np.random.default_rng(seed)
    shape = (8, 16, 16)
    z, y, x = np.moveaxis((np.moveaxis(np.indices(shape), 0, -1) - (3.5, 7.5, 7.5)) * spacing, -1, 0)
    truth = z**2 + y**2 + x**2 < 36
    image = (2.0 * truth + 0.2 * rng.normal(size=shape)).astype(np.float32)[None]
    foreground = np.where(truth ^ (rng.random(shape) < wrong), 0.65, 0.35).astype(np.float32)
    return case_of(np.stack([1 - foreground, foreground]), image, truth.astype(np.uint8))


def case_of(probabilities, image, label):
    return Predicted(probabilities, TrainingCase("c", image, label, np.ones(1, np.float16), ()))


def mean_dice(cases, settings):
    scores = []
    for case in cases:
        refined = refine_probabilities(
            case.probabilities, case.case.image, (2, 1, 1), settings, 0.5
        ).probabilities
        found, truth = decide(refined, 0.5) > 0, case.case.label == 1
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    return np.mean(scores)


def test_parameters_that_help_are_found_and_help_on_other_cases():
    found = search_refinement([watched(0), watched(1)], (2, 1, 1), Runtime(), POINT)
    assert found.similar_weight > 0
    unseen = [watched(7), watched(8)]
    assert mean_dice(unseen, found) > 0.95
    assert mean_dice(unseen, refinement.replace(found, similar_weight=0.0, near_weight=0.0)) < 0.85
    assert "on 2 cases of the inner split" in found.how


def test_a_network_that_is_right_is_left_alone():
    found = search_refinement([watched(0, wrong=0.0)], (2, 1, 1), Runtime(), POINT)
    assert (found.similar_weight, found.near_weight) == (0.0, 0.0)
    assert "1.0000, without 1.0000" in found.how


def test_a_setting_is_judged_by_what_is_reported():
    """A minimum size above the image's reports nothing, however well a setting mends the voxels."""
    cases = [watched(0), watched(1)]
    unreported = OperatingPoint(0.5, minimum_mm3=1e6)
    found = search_refinement(cases, (2, 1, 1), Runtime(), unreported)
    assert found.how.endswith("0.0000, without 0.0000")
    assert (found.similar_weight, found.near_weight) == (0.0, 0.0)


def test_what_nobody_judged_does_not_count():
    """The unjudged half is all wrong, and no setting can be blamed for it."""
    case = watched(0, wrong=0.0)
    case.case.label[:, :8] = IGNORED
    case.probabilities[:, :, :8] = case.probabilities[::-1, :, :8].copy()
    assert "without 1.0000" in search_refinement([case], (2, 1, 1), Runtime(), POINT).how


def test_the_search_ends_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(refinement, "SECONDS", -1.0)
    found = search_refinement([watched(0)], (2, 1, 1), Runtime(), POINT)
    assert found.similar_weight == 0
    assert found.how.startswith("best of 1 settings")
    assert found.how.endswith("ran out of time")


def test_without_cases_nothing_is_changed(plan):
    from focalis.planning.parts import network_of

    found = fit_refinement(plan, network_of(plan), [], Runtime(), POINT)
    assert (found.similar_weight, found.near_weight) == (0, 0)
    assert "no cases" in found.how


@pytest.mark.parametrize("group", range(5))
def test_a_kernel_without_weight_is_not_searched(group):
    start = refinement.Refinement(0.0, 4.0, 0.5, 0.0, 1.0, 5)
    tried = list(refinement._candidates(start, group, 2.0))
    assert len(tried) == [9, 0, 3, 0, 0][group]
    busy = refinement.replace(start, similar_weight=1.0, near_weight=1.0)
    tried = list(refinement._candidates(busy, group, 2.0))
    assert (
        tried[-1]
        == [
            {"similar_weight": 10.0, "similar_intensity": 1.0},
            {"similar_mm": 16.0},
            {"near_weight": 10.0},
            {"near_mm": 4.0},
            {"iterations": 10},
        ][group]
    )

"""Temperature and reliability: known answers, and a naive count."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit, logit

from focalis.evaluation import (
    CaseLesions,
    Detection,
    count_voxels,
    fit_temperature,
    lesion_reliability,
    limit_line,
    voxel_reliability,
)
from focalis.evaluation.calibration import MARGIN_MM, VoxelCounts
from focalis.lesions import find_candidates, temper


def drawn(temperature: float, seed: int = 0, shape=(20, 60, 60)):
    """A truth drawn from smooth probabilities, and these made too bold by a temperature."""
    rng = np.random.default_rng(seed)
    odds = 12 * ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    return rng.random(shape) < expit(odds), expit(odds * temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_probabilities_too_bold_is_found(temperature: float) -> None:
    truth, probability = drawn(temperature)
    counts = count_voxels(truth, probability, (1.0, 1.0, 1.0))
    assert fit_temperature(counts) == pytest.approx(temperature, rel=0.03)


def test_it_lowers_the_calibration_error_of_other_cases() -> None:
    temperature = fit_temperature(count_voxels(*drawn(3.0, seed=1), (1.0, 1.0, 1.0)))
    counts = count_voxels(*drawn(3.0, seed=2), (1.0, 1.0, 1.0))
    before, after = voxel_reliability(counts), voxel_reliability(counts.tempered(temperature))
    assert before.ece is not None
    assert after.ece is not None
    assert before.ece > 0.1
    assert after.ece < 0.015
    assert before.count == after.count


def test_counts_add_up_over_cases() -> None:
    one, two = (count_voxels(*drawn(1.5, seed), (1.0, 1.0, 1.0)) for seed in (1, 2))
    total = VoxelCounts.none() + one + two
    assert voxel_reliability(total).count == voxel_reliability(one).count + voxel_reliability(two).count


def test_probabilities_that_say_nothing_are_reported_and_sound_ones_are_not() -> None:
    truth, probability = drawn(1.5)
    upside_down = count_voxels(truth, 1 - probability, (1.0, 1.0, 1.0))
    assert "go by the mask" in limit_line(fit_temperature(upside_down))
    assert limit_line(fit_temperature(count_voxels(truth, probability, (1.0, 1.0, 1.0)))) == ""


def test_few_voxels_change_nothing() -> None:
    truth = np.zeros((9, 9, 9), bool)
    truth[4, 4, 4] = True
    assert fit_temperature(count_voxels(truth, np.where(truth, 0.9, 0.4), (1.0, 1.0, 1.0))) == 1


def test_only_judged_voxels_near_either_boundary_count() -> None:
    """Against the definition, voxel by voxel, on an anisotropic grid."""
    rng = np.random.default_rng(3)
    spacing = (4.0, 2.0, 1.0)
    truth, probability = np.zeros((9, 15, 30), bool), np.full((9, 15, 30), 0.1)
    truth[3:6, 5:9, 8:15] = True
    probability[4:7, 6:11, 12:20] = 0.8
    judged = rng.random(truth.shape) < 0.9
    predicted = probability >= 0.5
    reach = [max(1, round(MARGIN_MM / step)) for step in spacing]
    near = 0
    for place in np.argwhere(judged):
        box = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(place, reach, strict=True))
        near += any(mask[box].any() and not mask[box].all() for mask in (truth, predicted))
    assert voxel_reliability(count_voxels(truth, probability, spacing, judged)).count == near


def test_the_diagram_and_its_error_by_hand() -> None:
    truth = np.zeros((3, 3, 40), bool)
    predicted, probability = truth.copy(), np.zeros(truth.shape)
    for start, level, true in ((2, 0.95, True), (8, 0.95, False), (14, 0.35, True), (20, 0.31, False)):
        predicted[1, 1, start : start + 3] = True
        truth[1, 1, start : start + 3] = true
        probability[1, 1, start : start + 3] = level
    found = lesion_reliability([find_candidates(truth, predicted, probability, case="a", voxel_mm3=1.0)])
    assert [(round(b.probability, 6), b.observed, b.count) for b in found.bins] == [
        (0.33, 0.5, 2),
        (0.95, 0.5, 2),
    ]
    assert found.ece == pytest.approx((2 * 0.17 + 2 * 0.45) / 4)


def test_tempering_keeps_order_and_can_be_undone() -> None:
    probability = np.linspace(0, 1, 101)
    warm = temper(probability, 2.0)
    assert (np.diff(warm) > 0).all()
    np.testing.assert_allclose(warm[1:-1], expit(logit(probability[1:-1]) / 2))
    np.testing.assert_allclose(temper(warm, 0.5), probability, atol=1e-12)
    assert temper(probability, 1.0) is probability
    assert temper(probability.astype(np.float32), 2.0).dtype == np.float32


def test_before_and_after_of_cases_with_temperatures_of_their_own() -> None:
    cases, raw = [], []
    for seed, temperature in ((1, 2.0), (2, 4.0)):
        truth, probability = drawn(temperature, seed, (10, 30, 30))
        after = temper(probability, temperature)
        counts = count_voxels(truth, probability, (1.0, 1.0, 1.0))
        found = find_candidates(truth, after >= 0.9, after, case=str(seed), voxel_mm3=1.0)
        cases.append(CaseLesions((), (found,), counts, temperature))
        raw.append(find_candidates(truth, after >= 0.9, probability, case=str(seed), voxel_mm3=1.0))
    detection = Detection.of(cases)
    assert detection is not None
    made = detection.calibration
    assert made.temperatures == (2.0, 4.0)
    assert made.voxels_before is not None
    assert made.voxels_after is not None
    assert made.voxels_after.ece < made.voxels_before.ece  # type: ignore[operator]
    assert made.lesions_before.ece == pytest.approx(lesion_reliability(raw).ece)
    assert Detection.of([CaseLesions(())]) is None

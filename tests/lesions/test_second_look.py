"""A second look at candidates: their features, the regression, and what it keeps."""

import numpy as np
import pytest
from scipy import special

from focalis.lesions import (
    OperatingPoint,
    features,
    fit_second_look,
    label_components,
    lesion_chance,
    report_lesions,
    temper,
)

SPACING = 2.0, 1.0, 0.5


def two_lesions(low=0.6, high=0.9):
    """A block of 2 x 4 x 8 voxels, which is a cube in mm, and a line of 12 voxels along x; shape (8, 16, 24)."""
    probability = np.full((8, 16, 24), 0.1, np.float32)
    probability[1:3, 1:5, 1:9] = low
    probability[1, 1, 1] = high
    probability[6, 12, 4:16] = low
    return probability


def test_features_are_those_of_each_component_in_mm():
    probability = two_lesions()
    components, count = label_components(probability > 0.5)

    block, line = features(components, count, probability, SPACING)

    mean = (63 * 0.6 + 0.9) / 64
    assert block == pytest.approx([special.logit(0.9), special.logit(mean), np.log(64.0), 0], abs=1e-5)
    # Along the line 12 voxels of 0.5 mm: a uniform density over 6 mm; across it, 1 mm is the thinnest.
    assert line == pytest.approx(
        [special.logit(0.6), special.logit(0.6), np.log(12.0), np.log(6.0 / 1.0)], abs=1e-5
    )


def test_nothing_has_no_features():
    assert features(np.zeros((3, 3, 3), np.int32), 0, np.zeros((3, 3, 3)), SPACING).shape == (0, 4)


def test_the_regression_finds_what_tells_lesions_apart():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(400, 4)) * (1, 5, 0.1, 2) + (0, 3, 7, -1)
    chance = special.expit(1.5 * given[:, 0] - 1.0 * (given[:, 3] + 1))
    right = rng.random(400) < chance

    weights = fit_second_look(given, right)

    assert np.corrcoef(lesion_chance(weights, given), chance)[0, 1] > 0.97
    assert lesion_chance(weights, given).mean() == pytest.approx(
        right.mean(), abs=1e-4
    )  # the constant is free


@pytest.mark.parametrize("right", [np.ones(3, bool), np.zeros(3, bool)])
def test_one_kind_alone_teaches_nothing(right):
    assert fit_second_look(np.zeros((3, 4)), right) == ()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_second_look_decides_in_place_of_size_and_confidence(temperature):
    probability = two_lesions()
    weights = (1.0, 0.0, 0.0, 0.0, -1.0)  # what is e times as long as it is wide, or longer, is none
    point = OperatingPoint(
        float(temper(np.asarray(0.5), temperature)),
        minimum_mm3=1e6,
        minimum_confidence=1.0,
        temperature=temperature,
        second_look=weights,
    )
    slabs = [(slice(None), np.stack([1 - probability, probability]))]

    found = report_lesions(slabs, probability.shape, point, SPACING)

    assert np.count_nonzero(found.mask) == 64
    assert not found.mask[6].any()
    assert np.count_nonzero(found.candidates) == 76


def test_it_sees_the_probability_as_the_network_gives_it():
    probability = two_lesions(low=0.7, high=0.7)
    below, above = ((-float(special.logit(0.7)) + change, 1.0, 0.0, 0.0, 0.0) for change in (-1e-3, 1e-3))
    slabs = [(slice(None), np.stack([1 - probability, probability]))]

    kept = [
        np.count_nonzero(
            report_lesions(
                slabs, probability.shape, OperatingPoint(temperature=3.0, second_look=weights), SPACING
            ).mask
        )
        for weights in (below, above)
    ]

    assert kept == [0, 76]


def test_weights_that_fit_no_features_are_refused():
    with pytest.raises(ValueError, match="5 finite weights"):
        OperatingPoint(second_look=(1.0, 2.0))

"""The calibration for 8-bit integers judges what the model reports, at the operating point in use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from focalis.dataset import IGNORED
from focalis.lesions import OperatingPoint, temper
from focalis.model import Model, Refinement
from focalis.prediction import Settings, input_ranges, reported_by, rounded, run_passes
from focalis.training import calibrate
from focalis.training.validation import mean_dice


@pytest.fixture
def model(plan):
    torch.manual_seed(0)
    layer = nn.Conv3d(1, 2, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(0.3)
        layer.weight[1] += 0.1
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    point = OperatingPoint(0.55, minimum_mm3=150, minimum_confidence=0.6, temperature=1.5)
    field = Refinement(3.0, 3.0, 0.5, 1.0, 1.0, 3)
    return Model(plan, (nn.Sequential(layer).eval(),), point, refinement=field)


def reported(model, case):
    exact = Settings(runtime="torch", precision="float32", minimum_mm3=0.0, minimum_confidence=0.0)
    return np.where(case.label == IGNORED, 0, reported_by(model, case.image, exact))


def dice_of(model, cases):
    return np.mean([mean_dice(case.label, reported(model, case), [1]) for case in cases])


def test_the_loss_is_measured_with_temperature_refinement_and_what_is_dropped(model, cases):
    calibration = calibrate(model, cases)
    network = model.members[0]
    ranges = input_ranges(network, lambda: [run_passes(model, case.image).probabilities for case in cases])
    assert calibration.ranges == (ranges,)
    simulated = replace(model, members=(rounded(network, ranges),))
    loss = dice_of(model, cases) - dice_of(simulated, cases)
    assert calibration.dice_loss == pytest.approx(loss)
    elsewhere = [
        replace(model, operating_point=OperatingPoint(0.6, temperature=1.5)),
        replace(model, operating_point=OperatingPoint(0.55)),
        replace(model, refinement=None),
    ]
    assert len({dice_of(model, cases), *(dice_of(other, cases) for other in elsewhere)}) == 4


def test_what_is_reported_is_decided_on_tempered_probabilities(model, cases):
    plain = replace(model, refinement=None, operating_point=OperatingPoint(0.55, temperature=1.5))
    foreground = 1 - run_passes(plain, cases[0].image).probabilities[0]
    np.testing.assert_array_equal(reported(plain, cases[0]), temper(foreground, 1.5) >= 0.55)


def test_nothing_is_reported_where_nobody_judged(model, cases):
    case = cases[0]
    case.label[:12] = IGNORED
    found = reported(replace(model, operating_point=OperatingPoint(0.55)), case)
    assert not found[:12].any()
    assert found[12:].any()


def test_without_cases_there_is_none(model):
    assert calibrate(model, []) is None

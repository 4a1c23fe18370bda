"""Temperature and operating point from whole cases of the inner split."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from focalis.dataset import IGNORED
from focalis.errors import UsageError
from focalis.evaluation.point_choice import THRESHOLDS
from focalis.lesions import OperatingPoint
from focalis.prediction import Runtime
from focalis.training import operating_point
from focalis.training.prepared import TrainingCase
from focalis.training.validation import watch, watched


class Known(nn.Module):
    """The image holds the foreground's log odds."""

    def forward(self, x):
        return torch.cat([-x, x], dim=1) / 2


def case_of(odds, label, name="c"):
    return TrainingCase(
        name, odds[None].astype(np.float32), label.astype(np.uint8), np.ones(1, np.float16), ()
    )


def drawn(seed, temperature, shape=(24, 24, 24)):
    """A truth drawn from smooth log odds, and the odds made too bold."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape) - 11.5
    odds = 5 - np.sqrt(z**2 + y**2 + x**2)
    return case_of(odds * temperature, rng.random(shape) < 1 / (1 + np.exp(-odds)), f"c{seed}")


def test_the_temperature_is_found_and_the_threshold_given_in_tempered_probabilities(plan):
    cases = [drawn(seed, 3.0) for seed in range(3)]
    point = operating_point(plan, Known(), cases, Runtime())
    temperature = point.temperature
    assert temperature == pytest.approx(3.0, rel=0.1)
    odds = np.log(point.threshold / (1 - point.threshold)) * temperature
    levels = np.array(THRESHOLDS)
    grid = np.log(levels / (1 - levels))
    assert np.abs(grid - odds).min() < 1e-6
    assert len(point.curve) == len(THRESHOLDS)
    assert point.froc


def test_an_aim_keeps_to_its_rate(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    odds = np.where(label > 0, 3.0, -6.0)
    odds[10:12, 10:12, 10:12] = 2.0
    cases = [case_of(odds, label, f"c{i}") for i in range(2)]
    strict = operating_point(plan, Known(), cases, Runtime(), "fp-per-scan=0")
    assert "0 false positives" in strict.how
    assert any(rate == 0 and found == 1 for _, rate, found in strict.froc)
    with pytest.raises(UsageError, match="aim"):
        operating_point(plan, Known(), cases, Runtime(), "best")


def test_a_promise_that_can_be_kept_is_the_point_and_one_that_cannot_says_why(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    odds = np.where(label > 0, 3.0, -6.0)
    odds[10:12, 10:12, 10:12] = 1.0
    cases = [case_of(odds, label, f"c{i}") for i in range(12)]
    kept = operating_point(plan, Known(), cases, Runtime(), promise="miss<=30%@80%")
    assert "12 patients with a lesion of the inner split" in kept.promise
    assert kept.minimum_confidence > 1 / (1 + np.exp(-1.0 / kept.temperature))
    usual = operating_point(plan, Known(), cases, Runtime())
    none = operating_point(plan, Known(), cases, Runtime(), promise="miss<=5%")
    assert none.promise.startswith("none: ")
    assert replace(none, promise="") == usual
    same = {case.name: "one" for case in cases}
    assert (
        "1 patient with"
        in operating_point(plan, Known(), cases, Runtime(), promise="miss<=30%", patients=same).promise
    )


def test_cases_of_other_voxels_than_the_plans_make_no_promise_and_no_second_look(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    odds = np.where(label > 0, 3.0, -6.0)
    cases = [case_of(odds, label, f"c{i}") for i in range(12)]
    spacing = tuple(plan.spacing_zyx_mm)
    same = [replace(case, spacing_zyx_mm=spacing) for case in cases]
    promised = operating_point(plan, Known(), same, Runtime(), promise="miss<=30%@80%").promise
    assert promised.startswith("at most 30 %")
    same[3] = replace(same[3], spacing_zyx_mm=(spacing[0] / 2, *spacing[1:]))
    none = operating_point(plan, Known(), same, Runtime(), promise="miss<=30%@80%")
    assert none.promise.startswith("none: 1 of 12 cases of the inner split have other voxels than the model")
    assert "--folds" in none.promise
    assert replace(none, promise="") == operating_point(plan, Known(), cases, Runtime())


def test_what_nobody_judged_counts_in_neither(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    odds = np.where(label > 0, 3.0, -6.0)
    odds[10:14, 10:14, 10:14] = 4.0  # would be a false positive
    label[9:15, 9:15, 9:15] = IGNORED
    point = operating_point(plan, Known(), [case_of(odds, label)], Runtime())
    assert max(dice for _, dice in point.curve) == 1
    assert (point.minimum_mm3, point.minimum_confidence) == (0, 0)


class Shared(nn.Module):
    """The image holds the foreground's log odds; background and a second label divide what is left unevenly."""

    def forward(self, x):
        rest = torch.linspace(-3, 3, x.shape[-1]).expand_as(x)
        return torch.cat([nn.functional.logsigmoid(rest), x, nn.functional.logsigmoid(-rest)], dim=1)


def test_probabilities_that_round_to_below_0_are_0(plan):
    """All that is not background or undrawn is foreground: here 1 minus two numbers whose sum may exceed 1."""
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    case = replace(case_of(np.where(label > 0, 3.0, -40.0), label), undrawn=(2,))
    two = plan.model_copy(update={"labels": {1: "ball", 2: "rim"}})
    point = operating_point(two, Shared(), [case], Runtime())
    assert (point.found, point.lesions) == (1, 1)
    assert max(dice for _, dice in point.curve) == 1


def test_no_case_no_choice(plan):
    assert operating_point(plan, Known(), [], Runtime()) == OperatingPoint()


def test_memory_does_not_grow_with_the_number_of_cases(plan):
    """One case is predicted at a time, and of it only its lesions stay."""
    shape = (48, 48, 48)
    label = np.zeros(shape)
    label[10:14, 10:14, 10:14] = 1
    one = case_of(np.where(label > 0, 3.0, -6.0), label)

    def peak(cases):
        tracemalloc.start()
        operating_point(plan, Known(), cases, Runtime())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak([one])
    one_map = 4 * label.size
    assert peak([one] * 8) - peak([one]) < one_map


def test_a_look_at_the_inner_split_tells_cases_with_a_lesion_apart(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    quiet = np.full(label.shape, -6.0)
    cases = [
        case_of(quiet, np.zeros_like(label)),
        case_of(quiet, label),
        case_of(quiet, np.zeros_like(label)),
    ]
    seen = watch(plan, Known(), cases, Runtime())
    assert (seen.dice, seen.dice_with_lesion) == (pytest.approx(2 / 3), 0.0)
    assert (seen.lesions, seen.found) == (1, 0)
    found = watch(plan, Known(), [case_of(np.where(label > 0, 3.0, -6.0), label)], Runtime())
    assert (found.dice_with_lesion, found.lesions, found.found) == (1.0, 1, 1)
    assert watch(plan, Known(), [], Runtime()) is None


def with_its_lesion(name, label):
    case = case_of(np.where(label > 0, 3.0, -6.0), label, name)
    return replace(case, lesions=(np.argwhere(label).astype(np.int32),) if label.any() else ())


def test_cases_with_a_lesion_are_looked_at_first_and_no_more_than_before(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    empty = [with_its_lesion(f"a{number}", np.zeros_like(label)) for number in range(8)]
    filled = [with_its_lesion(f"b{number}", label) for number in range(12)]
    seen = watch(plan, Known(), [*empty, *filled[:3]], Runtime())
    assert (seen.lesions, seen.found, seen.dice_with_lesion) == (3, 3, 1.0)
    names = [case.name for case in watched([*empty, *filled[:3]])]
    assert names == ["b0", "b1", "b2", "a0", "a1", "a2", "a3", "a4"]
    assert [case.name for case in watched([empty[0], *filled])] == [f"b{number}" for number in range(8)]
    assert [case.name for case in watched(empty)] == [f"a{number}" for number in range(8)]


def test_a_constant_output_is_named(plan):
    label = np.zeros((16, 16, 16))
    label[4:8, 4:8, 4:8] = 1
    point = operating_point(plan, Known(), [case_of(np.full(label.shape, -6.0), label)], Runtime())
    assert "the network gives every voxel the same probability" in point.how
    assert (point.threshold, point.found) == (0.5, 0)

"""The calibration for 8-bit integers: what the convolutions' inputs range over, and what rounding costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import IGNORED
from focalis.lesions import untempered
from focalis.model import EightBit, Model
from focalis.prediction import (
    Engines,
    decide_reported,
    input_ranges,
    predict_probabilities,
    refine_probabilities,
    rounded,
)
from focalis.training.prepared import TrainingCase
from focalis.training.validation import mean_dice


def calibrate(model: Model, cases: Sequence[TrainingCase], of: str = "the inner split") -> EightBit | None:
    """Calibrate a model of one member on some cases; None without cases. `of` says what they are.

    The loss is that of the mean Dice over labels and cases at the model's threshold, its refinement and temperature
    included: the network's as it is, less that of the network which rounds as integers do. Nothing is dropped: on few
    cases a lesion at the edge of being reported would outweigh all else. Both run on the CPU, where integers are used.
    """
    if not cases:
        return None
    point = replace(model.operating_point, minimum_mm3=0.0, minimum_confidence=0.0)
    model = replace(model, operating_point=point)
    (network,) = model.members
    network.to("cpu")
    exact: list[float] = []

    def predict() -> None:
        exact.extend(_dice(model, case) for case in cases)

    ranges = input_ranges(network, predict)
    simulated = replace(model, members=(rounded(network, ranges),))
    coarse = [_dice(simulated, case) for case in cases]
    return EightBit(
        (ranges,),
        float(np.mean(exact) - np.mean(coarse)),
        f"least and greatest inputs on {len(cases)} cases of {of}; Dice {np.mean(exact):.4f} there "
        f"as it is, {np.mean(coarse):.4f} with rounded convolutions",
    )


def reported(model: Model, case: TrainingCase, runtime: Engines | None = None) -> NDArray[np.uint8]:
    """Class indices of what a model reports on a prepared case, decided on its grid; 0 where nobody judged.

    Args:
        model: the model.
        case: the case.
        runtime: what runs the networks; PyTorch on the CPU in float32 by default.
    """
    plan, point = model.plan, model.operating_point
    budget = int(plan.memory_budget_gb * 1e9)
    found = predict_probabilities(model, np.array(case.image), budget_bytes=budget, runtime=runtime)
    if model.refinement is not None:
        threshold = untempered(point.threshold, model.temperature)
        image, spacing = np.array(case.image), plan.spacing_zyx_mm
        found = refine_probabilities(found, image, spacing, model.refinement, threshold).probabilities
    predicted = decide_reported(found, point, model.temperature, float(np.prod(plan.spacing_zyx_mm)))
    predicted[case.label == IGNORED] = 0
    return predicted


def _dice(model: Model, case: TrainingCase) -> float:
    return mean_dice(case.label, reported(model, case), model.plan.outputs)

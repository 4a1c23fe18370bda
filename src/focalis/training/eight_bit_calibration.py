"""The calibration for 8-bit integers: what the convolutions' inputs range over, and what rounding costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from focalis.display import counted
from focalis.model import EightBit, Model
from focalis.prediction import DEFAULT_MEMORY_GB, Settings, input_ranges, reported_by, rounded
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
        f"least and greatest inputs on {counted(len(cases))} of {of}; Dice {np.mean(exact):.4f} there "
        f"as it is, {np.mean(coarse):.4f} with rounded convolutions",
    )


def _dice(model: Model, case: TrainingCase) -> float:
    settings = Settings(
        minimum_mm3=0.0,
        minimum_confidence=0.0,
        memory_gb=min(DEFAULT_MEMORY_GB, model.plan.memory_budget_gb),
        runtime="torch",
        device="cpu",
        precision="float32",
    )
    case = case.read()
    predicted = case.judged(reported_by(model, np.array(case.image), settings))
    plan = model.plan
    return mean_dice(case.label, predicted, case.drawn(plan.outputs), bool(plan.regions))

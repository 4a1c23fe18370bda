"""The calibration for 8-bit integers: what the convolutions' inputs range over, and what rounding costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from focalis.dataset import IGNORED
from focalis.model import EightBit
from focalis.planning import Plan
from focalis.prediction import Runtime, decide, input_ranges, rounded
from focalis.training.prepared import TrainingCase
from focalis.training.validation import CASES_WATCHED, mean_dice, probabilities


def calibrate(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], threshold: float
) -> EightBit | None:
    """Calibrate on a few cases of the inner split; None without cases.

    The loss is that of the mean Dice over labels and cases at the threshold: the network's as it is, less that of the
    network which rounds as integers do. Both run on the CPU, where integers are used.
    """
    cases = cases[:CASES_WATCHED]
    if not cases:
        return None
    network.to("cpu").eval()
    runtime = Runtime()
    exact: list[float] = []
    coarse: list[float] = []

    def predict() -> None:
        exact.extend(_dice(plan, network, case, threshold, runtime) for case in cases)

    ranges = input_ranges(network, predict)
    simulated = rounded(network, ranges)
    coarse.extend(_dice(plan, simulated, case, threshold, runtime) for case in cases)
    return EightBit(
        (ranges,),
        float(np.mean(exact) - np.mean(coarse)),
        f"least and greatest inputs on {len(cases)} cases of the inner split; Dice {np.mean(exact):.4f} there "
        f"as it is, {np.mean(coarse):.4f} with rounded convolutions",
    )


def _dice(plan: Plan, network: nn.Module, case: TrainingCase, threshold: float, runtime: Runtime) -> float:
    predicted = decide(probabilities(plan, network, case, runtime), threshold)
    predicted[case.label == IGNORED] = 0
    return mean_dice(case.label, predicted, plan.outputs)

"""Whole cases of the inner split, predicted: the Dice during training and the operating point after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from focalis.dataset import IGNORED
from focalis.evaluation import choose_threshold
from focalis.model import Model, OperatingPoint
from focalis.planning import Plan
from focalis.prediction import Runtime, decide, predict_probabilities
from focalis.training.prepared import TrainingCase

CASES_WATCHED = 8


def validation_dice(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime
) -> float | None:
    """Mean Dice over labels and the first few cases at a threshold of 0.5; None without cases.

    A label that a case lacks counts as 1 if it is not predicted and as 0 if it is.
    """
    scores = []
    for case in cases[:CASES_WATCHED]:
        predicted = decide(probabilities(plan, network, case, runtime), 0.5)
        predicted[case.label == IGNORED] = 0
        scores.append(mean_dice(case.label, predicted, plan.outputs))
    return float(np.mean(scores)) if scores else None


def mean_dice(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], outputs: int) -> float:
    """Mean Dice over the labels of two arrays of class indices; 1 for a label that both lack."""
    return float(np.mean([_dice(truth == value, predicted == value) for value in range(1, outputs)]))


def operating_point(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime
) -> OperatingPoint:
    """The threshold on the foreground probability with the best mean Dice on the inner split's cases."""
    if not cases:
        return OperatingPoint()
    foreground = [
        (1 - probabilities(plan, network, case, runtime)[0]) * (case.label != IGNORED) for case in cases
    ]
    truths = [(case.label > 0) & (case.label != IGNORED) for case in cases]
    threshold, curve = choose_threshold(foreground, truths)
    return OperatingPoint(
        threshold, f"best mean Dice of the foreground on {len(cases)} cases of the inner split", curve
    )


def probabilities(
    plan: Plan, network: nn.Module, case: TrainingCase, runtime: Runtime
) -> NDArray[np.float32]:
    """Softmax probabilities (label, z, y, x) of a prepared case."""
    budget = int(plan.memory_budget_gb * 1e9)
    return predict_probabilities(
        Model(plan, (network,)), np.array(case.image), budget_bytes=budget, runtime=runtime
    )


def _dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    total = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0

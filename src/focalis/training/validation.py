"""Whole cases of the inner split, predicted: the Dice during training; temperature and operating point after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from focalis.dataset import IGNORED
from focalis.evaluation import (
    Aim,
    VoxelCounts,
    choose,
    count_voxels,
    cut,
    fit_temperature,
)
from focalis.lesions import Candidates
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
    return float(np.mean([dice(truth == value, predicted == value) for value in range(1, outputs)]))


def operating_point(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime, aim: str = "dice"
) -> tuple[OperatingPoint, float]:
    """The operating point for an aim and the temperature, both from the inner split's cases; see `choose`.

    Every case is predicted once. Of each only its lesions at every threshold and its counts of voxels are kept,
    so that memory does not grow with the number or the size of the scans.
    """
    wanted = Aim.parse(aim)
    if not cases:
        return OperatingPoint(), 1.0
    counts, rows = VoxelCounts.none(), []
    for case in cases:
        more, row = _small(plan, network, case, runtime)
        counts += more
        rows.append(row)
    temperature = fit_temperature(counts)
    chosen = choose(rows, wanted, temperature)
    point = OperatingPoint(
        threshold=chosen.threshold,
        how=chosen.how,
        curve=chosen.curve,
        minimum_mm3=chosen.minimum_mm3,
        minimum_confidence=chosen.minimum_confidence,
        froc=chosen.froc,
    )
    return point, temperature


def _small(
    plan: Plan, network: nn.Module, case: TrainingCase, runtime: Runtime
) -> tuple[VoxelCounts, tuple[Candidates, ...]]:
    """What is kept of a case; its probabilities are gone when this returns."""
    judged = np.asarray(case.label != IGNORED)
    foreground = 1 - probabilities(plan, network, case, runtime)[0]
    foreground[~judged] = 0
    truth = np.asarray(case.label > 0) & judged
    counts = count_voxels(truth, foreground, plan.spacing_zyx_mm, judged)
    return counts, cut(case.name, truth, foreground, float(np.prod(plan.spacing_zyx_mm)))


def probabilities(
    plan: Plan, network: nn.Module, case: TrainingCase, runtime: Runtime
) -> NDArray[np.float32]:
    """Softmax probabilities (label, z, y, x) of a prepared case, not tempered."""
    budget = int(plan.memory_budget_gb * 1e9)
    return predict_probabilities(
        Model(plan, (network,)), np.array(case.image), budget_bytes=budget, runtime=runtime
    )


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0

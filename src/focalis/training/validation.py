"""Whole cases of the inner split, predicted: the Dice during training; temperature and operating point after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from focalis import ranks
from focalis.dataset import IGNORED
from focalis.evaluation import (
    Aim,
    Promise,
    VoxelCounts,
    choose,
    count_voxels,
    cut,
    fit_temperature,
    keep_promise,
)
from focalis.lesions import Candidates, OperatingPoint, decide, match_lesions
from focalis.model import Model
from focalis.planning import Plan
from focalis.prediction import DEFAULT_MEMORY_GB, Runtime, Settings, infer
from focalis.training.prepared import TrainingCase, with_lesion

CASES_WATCHED = 8
CONSTANT = 1e-3
"""If no case's foreground probabilities span more than this, the network says the same everywhere."""


@dataclass(frozen=True)
class Watched:
    """What a look at a few cases of the inner split says, at a threshold of 0.5.

    Attributes:
        dice: mean over labels and cases. A label that a case lacks counts as 1 if it is not predicted, as 0 if it is.
        dice_with_lesion: the same over the cases with a lesion; None if none has one.
        lesions, found: true lesions of all labels together, and how many of them were found.
    """

    dice: float
    dice_with_lesion: float | None
    lesions: int
    found: int


def watched(cases: Sequence[TrainingCase]) -> list[TrainingCase]:
    """The first few cases with a lesion; where these are too few, the first cases without one follow."""
    holds = with_lesion(cases)
    first = sorted(range(len(cases)), key=lambda number: not holds[number])[:CASES_WATCHED]
    return [cases[number] for number in first]


def watch(plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime) -> Watched | None:
    """Predict the watched cases; None without cases."""

    def look(case: TrainingCase) -> tuple[float, bool, int, int]:
        """The Dice of a case, whether it holds a lesion, how many, and how many of them were found."""
        nested = bool(plan.regions)
        case = case.read()
        predicted = case.judged(decide(probabilities(plan, network, case, runtime), 0.5, nested=nested))
        truth = (case.label > 0) & (case.label != IGNORED)
        score = mean_dice(case.label, predicted, case.drawn(plan.outputs), nested)
        matching = match_lesions(truth, predicted > 0)
        hits = len(matching.pairs)
        return score, bool(truth.any()), hits + len(matching.unmatched_truth), hits

    seen = ranks.shared_out(look, watched(cases))
    if not seen:
        return None
    filled = [score for score, holds, _, _ in seen if holds]
    with_lesion = float(np.mean(filled)) if filled else None
    _, _, lesions, found = (sum(column) for column in zip(*seen, strict=True))
    return Watched(float(np.mean([score for score, *_ in seen])), with_lesion, int(lesions), int(found))


def mean_dice(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[int], nested: bool = False
) -> float:
    """Mean Dice over some classes of two arrays of class indices; 1 for a class that both lack.

    With `nested`, class r stands for the region of it and all later ones.
    """
    if nested:
        truth = np.where(truth == IGNORED, 0, truth)
        return float(np.mean([dice(truth >= value, predicted >= value) for value in classes]))
    return float(np.mean([dice(truth == value, predicted == value) for value in classes]))


def operating_point(
    plan: Plan,
    network: nn.Module,
    cases: Sequence[TrainingCase],
    runtime: Runtime,
    aim: str = "dice",
    promise: str | None = None,
    patients: Mapping[str, str] | None = None,
) -> OperatingPoint:
    """The operating point for an aim, with its temperature, from the inner split's cases; see `choose`.

    If a promise can be kept, the point is the one that keeps it, see `keep_promise`; if not, its `promise` says why.
    Where cases came onto the plan's grid from another one, there is neither a promise nor a second look: prediction
    counts lesions on a case's own voxels, where they may be several and less sure.

    Every case is predicted once. Of each only its lesions at every threshold and its counts of voxels are kept,
    so that memory does not grow with the number or the size of the scans.
    """
    wanted = Aim.parse(aim)
    if not cases:
        return OperatingPoint()
    mine = VoxelCounts.none()

    def small(case: TrainingCase) -> tuple[tuple[Candidates, ...], float, bool]:
        nonlocal mine
        more, row, width = _small(plan, network, case, runtime)
        mine += more
        return row, width, _is_resampled(case, plan)

    rows, spans, resampled = zip(*ranks.shared_out(small, cases), strict=True)
    counts, span = sum(ranks.gathered(mine), start=VoxelCounts.none()), max(spans)
    point = choose(rows, wanted, fit_temperature(counts), patients)
    constant = "" if span > CONSTANT else "; the network gives every voxel the same probability"
    point = replace(point, how=point.how + constant)
    if not promise:
        return point
    if moved := sum(resampled):
        why = (
            f"none: {moved} of {len(cases)} cases of the inner split have other voxels than the model, so lesions "
            "count otherwise there; --folds judges them on their own"
        )
        return replace(point, promise=why)
    return keep_promise(point, rows, Promise.parse(promise), patients)


def _is_resampled(case: TrainingCase, plan: Plan) -> bool:
    return case.spacing_zyx_mm is not None and not np.allclose(
        case.spacing_zyx_mm, plan.spacing_zyx_mm, rtol=1e-3
    )


def _small(
    plan: Plan, network: nn.Module, case: TrainingCase, runtime: Runtime
) -> tuple[VoxelCounts, tuple[Candidates, ...], float]:
    """What is kept of a case, and the span of its probabilities, which are gone when this returns."""
    case = case.read()
    judged = np.asarray(case.label != IGNORED)
    said = probabilities(plan, network, case, runtime)
    foreground = np.maximum(1 - said[0] - said[[*case.undrawn]].sum(axis=0), 0)  # rounding may go below
    span = float(np.ptp(foreground))
    foreground[~judged] = 0
    truth = np.asarray(case.label > 0) & judged
    counts = count_voxels(truth, foreground, plan.spacing_zyx_mm, judged)
    spacing = plan.spacing_zyx_mm
    looked = None if _is_resampled(case, plan) else spacing
    return counts, cut(case.name, truth, foreground, math.prod(spacing), spacing_zyx_mm=looked), span


def probabilities(
    plan: Plan, network: nn.Module, case: TrainingCase, runtime: Runtime
) -> NDArray[np.float32]:
    """Softmax probabilities (label, z, y, x) of a prepared case, not tempered."""
    return infer(Model(plan, (network,)), np.array(case.image), settings_in(plan, runtime)).probabilities


def settings_in(plan: Plan, runtime: Runtime) -> Settings:
    """How cases of the inner split are predicted in a run: where it trains, in the memory that `predict` takes."""
    precision = str(runtime.dtype).removeprefix("torch.")
    memory_gb = min(DEFAULT_MEMORY_GB, plan.memory_budget_gb)
    return Settings(runtime="torch", device=str(runtime.device), precision=precision, memory_gb=memory_gb)


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0

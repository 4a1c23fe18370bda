"""The parameters of the fully connected CRF, fitted on whole cases of the inner split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from focalis.display import counted
from focalis.lesions import OperatingPoint, report_lesions
from focalis.model import Refinement
from focalis.planning import Plan
from focalis.prediction import Runtime, refine_probabilities
from focalis.training.prepared import TrainingCase
from focalis.training.validation import mean_dice, probabilities

CASES = 8
SECONDS = 300.0
"""After this time no further parameters are tried."""
LEAST_GAIN = 1e-4


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a setting is judged on: probabilities (label, z, y, x) and the prepared case."""

    probabilities: NDArray[np.float32]
    case: TrainingCase


def fit_refinement(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime, point: OperatingPoint
) -> Refinement:
    """The CRF with the best mean Dice at the operating point on the first few cases of the inner split.

    See `search_refinement`; without cases it changes nothing.
    """
    watched = [Predicted(probabilities(plan, network, case, runtime), case.read()) for case in cases[:CASES]]
    return search_refinement(watched, plan.spacing_zyx_mm, runtime, point)


def search_refinement(
    cases: Sequence[Predicted], spacing_zyx_mm: Sequence[float], runtime: Runtime, point: OperatingPoint
) -> Refinement:
    """Search the parameters one group after the other, each from the best so far; no CRF is the first candidate.

    Weights from 1 to 10, widths from one to eight voxels (of the same volume, were they cubes) and from a quarter to
    once the unit of the normalised intensities, two to ten iterations.

    Args:
        point: what is reported: a setting is judged by that, small and unsure lesions dropped.
    """
    voxel_mm = float(np.prod(spacing_zyx_mm)) ** (1 / 3)
    best = Refinement(0.0, 4 * voxel_mm, 0.5, 0.0, voxel_mm, 5)
    if not cases:
        return replace(best, how="no cases to fit it on; it changes nothing")
    began = time.monotonic()

    def score_of(settings: Refinement) -> float:
        return _score(cases, settings, spacing_zyx_mm, runtime, point)

    alone = top = score_of(best)
    tried, cut = 1, False
    for group in range(len(_GROUPS)):
        start = best
        for change in _candidates(start, group, voxel_mm):
            if time.monotonic() - began > SECONDS:
                cut = True
                break
            candidate = replace(start, **change)
            score = score_of(candidate)
            tried += 1
            if score > top + LEAST_GAIN:
                best, top = candidate, score
    how = (
        f"best of {tried} settings by mean Dice on {counted(len(cases))} of the inner split: "
        f"{top:.4f}, without {alone:.4f}"
    )
    return replace(best, how=how + ("; the search ran out of time" if cut else ""))


_GROUPS: tuple[Mapping[str, tuple[float, ...]], ...] = (
    {"similar_weight": (1.0, 3.0, 10.0), "similar_intensity": (0.25, 0.5, 1.0)},
    {"similar_mm": (2.0, 8.0)},
    {"near_weight": (1.0, 3.0, 10.0)},
    {"near_mm": (2.0,)},
    {"iterations": (2, 10)},
)
"""What is tried together; lengths in voxels."""


def _candidates(start: Refinement, group: int, voxel_mm: float) -> Iterator[dict[str, Any]]:
    """All combinations of a group, except those that change nothing because their kernel has no weight."""
    idle = {
        "similar_mm": start.similar_weight == 0,
        "near_mm": start.near_weight == 0,
        "iterations": start.similar_weight == start.near_weight == 0,
    }
    combinations: list[dict[str, Any]] = [{}]
    for name, values in _GROUPS[group].items():
        scale = voxel_mm if name.endswith("_mm") else 1
        combinations = [
            {**before, name: value * scale}
            for before in combinations
            for value in values
            if not idle.get(name, False)
        ]
    yield from combinations


def _score(
    cases: Sequence[Predicted],
    settings: Refinement,
    spacing_zyx_mm: Sequence[float],
    runtime: Runtime,
    point: OperatingPoint,
) -> float:
    scores = []
    for each in cases:
        case = each.case
        refined = refine_probabilities(
            each.probabilities,
            np.array(case.image),
            spacing_zyx_mm,
            settings,
            point.untempered,
            device=runtime.device,
        )
        slabs = [(slice(None), refined.probabilities)]
        predicted = case.judged(report_lesions(slabs, case.label.shape, point, spacing_zyx_mm).mask)
        scores.append(mean_dice(case.label, predicted, case.drawn(len(each.probabilities))))
    return float(np.mean(scores))

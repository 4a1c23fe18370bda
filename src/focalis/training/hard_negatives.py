"""Where an earlier state of a training found false lesions: places to draw patches at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from torch import nn

from focalis import ranks
from focalis.lesions import decide, label_components
from focalis.planning import Plan
from focalis.planning.plan import Triple
from focalis.prediction import Runtime
from focalis.training.prepared import TrainingCase
from focalis.training.validation import probabilities

CASES_SEARCHED = 4
MOST_PER_CASE = 32
MISTAKES = 3
"""The stream of a run's randomness that says which cases are searched; see `batches` for the others."""


def find_mistakes(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime, seed: int, round_: int
) -> Mapping[int, Sequence[Triple]]:
    """False lesions of the next few cases, by the number of the case: of each its surest voxel (z, y, x).

    The cases take turns, in an order of the seed. Several ranks share them.

    Args:
        network: the averaged weights so far.
        round_: how often cases were searched before.
    """
    order = np.random.default_rng((seed, MISTAKES)).permutation(len(cases))
    first = round_ * CASES_SEARCHED
    turns = range(first, first + min(CASES_SEARCHED, len(cases)))
    numbers = [int(order[turn % len(cases)]) for turn in turns]
    search = partial(_mistakes, plan, network, cases, runtime)
    return dict(zip(numbers, ranks.shared_out(search, numbers), strict=True))


def _mistakes(
    plan: Plan, network: nn.Module, cases: Sequence[TrainingCase], runtime: Runtime, number: int
) -> list[Triple]:
    """The surest voxel of each predicted lesion that touches no true one, the surest first."""
    case = cases[number].read()
    said = probabilities(plan, network, case, runtime)
    lesions, _ = label_components(case.judged(decide(said, 0.5, nested=bool(plan.regions))) > 0)
    true = np.unique(lesions[np.asarray(case.distance_mm) == 0])
    inside = np.isin(lesions, true, invert=True) & (lesions > 0)
    surest = np.argsort(said[0][inside], kind="stable")
    first = np.sort(np.unique(lesions[inside][surest], return_index=True)[1])[:MOST_PER_CASE]
    return [(z, y, x) for z, y, x in np.argwhere(inside)[surest[first]].tolist()]

"""Risk and coverage: are the least trusted lesions the wrong ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.lesions import Candidates

RISK_RULE = (
    "Risk and coverage: predicted lesions are taken from the most trusted on. Coverage is the share "
    "taken, risk the share of these that are false positives. The area under the curve (AURC) is their "
    "mean risk over all coverages: the lower, the better the number ranks errors. It lies between that of "
    "a perfect ranking and the share of errors, which a ranking by chance has on average. Ties are taken "
    "together."
)


@dataclass(frozen=True)
class RiskCoverage:
    """One ranking of predicted lesions.

    Attributes:
        by: what ranks them: confidence or uncertainty.
        curve: (coverage, risk), coverage ascending.
        aurc: mean risk over coverage.
        perfect: the same of the best possible ranking.
        chance: the share of errors: what a ranking by chance has.
    """

    by: str
    curve: tuple[tuple[float, float], ...]
    aurc: float
    perfect: float
    chance: float
    lesions: int


def risk_coverage(candidates: Sequence[Candidates]) -> tuple[RiskCoverage, ...]:
    """The curve by confidence and, where every case has one, by uncertainty; none without a predicted lesion.

    The area follows Geifman et al. (Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019).
    """
    held = [each for each in candidates if each.confidence.size]
    if not held:
        return ()
    wrong = ~np.concatenate([each.matched() for each in held])
    curves = [_curve("confidence", np.concatenate([each.confidence for each in held]), wrong)]
    spreads = [each.uncertainty for each in held if each.uncertainty is not None]
    if len(spreads) == len(held):
        curves.append(_curve("uncertainty", -np.concatenate(spreads), wrong))
    return tuple(curves)


def _curve(by: str, trust: NDArray[np.float64], wrong: NDArray[np.bool_]) -> RiskCoverage:
    risks = _risks(trust, wrong)
    count = wrong.size
    perfect = _risks(-wrong.astype(np.float64) * count - np.arange(count) / count, wrong)
    curve = tuple(((i + 1) / count, float(risk)) for i, risk in enumerate(risks))
    return RiskCoverage(
        by, curve, float(risks.mean()), float(perfect.mean()), float(wrong.mean()), int(count)
    )


def _risks(trust: NDArray[np.float64], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The risk after each lesion; lesions of equal trust share their errors evenly."""
    _, group = np.unique(-trust, return_inverse=True)
    share = np.bincount(group, weights=wrong) / np.bincount(group)
    order = np.argsort(group, kind="stable")
    risks: NDArray[np.float64] = np.cumsum(share[group[order]]) / np.arange(1, wrong.size + 1)
    return risks

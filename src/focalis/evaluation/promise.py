"""A promise instead of a score: an operating point whose rate of misses or false alarms holds on new scans.

Nothing is assumed of the network, its probabilities or the lesions, only that new scans are like those that the promise
rests on: patients drawn from the same source. Settings are tested one after the other, from the safest on, whether
their true rate exceeds what is promised, and testing stops at the first that cannot exclude it. So the chance that a
promise is given which does not hold is at most one minus its confidence. Source: Angelopoulos et al., "Learn then test"
(arXiv 2110.01052), with the p-value of Hoeffding and Bentkus; for lesions see arXiv 2510.17897 and 2511.15406.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.display import counted
from focalis.errors import UsageError
from focalis.evaluation.point_choice import CONFIDENCES, THRESHOLDS
from focalis.lesions import Candidates, OperatingPoint, temper

TRIED = (0.25, 0.5)
"""Thresholds that are tried, fixed beforehand: one that the same cases chose would flatter. Each takes its share of the
doubt, so more of them would ask for more cases."""
CAP = 10
"""A scan counts with at most so many times the promised false positives: without a bound nothing can be shown."""


@dataclass(frozen=True)
class Promise:
    """What is to hold on new scans.

    Attributes:
        of: `miss`, the share of a scan's lesions that are missed, or `fp-per-scan`, its false positive lesions.
        most: the most that it may be on average.
        confidence: the probability with which a promise that is given holds.
    """

    of: Literal["miss", "fp-per-scan"]
    most: float
    confidence: float = 0.9

    @classmethod
    def parse(cls, text: str) -> Promise:
        """From `miss<=10%` or `fp-per-scan<=1`, with `@95%` after it for that confidence; UsageError otherwise."""
        number = r"(\d+\.?\d*|\.\d+)"
        found = re.fullmatch(
            rf"(?:(miss)<={number}%|(fp-per-scan)<={number})(?:@{number}%)?", text.replace(" ", "")
        )
        name, most, _, rate, sure = found.groups() if found else (None, None, None, None, None)
        value = float(most) / 100 if most else float(rate or 0)
        confidence = float(sure) / 100 if sure else 0.9
        if not (0 < value < (1 if most else math.inf) and 0.5 <= confidence < 1):
            raise UsageError(
                f"promise {text!r} is not known; give miss<=10% or fp-per-scan<=1, and the confidence after it if "
                "it is not 90 %, as in miss<=10%@95%"
            )
        return cls("miss" if name == "miss" else "fp-per-scan", value, confidence)

    def __str__(self) -> str:
        if self.of == "miss":
            return f"at most {100 * self.most:g} % of a scan's lesions missed on average"
        return (
            f"at most {self.most:g} false positive lesions per scan on average, where a scan counts with at most "
            f"{CAP * self.most:g}"
        )


@dataclass(frozen=True, eq=False)
class _Trial:
    """A threshold and a minimum confidence, and what comes of them; `false` per scan, whose patient is `of`."""

    threshold: float
    confidence: float
    found: int
    miss: float
    dice: float
    false: NDArray[np.float64]
    of: NDArray[np.intp]
    scans: NDArray[np.intp]

    @property
    def fp_per_scan(self) -> float:
        """Mean over the patients of the mean over their scans."""
        return float((np.bincount(self.of, self.false) / self.scans).mean())

    def capped(self, bound: float) -> float:
        """The same with scans that count with `bound` at most, as a share of it."""
        return float((np.bincount(self.of, np.minimum(self.false, bound)) / self.scans).mean() / bound)


def keep_promise(
    point: OperatingPoint,
    cases: Sequence[Sequence[Candidates]],
    promise: Promise,
    patients: Mapping[str, str] | None = None,
    *,
    where: str = "the inner split",
    thresholds: Sequence[float] = THRESHOLDS,
) -> OperatingPoint:
    """The operating point with which a promise holds; or the point as it is, whose `promise` says what it would take.

    Among the settings that keep a promise about misses, the one with the fewest false positives is taken; among those
    that keep one about false positives, the most sensitive; among equals, the best Dice. No minimum size is used.

    Args:
        point: the point without a promise; its temperature is kept.
        cases: of every case, its lesions at every threshold, see `cut`; probabilities as the network gives them, and
            the network must not have learned from the cases.
        patients: case name to patient: a patient with several scans counts once, with their mean. Without, every case
            is one.
        where: what the cases are, for the line.
        thresholds: those that the cases were cut at, `TRIED` among them.
    """
    bound = 1.0 if promise.of == "miss" else CAP * promise.most
    level, doubt = promise.most / bound, (1 - promise.confidence) / len(TRIED)
    named = [(patients or {}).get(row[0].case, row[0].case) for row in cases]
    holding = {name for name, row in zip(named, cases, strict=True) if row[0].overlaps.truth_voxels.size}
    count = len(holding) if promise.of == "miss" else len(set(named))
    kept, safest = list[_Trial](), 1.0
    settings = {
        t: _settings([row[list(thresholds).index(t)] for row in cases], named, t) for t in TRIED if count
    }
    for line in settings.values():
        for setting in line if promise.of == "miss" else reversed(line):
            risk = setting.miss if promise.of == "miss" else setting.capped(bound)
            safest = min(safest, risk)
            if p_value(count, risk, level) > doubt:
                break
            kept.append(setting)
    if promise.of == "fp-per-scan" and holding:
        kept = [setting for setting in kept if setting.miss < 1]
    if not kept:
        return replace(point, promise=_refused(promise, count, where, safest, level, doubt))
    if promise.of == "miss":
        best = min(kept, key=lambda s: (s.fp_per_scan, -s.dice))
    else:
        best = min(kept, key=lambda s: (s.miss, -s.dice))

    def given(probability: float) -> float:
        return float(temper(np.asarray(probability, dtype=np.float64), point.temperature))

    return replace(
        point,
        threshold=given(best.threshold),
        minimum_mm3=0.0,
        minimum_confidence=given(best.confidence),
        second_look=(),
        how="chosen by its promise",
        lesions=sum(row[0].overlaps.truth_voxels.size for row in cases),
        found=best.found,
        froc=tuple(
            (given(s.confidence), s.fp_per_scan, 1 - s.miss) for s in reversed(settings[best.threshold])
        ),
        promise=f"{promise}, with {100 * promise.confidence:g} % confidence, on scans like those of the training; "
        f"rests on {_patients(promise, count)} of {where}, where {100 * best.miss:.3g} % of the lesions are missed and "
        f"{best.fp_per_scan:.3g} false positives per scan reported",
    )


def p_value(count: int, mean: float, level: float) -> float:
    """How likely at most a mean of `mean` is if the true mean exceeds `level`, of losses between 0 and 1.

    The smaller one of Hoeffding's and Bentkus' bounds; it holds for every distribution.

    Args:
        count: number of independent losses.
        level: what the true mean is compared with, between 0 and 1.
    """
    hoeffding = math.exp(-count * _distance(min(mean, level), level))
    return min(
        1.0, hoeffding, math.e * float(scipy.special.bdtr(math.ceil(count * mean - 1e-9), count, level))
    )


def cases_needed(mean: float, level: float, doubt: float) -> int | None:
    """How many losses of this mean show that the true one is at most `level`, but for a chance of `doubt`."""
    if mean >= level:
        return None
    return math.ceil(math.log(1 / doubt) / _distance(mean, level) - 1e-9)


def _distance(mean: float, level: float) -> float:
    """The relative entropy of two coins."""
    first = mean * math.log(mean / level) if mean > 0 else 0.0
    return first + ((1 - mean) * math.log((1 - mean) / (1 - level)) if mean < 1 else 0.0)


def _settings(column: Sequence[Candidates], patients: Sequence[str], threshold: float) -> list[_Trial]:
    """What comes of every minimum confidence at one threshold; the least dropping first."""
    _, of = np.unique(patients, return_inverse=True)
    lesions = np.array([each.overlaps.truth_voxels.size for each in column])
    scans, holding = np.bincount(of), np.bincount(of, lesions > 0)
    # A minimum confidence at or below the threshold drops nothing.
    confidences = (0.0, *(c for c in CONFIDENCES if c > threshold))
    outcomes = np.array([_outcomes(each, confidences) for each in column])  # (case, confidence, figure)
    found = []
    for confidence, (hits, false, dice) in zip(confidences, outcomes.transpose(1, 2, 0), strict=True):
        shares = np.bincount(of, (lesions - hits) / np.maximum(lesions, 1))
        missed = shares[holding > 0] / holding[holding > 0]
        miss = float(missed.mean()) if missed.size else 0.0
        found.append(
            _Trial(threshold, confidence, int(hits.sum()), miss, float(dice.mean()), false, of, scans)
        )
    return found


def _outcomes(each: Candidates, confidences: Sequence[float]) -> list[tuple[float, float, float]]:
    """Lesions found, false positives and Dice of a case at ascending minimum confidences."""
    found: list[tuple[float, float, float]] = []
    before = -1
    for confidence in confidences:
        keep = each.kept(0, confidence)
        if (left := int(keep.sum())) != before:
            matching = each.overlaps.match(keep)
            outcome = len(matching.pairs), len(matching.unmatched_predicted), each.dice(keep)
        found.append(outcome)
        before = left
    return found


def _refused(promise: Promise, count: int, where: str, safest: float, level: float, doubt: float) -> str:
    """Why nothing is promised, and what it would take."""
    least, seen = cases_needed(0.0, level, doubt), cases_needed(safest, level, doubt)
    line = f"none: {promise}, with {100 * promise.confidence:g} % confidence: "
    if least is not None and count < least:
        return (
            f"{line}{_patients(promise, count)} of {where} cannot show it whatever is found in them; it takes {least} "
            "at the least"
        )
    rate = (
        f"misses {100 * safest:.3g} %"
        if promise.of == "miss"
        else f"has {safest * CAP * promise.most:.3g} per scan"
    )
    where = f"{_patients(promise, count)} of {where}"
    if seen is None:
        return f"{line}the safest setting {rate} in {where}; no number of patients is enough"
    if seen <= count:
        return f"{line}only settings that find no lesion keep to it in {where}"
    return f"{line}the safest setting {rate} in {where}; at that rate it takes about {seen}"


def _patients(promise: Promise, count: int) -> str:
    return f"{counted(count, 'patient')}{' with a lesion' if promise.of == 'miss' else ''}"

"""The choice of the operating point: from which probability, size and confidence on a lesion is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.display import counted
from focalis.errors import UsageError
from focalis.lesions import (
    Candidates,
    OperatingPoint,
    features,
    find_overlaps,
    fit_second_look,
    highest,
    label_components,
    lesion_chance,
    temper,
)

THRESHOLDS = (
    *(round(0.05 * i, 2) for i in range(1, 20)),
    *(0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999),
)
"""Dense near 1: a loss that weighs classes by their frequencies is near certain where the chance is one half."""
CONFIDENCES = (0.0, *THRESHOLDS)
SIZES = 6
"""How many minimum sizes are tried, up to the greatest that is allowed."""
BELOW = 0.025
"""The greatest chance that a new lesion is smaller than the minimum size, or that the network is less sure of it than
the minimum confidence. The smallest of ten lesions is no such bound: one new lesion in eleven is smaller still."""
MOST_SURE = 1 - 1e-6
"""Confidences above this count as this: float32 hardly tells them apart."""
USUAL_LOG_ODDS, USUAL_LOG_VOLUME = math.log(MOST_SURE / (1 - MOST_SURE)) / 12**0.5, 1.0
"""A usual spread, which counts as one lesion more: a few may be alike by accident, and all that a network is very sure
of count as `MOST_SURE`. Of the log odds of confidence it is that of an even spread from one half to `MOST_SURE`, of
volumes a factor of e."""
PLATEAU = 0.002
"""Differences of Dice or sensitivity below this are not followed: they are accidents of the few cases."""
ONE_HALF = 0.5
"""The threshold unless cases prove another; the same in tempered probabilities as in those that are not."""
LEAST_CANDIDATES = 20
"""Lesions and false ones each, from which on a second look is tried."""
SURE = 0.975
"""The chance that a mean gain lies above the bound that must be positive."""


@dataclass(frozen=True)
class Aim:
    """What an operating point is chosen for.

    Attributes:
        fp_per_scan: the most false positive lesions per scan, under which sensitivity is greatest; None for the
            best mean Dice.
    """

    fp_per_scan: float | None = None

    @classmethod
    def parse(cls, text: str) -> Aim:
        """From `dice` or `fp-per-scan=X`; UsageError for anything else."""
        if text == "dice":
            return cls()
        name, _, value = text.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if name != "fp-per-scan" or not 0 <= rate < float("inf"):
            raise UsageError(
                f"aim {text!r} is not known; give dice or fp-per-scan=X with a number X from 0 on"
            )
        return cls(rate)


@dataclass(frozen=True)
class _Setting:
    threshold: float
    minimum_mm3: float
    minimum_confidence: float
    by_case: NDArray[np.float64]
    sensitivity: float
    fp_per_scan: float

    @property
    def dice(self) -> float:
        """Mean Dice over the cases."""
        return float(self.by_case.mean())

    @property
    def strictness(self) -> tuple[float, float]:
        """How much it drops."""
        return self.minimum_mm3, self.minimum_confidence


def cut(
    case: str,
    truth: NDArray[np.bool_],
    probability: NDArray[np.float32],
    voxel_mm3: float,
    thresholds: Sequence[float] = THRESHOLDS,
    spacing_zyx_mm: Sequence[float] | None = None,
) -> tuple[Candidates, ...]:
    """The lesions of one case at every threshold, small enough to keep for all cases.

    Args:
        truth: true foreground, shape (z, y, x).
        probability: foreground probability, same shape.
        thresholds: in ascending order.
        spacing_zyx_mm: the voxel size, for a second look at what reaches one half; without, there is none.
    """
    if probability.shape != truth.shape:
        raise UsageError.at(
            case, f"a probability map of shape {probability.shape} does not fit a truth of {truth.shape}"
        )
    # In the map's own precision, as prediction compares: float32 0.7 reaches the threshold 0.7.
    levels = np.asarray(thresholds, dtype=probability.dtype)
    box = _box(truth | (probability >= levels[0]))
    truth, probability = truth[box], probability[box]
    true_lesions, true_count = label_components(truth)  # once: whole scans take seconds
    rows = []
    for level in levels:
        lesions, count = label_components(probability >= level)
        overlaps = find_overlaps(true_lesions, true_count, lesions, count)
        given = None
        if spacing_zyx_mm is not None and level == ONE_HALF:
            given = features(lesions, count, probability, spacing_zyx_mm)
        rows.append(
            Candidates(case, voxel_mm3, overlaps, highest(probability, lesions, count), features=given)
        )
    return tuple(rows)


def choose(
    cases: Sequence[Sequence[Candidates]],
    aim: Aim | None = None,
    temperature: float = 1.0,
    patients: Mapping[str, str] | None = None,
    where: str = "the inner split",
) -> OperatingPoint:
    """Choose threshold, minimum size and minimum confidence together, on cases that the network did not learn from.

    For the best Dice: the threshold first, with nothing dropped, on the cases with a lesion. It is one half unless
    they prove another better: each threshold's paired gain over one half has a lower bound, and the threshold of the
    greatest bound above 0 is taken. Few cases, or cases that disagree, so move it little. Then, on all cases, the least
    dropping whose mean Dice lies within 0.002 of the best that dropping can reach: of the settings that cost the cases
    with a lesion no more than 0.002, or whose gain over all cases is proven. So one or two empty scans that fall silent
    do not outweigh lesions. Neither minimum is so high that a new lesion, by the spread of those that are there and of
    a usual one, would fall below it with a chance of more than 0.025, unless the gain by that confidence is proven. So
    few lesions, or lesions of many sizes, allow little dropping.

    At one half a second look then decides which components are reported, in place of that dropping, if it does better:
    trained on all patients but one and judged on that one, in turn, it has the greater lesion F1 and no lower mean
    Dice.

    For a rate of false positives: of all settings that keep to it, the greatest sensitivity; of those within 0.002 of
    it the best Dice; of equals the one that drops least. If none keeps to it, the one with the fewest false positives.

    A point that finds no lesion is not chosen for the best Dice where another finds one, however many cases are
    empty. If no setting finds a lesion, or no case holds one, there is no choice: the default point is given, and `how`
    says so. For a rate of false positives, cases without a lesion do tell.

    Args:
        cases: of every case, its lesions at every threshold, see `cut`; probabilities as the network gives them.
        aim: the best mean Dice by default.
        temperature: what prediction will temper the probabilities with. The choice is the same at any, but
            it is given in tempered probabilities.
        patients: case name to patient; without, every case is one.
        where: what the cases are, for `how`.

    Raises:
        UsageError: without cases.
    """
    if not cases:
        raise UsageError("choosing an operating point needs at least one case")
    aim = aim or Aim()
    levels = list(THRESHOLDS)
    by_case = np.array([[each.dice(each.kept(0, 0)) for each in row] for row in cases])
    everything = by_case.mean(axis=0)
    lesions = sum(map(_lesions, cases))
    hitting = [i for i in range(len(levels)) if _finds(cases, i)]
    if lesions and not hitting:
        chosen, how = (
            None,
            (
                f"not chosen, the default: no threshold finds one of the {lesions} lesions in {counted(len(cases))} of "
                f"{where}"
            ),
        )
    elif not lesions and aim.fp_per_scan is None:
        chosen, how = (
            None,
            f"not chosen, the default: none of the {len(cases)} cases of {where} holds a lesion",
        )
    else:
        chosen, how = _best(cases, aim, by_case, levels, hitting or range(len(levels)), where)
    if not lesions and chosen is not None:
        how = f"not chosen for lesions: none of the {len(cases)} cases of {where} holds one; {how}"
    threshold = levels[_nearest(levels, range(len(levels)))] if chosen is None else chosen.threshold
    size, confidence = (chosen.minimum_mm3, chosen.minimum_confidence) if chosen else (0.0, 0.0)
    of = [(patients or {}).get(row[0].case, row[0].case) for row in cases]
    weights, looked = _second_look([row[levels.index(threshold)] for row in cases], of, chosen, aim)
    if chosen and looked:
        how += (
            f"; a second look decides what is reported: lesion F1 {_f1(looked, lesions, len(cases)):.3f} on patients "
            f"left out one by one, {_f1(chosen, lesions, len(cases)):.3f} by minimum size and confidence"
        )
    line = _settings(cases, levels.index(threshold), threshold, (size,)) if lesions else []

    def given(probability: float) -> float:
        return float(temper(np.asarray(probability, dtype=np.float64), temperature))

    return OperatingPoint(
        threshold=given(threshold),
        minimum_mm3=size,
        minimum_confidence=given(confidence),
        how=how,
        curve=tuple((given(level), float(dice)) for level, dice in zip(levels, everything, strict=True)),
        froc=tuple((given(s.minimum_confidence), s.fp_per_scan, s.sensitivity) for s in reversed(line)),
        lesions=lesions,
        found=round((looked or chosen).sensitivity * lesions) if chosen else 0,
        temperature=temperature,
        second_look=weights,
    )


def _second_look(
    column: Sequence[Candidates], patients: Sequence[str], chosen: _Setting | None, aim: Aim
) -> tuple[tuple[float, ...], _Setting | None]:
    """Weights of a second look with its cutoff, and what it makes of the cases; none unless it does better."""
    nothing: tuple[tuple[float, ...], _Setting | None] = (), None
    rows = [(each.features, each.matched()) for each in column if each.features is not None]
    if chosen is None or aim.fp_per_scan is not None or len(rows) < max(len(column), 2):
        return nothing
    right = np.concatenate([matched for _, matched in rows])
    if min(np.count_nonzero(right), np.count_nonzero(~right)) < LEAST_CANDIDATES:
        return nothing
    left_out = []
    for each, (given, _), patient in zip(column, rows, patients, strict=True):
        weights = _fitted([row for row, other in zip(rows, patients, strict=True) if other != patient])
        if not weights:
            return nothing
        left_out.append((replace(each, confidence=lesion_chance(weights, given)),))
    filled = np.array([each.overlaps.truth_voxels.size > 0 for each in column])
    best = _worth_dropping(_settings(left_out, 0, 0.0, (0.0,)), filled)
    lesions, count = sum(each.overlaps.truth_voxels.size for each in column), len(column)
    better = _f1(best, lesions, count) > _f1(chosen, lesions, count)
    if not better or best.dice < chosen.dice - PLATEAU or not best.minimum_confidence:
        return nothing
    constant, *slopes = _fitted(rows)
    return (constant - float(scipy.special.logit(best.minimum_confidence)), *slopes), best


def _fitted(rows: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> tuple[float, ...]:
    if not rows:
        return ()
    given, right = zip(*rows, strict=True)
    return fit_second_look(np.concatenate(given), np.concatenate(right))


def _f1(setting: _Setting, lesions: int, cases: int) -> float:
    """2 found / (2 found + missed + false)."""
    found = setting.sensitivity * lesions
    return 2 * found / max(found + lesions + setting.fp_per_scan * cases, 1)


def _best(
    cases: Sequence[Sequence[Candidates]],
    aim: Aim,
    by_case: NDArray[np.float64],
    levels: Sequence[float],
    among: Sequence[int],
    where: str,
) -> tuple[_Setting, str]:
    """The setting that suits the aim, and how it was chosen; `among` are the thresholds to choose from for Dice."""
    sizes, count = _sizes(cases), len(cases)
    if aim.fp_per_scan is None:
        filled = np.array([_lesions(row) > 0 for row in cases])
        start = _nearest(levels, among)
        threshold = _surest(by_case[filled], start, among)
        first = (
            "one half"
            if levels[start] == ONE_HALF
            else f"{levels[start]:g}, the nearest to one half that finds a lesion"
        )
        on = f"{counted(int(filled.sum()))} with a lesion of {where}"
        how = (
            f"{first}: no threshold is proven better on {on}"
            if threshold == start
            else f"surest gain in mean Dice over {first} on {on}"
        )
        settings = _settings(cases, threshold, levels[threshold], sizes)
        return _worth_dropping(settings, filled, _surest_drop(cases, threshold)), how
    settings = [s for i, level in enumerate(levels) for s in _settings(cases, i, level, sizes)]
    keeping = [s for s in settings if s.fp_per_scan <= aim.fp_per_scan + 1e-9]
    how = (
        f"greatest lesion sensitivity at {aim.fp_per_scan:g} false positives per scan or fewer on {count} "
        f"cases of {where}"
    )
    if not keeping:
        fewest = min(s.fp_per_scan for s in settings)
        keeping = [s for s in settings if s.fp_per_scan == fewest]
        how += f"; none keeps to it, this has {fewest:g}"
    best = max(s.sensitivity for s in keeping)
    if any(map(_lesions, cases)) and not best:
        how += "; no lesion is found so"
    found = [s for s in keeping if s.sensitivity >= best - PLATEAU]
    dice = max(s.dice for s in found)
    return min((s for s in found if s.dice >= dice - PLATEAU), key=lambda s: s.strictness), how


def _lesions(row: Sequence[Candidates]) -> int:
    """How many true lesions a case holds."""
    return int(row[0].overlaps.truth_voxels.size)


def _finds(cases: Sequence[Sequence[Candidates]], threshold: int) -> bool:
    """Whether a threshold finds a true lesion, with nothing dropped."""
    return any(row[threshold].overlaps.match().pairs for row in cases)


def _nearest(levels: Sequence[float], among: Sequence[int]) -> int:
    """The threshold nearest to one half, in log odds."""
    return min(among, key=lambda i: abs(scipy.special.logit(levels[i])))


def _surest(by_case: NDArray[np.float64], start: int, among: Sequence[int]) -> int:
    """Of Dice by (case, threshold), the threshold whose gain over that at `start` has the greatest lower bound; `start`
    if none lies above 0, the nearest to it of several equals."""
    bounds = [_bound(by_case[:, i] - by_case[:, start]) for i in among]
    greatest = max(bounds)
    if greatest <= 0:
        return start
    return min(
        (i for i, bound in zip(among, bounds, strict=True) if bound == greatest), key=lambda i: abs(i - start)
    )


def _bound(gains: NDArray[np.float64]) -> float:
    """What a mean gain lies above with a chance of `SURE`, by Student's t; minus infinity with fewer than two cases."""
    if len(gains) < 2:
        return -np.inf
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return float(gains.mean() - scipy.special.stdtrit(len(gains) - 1, SURE) * error)


def _worth_dropping(
    settings: Sequence[_Setting], filled: NDArray[np.bool_], surest: float = np.inf
) -> _Setting:
    """The setting to report by among those at one threshold, the first of which drops nothing; see `choose`.

    Above the confidence `surest` only a proven gain counts.
    """
    gains = [setting.by_case - settings[0].by_case for setting in settings]
    allowed = [
        setting
        for setting, gain in zip(settings, gains, strict=True)
        if (gain[filled].mean() >= -PLATEAU and setting.minimum_confidence <= surest) or _bound(gain) > 0
    ]
    allowed = [setting for setting in allowed if setting.sensitivity > 0] or allowed
    best = max(setting.dice for setting in allowed)
    return min((s for s in allowed if s.dice >= best - PLATEAU), key=lambda s: s.strictness)


def _settings(
    cases: Sequence[Sequence[Candidates]], threshold: int, level: float, sizes: Sequence[float]
) -> list[_Setting]:
    """What comes of every minimum size and confidence at one threshold; the least dropping first."""
    column = [row[threshold] for row in cases]
    lesions = sum(each.overlaps.truth_voxels.size for each in column)
    # A minimum confidence at or below the threshold drops nothing.
    confidences = (0.0, *(c for c in CONFIDENCES if c > level))
    found = []
    for size in sizes:
        for confidence in confidences:
            keeps = [each.kept(size, confidence) for each in column]
            matchings = [each.overlaps.match(keep) for each, keep in zip(column, keeps, strict=True)]
            hits = sum(len(matching.pairs) for matching in matchings)
            false = sum(len(matching.unmatched_predicted) for matching in matchings)
            dice = np.array([each.dice(keep) for each, keep in zip(column, keeps, strict=True)])
            sensitivity = hits / lesions if lesions else 0.0
            found.append(_Setting(level, size, confidence, dice, sensitivity, false / len(column)))
    return found


def _sizes(cases: Sequence[Sequence[Candidates]]) -> tuple[float, ...]:
    """The minimum sizes to try: 0 and geometric steps from two voxels up to the greatest that is allowed.

    A new lesion is seldom smaller than that, see `BELOW`, and no true lesion of the cases is.
    """
    volumes = np.concatenate([row[0].truth_mm3 for row in cases])
    least = 2 * min(row[0].voxel_mm3 for row in cases)
    greatest = (
        min(float(np.exp(_new_one(np.log(volumes), USUAL_LOG_VOLUME))), float(volumes.min()))
        if volumes.size
        else 0.0
    )
    if greatest < least:
        return (0.0,)
    return (0.0, *(float(f"{v:.3g}") for v in np.geomspace(least, greatest, SIZES)[:-1]), greatest)


def _surest_drop(cases: Sequence[Sequence[Candidates]], threshold: int) -> float:
    """The confidence that a new lesion seldom falls short of, see `BELOW`, by the lesions that a threshold finds."""
    column = [row[threshold] for row in cases]
    found = np.concatenate([each.confidence[each.matched()] for each in column]).astype(np.float64)
    log_odds = scipy.special.logit(np.clip(found, 1 - MOST_SURE, MOST_SURE))
    return float(scipy.special.expit(_new_one(log_odds, USUAL_LOG_ODDS)))


def _new_one(values: NDArray[np.float64], usual: float) -> float:
    """What another value of a normal distribution lies below with the chance `BELOW`; minus infinity without two.

    Args:
        usual: the spread that counts as one more value.
    """
    if (count := len(values)) < 2:
        return -np.inf
    spread = np.sqrt((((values - values.mean()) ** 2).sum() + usual**2) / count)
    error = spread * np.sqrt(1 + 1 / count)
    return float(values.mean() + scipy.special.stdtrit(count, BELOW) * error)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The bounding box of a mask; a single voxel of an empty one."""
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 1))
    return tuple(box)

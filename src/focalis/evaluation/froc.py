"""FROC: sensitivity against false positives per scan as the required confidence falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.evaluation.intervals import LEVEL, patients_of
from focalis.lesions import Candidates, as_csv

RATES = tuple(float(rate) for rate in np.round(np.geomspace(1 / 8, 16, 57), 4))
"""False positives per scan at which the curve and its band are given: 1/8 to 16, eight steps to an octave."""
DRAWS = 1000
_CUTOFFS = 400
_CLASSES = 3

FROC_RULE = (
    "FROC: a cutoff on the lesions' confidence falls from 1; at every cutoff the lesions that reach it "
    "are matched anew. Sensitivity is true lesions found of true lesions there; false positives are given "
    "per scan, over all scans. The curve at a rate is the greatest sensitivity with no more false "
    "positives than that. Scans without any true lesion are given apart too. The band is a 95 % "
    "percentile bootstrap over patients. The curve ends where the predicted lesions end: predict with a "
    "lower threshold, minimum size and minimum confidence for a longer one."
)


@dataclass(frozen=True)
class FrocPoint:
    """One cutoff.

    Attributes:
        confidence: lesions count from this confidence on.
        sensitivity: true lesions found, as a share.
        by_class: the same per size class; None for a class without lesions.
        fp_per_scan: false positives per scan, over all scans.
        fp_per_lesion_scan: over the scans with a true lesion; None without such scans.
        fp_per_empty_scan: over the scans without; None without such scans.
        empty_scans_alarmed: the share of the scans without a true lesion that have a false positive; None likewise.
    """

    confidence: float
    sensitivity: float
    by_class: tuple[float | None, ...]
    fp_per_scan: float
    fp_per_lesion_scan: float | None
    fp_per_empty_scan: float | None
    empty_scans_alarmed: float | None


@dataclass(frozen=True)
class FrocRate:
    """The curve at a rate of false positives, with its 95 % band; without ends with fewer than two patients.

    The sensitivity is None for a size class without lesions.
    """

    fp_per_scan: float
    sensitivity: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Froc:
    """A FROC curve.

    Attributes:
        points: one per cutoff, the highest first.
        rates: the curve at `RATES`, as far as it reaches.
        class_rates: the same of each size class, with its own band: its sensitivity at false positives of any size.
        classes: upper volume of each size class in mm3, the last without end (None), and its true lesions.
        scans, empty_scans: number of scans, and of those without a true lesion.
    """

    points: tuple[FrocPoint, ...]
    rates: tuple[FrocRate, ...]
    class_rates: tuple[tuple[FrocRate, ...], ...]
    classes: tuple[tuple[float | None, int], ...]
    scans: int
    empty_scans: int
    lesions: int
    seed: int


def size_classes(volumes_mm3: NDArray[np.float64]) -> tuple[float, ...]:
    """The inner borders of size classes with about as many lesions each, to two digits; fewer if lesions are few."""
    if volumes_mm3.size < 2 * _CLASSES:
        return ()
    borders = np.quantile(volumes_mm3, np.arange(1, _CLASSES) / _CLASSES)
    return tuple(dict.fromkeys(float(f"{border:.2g}") for border in borders))


def froc(
    candidates: Sequence[Candidates],
    patients: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Froc | None:
    """The FROC curve of predicted lesions; None without a true lesion.

    Args:
        candidates: of every scan; several for a scan with several labels, whose lesions are then pooled.
        patients: case name to patient; patients are what the bootstrap draws. Without, every case is one.
    """
    scans = list(dict.fromkeys(each.case for each in candidates))
    volumes = np.concatenate([each.truth_mm3 for each in candidates]) if candidates else np.zeros(0)
    if not volumes.size:
        return None
    borders = size_classes(volumes)
    cutoffs = _cutoffs(candidates)
    there, found, false = (
        np.zeros((len(scans), len(borders) + 1)),
        np.zeros((len(scans), len(borders) + 1, cutoffs.size)),
        np.zeros((len(scans), cutoffs.size)),
    )
    for each in candidates:
        scan = scans.index(each.case)
        kind = np.digitize(each.truth_mm3, borders)
        np.add.at(there[scan], kind, 1)
        for start, hits, wrong in _steps(each, cutoffs):
            false[scan, start:] += wrong
            found[scan][:, start:] += np.bincount(kind[hits], minlength=len(borders) + 1)[:, None]
    empty = there.sum(axis=1) == 0
    groups = patients_of(scans, patients)
    rates = _rates(there.sum(axis=1), found.sum(axis=1), false, groups, seed)
    class_rates = tuple(
        _rates(there[:, k], found[:, k], false, groups, seed) for k in range(len(borders) + 1)
    )

    def per(rows: NDArray[np.bool_], values: NDArray[np.float64], i: int) -> float | None:
        return float(values[rows, i].mean()) if rows.any() else None

    total = there.sum(axis=0)
    points = tuple(
        FrocPoint(
            confidence=float(cutoff),
            sensitivity=float(found[..., i].sum() / total.sum()),
            by_class=tuple(
                float(found[:, k, i].sum() / total[k]) if total[k] else None for k in range(total.size)
            ),
            fp_per_scan=float(false[:, i].mean()),
            fp_per_lesion_scan=per(~empty, false, i),
            fp_per_empty_scan=per(empty, false, i),
            empty_scans_alarmed=per(empty, (false > 0).astype(np.float64), i),
        )
        for i, cutoff in enumerate(cutoffs)
    )
    classes = tuple(zip((*borders, None), (int(n) for n in total), strict=True))
    return Froc(points, rates, class_rates, classes, len(scans), int(empty.sum()), int(volumes.size), seed)


def froc_csv(curve: Froc) -> str:
    """The points as CSV text: a row per cutoff, a column of sensitivity per size class (see `Froc.classes`)."""
    names = [f"sensitivity_class_{number}" for number in range(1, len(curve.classes) + 1)]
    rows = [
        {
            **{name: value for name, value in vars(point).items() if name != "by_class"},
            **dict(zip(names, point.by_class, strict=True)),
        }
        for point in curve.points
    ]
    columns = [name for name in FrocPoint.__dataclass_fields__ if name != "by_class"] + names
    return as_csv(rows, columns)


def bands_csv(curve: Froc) -> str:
    """The curve at fixed rates as CSV text: a row per rate; sensitivity, low and high, overall and per size class."""
    rows = []
    for number, rate in enumerate(curve.rates):
        row: dict[str, object] = {**vars(rate)}
        for kind, rates in enumerate(curve.class_rates, start=1):
            own = rates[number]
            row |= {f"sensitivity_class_{kind}": own.sensitivity}
            row |= {f"low_class_{kind}": own.low, f"high_class_{kind}": own.high}
        rows.append(row)
    return as_csv(rows, list(rows[0]))


def _cutoffs(candidates: Sequence[Candidates]) -> NDArray[np.float64]:
    """The confidences at which anything changes, from the highest; evenly thinned if they are very many."""
    distinct = np.unique(np.concatenate([each.confidence for each in candidates]))[::-1]
    if distinct.size > _CUTOFFS:
        distinct = distinct[np.unique(np.linspace(0, distinct.size - 1, _CUTOFFS).round().astype(int))]
    return distinct


def _steps(each: Candidates, cutoffs: NDArray[np.float64]) -> list[tuple[int, NDArray[np.int64], int]]:
    """The changes at each cutoff: its index, the true lesions found from there on, and additional false positives."""
    steps = []
    before, wrong_before = np.zeros(each.truth_mm3.size, dtype=bool), 0
    present = np.searchsorted(-cutoffs, -each.confidence, side="left")
    for index in np.unique(present[present < cutoffs.size]):
        matching = each.overlaps.match(present <= index)
        now = before.copy()
        now[[pair[0] - 1 for pair in matching.pairs]] = True
        wrong = len(matching.unmatched_predicted)
        steps.append((int(index), np.flatnonzero(now & ~before), wrong - wrong_before))
        before, wrong_before = now, wrong
    return steps


def _rates(
    there: NDArray[np.float64],
    found: NDArray[np.float64],
    false: NDArray[np.float64],
    groups: Sequence[str],
    seed: int,
) -> tuple[FrocRate, ...]:
    """The curve at fixed rates of false positives, and its band over patients drawn with replacement."""
    names = list(dict.fromkeys(groups))
    member = np.zeros((len(names), len(groups)))
    member[[names.index(group) for group in groups], np.arange(len(groups))] = 1

    def curve(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sensitivity at every rate, shape (rates,), of scans with these weights; NaN without a true lesion."""
        if not there.any() or not weights @ there:
            return np.full(len(RATES), np.nan)
        rate = np.concatenate([[0.0], weights @ false / weights.sum()])
        hit = np.concatenate([[0.0], weights @ found / (weights @ there)])
        last = np.searchsorted(rate, np.asarray(RATES) + 1e-9, side="right") - 1
        values: NDArray[np.float64] = np.maximum.accumulate(hit)[last]
        return values

    whole = curve(np.ones(len(groups)))
    low = high = np.full(len(RATES), np.nan)
    if len(names) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS) @ member
        samples = np.stack([curve(weights) for weights in drawn])
        tail = (1 - LEVEL) / 2
        if there.any():
            low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    furthest = float(false.mean(axis=0).max(initial=0.0))
    reached = [i for i, rate in enumerate(RATES) if i == 0 or RATES[i - 1] < furthest]
    return tuple(
        FrocRate(
            RATES[i],
            None if np.isnan(whole[i]) else float(whole[i]),
            None if np.isnan(low[i]) else float(low[i]),
            None if np.isnan(high[i]) else float(high[i]),
        )
        for i in reached
    )

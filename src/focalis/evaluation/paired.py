"""Two or more systems on the same cases: their figures, pooled over repeated runs, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from focalis.evaluation.cases import Score
from focalis.evaluation.intervals import patients_of, pooled, ratio_difference_interval

FIGURES = ("dice", "dice_with_lesion", "hd95_mm", "lesion_f1", "false_positives_per_scan")
"""Mean Dice, the same over the cases with a lesion, their mean HD95 in mm,
lesion F1 from pooled counts, false positive lesions per scan."""

POOLING_RULE = (
    "Runs of one system with several seeds are not further patients: of each case the mean over its runs is taken "
    "(of lesions, the mean count), and only then are patients drawn. So the intervals speak of other patients, not of "
    "other seeds; how far the seeds lie apart is given beside them. A paired difference is taken on the cases that "
    "both systems have, every draw with the same patients for both."
)


@dataclass(frozen=True)
class Figure:
    """One figure of a system, or a difference of two.

    Attributes:
        value: None where it is undefined in every case.
        low, high: 95 % bootstrap interval over patients; None with fewer than two patients.
    """

    value: float | None
    low: float | None
    high: float | None
    cases: int


def figures_of(
    runs: Sequence[Sequence[Score]], patients: Mapping[str, str] | None = None
) -> dict[str, Figure]:
    """The `FIGURES` of one system, pooled over its runs by `POOLING_RULE`.

    Args:
        runs: the scores of each run; runs of several folds hold different cases, runs of several seeds the same.
        patients: case name to patient; every case counts as a patient of its own without it.
    """
    return {name: _figure(_parts(runs, name), patients) for name in FIGURES}


def paired_differences(
    first: Sequence[Sequence[Score]],
    second: Sequence[Sequence[Score]],
    patients: Mapping[str, str] | None = None,
) -> dict[str, Figure]:
    """The `FIGURES` of the first system minus those of the second, on the cases where both have them.

    Arguments as in `figures_of`.
    """
    found = {}
    for name in FIGURES:
        a, b = _parts(first, name), _parts(second, name)
        cases = [case for case in a if case in b]
        found[name] = _difference([a[case] for case in cases], [b[case] for case in cases], cases, patients)
    return found


_Part = tuple[float, float]
"""What one case adds to the numerator and to the denominator of a figure."""


def _parts(runs: Sequence[Sequence[Score]], figure: str) -> dict[str, _Part]:
    """The part of every case in which the figure is defined, in order of the names."""
    by_case: dict[str, list[list[Score]]] = {}
    for run in runs:
        rows: dict[str, list[Score]] = {}
        for score in run:
            rows.setdefault(score.case, []).append(score)
        for case, labels in rows.items():
            by_case.setdefault(case, []).append(labels)
    found: dict[str, _Part] = {}
    for case, repeats in sorted(by_case.items()):
        parts = [part for labels in repeats if (part := _part(labels, figure)) is not None]
        if parts:
            top, bottom = np.mean(parts, axis=0)
            found[case] = float(top), float(bottom)
    return found


def _part(labels: Sequence[Score], figure: str) -> _Part | None:
    """The part of one case in one run, from the scores of its labels."""
    detected = sum(score.detected_lesions for score in labels)
    predicted = sum(score.predicted_lesions for score in labels)
    if figure == "lesion_f1":
        return 2.0 * detected, float(predicted + sum(score.truth_lesions for score in labels))
    if figure == "false_positives_per_scan":
        return float(predicted - detected), 1.0
    name = "dice" if figure == "dice_with_lesion" else figure
    there = labels if figure == "dice" else [score for score in labels if score.truth_voxels]
    defined = [value for score in there if (value := getattr(score, name)) is not None]
    return (float(np.mean(defined)), 1.0) if defined else None


def _figure(parts: Mapping[str, _Part], patients: Mapping[str, str] | None) -> Figure:
    tops, bottoms = [top for top, _ in parts.values()], [bottom for _, bottom in parts.values()]
    found = pooled(list(parts), tops, bottoms, patients)
    return Figure(found.value, found.low, found.high, len(parts))


def _difference(
    first: Sequence[_Part],
    second: Sequence[_Part],
    cases: Sequence[str],
    patients: Mapping[str, str] | None,
) -> Figure:
    (a, b), (c, d) = ([[part[side] for part in parts] for side in (0, 1)] for parts in (first, second))
    if not (sum(b) > 0 and sum(d) > 0):
        return Figure(None, None, None, len(cases))
    value = sum(a) / sum(b) - sum(c) / sum(d)
    groups = patients_of(cases, patients)
    if len(set(groups)) < 2:
        return Figure(value, None, None, len(cases))
    low, high = ratio_difference_interval((a, b), (c, d), groups=groups)
    return Figure(value, low, high, len(cases))

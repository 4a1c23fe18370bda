"""From the scores of many cases to the figures that are reported, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from focalis.display import Shown
from focalis.evaluation.cases import Score
from focalis.evaluation.intervals import Pooled, pooled

METRICS = {
    "dice": ("Dice, all cases", 3),
    "dice_with_lesion": ("Dice, cases with a lesion", 3),
    "iou": ("IoU", 3),
    "sensitivity": ("Sensitivity, voxels", 3),
    "precision": ("Precision, voxels", 3),
    "volume_error_mm3": ("Volume error, mm³", 1),
    "relative_volume_error": ("Volume error, relative", 3),
    "hd95_mm": ("HD95, mm, all cases", 2),
    "hd95_with_lesion_mm": ("HD95, mm, cases with a lesion", 2),
    "assd_mm": ("ASSD, mm", 2),
    "surface_dice": ("Surface Dice", 3),
}
"""Each metric with its title in tables and the digits after the point."""


@dataclass(frozen=True)
class Statistic:
    """One metric over cases.

    Attributes:
        mean, median: over the cases where the metric is defined; None if there is none.
        low, high: 95 % bootstrap interval of the mean; None with fewer than two patients.
        n: cases where the metric is defined.
        undefined: cases where it is not.
    """

    metric: str
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    n: int
    undefined: int


@dataclass(frozen=True)
class LesionSummary:
    """Detection of lesions: counts summed over the cases, then divided.

    Attributes:
        truth_lesions, predicted_lesions, detected_lesions, split_lesions, merged_lesions: sums over the cases.
        sensitivity, precision, f1: from these sums.
        false_positives_per_scan: false positive lesions divided by the number of cases.
    """

    truth_lesions: int
    predicted_lesions: int
    detected_lesions: int
    split_lesions: int
    merged_lesions: int
    sensitivity: Pooled
    precision: Pooled
    f1: Pooled
    false_positives_per_scan: Pooled


@dataclass(frozen=True, repr=False)
class LabelSummary(Shown):
    """One label over all cases, or (label None) all labels together.

    Attributes:
        statistics: one per metric of `METRICS`, in that order.
        lesions: pooled detection.
    """

    label: int | None
    name: str
    cases: int
    statistics: tuple[Statistic, ...]
    lesions: LesionSummary

    def __getitem__(self, metric: str) -> Statistic:
        """The statistic of a metric by name."""
        return next(s for s in self.statistics if s.metric == metric)


@dataclass(frozen=True, repr=False)
class Summary(Shown):
    """All figures of an evaluation.

    Attributes:
        overall: over the labels: of each case the mean over its labels where defined, then as for one label;
            lesions of all labels are pooled.
    """

    shows = ("cases", "dice")

    labels: tuple[LabelSummary, ...]
    overall: LabelSummary

    @property
    def cases(self) -> int:
        """How many cases were scored."""
        return self.overall.cases

    @property
    def dice(self) -> float | None:
        """The mean Dice over labels and cases."""
        return self.overall["dice"].mean


def summarise(
    scores: Sequence[Score], *, patients: Mapping[str, str] | None = None, seed: int = 0
) -> Summary:
    """Summarise the scores of all cases, per label and over labels.

    Args:
        scores: one or more, in any order.
        patients: case name to patient. Patients are what the bootstrap draws, each with all of its cases;
            without this every case counts as a patient of its own.
        seed: seed of the bootstrap; one seed draws the same patients for every metric defined in all cases.
    """
    by_label: dict[int, list[Score]] = {}
    for score in scores:
        by_label.setdefault(score.label, []).append(score)
    sampling = _Sampling(patients, seed)
    labels = tuple(
        _summarise_label(label, rows[0].name, [[row] for row in rows], sampling)
        for label, rows in sorted(by_label.items())
    )
    if len(labels) == 1:
        return Summary(labels, replace(labels[0], label=None, name="all labels"))
    by_case: dict[str, list[Score]] = {}
    for score in scores:
        by_case.setdefault(score.case, []).append(score)
    return Summary(labels, _summarise_label(None, "all labels", list(by_case.values()), sampling))


def case_dice(scores: Iterable[Score]) -> float:
    """The Dice of one case: the mean over its labels, without those that are empty in truth and prediction.

    1 if all are.
    """
    marked = [score.dice for score in scores if score.truth_voxels or score.predicted_voxels]
    return float(np.mean(marked)) if marked else 1.0


def representative_cases(scores: Sequence[Score]) -> tuple[tuple[str, str], ...]:
    """The ("best", case), ("median", case) and ("worst", case) by `case_dice`.

    Cases without a lesion count only where no case has one: an empty case is perfect if nothing is marked.
    With fewer than three cases the later of these names that would repeat a case are left out. Ties go by
    name.
    """
    by_case: dict[str, list[Score]] = {}
    filled = {score.case for score in scores if score.truth_voxels}
    for score in scores:
        if not filled or score.case in filled:
            by_case.setdefault(score.case, []).append(score)
    ranked = sorted(by_case, key=lambda case: (-case_dice(by_case[case]), case))
    if not ranked:
        return ()
    picks = {"best": ranked[0], "worst": ranked[-1], "median": ranked[(len(ranked) - 1) // 2]}
    chosen: dict[str, str] = {}
    for kind, case in picks.items():
        if case not in chosen.values():
            chosen[kind] = case
    return tuple((kind, chosen[kind]) for kind in ("best", "median", "worst") if kind in chosen)


@dataclass(frozen=True)
class _Sampling:
    patients: Mapping[str, str] | None
    seed: int

    def pooled(
        self, cases: list[str], tops: Sequence[float], bottoms: Sequence[float] | None = None
    ) -> Pooled:
        return pooled(cases, tops, bottoms, self.patients, self.seed)


def _summarise_label(
    label: int | None, name: str, cases: list[list[Score]], sampling: _Sampling
) -> LabelSummary:
    return LabelSummary(
        label=label,
        name=name,
        cases=len(cases),
        statistics=tuple(_statistic(metric, cases, sampling) for metric in METRICS),
        lesions=_lesions(cases, sampling),
    )


def _statistic(metric: str, cases: list[list[Score]], sampling: _Sampling) -> Statistic:
    values: dict[str, float] = {}
    for rows in cases:
        defined = [value for row in rows if (value := getattr(row, metric)) is not None]
        if defined:
            values[rows[0].case] = float(np.mean(defined))
    return statistic(metric, values, len(cases), sampling.pooled(list(values), list(values.values())))


def statistic(metric: str, values: Mapping[str, float], cases: int, mean: Pooled) -> Statistic:
    """A metric over the cases where it is defined; `cases` counts them all, `mean` holds its mean and interval."""
    numbers = list(values.values())
    median = float(np.median(numbers)) if numbers else None
    return Statistic(metric, mean.value, median, mean.low, mean.high, len(numbers), cases - len(numbers))


def _lesions(cases: list[list[Score]], sampling: _Sampling) -> LesionSummary:
    names = [rows[0].case for rows in cases]
    truth = [sum(row.truth_lesions for row in rows) for rows in cases]
    predicted = [sum(row.predicted_lesions for row in rows) for rows in cases]
    detected = [sum(row.detected_lesions for row in rows) for rows in cases]

    return LesionSummary(
        truth_lesions=sum(truth),
        predicted_lesions=sum(predicted),
        detected_lesions=sum(detected),
        split_lesions=sum(row.split_lesions for rows in cases for row in rows),
        merged_lesions=sum(row.merged_lesions for rows in cases for row in rows),
        sensitivity=sampling.pooled(names, detected, truth),
        precision=sampling.pooled(names, detected, predicted),
        f1=sampling.pooled(
            names, [2 * d for d in detected], [t + p for t, p in zip(truth, predicted, strict=True)]
        ),
        false_positives_per_scan=sampling.pooled(
            names, [p - d for p, d in zip(predicted, detected, strict=True)], [1] * len(cases)
        ),
    )

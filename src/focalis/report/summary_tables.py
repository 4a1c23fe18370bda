"""Figures as the rows of tables, formatted for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from focalis.display import counted
from focalis.evaluation import METRICS, LabelSummary, Pooled, Score, Summary, case_dice
from focalis.report.page import DASH, number
from focalis.report.strip import CasePicture


@dataclass(frozen=True)
class SummaryRow:
    """A line of a summary table, ready to print."""

    title: str
    value: str
    interval: str
    median: str
    counted: str


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval in words, or a dash."""
    return DASH if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def summary_rows(summary: LabelSummary) -> list[SummaryRow]:
    """The metrics over cases: mean, interval, median, number of cases."""
    rows = []
    for s in summary.statistics:
        title, digits = METRICS[s.metric]
        rows.append(
            SummaryRow(
                title,
                number(s.mean, digits),
                interval(s.low, s.high, digits),
                number(s.median, digits),
                f"{s.n} of {s.n + s.undefined}" if s.undefined else str(s.n),
            )
        )
    return rows


def lesion_rows(summary: LabelSummary) -> list[SummaryRow]:
    """The lesion-wise figures: pooled value, interval, and the counts behind it."""
    lesions = summary.lesions
    found, there, said = lesions.detected_lesions, lesions.truth_lesions, lesions.predicted_lesions

    def row(title: str, pooled: Pooled, of: str, digits: int = 3) -> SummaryRow:
        return SummaryRow(
            title, number(pooled.value, digits), interval(pooled.low, pooled.high, digits), "", of
        )

    return [
        row("Sensitivity, lesions", lesions.sensitivity, f"{found} of {there}"),
        row("Precision, lesions", lesions.precision, f"{found} of {said}"),
        row("F1, lesions", lesions.f1, ""),
        row(
            "False positives per scan",
            lesions.false_positives_per_scan,
            f"{said - found} in {summary.cases}",
            2,
        ),
        SummaryRow("True lesions split", number(lesions.split_lesions, 0), "", "", f"of {there}"),
        SummaryRow("Predicted lesions that merge", number(lesions.merged_lesions, 0), "", "", f"of {said}"),
    ]


def headline(summary: Summary) -> list[tuple[str, str, str]]:
    """The figures at the top of a report: title with the count behind it, value, interval."""
    overall = summary.overall
    lesions, pooled, extra = (
        overall.lesions,
        overall.lesions.sensitivity,
        overall.lesions.false_positives_per_scan,
    )
    dice, filled, hd95 = overall["dice"], overall["dice_with_lesion"], overall["hd95_with_lesion_mm"]
    return [
        (f"Dice, mean of {counted(overall.cases)}", number(dice.mean), interval(dice.low, dice.high)),
        (f"Dice, the {filled.n} with a lesion", number(filled.mean), interval(filled.low, filled.high)),
        (
            f"HD95 in mm, {hd95.n} of the {filled.n} with a lesion",
            number(hd95.mean, 1),
            interval(hd95.low, hd95.high, 1),
        ),
        (
            f"Lesions found, {lesions.detected_lesions} of {lesions.truth_lesions}",
            number(pooled.value),
            interval(pooled.low, pooled.high),
        ),
        ("False positives per scan", number(extra.value, 2), interval(extra.low, extra.high, 2)),
    ]


def caption(kind: str, case: str, scores: Sequence[Score]) -> str:
    """The line above a picture of a case: best, median or worst, its Dice, and whether there is a lesion in it."""
    own = [score for score in scores if score.case == case]
    dice = case_dice(own)
    filled = {score.case for score in scores if score.truth_voxels}
    everyone = {score.case for score in scores}
    which = f" of the {len(filled)} with a lesion" if filled and filled != everyone else ""
    empty = "" if case in filled else ", no lesion in it"
    return f"{kind.capitalize()} case{which}: {case}, Dice {dice:.3f}{empty}"


def worst_first(scores: Sequence[Score]) -> list[Score]:
    """The rows of the table of cases: lowest Dice first, then by name."""
    return sorted(scores, key=lambda score: (score.dice, score.case, score.label))


def galleries(
    pictures: Sequence[CasePicture], scores: Sequence[Score]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pictures of all cases, lowest Dice first, and of all missed lesions: each with anchor and caption."""
    by_name = {picture.case: picture for picture in pictures}
    rows: dict[str, list[Score]] = {}
    for score in worst_first(scores):
        rows.setdefault(score.case, []).append(score)
    cases = []
    missed = []
    for case, own in rows.items():
        if (picture := by_name.get(case)) is None:
            continue
        dice = ", ".join(
            f"{score.name + ' ' if len(own) > 1 else ''}{number(score.dice, 2)}" for score in own
        )
        cases.append({"anchor": f"case-{case}", "picture": picture.strip, "caption": f"{case}: Dice {dice}"})
        for each, jpeg in picture.missed:
            lesion = each.lesion
            place = f"{lesion.name}, lesion {lesion.number}, {number(lesion.volume_mm3, 0)} mm³"
            anchor = f"missed-{case}-{lesion.label}-{lesion.number}"
            missed.append({"anchor": anchor, "picture": jpeg, "caption": f"{case}: {place}"})
    return cases, missed


def flat(record: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as (dotted name, text) pairs."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(item) for item in value)))
        else:
            rows.append((name, DASH if value is None else str(value)))
    return rows

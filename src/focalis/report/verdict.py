"""What a report says first: the result in a sentence, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from focalis.display import counted, listed
from focalis.evaluation import JudgedLesion, Score, Summary
from focalis.report.page import number
from focalis.report.summary_tables import interval

FEW_CASES = 20
"""With fewer cases with a lesion, the page says that intervals are wide."""


def verdict(summary: Summary) -> str:
    """The lesions found, the false ones and the mean Dice, with their 95 % intervals."""
    overall = summary.overall
    lesions, dice = overall.lesions, overall["dice_with_lesion"]
    if not lesions.truth_lesions:
        false = lesions.false_positives_per_scan
        return (
            f"No case holds a lesion; {number(false.value, 2)} false positives per scan "
            f"({interval(false.low, false.high, 2)})."
        )
    found, false = lesions.sensitivity, lesions.false_positives_per_scan
    dice_said = f"{number(dice.mean, 2)} ({interval(dice.low, dice.high, 2)})"
    return (
        f"{lesions.detected_lesions} of {lesions.truth_lesions} lesions were found, a share of "
        f"{number(found.value, 2)} ({interval(found.low, found.high, 2)}), with {number(false.value, 2)} "
        f"false positives per scan ({interval(false.low, false.high, 2)}). Mean Dice of the "
        f"{counted(dice.n)} with a lesion: {dice_said}. In parentheses: 95 % intervals."
    )


def next_steps(scores: Sequence[Score], summary: Summary, lesions: Sequence[JudgedLesion]) -> list[str]:
    """What to do, a sentence or two each, the most important first; only what the figures give reason for."""
    steps = []
    filled = summary.overall["dice_with_lesion"].n
    failed = [score for score in scores if score.truth_volume_mm3 and not score.dice]
    if beside := sorted({score.case for score in failed if score.predicted_volume_mm3}):
        steps.append(
            f"In {counted(len(beside))} every mark lies beside the lesion: {listed(beside, 5)}. Look at image and "
            "label together first; a mask that is shifted or mirrored does this."
        )
    if unmarked := sorted({score.case for score in failed if not score.predicted_volume_mm3}):
        steps.append(
            f"In {counted(len(unmarked))} nothing is marked, though a lesion is there: {listed(unmarked, 5)}. A lower "
            "threshold and minimum confidence mark more (focalis predict --threshold, --min-confidence)."
        )
    missed = [each.lesion.volume_mm3 for each in lesions if each.status == "missed"]
    found = [each.lesion.volume_mm3 for each in lesions if each.status == "found"]
    if missed and found and median(missed) < median(found) / 2:
        steps.append(
            f"Mostly small lesions are missed: half of the missed ones have at most {number(median(missed), 0)} mm³, "
            f"half of those found at most {number(median(found), 0)} mm³. A lower threshold, minimum size and "
            "minimum confidence find more, and mark more that is not a lesion."
        )
    false = summary.overall.lesions.false_positives_per_scan.value
    if false is not None and false > 1:
        steps.append(
            f"There are {number(false, 1)} false positives per scan. A higher minimum confidence leaves fewer "
            "(focalis predict --min-confidence), or train with --aim fp-per-scan=1."
        )
    if 0 < filled < FEW_CASES:
        steps.append(
            f"Only {counted(filled)} with a lesion: the intervals are wide. More cases make the figures surer; "
            "focalis fit --folds 5 tests on every case once."
        )
    return steps

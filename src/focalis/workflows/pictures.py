"""The pictures of a report: the best, median and worst case large, every case and every missed lesion small."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from focalis.evaluation import JudgedLesion, Score, representative_cases
from focalis.report import CasePicture, caption, case_picture, overlay_figure
from focalis.volume import Volume

MOST = 100
"""Cases with pictures: those with missed lesions and the lowest Dice come first. Each is read once more."""

Read = Callable[[str], tuple[Volume, Volume, Volume]]
"""From a case's name to one channel of its image, its truth and its prediction."""


def draw_cases(
    scores: Sequence[Score], lesions: Sequence[JudgedLesion], read: Read
) -> tuple[list[tuple[str, bytes]], list[CasePicture]]:
    """Captions with the large pictures, and the small ones, in the order of the scores' table.

    Raises:
        DataError: if a file cannot be read, or lies on another grid than the others of its case.
    """
    kinds = {case: kind for kind, case in representative_cases(scores)}
    dice: dict[str, list[float]] = {}
    for score in scores:
        dice.setdefault(score.case, []).append(score.dice)
    missed = {each.case for each in lesions if each.status == "missed"}
    ranked = sorted(dice, key=lambda case: (case not in missed, sum(dice[case]) / len(dice[case]), case))
    large: dict[str, tuple[str, bytes]] = {}
    small = []
    for case in dict.fromkeys([*kinds, *ranked[:MOST]]):
        image, truth, prediction = read(case)
        small.append(case_picture(case, image, truth, prediction, lesions))
        if case in kinds:
            line = caption(kinds[case], case, scores)
            large[case] = line, overlay_figure(image, truth, prediction, line)
    return [large[case] for case in kinds], small

"""Labels that fit their image only once they are mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from focalis.display import listed
from focalis.quality.contrast import FLIPS
from focalis.quality.facts import CaseFacts, LabelFacts
from focalis.quality.finding import (
    BEST_AS_IT_IS,
    CONTRAST_KEPT,
    CONTRAST_LOST,
    FEWEST_TO_COMPARE,
    LEAST_ALIKE,
    SEVERAL,
    USUAL_SHARE,
    Finding,
)

_AXES = ("top and bottom", "front and back", "left and right")


def find_mirrored(
    facts: Sequence[CaseFacts], names: Mapping[int, str], channels: Sequence[str]
) -> Iterator[Finding]:
    """Cases that are suspected by the rule for `mirrored` in `focalis.quality.KINDS`.

    One finding per case, or one for all cases that one mirror image fits.
    """
    said: dict[str, str] = {}
    several: dict[str, Finding] = {}
    for name, rows in per_label(facts, names, len(channels), lambda label: label.contrasts):
        table = np.asarray(list(rows.values()))
        for case, flip in zip(rows, _suspects(table), strict=True):
            if flip:
                said.setdefault(
                    case,
                    f"where {name} lies, the image does not look as in the other cases; it does where the label would "
                    f"lie with {_axes(flip)} exchanged",
                )
        flip, concerned = _alike(table)
        cases = tuple(case for case, wrong in zip(rows, concerned, strict=True) if wrong)
        if cases:
            message = (
                f"in {len(cases)} of {len(rows)} cases ({listed(cases)}) {name} fits the image only with "
                f"{_axes(flip)} exchanged"
            )
            several.setdefault(name, Finding("mirrored", (), message))
    yield from (Finding("mirrored", (each.case,), said[each.case]) for each in facts if each.case in said)
    yield from several.values()


def per_label(
    facts: Sequence[CaseFacts],
    names: Mapping[int, str],
    channels: int,
    measured: Callable[[LabelFacts], Sequence[Sequence[float]]],
) -> Iterator[tuple[str, dict[str, Sequence[float]]]]:
    """Per label and channel: the label's name, and what was measured in each case, a number per entry of `FLIPS`.

    A label that was measured in no image, because no case with it has one, is left out.

    Args:
        facts: what was measured, case by case.
        measured: what is wanted of a label, per channel.
    """
    values = sorted({label.value for case in facts for label in case.labels})
    for value in values:
        for channel in range(channels):
            rows = {
                case.case: measured(label)[channel]
                for case in facts
                for label in case.labels
                if label.value == value and channel < len(measured(label))
            }
            if rows:
                yield names[value], rows


def _axes(flip: int) -> str:
    return " and ".join(axis for axis, turned in zip(_AXES, FLIPS[flip], strict=True) if turned)


def _suspects(table: NDArray[np.float64]) -> NDArray[np.intp]:
    """Per case the flip (index of `FLIPS`) with which its label would fit, 0 if it fits as it is.

    All 0 if labels that do not fit are common, or labels seldom fit as they are.
    """
    no_case = np.zeros(len(table), np.intp)
    usual = float(np.median(table[:, 0])) if len(table) >= FEWEST_TO_COMPARE else 0.0
    if usual == 0:
        return no_case
    share = table / usual
    best = share.argmax(axis=1)
    suspected = (share[:, 0] <= CONTRAST_LOST) & (share.max(axis=1) >= CONTRAST_KEPT)
    if np.mean(best[~suspected] == 0) < BEST_AS_IT_IS or suspected.sum() > max(1.0, USUAL_SHARE * len(table)):
        return no_case
    return np.where(suspected, best, 0)


def _alike(table: NDArray[np.float64]) -> tuple[int, NDArray[np.bool_]]:
    """One flip (index of `FLIPS`) with which the labels of several cases would fit, and which cases these are."""
    no_case = np.zeros(len(table), np.bool_)
    if len(table) < FEWEST_TO_COMPARE:
        return 0, no_case
    greatest = table[np.arange(len(table)), np.abs(table).argmax(axis=1)]
    brighter = np.copysign(1.0, np.median(greatest))
    usual = float(np.median((brighter * table).max(axis=1)))
    if usual <= 0:
        return 0, no_case
    share = brighter * table / usual
    best = share.max(axis=1)
    fits = (share[:, 0] >= CONTRAST_KEPT * best) & (share[:, 0] > CONTRAST_LOST)
    for flip in range(1, len(FLIPS)):
        wrong = (share[:, 0] <= CONTRAST_LOST) & (share[:, flip] >= CONTRAST_KEPT)
        if (
            wrong.sum() >= max(2.0, LEAST_ALIKE * len(table))
            and np.mean(wrong | fits) >= (BEST_AS_IT_IS if wrong.sum() >= SEVERAL else 1)
            and 2 * np.count_nonzero(share[wrong, flip] == best[wrong]) >= wrong.sum()
        ):
            return flip, wrong
    return 0, no_case

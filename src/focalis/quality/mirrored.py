"""Labels that fit their image only once they are mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from focalis.quality.contrast import FLIPS
from focalis.quality.facts import CaseFacts
from focalis.quality.finding import (
    BEST_AS_IT_IS,
    CONTRAST_KEPT,
    CONTRAST_LOST,
    FEWEST_TO_COMPARE,
    USUAL_SHARE,
    Finding,
)

_AXES = ("top and bottom", "front and back", "left and right")


def find_mirrored(
    facts: Sequence[CaseFacts], names: Mapping[int, str], channels: Sequence[str]
) -> Iterator[Finding]:
    """Cases that are suspected by the rule for `mirrored` in `focalis.quality.KINDS`; one finding per case."""
    values = sorted({label.value for case in facts if case.label for label in case.label.labels})
    said: dict[str, str] = {}
    for value in values:
        for channel in range(len(channels)):
            rows = {
                case.case: label.contrasts[channel]
                for case in facts
                if case.label is not None
                for label in case.label.labels
                if label.value == value and channel < len(label.contrasts)
            }
            for name, flip in _suspects(rows).items():
                axes = " and ".join(axis for axis, turned in zip(_AXES, flip, strict=True) if turned)
                said.setdefault(
                    name,
                    f"where {names[value]} lies, the image does not look as in the other cases; it does where the "
                    f"label would lie with {axes} exchanged",
                )
    for case in facts:
        if case.case in said:
            yield Finding("mirrored", (case.case,), said[case.case])


def _suspects(rows: Mapping[str, Sequence[float]]) -> dict[str, tuple[bool, ...]]:
    """Case to the flip with which its label would fit; empty if that is common, or labels seldom fit as they are."""
    table = np.asarray(list(rows.values()))
    usual = float(np.median(table[:, 0])) if len(rows) >= FEWEST_TO_COMPARE else 0.0
    if usual == 0:
        return {}
    share = table / usual
    best = share.argmax(axis=1)
    suspected = (share[:, 0] <= CONTRAST_LOST) & (share.max(axis=1) >= CONTRAST_KEPT)
    if np.mean(best[~suspected] == 0) < BEST_AS_IT_IS or suspected.sum() > max(1.0, USUAL_SHARE * len(rows)):
        return {}
    return {case: FLIPS[flip] for case, flip, wrong in zip(rows, best, suspected, strict=True) if wrong}

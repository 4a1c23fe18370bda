"""Cases whose label lies on the opposite side from nearly all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from focalis.quality.facts import CaseFacts
from focalis.quality.finding import LEAST_CASES, LEAST_OFFSET_MM, OFFSETS_PER_SPREAD, USUAL_SHARE, Finding

MAD_TO_SD = 1.4826
"""The standard deviation of normally distributed numbers, divided by their median absolute deviation."""


def find_swapped_sides(facts: Sequence[CaseFacts], names: Mapping[int, str]) -> Iterator[Finding]:
    """Cases that are suspected to be mirrored, with the labels that say so; one finding per case."""
    said: dict[str, list[str]] = {}
    values = sorted({label.value for case in facts for label in case.labels})
    for value in values:
        where = {case.case: label.left_mm for case in facts for label in case.labels if label.value == value}
        offsets = np.asarray(list(where.values()))
        usual = float(np.median(offsets))
        for name, wrong in zip(where, on_the_other_side(offsets), strict=True):
            if wrong:
                said.setdefault(name, []).append(
                    f"{names[value]} lies {_side(where[name])} of the image's centre, "
                    f"in the other cases {_side(usual)}"
                )
    for case in facts:
        if case.case in said:
            yield Finding("side", (case.case,), "; ".join(said[case.case]))


def on_the_other_side(left_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which offsets from the centre suggest a mirrored case, by the rule for `side` in `focalis.quality.KINDS`.

    Args:
        left_mm: one offset per case, positive to the patient's left.

    Returns:
        One boolean per case; all False if the label has no usual side.
    """
    no_case = np.zeros(left_mm.shape, dtype=np.bool_)
    if left_mm.size < LEAST_CASES:
        return no_case
    usual = float(np.median(left_mm))
    spread = MAD_TO_SD * float(np.median(np.abs(left_mm - usual)))
    opposite = np.count_nonzero(np.sign(left_mm) != np.sign(usual))
    if opposite > max(1.0, USUAL_SHARE * left_mm.size):
        return no_case
    if abs(usual) < max(LEAST_OFFSET_MM, OFFSETS_PER_SPREAD * spread):
        return no_case
    return np.asarray(left_mm * np.sign(usual) <= -abs(usual) / 2)


def _side(left_mm: float) -> str:
    return f"{abs(left_mm):.0f} mm {'left' if left_mm > 0 else 'right'}"

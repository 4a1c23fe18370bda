"""Labels that do not fit their image as those of the other cases do: of another case, shifted, or turned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from focalis.quality.facts import CaseFacts
from focalis.quality.finding import (
    BY_CHANCE,
    ENOUGH,
    FAINT,
    FEW_RANKS,
    FEWEST_TO_COMPARE,
    GREATEST_SPREAD,
    LEAST_RANGE_OF_RANKS,
    MOST_OFF_OF_OTHERS,
    NO_CONTRAST,
    RANKS_AWAY,
    USUAL_SHARE,
    Finding,
)
from focalis.quality.mirrored import per_label
from focalis.quality.position import MAD_TO_SD


def find_misplaced(
    facts: Sequence[CaseFacts],
    names: Mapping[int, str],
    channels: Sequence[str],
    explained: Collection[str] = (),
) -> Iterator[Finding]:
    """Cases that are suspected by the rule for `misplaced` in `focalis.quality.KINDS`; one finding per case.

    Args:
        facts: what was measured, case by case.
        explained: cases of which another finding says what may be wrong with their labels.
    """
    said: dict[str, str] = {}
    nowhere: dict[str, bool] = {}
    every = zip(
        per_label(facts, names, len(channels), lambda label: label.contrasts),
        per_label(facts, names, len(channels), lambda label: label.ranks),
        strict=True,
    )
    for (name, contrasts), (_, ranks) in every:
        stands_out, share = (
            np.asarray(list(rows.values())).reshape(len(rows), -1) for rows in (contrasts, ranks)
        )
        for case, wrong in zip(contrasts, _on_nothing(share), strict=True):
            if wrong:
                said.setdefault(
                    case, f"{name} lies where the image has its least value, unlike in the other cases"
                )
        odd = _unlike_the_others(stands_out, share)
        pair = [case for case, wrong in zip(contrasts, odd, strict=True) if wrong]
        for case in pair:
            other = next((one for one in pair if one != case), "")
            cause = f"is it the label of {other}," if other and len(pair) == 2 else "is it of another case,"
            said.setdefault(
                case,
                f"where {name} lies, the image looks neither as in the other cases nor different from around it: "
                f"{cause} shifted or turned, or does it not show here?",
            )
        nowhere[name] = nowhere.get(name, True) and _nowhere(stands_out, share)
    for each in facts:
        if each.case in said and each.case not in explained:
            yield Finding("misplaced", (each.case,), said[each.case])
    for name in (name for name, by_chance in nowhere.items() if by_chance):
        yield Finding(
            "misplaced",
            (),
            f"{name} lies where the images look like anywhere else: are the labels assigned to the wrong cases?",
        )


def _on_nothing(share: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The one case whose label lies on the image's least value."""
    empty = share[:, 0] == 0 if share.size else np.zeros(len(share), np.bool_)
    alone = len(share) > 2 and np.count_nonzero(empty) == 1
    return np.asarray(empty & alone)


def _unlike_the_others(stands_out: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.bool_]:
    no_case = np.zeros(len(share), np.bool_)
    usual = float(np.median(stands_out[:, 0])) if len(share) >= FEWEST_TO_COMPARE else 0.0
    if usual == 0:
        return no_case
    contrast, rank = stands_out[:, 0] / usual, share[:, 0]
    lost = contrast <= NO_CONTRAST
    if lost.sum() > max(2.0, USUAL_SHARE * len(share)):
        return no_case
    spread = MAD_TO_SD * float(np.median(np.abs(contrast[~lost] - 1)))
    most_off = MOST_OFF_OF_OTHERS * min(1.0, len(share) / ENOUGH)
    if np.abs(contrast[~lost] - 1).max() > most_off or spread > GREATEST_SPREAD:
        return no_case
    low, high = np.percentile(rank[~lost], (10, 90))
    away = np.maximum(low - rank, rank - high)
    least = RANKS_AWAY * (1 + FEW_RANKS / len(share)) * max(high - low, LEAST_RANGE_OF_RANKS)
    return np.asarray(lost & (away > least))


def _nowhere(stands_out: NDArray[np.float64], share: NDArray[np.float64]) -> bool:
    """Whether neither contrasts nor ranks tell the labels from voxels somewhere else."""
    if len(share) < FEWEST_TO_COMPARE or np.median(np.abs(stands_out[:, 0])) > FAINT:
        return False
    apart = share[:, 0] - share[:, 1:].mean(axis=1)
    return _is_by_chance(stands_out[:, 0]) and _is_by_chance(apart)


def _is_by_chance(values: NDArray[np.float64]) -> bool:
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return bool(abs(values.mean()) <= BY_CHANCE * error)

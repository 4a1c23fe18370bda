"""Figures with all channels and without some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from focalis.display import counted
from focalis.evaluation.cases import Score

EVERYTHING = "all channels"


def by_channels(rows: Iterable[tuple[Sequence[str], Score]]) -> dict[str, dict[str, Any]]:
    """The cases and the mean Dice over labels and cases, by what they were predicted from.

    Args:
        rows: the channels that a prediction went without, and one of its scores. A case may be in several groups.

    Returns:
        "all channels" or "without T1, T2" to `cases` and `dice`; empty if every prediction had all channels.
    """
    dice: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for missing, score in rows:
        dice.setdefault(tuple(missing), {}).setdefault(score.case, []).append(score.dice)
    if not any(dice):
        return {}
    return {
        f"without {', '.join(missing)}" if missing else EVERYTHING: {
            "cases": len(cases),
            "dice": float(np.mean([np.mean(each) for each in cases.values()])),
        }
        for missing, cases in sorted(dice.items())
    }


def channels_line(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """The groups in a line; empty if there is none."""
    parts = [f"{each['dice']:.3f} {group} ({counted(each['cases'])})" for group, each in groups.items()]
    return f"mean Dice {', '.join(parts)}" if parts else ""

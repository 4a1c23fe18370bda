"""Whether predictions found anything at all, which the mean Dice does not show: empty cases count as 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from focalis.display import counted
from focalis.evaluation.cases import Score

EVERYTHING = 0.9
"""From this share of all voxels on, a prediction marks everything."""
FAR_TOO_MUCH = 20.0
"""From this many times the lesions' volume on, a prediction marks far too much."""

Kind = Literal["nothing", "elsewhere", "everything", "too much", "a label", "as before"]


@dataclass(frozen=True)
class Collapse:
    """What went wrong with predictions as a whole.

    Attributes:
        kind: nothing is marked; what is marked lies elsewhere than the lesions; everything is marked; far more is
            marked than there is; this happened to some of several labels only; or lesions are marked no better than
            before the training.
        line: the same in words, with the figures; one line.
    """

    kind: Kind
    line: str

    @property
    def total(self) -> bool:
        """Whether no label shows that anything was learned."""
        return self.kind in ("nothing", "elsewhere", "everything", "as before")


def find_collapse(scores: Sequence[Score]) -> Collapse | None:
    """The collapse that the scores of all cases show; None if they show none, or no case holds a lesion.

    A label has collapsed if none of its true lesions was found, or if nearly all voxels are marked with it.
    """
    by_label: dict[int, list[Score]] = {}
    for score in scores:
        by_label.setdefault(score.label, []).append(score)
    labels = [rows for rows in by_label.values() if any(row.truth_voxels for row in rows)]
    found = [(rows, _of_label(rows)) for rows in labels]
    wrong = [(rows[0].name, collapse) for rows, collapse in found if collapse is not None]
    if not wrong:
        return None
    line = "; ".join(f"{name}: {each.line}" if len(by_label) > 1 else each.line for name, each in wrong)
    kinds = {each.kind for _, each in wrong}
    if len(wrong) < len(labels) or "too much" in kinds:
        return Collapse("too much" if kinds == {"too much"} else "a label", line)
    return Collapse(kinds.pop() if len(kinds) == 1 else "elsewhere", line)


def nothing_to_find(scores: Sequence[Score]) -> str:
    """One line if no case holds a lesion, and empty masks make the figures; else empty."""
    if not scores or any(row.truth_voxels for row in scores):
        return ""
    cases = len({row.case for row in scores})
    which = "the one case holds no lesion" if cases == 1 else f"none of the {cases} cases holds a lesion"
    return f"{which}: the figures say nothing of finding any, only of false positives"


def partly_judged(scores: Sequence[Score]) -> str:
    """One line if labels are judged on different cases, as where some were drawn in a part of them; else empty."""
    cases: dict[str, set[str]] = {}
    for row in sorted(scores, key=lambda row: row.label):
        cases.setdefault(row.name, set()).add(row.case)
    total = len({row.case for row in scores})
    if all(len(of) == total for of in cases.values()):
        return ""
    parts = ", ".join(f"{name} on {len(of)}" for name, of in cases.items())
    return f"not every label is judged in each of the {total} cases, {parts}: their figures are of different cases"


def _of_label(rows: Sequence[Score]) -> Collapse | None:
    lesions, hits = sum(row.truth_lesions for row in rows), sum(row.detected_lesions for row in rows)
    truth, marked = sum(row.truth_voxels for row in rows), sum(row.predicted_voxels for row in rows)
    total = sum(row.voxels for row in rows)
    if total and marked >= EVERYTHING * total and truth < EVERYTHING * total / 2:
        return Collapse(
            "everything",
            f"everything is marked: {marked / total:.0%} of all voxels, and lesions are {truth / total:.2%}",
        )
    if lesions and not hits:
        what = "nothing is marked" if not marked else "what is marked lies elsewhere or has another size"
        line = f"none of the {lesions} lesions in {counted(len(rows))} was found; {what}{_empty_share(rows)}"
        return Collapse("elsewhere" if marked else "nothing", line)
    if not lesions and not marked:  # every lesion was smaller than those that count
        return None
    if marked >= FAR_TOO_MUCH * truth:
        return Collapse("too much", f"what is marked is {marked / truth:.0f} times the volume of the lesions")
    return None


def _empty_share(rows: Sequence[Score]) -> str:
    """How much of the mean Dice comes from empty cases."""
    empty = sum(row.truth_voxels == 0 for row in rows)
    if not empty:
        return ""
    mean = float(np.mean([row.dice for row in rows]))
    return f"; the mean Dice of {mean:.3f} over all cases comes from the {empty} of them without a lesion"

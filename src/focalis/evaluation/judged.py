"""Every true and every predicted lesion of a case, and whether it was matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.lesions import (
    COLUMNS,
    Candidates,
    Lesion,
    find_overlaps,
    highest,
    label_components,
    lesion_row,
    measure_components,
    voxels_of,
)
from focalis.volume import Volume

Status = Literal["found", "missed", "right", "false positive"]

JUDGED_COLUMNS = ("case", "side", "status", "partner", "iou", "split_or_merged", *COLUMNS)


@dataclass(frozen=True, repr=False)
class JudgedLesion(Shown):
    """One lesion of a case.

    Attributes:
        side: true or predicted.
        status: of a true lesion found or missed, of a predicted one right or false positive.
        partner: the number of the lesion on the other side that it is paired with; None without.
        iou: the pair's intersection over union; None without.
        split_or_merged: of a true lesion, whether it shares voxels with several predicted ones; of a
            predicted one, with several true ones.
        lesion: its measures; the number is that in the whole mask.
    """

    case: str
    side: Literal["true", "predicted"]
    status: Status
    partner: int | None
    iou: float | None
    split_or_merged: bool
    lesion: Lesion

    def row(self) -> dict[str, Any]:
        """A row of `lesions.csv`, with the columns `JUDGED_COLUMNS`."""
        return {
            "case": self.case,
            "side": self.side,
            "status": self.status,
            "partner": self.partner,
            "iou": None if self.iou is None else round(self.iou, 4),
            "split_or_merged": self.split_or_merged,
            **lesion_row(self.lesion),
        }


def judge_lesions(
    case: str,
    truth: Volume,
    prediction: Volume,
    names: Mapping[int, str],
    *,
    known: Sequence[Lesion] | None = None,
    ignore: int | None = None,
    minimum_mm3: float = 0.0,
) -> tuple[tuple[JudgedLesion, ...], tuple[Candidates, ...]]:
    """Measure the lesions of both label maps and state which were matched, label by label.

    Args:
        truth, prediction: label maps on one grid.
        names: label value to name, without the background.
        known: the lesions of the whole predicted map with their confidence, as prediction measured them.
        ignore: value of the true map where nobody has judged: there, both count as background.
        minimum_mm3: smaller components are not lesions, in either map.

    Returns:
        All lesions, and per label the predicted ones as candidates; no candidates unless `known` is given.
    """
    grid = truth.grid
    least = voxels_of(minimum_mm3, grid.voxel_volume_mm3)
    whole = prediction.array
    if ignore is not None:
        unjudged = truth.array == ignore
        truth, prediction = (Volume(np.where(unjudged, 0, v.array), grid) for v in (truth, prediction))
    judged: list[JudgedLesion] = []
    candidates: list[Candidates] = []
    for label in sorted(names):
        sides, parts = [], []
        for volume in (truth, prediction):
            mask = volume.array == label
            parts.append(label_components(mask, minimum_voxels=least))
            components, _ = label_components(mask)
            found = measure_components(components, grid, label, names[label])
            sides.append([lesion for lesion in found if lesion.voxels >= least])
        if known is not None:
            origin = highest(label_components(whole == label)[0].astype(np.float64), *parts[1]).astype(int)
            by_number = {lesion.number: lesion for lesion in known if lesion.label == label}
            sides[1] = [_sure(x, by_number[n]) for x, n in zip(sides[1], origin, strict=True)]
        overlaps = find_overlaps(*parts[0], *parts[1])
        matching = overlaps.match()
        partners = {i: (j, iou) for i, j, iou in matching.pairs}
        back = {j: (i, iou) for i, j, iou in matching.pairs}
        for number, lesion in enumerate(sides[0], start=1):
            partner, iou = partners.get(number, (None, None))
            other = None if partner is None else sides[1][partner - 1].number
            status: Status = "missed" if partner is None else "found"
            judged.append(JudgedLesion(case, "true", status, other, iou, number in matching.split, lesion))
        for number, lesion in enumerate(sides[1], start=1):
            partner, iou = back.get(number, (None, None))
            other = None if partner is None else sides[0][partner - 1].number
            status = "false positive" if partner is None else "right"
            judged.append(
                JudgedLesion(case, "predicted", status, other, iou, number in matching.merged, lesion)
            )
        if known is not None:
            candidates.append(
                Candidates(
                    case,
                    grid.voxel_volume_mm3,
                    overlaps,
                    _numbers([x.confidence or 0.0 for x in sides[1]]),
                    None
                    if any(x.uncertainty is None for x in sides[1])
                    else _numbers([x.uncertainty or 0.0 for x in sides[1]]),
                )
            )
    return tuple(judged), tuple(candidates)


def _sure(measured: Lesion, known: Lesion) -> Lesion:
    """The measured lesion with the confidence that prediction gave it."""
    return replace(
        measured,
        mean_probability=known.mean_probability,
        confidence=known.confidence,
        uncertainty=known.uncertainty,
    )


def _numbers(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)

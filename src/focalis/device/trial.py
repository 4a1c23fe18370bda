"""A model on trial beside the current one: what both find, whom reviewers agree with, and how the images drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focalis.device.store import Store
from focalis.device.study_lesions import list_lesions
from focalis.device.written import BESIDE, FIGURES, note_of
from focalis.dicom import read_segmentation

if TYPE_CHECKING:
    from focalis.dicom import Series

COMPARED = 100
"""Studies that are looked back on."""
LEAST_STUDIES = 10
"""With fewer of them drift is not judged."""
DRIFTS = 0.7
"""So far from the middle of the usual range, of which 1 is the end, the median of a figure counts as drifting."""


def compare_findings(
    mask: NDArray[np.integer], names: Mapping[int, str], series: Series, segmentation: Path
) -> dict[str, Any]:
    """Hold the findings of a model on trial against those of the current one.

    Args:
        mask: label values of the model on trial, z, y, x.
        names: label value to name.
        series: what both have segmented.
        segmentation: the current model's Segmentation.

    Returns:
        "current", "shadow": how many lesions each has found; "pairs": the numbers of lesions that share a voxel;
        "dice": of all voxels, 1 where neither has found any.

    Raises:
        DataError: the Segmentation cannot be read.
    """
    ours = {name: mask == value for value, name in sorted(names.items()) if value != 0}
    new, new_numbers = list_lesions(ours, series.volume)
    old, old_numbers = list_lesions(read_segmentation(segmentation, series), series.volume)
    both = (new_numbers > 0) & (old_numbers > 0)
    pairs = np.unique(np.stack([old_numbers[both], new_numbers[both]], axis=1), axis=0)
    voxels = int((new_numbers > 0).sum() + (old_numbers > 0).sum())
    return {
        "current": len(old),
        "shadow": len(new),
        "pairs": pairs.tolist(),
        "dice": 2 * int(both.sum()) / voxels if voxels else 1.0,
    }


@dataclass(frozen=True)
class Trial:
    """The last studies that both models have segmented.

    Attributes:
        studies: how many studies are compared.
        refused: in how many more the model on trial gave no result.
        both, only_current, only_shadow: lesions; what touches counts as one.
        dice: the mean over the studies; None without one.
        accepted, rejected: lesions of the current model by the reviewers' verdict, and how many of these the model on
            trial has found as well.
    """

    current: str
    shadow: str
    studies: int = 0
    refused: int = 0
    both: int = 0
    only_current: int = 0
    only_shadow: int = 0
    dice: float | None = None
    accepted: tuple[int, int] = (0, 0)
    rejected: tuple[int, int] = (0, 0)


def trial_of(store: Store, current: str, shadow: str) -> Trial:
    """Compare two models over the last `COMPARED` studies."""
    notes: list[dict[str, Any]] = []
    found = {"both": 0, "only_current": 0, "only_shadow": 0}
    judged = {"accepted": [0, 0], "rejected": [0, 0]}
    refused = 0
    for task in store.tasks():
        before = store.task(task.shadow_of) if task.shadow_of and task.model == shadow else None
        if before is None or before.model != current or before.superseded_by is not None:
            continue
        if len(notes) == COMPARED:
            break
        note = note_of(store, task.task_id, BESIDE)
        if note is None:
            refused += task.state == "refused"
            continue
        notes.append(note)
        seen = {pair[0] for pair in note["pairs"]}
        found["both"] += len(seen)
        found["only_current"] += note["current"] - len(seen)
        found["only_shadow"] += note["shadow"] - len({pair[1] for pair in note["pairs"]})
        for review in store.reviews(before.task_id):
            judged[review.verdict][0] += 1
            judged[review.verdict][1] += review.lesion in seen
    return Trial(
        current,
        shadow,
        len(notes),
        refused,
        **found,
        dice=fmean(note["dice"] for note in notes) if notes else None,
        accepted=(judged["accepted"][0], judged["accepted"][1]),
        rejected=(judged["rejected"][0], judged["rejected"][1]),
    )


@dataclass(frozen=True)
class Drift:
    """How the images of late lie in a model's usual range of one figure.

    Attributes:
        median: where the middle one lies; -1 and 1 are the ends of the range.
        outside: the share of the studies that lie beyond them.
    """

    figure: str
    median: float
    outside: float

    @property
    def drifts(self) -> bool:
        """Whether the images are moving out of what the model was trained on."""
        return abs(self.median) > DRIFTS


def drift_of(store: Store, model: str) -> tuple[int, tuple[Drift, ...]]:
    """Over the last `COMPARED` studies of a model: how many they are, and of each kind of figure the farthest."""
    notes: list[dict[str, Any]] = []
    for task in store.tasks():
        if task.model == model and len(notes) < COMPARED and (note := note_of(store, task.task_id, FIGURES)):
            notes.append(note)
    if len(notes) < LEAST_STUDIES:
        return len(notes), ()
    farthest: dict[str, Drift] = {}
    for name in notes[0]:
        values = [note[name] for note in notes if name in note]
        kind = name.split()[0]
        drift = Drift(kind, median(values), sum(abs(value) > 1 for value in values) / len(values))
        # a likeness above the usual is no fault
        if kind == "likeness":
            drift = Drift(kind, min(0.0, drift.median), sum(value < -1 for value in values) / len(values))
        if kind not in farthest or abs(drift.median) > abs(farthest[kind].median):
            farthest[kind] = drift
    return len(notes), tuple(farthest.values())

"""All figures of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.errors import DataError
from focalis.evaluation.intervals import interval_rule
from focalis.evaluation.lesionwise import lesion_scores
from focalis.evaluation.surface import surface_scores
from focalis.evaluation.voxel import voxel_scores
from focalis.lesions import MATCHING_RULE, voxels_of
from focalis.volume import Volume

EMPTY_RULE = (
    "Truth and prediction both empty: Dice, IoU, surface Dice and lesion F1 are 1, distances are 0. "
    "One of them empty: these are 0 and the distances are undefined. "
    "Sensitivity and relative volume error are undefined without truth, precision without prediction. "
    "Undefined values are left out of means and intervals, and counted."
)


def head_of_json(tolerance_mm: float, seed: int, **rules: object) -> dict[str, Any]:
    """How a JSON file of scores begins: versions, and the rules that its figures follow."""
    return {
        "version": 1,
        "focalis": version("focalis"),
        "rules": {
            "lesion_matching": MATCHING_RULE,
            **rules,
            "empty_masks": EMPTY_RULE,
            "surface_dice_tolerance_mm": tolerance_mm,
            "interval": interval_rule(seed),
        },
    }


@dataclass(frozen=True, repr=False)
class Score(Shown):
    """One label of one case: a row of `cases.csv`. None means undefined, by `EMPTY_RULE`.

    Attributes:
        case: the case's name.
        label: the label's value, 1 and up.
        name: the label's name.
        truth_voxels, predicted_voxels: foreground voxels.
        truth_volume_mm3, predicted_volume_mm3: their volumes.
        dice, iou, sensitivity, precision: overlap by voxels, see `VoxelScores`.
        volume_error_mm3, relative_volume_error: predicted minus true volume, and divided by the true one.
        hd95_mm, assd_mm, surface_dice: distances of the surfaces, see `SurfaceScores`.
        truth_lesions, predicted_lesions, detected_lesions, false_positive_lesions, split_lesions,
            merged_lesions: counts of lesions, see `LesionScores`.
        lesion_sensitivity, lesion_precision, lesion_f1: the same as shares.
        voxels: voxels of the map that were judged; 0 if not known.
    """

    case: str
    label: int
    name: str
    truth_voxels: int
    predicted_voxels: int
    truth_volume_mm3: float
    predicted_volume_mm3: float
    dice: float
    iou: float
    sensitivity: float | None
    precision: float | None
    volume_error_mm3: float
    relative_volume_error: float | None
    hd95_mm: float | None
    assd_mm: float | None
    surface_dice: float
    truth_lesions: int
    predicted_lesions: int
    detected_lesions: int
    false_positive_lesions: int
    split_lesions: int
    merged_lesions: int
    lesion_sensitivity: float | None
    lesion_precision: float | None
    lesion_f1: float
    voxels: int = 0

    @property
    def dice_with_lesion(self) -> float | None:
        """The Dice where there is something to find; None without truth."""
        return self.dice if self.truth_voxels else None

    @property
    def hd95_with_lesion_mm(self) -> float | None:
        """The HD95 where there is something to find: not the 0 of two empty masks."""
        return self.hd95_mm if self.truth_voxels else None


def evaluate_case(
    truth: Volume,
    prediction: Volume,
    labels: Mapping[int, str],
    tolerance_mm: float = 1.0,
    case: str = "case",
    ignore: int | None = None,
    minimum_lesion_mm3: float = 0.0,
) -> tuple[Score, ...]:
    """Compare a predicted label map with the true one, label by label.

    Args:
        truth: true label map.
        prediction: predicted label map on the same grid.
        labels: label value to name, without the background 0; one score each, in ascending order.
        tolerance_mm: tolerance of the surface Dice.
        case: the case's name, for the scores and the error.
        ignore: value of the true label map where nobody has judged: there, both maps count as background.
        minimum_lesion_mm3: smaller components are not lesions, in either map; voxels and surfaces count all the same.

    Raises:
        DataError: if the grids differ, with what differs and by how much.
    """
    differences = truth.grid.differences(prediction.grid)
    if differences:
        raise DataError.at(
            case,
            f"truth and prediction lie on different grids: {'; '.join(differences)}",
            "predict on the truth's own image, or resample one of them",
        )
    judged = truth.array.size
    if ignore is not None:
        unjudged = truth.array == ignore
        judged -= int(np.count_nonzero(unjudged))
        truth, prediction = (
            Volume(np.where(unjudged, 0, volume.array), volume.grid) for volume in (truth, prediction)
        )
    return tuple(
        replace(
            _evaluate_label(truth, prediction, label, labels[label], tolerance_mm, case, minimum_lesion_mm3),
            voxels=judged,
        )
        for label in sorted(labels)
    )


def _evaluate_label(
    truth: Volume,
    prediction: Volume,
    label: int,
    name: str,
    tolerance_mm: float,
    case: str,
    minimum_lesion_mm3: float,
) -> Score:
    true_mask, predicted_mask = _crop(truth.array == label, prediction.array == label)
    voxel_mm3 = truth.grid.voxel_volume_mm3
    voxels = voxel_scores(true_mask, predicted_mask, voxel_mm3)
    surfaces = surface_scores(true_mask, predicted_mask, truth.grid.spacing_zyx_mm, tolerance_mm)
    lesions = lesion_scores(true_mask, predicted_mask, voxels_of(minimum_lesion_mm3, voxel_mm3))
    return Score(
        case=case,
        label=label,
        name=name,
        truth_volume_mm3=voxels.truth_voxels * voxel_mm3,
        predicted_volume_mm3=voxels.predicted_voxels * voxel_mm3,
        **vars(voxels),
        **vars(surfaces),
        **vars(lesions),
        lesion_sensitivity=lesions.sensitivity,
        lesion_precision=lesions.precision,
        lesion_f1=lesions.f1,
    )


def _crop(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks cut to the box around their union: the same figures at less cost."""
    union = truth | predicted
    box = []
    for axis in range(union.ndim):
        others = tuple(i for i in range(union.ndim) if i != axis)
        hits = np.flatnonzero(union.any(axis=others))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 1))
    return truth[tuple(box)], predicted[tuple(box)]

"""Lesion-wise detection: how many were found, and how many false positives there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.lesions import match_lesions


@dataclass(frozen=True)
class LesionScores:
    """Detection of lesions in one case, by the rule `focalis.lesions.MATCHING_RULE`.

    Attributes:
        detected_lesions: number of matched pairs.
        false_positive_lesions: predicted lesions without a partner.
        split_lesions: true lesions that touch two or more predicted ones.
        merged_lesions: predicted lesions that touch two or more true ones.
    """

    truth_lesions: int
    predicted_lesions: int
    detected_lesions: int
    false_positive_lesions: int
    split_lesions: int
    merged_lesions: int

    @property
    def sensitivity(self) -> float | None:
        """Detected of true lesions; None without a true lesion."""
        return self.detected_lesions / self.truth_lesions if self.truth_lesions else None

    @property
    def precision(self) -> float | None:
        """Detected of predicted lesions; None without a predicted lesion."""
        return self.detected_lesions / self.predicted_lesions if self.predicted_lesions else None

    @property
    def f1(self) -> float:
        """2 detected / (true + predicted); 1 if there are neither."""
        total = self.truth_lesions + self.predicted_lesions
        return 2 * self.detected_lesions / total if total else 1.0


def lesion_scores(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], minimum_voxels: int = 1
) -> LesionScores:
    """Compare two masks of the same shape (z, y, x) lesion by lesion; smaller components are ignored."""
    matching = match_lesions(truth, predicted, minimum_voxels=minimum_voxels)
    return LesionScores(
        truth_lesions=matching.truth_count,
        predicted_lesions=matching.predicted_count,
        detected_lesions=len(matching.pairs),
        false_positive_lesions=len(matching.unmatched_predicted),
        split_lesions=len(matching.split),
        merged_lesions=len(matching.merged),
    )

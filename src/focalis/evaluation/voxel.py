"""Overlap and volume of two masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VoxelScores:
    """How two masks overlap.

    Attributes:
        truth_voxels: number of true foreground voxels.
        dice: 2 |T and P| / (|T| + |P|); 1 if both are empty.
        iou: |T and P| / |T or P|; 1 if both are empty.
        sensitivity: |T and P| / |T|; None without truth.
        precision: |T and P| / |P|; None without prediction.
        volume_error_mm3: predicted minus true volume.
        relative_volume_error: the same divided by the true volume; None without truth.
    """

    truth_voxels: int
    predicted_voxels: int
    dice: float
    iou: float
    sensitivity: float | None
    precision: float | None
    volume_error_mm3: float
    relative_volume_error: float | None


def voxel_scores(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], voxel_volume_mm3: float = 1.0
) -> VoxelScores:
    """Compare two masks of the same shape voxel by voxel."""
    true_count, predicted_count = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
    shared = int(np.count_nonzero(truth & predicted))
    union = true_count + predicted_count - shared
    surplus = predicted_count - true_count
    return VoxelScores(
        truth_voxels=true_count,
        predicted_voxels=predicted_count,
        dice=2 * shared / (true_count + predicted_count) if union else 1.0,
        iou=shared / union if union else 1.0,
        sensitivity=shared / true_count if true_count else None,
        precision=shared / predicted_count if predicted_count else None,
        volume_error_mm3=surplus * voxel_volume_mm3,
        relative_volume_error=surplus / true_count if true_count else None,
    )

"""Which predicted lesion is which true one: the one rule behind every lesion-wise figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.lesions.components import label_components

MINIMUM_IOU = 0.1
MATCHING_RULE = (
    "Lesions are 26-connected components. "
    "True and predicted lesions are paired one to one so that the sum of the pairs' IoU is greatest; "
    f"only pairs whose IoU reaches {MINIMUM_IOU:g} count, and a lesion in such a pair is detected."
)


@dataclass(frozen=True)
class Matching:
    """True and predicted lesions, paired. Lesions are numbered from 1, as `label_components` numbers them.

    Attributes:
        pairs: (true lesion, predicted lesion, their IoU), by true lesion.
        unmatched_truth: true lesions without a partner: missed.
        unmatched_predicted: predicted lesions without a partner: false positives.
        splits: true lesions that share voxels with two or more predicted ones.
        merges: predicted lesions that share voxels with two or more true ones.
    """

    pairs: tuple[tuple[int, int, float], ...]
    unmatched_truth: tuple[int, ...]
    unmatched_predicted: tuple[int, ...]
    splits: int
    merges: int

    @property
    def truth_count(self) -> int:
        """Number of true lesions."""
        return len(self.pairs) + len(self.unmatched_truth)

    @property
    def predicted_count(self) -> int:
        """Number of predicted lesions."""
        return len(self.pairs) + len(self.unmatched_predicted)


def match_lesions(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], minimum_iou: float = MINIMUM_IOU
) -> Matching:
    """Pair the 26-connected components of two masks by `MATCHING_RULE`.

    The threshold is low on purpose. The lesions are small and their boundaries blurred: shifting a cube of 3
    voxels by one voxel along each axis leaves an IoU of 0.17, and it is still the same lesion found. A single
    shared voxel, on the other hand, must not make a large false positive a detection.

    Args:
        truth: true foreground, shape (z, y, x).
        predicted: predicted foreground of the same shape.
        minimum_iou: least intersection over union of a pair, > 0.
    """
    true_lesions, true_count = label_components(truth)
    predicted_lesions, predicted_count = label_components(predicted)
    shared = truth & predicted
    codes, overlaps = np.unique(
        true_lesions[shared].astype(np.int64) * (predicted_count + 1) + predicted_lesions[shared],
        return_counts=True,
    )
    rows, columns = np.divmod(codes, predicted_count + 1)
    true_sizes = np.bincount(true_lesions[truth], minlength=true_count + 1)
    predicted_sizes = np.bincount(predicted_lesions[predicted], minlength=predicted_count + 1)
    iou = overlaps / (true_sizes[rows] + predicted_sizes[columns] - overlaps)

    enough = iou >= minimum_iou
    pairs = _assign(rows[enough], columns[enough], iou[enough])
    found, used = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    return Matching(
        pairs=pairs,
        unmatched_truth=tuple(i for i in range(1, true_count + 1) if i not in found),
        unmatched_predicted=tuple(i for i in range(1, predicted_count + 1) if i not in used),
        splits=int((np.bincount(rows) > 1).sum()),
        merges=int((np.bincount(columns) > 1).sum()),
    )


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> tuple[tuple[int, int, float], ...]:
    """The one-to-one choice among the candidate pairs (row, column) with the greatest sum of IoU."""
    row_names, row_index = np.unique(rows, return_inverse=True)
    column_names, column_index = np.unique(columns, return_inverse=True)
    gain = np.zeros((row_names.size, column_names.size))
    gain[row_index, column_index] = iou
    chosen = zip(*scipy.optimize.linear_sum_assignment(gain, maximize=True), strict=True)
    return tuple(
        (int(row_names[i]), int(column_names[j]), float(gain[i, j])) for i, j in chosen if gain[i, j] > 0
    )

"""Match predicted lesions to true ones, by the rule behind every lesion-wise figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.lesions.components import CONNECTIVITY, label_components

MINIMUM_IOU = 0.1
MATCHING_RULE = (
    f"Lesions are {CONNECTIVITY}-connected components. "
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
        split: true lesions that share voxels with two or more predicted ones.
        merged: predicted lesions that share voxels with two or more true ones.
    """

    pairs: tuple[tuple[int, int, float], ...]
    unmatched_truth: tuple[int, ...]
    unmatched_predicted: tuple[int, ...]
    split: tuple[int, ...]
    merged: tuple[int, ...]

    @property
    def truth_count(self) -> int:
        """Number of true lesions."""
        return len(self.pairs) + len(self.unmatched_truth)

    @property
    def predicted_count(self) -> int:
        """Number of predicted lesions."""
        return len(self.pairs) + len(self.unmatched_predicted)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Every pair of a true and a predicted lesion that share voxels; all that matching needs to know.

    Attributes:
        truth_voxels, predicted_voxels: voxels of each lesion, shape (n,) and (m,); lesion i is entry i - 1.
        truth, predicted: the lesions of each pair, counted from 0, shape (pairs,).
        iou: their intersection over union.
    """

    truth_voxels: NDArray[np.int64]
    predicted_voxels: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    shared: NDArray[np.int64]
    iou: NDArray[np.float64]

    def match(self, keep: NDArray[np.bool_] | None = None) -> Matching:
        """Pair the lesions by `MATCHING_RULE`.

        Args:
            keep: which predicted lesions count, shape (m,); the others are left out as if never predicted.
        """
        kept = np.ones(self.predicted_voxels.size, dtype=bool) if keep is None else keep
        there = kept[self.predicted]
        enough = there & (self.iou >= MINIMUM_IOU)
        pairs = _assign(self.truth[enough], self.predicted[enough], self.iou[enough])
        missed, wrong = np.ones(self.truth_voxels.size, dtype=bool), kept.copy()
        missed[[pair[0] - 1 for pair in pairs]] = False
        wrong[[pair[1] - 1 for pair in pairs]] = False
        split = np.flatnonzero(np.bincount(self.truth[there], minlength=1) > 1) + 1
        merged = np.flatnonzero(np.bincount(self.predicted[there], minlength=1) > 1) + 1
        return Matching(
            pairs=pairs,
            # Not one by one: a network that has learned little marks a million specks in a whole scan.
            unmatched_truth=tuple((np.flatnonzero(missed) + 1).tolist()),
            unmatched_predicted=tuple((np.flatnonzero(wrong) + 1).tolist()),
            split=tuple(split.tolist()),
            merged=tuple(merged.tolist()),
        )


def find_overlaps(
    truth: NDArray[np.int32], truth_count: int, predicted: NDArray[np.int32], predicted_count: int
) -> Overlaps:
    """Where two sets of lesions meet, both as `label_components` numbers them, on arrays of one shape."""
    shared = (truth > 0) & (predicted > 0)
    codes, sizes = np.unique(
        truth[shared].astype(np.int64) * (predicted_count + 1) + predicted[shared], return_counts=True
    )
    rows, columns = np.divmod(codes, predicted_count + 1)
    true_sizes = np.bincount(truth[truth > 0], minlength=truth_count + 1)
    predicted_sizes = np.bincount(predicted[predicted > 0], minlength=predicted_count + 1)
    return Overlaps(
        truth_voxels=true_sizes[1:],
        predicted_voxels=predicted_sizes[1:],
        truth=rows - 1,
        predicted=columns - 1,
        shared=sizes,
        iou=sizes / (true_sizes[rows] + predicted_sizes[columns] - sizes),
    )


def match_lesions(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    minimum_voxels: int = 1,
) -> Matching:
    """Pair the 26-connected components of two masks by `MATCHING_RULE`.

    The threshold is low on purpose. The lesions are small and their boundaries blurred: shifting a cube of 3
    voxels by one voxel along each axis leaves an IoU of 0.17, and it is still the same lesion found. A single
    shared voxel, on the other hand, must not make a large false positive a detection.

    Args:
        truth: true foreground, shape (z, y, x).
        predicted: predicted foreground of the same shape.
        minimum_voxels: smaller components are not lesions, in either mask.
    """
    lesions = [label_components(mask, minimum_voxels=minimum_voxels) for mask in (truth, predicted)]
    return find_overlaps(*lesions[0], *lesions[1]).match()


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> tuple[tuple[int, int, float], ...]:
    """The one-to-one choice among the candidate pairs (row, column) with the greatest sum of IoU; numbered from 1."""
    if not rows.size:
        return ()
    row_names, row_index = np.unique(rows, return_inverse=True)
    column_names, column_index = np.unique(columns, return_inverse=True)
    gain = np.zeros((row_names.size, column_names.size))
    gain[row_index, column_index] = iou
    chosen = zip(*scipy.optimize.linear_sum_assignment(gain, maximize=True), strict=True)
    return tuple(
        (int(row_names[i]) + 1, int(column_names[j]) + 1, float(gain[i, j]))
        for i, j in chosen
        if gain[i, j] > 0
    )

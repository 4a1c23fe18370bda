"""The predicted lesions of a case with their confidence, set against the true ones: small, whatever the scan's size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from focalis.lesions.components import label_components
from focalis.lesions.matching import Overlaps, find_overlaps
from focalis.lesions.probability import temper


@dataclass(frozen=True, eq=False)
class Candidates:
    """What it takes to evaluate the lesions of a case at any minimum size and minimum confidence.

    Attributes:
        overlaps: true and predicted lesions, and where they meet.
        confidence: of each predicted lesion, shape (m,).
        uncertainty: of each predicted lesion, shape (m,), see `disagreement`; None if unknown.
        features: of each predicted lesion, shape (m, 4), see `focalis.lesions.second_look`; None if not asked for.
    """

    case: str
    voxel_mm3: float
    overlaps: Overlaps
    confidence: NDArray[np.float64]
    uncertainty: NDArray[np.float64] | None = None
    features: NDArray[np.float64] | None = None

    @property
    def truth_mm3(self) -> NDArray[np.float64]:
        """Volume of each true lesion, shape (n,)."""
        return np.asarray(self.overlaps.truth_voxels * self.voxel_mm3, dtype=np.float64)

    @property
    def predicted_mm3(self) -> NDArray[np.float64]:
        """Volume of each predicted lesion, shape (m,)."""
        return np.asarray(self.overlaps.predicted_voxels * self.voxel_mm3, dtype=np.float64)

    def matched(self) -> NDArray[np.bool_]:
        """Which predicted lesions have a true partner, shape (m,)."""
        right = np.zeros(self.confidence.size, dtype=bool)
        right[[pair[1] - 1 for pair in self.overlaps.match().pairs]] = True
        return right

    def kept(self, minimum_mm3: float, minimum_confidence: float) -> NDArray[np.bool_]:
        """Which predicted lesions reach both, shape (m,)."""
        return (self.predicted_mm3 >= minimum_mm3 - 1e-6) & (self.confidence >= minimum_confidence)

    def dice(self, keep: NDArray[np.bool_]) -> float:
        """Dice of the lesions' voxels if only these predicted ones are kept; 1 if there are none on either side."""
        shared = int(self.overlaps.shared[keep[self.overlaps.predicted]].sum())
        total = int(self.overlaps.truth_voxels.sum() + self.overlaps.predicted_voxels[keep].sum())
        return 2 * shared / total if total else 1.0

    def tempered(self, temperature: float) -> Candidates:
        """The same lesions with the confidence that the tempered probability gives them."""
        return replace(self, confidence=temper(self.confidence, temperature))


def find_candidates(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    probability: NDArray[np.floating],
    *,
    case: str,
    voxel_mm3: float,
    minimum_voxels: int = 1,
) -> Candidates:
    """Compare the components of a predicted mask with those of the true one.

    Args:
        truth: true foreground, shape (z, y, x).
        predicted: predicted foreground before anything is removed, same shape.
        probability: foreground probability, same shape; a lesion's confidence is the highest in it.
        minimum_voxels: smaller components are not lesions, in either mask.
    """
    true_lesions, true_count = label_components(truth, minimum_voxels=minimum_voxels)
    lesions, count = label_components(predicted, minimum_voxels=minimum_voxels)
    overlaps = find_overlaps(true_lesions, true_count, lesions, count)
    return Candidates(case, voxel_mm3, overlaps, highest(probability, lesions, count))


def highest(probability: NDArray[np.floating], lesions: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """The highest probability in each of `count` lesions, shape (count,)."""
    found = np.full(
        count + 1, -np.inf, dtype=probability.dtype
    )  # of another type the next line takes 20 times as long
    inside = lesions > 0
    np.maximum.at(found, lesions[inside], probability[inside])  # scipy's maximum would sort the whole volume
    return found[1:].astype(np.float64)

"""From probabilities to labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focalis.lesions import highest, label_components, temper, voxels_of
from focalis.model import OperatingPoint


def decide(
    probabilities: NDArray[np.float32], threshold: float, foreground: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Class indices (z, y, x) from probabilities (label, z, y, x), channel 0 being the background.

    A voxel is foreground where its foreground probability, 1 - p[0] unless given, reaches the threshold; it then
    gets the foreground label with the highest probability, the lower one in a tie.
    """
    likely = 1 - probabilities[0] if foreground is None else foreground
    best: NDArray[np.uint8] = probabilities[1:].argmax(axis=0).astype(np.uint8)
    best += 1
    best[~(likely >= threshold)] = 0
    return best


def decide_reported(
    probabilities: NDArray[np.float32], point: OperatingPoint, temperature: float, voxel_mm3: float
) -> NDArray[np.uint8]:
    """Class indices (z, y, x) of what an operating point reports.

    Args:
        probabilities: untempered, (label, z, y, x), channel 0 being the background.
        point: of tempered probabilities.
        temperature: the model's.
        voxel_mm3: volume of a voxel.
    """
    foreground = temper(1 - probabilities[0], temperature)
    labels = decide(probabilities, point.threshold, foreground)
    drop_lesions(
        labels,
        foreground,
        voxel_mm3=voxel_mm3,
        minimum_mm3=point.minimum_mm3,
        minimum_confidence=point.minimum_confidence,
    )
    return labels


def drop_lesions(
    labels: NDArray[np.integer],
    foreground: NDArray[np.float32],
    *,
    voxel_mm3: float,
    minimum_mm3: float,
    minimum_confidence: float,
) -> None:
    """Set to 0, in place, the components that are too small or too unsure to be reported.

    Components are those of the foreground, all labels together: a small core inside a large rim is no small lesion.

    Args:
        labels: label values, shape (z, y, x).
        foreground: foreground probability, same shape; a component's confidence is the highest in it.
        voxel_mm3: volume of a voxel.
        minimum_mm3: smaller components go.
        minimum_confidence: components whose confidence stays below it go.
    """
    if minimum_mm3 <= 0 and minimum_confidence <= 0:
        return
    inside = labels > 0
    components, count = label_components(inside)
    confident = highest(foreground, components, count) >= minimum_confidence
    numbers = components[inside] - 1  # lesions are few voxels: what follows does not grow with the volume
    large = np.bincount(numbers, minlength=count) >= voxels_of(minimum_mm3, voxel_mm3)
    labels[inside] *= (large & confident)[numbers]

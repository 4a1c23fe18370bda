"""Connected components of a three-dimensional mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.errors import UsageError

CONNECTIVITY = 26
"""What a lesion is, wherever lesions are counted: voxels that touch by a face, an edge or a corner belong together."""

_RANKS = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class LabelLesions:
    """The lesions of one label in a label map.

    Attributes:
        box_zyx: the smallest box that holds the label.
        components: int32, the box's part of the map: 0 outside, 1 to `count` inside the lesions.
    """

    value: int
    box_zyx: tuple[slice, slice, slice]
    components: NDArray[np.int32]
    count: int

    def sizes(self) -> NDArray[np.intp]:
        """The number of voxels of each lesion."""
        return np.bincount(self.components.ravel(), minlength=self.count + 1)[1:]


def lesions_by_label(labels: NDArray[Any], ignore: int | None = None) -> Iterator[LabelLesions]:
    """The lesions of each label, by ascending value: lesions of two labels that touch are two lesions.

    Args:
        labels: label values, shape (z, y, x), of any type; values up to 0 are background.
    """
    for value in sorted(set(np.unique(labels[labels > 0]).tolist()) - {ignore}):
        mask = labels == value
        box = _box(mask)
        yield LabelLesions(int(value), box, *label_components(mask[box]))


def label_components(
    mask: NDArray[np.bool_], connectivity: int = CONNECTIVITY, minimum_voxels: int = 1
) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: foreground, shape (z, y, x).
        connectivity: which neighbours belong together: 6 (faces), 18 (and edges) or 26 (and corners).
        minimum_voxels: smaller components are left out, and have no number.

    Returns:
        An int32 array of the mask's shape with 0 outside and 1 to n inside the components, and n.

    Raises:
        UsageError: for another connectivity.
    """
    if connectivity not in _RANKS:
        raise UsageError(f"connectivity is {connectivity}; choose 6, 18 or 26")
    labelled = np.zeros(mask.shape, dtype=np.int32)
    if not mask.any():
        return labelled, 0
    structure, box = scipy.ndimage.generate_binary_structure(3, _RANKS[connectivity]), _box(mask)
    count = int(scipy.ndimage.label(mask[box], structure, output=labelled[box]))
    if minimum_voxels <= 1 or not count:
        return labelled, count
    large = np.bincount(labelled.ravel(), minlength=count + 1) >= minimum_voxels
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    return numbers[labelled], int(large.sum())


def voxels_of(volume_mm3: float, voxel_mm3: float) -> int:
    """The least number of voxels whose volume reaches `volume_mm3`, at least 1."""
    return max(1, int(np.ceil(volume_mm3 / voxel_mm3 - 1e-6)))


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask which is not empty."""
    ends = [np.flatnonzero(mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(low), int(high) + 1) for low, high in ends)
    return z, y, x

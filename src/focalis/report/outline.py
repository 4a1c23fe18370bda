"""Where to cut a volume so that a lesion is seen, and its exact outline on the cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.lesions import label_components


@dataclass(frozen=True)
class Focus:
    """What a picture is about.

    Attributes:
        voxel_zyx: the voxel that all three cuts go through.
        extent_mm: the longest side of the lesion's bounding box; 0 if there is no lesion.
    """

    voxel_zyx: tuple[int, int, int]
    extent_mm: float


def find_focus(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]
) -> Focus:
    """The middle of the largest true lesion, else of the largest predicted one, else of the volume.

    The middle is the lesion's own voxel nearest to its centre of gravity, so a bent lesion is still cut.
    """
    mask = truth if truth.any() else predicted
    if not mask.any():
        z, y, x = (size // 2 for size in mask.shape)
        return Focus((z, y, x), 0.0)
    labelled, _ = label_components(mask)
    largest = int(np.argmax(np.bincount(labelled[mask])))
    voxels = np.argwhere(labelled == largest)
    spacing = np.asarray(spacing_zyx_mm)
    away = (((voxels - voxels.mean(axis=0)) * spacing) ** 2).sum(axis=1)
    z, y, x = (int(i) for i in voxels[int(np.argmin(away))])
    sides = (voxels.max(axis=0) - voxels.min(axis=0) + 1) * spacing
    return Focus((z, y, x), float(sides.max()))


def outline(labels: NDArray[np.integer], spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """The pixel edges between different values of a plane, the edge of the plane included.

    Args:
        labels: shape (rows, columns); beyond it lies 0.
        spacing_mm: of rows and columns.

    Returns:
        Line segments, shape (n, 2, 2): two ends, each (column, row) in mm from the plane's corner.
    """
    padded = np.pad(labels, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    across = np.stack([np.stack([columns - 1, rows], 1), np.stack([columns, rows], 1)], 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    along = np.stack([np.stack([columns, rows - 1], 1), np.stack([columns, rows], 1)], 1)
    segments: NDArray[np.float64] = np.concatenate([across, along]).astype(np.float64)
    segments *= np.asarray([spacing_mm[1], spacing_mm[0]])
    return segments

"""Surface distances between two masks, in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

_ROUNDING_MM = 1e-5  # a distance equal to the tolerance stays within it, float32 spacing or not


@dataclass(frozen=True)
class SurfaceScores:
    """The distances between two surfaces.

    Attributes:
        hd95_mm: the greater of the two directed 95th percentiles of the surface distance.
        assd_mm: average symmetric surface distance: the mean over the surface voxels of both masks together.
        surface_dice: share of both masks' surface voxels that lie within the tolerance of the other surface.

    If both masks are empty the distances are 0 and the surface Dice is 1; if one is empty the distances
    are undefined (None) and the surface Dice is 0.
    """

    hd95_mm: float | None
    assd_mm: float | None
    surface_dice: float


def surface_scores(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing_zyx_mm: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance_mm: float = 1.0,
) -> SurfaceScores:
    """Compare the surfaces of two masks of one shape (z, y, x).

    Distances run between centres of surface voxels (see `surface_points_mm`), exactly Euclidean with the
    spacing. They come from a k-d tree over those centres, so time and memory follow the lesion's surface and
    not the volume's size. Definitions as in MONAI's Hausdorff distance (percentile 95), symmetric average
    surface distance and surface Dice without subvoxels.
    """
    true_points = surface_points_mm(truth, spacing_zyx_mm)
    predicted_points = surface_points_mm(predicted, spacing_zyx_mm)
    if not len(true_points) or not len(predicted_points):
        both = len(true_points) == len(predicted_points)
        return SurfaceScores(0.0, 0.0, 1.0) if both else SurfaceScores(None, None, 0.0)
    to_predicted, _ = scipy.spatial.KDTree(predicted_points).query(true_points)
    to_truth, _ = scipy.spatial.KDTree(true_points).query(predicted_points)
    distances = np.concatenate([to_predicted, to_truth])
    return SurfaceScores(
        hd95_mm=float(max(np.percentile(to_predicted, 95), np.percentile(to_truth, 95))),
        assd_mm=float(distances.mean()),
        surface_dice=float((distances <= tolerance_mm + _ROUNDING_MM).mean()),
    )


def surface_points_mm(mask: NDArray[np.bool_], spacing_zyx_mm: Sequence[float]) -> NDArray[np.float64]:
    """The centres of a mask's surface voxels, shape (n, 3), in mm from the centre of voxel (0, 0, 0) along z,
    y, x.

    A surface voxel is a foreground voxel with at least one of its six face neighbours in the background;
    beyond the edge of the volume everything is background.
    """
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + mask.shape[axis])
            interior &= padded[tuple(window)]
    return np.argwhere(mask & ~interior).astype(np.float64) * np.asarray(spacing_zyx_mm, dtype=np.float64)

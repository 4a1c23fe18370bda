"""The distance to the lesion, the nearest lesion, and the background weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

BackgroundWeight = Literal["exponential", "gaussian", "reciprocal", "growth", "constant"]

NO_FOREGROUND_MM = 2e4
"""Stands for an infinite distance, in a case without foreground: finite, so that it interpolates, and fits float16."""

INFINITE_FROM_MM = 1e4
"""From here on a distance counts as infinite: an infinite one that was interpolated or scaled still does."""


def distance_to_foreground(
    label: NDArray[np.integer], spacing_zyx_mm: Sequence[float]
) -> NDArray[np.float32]:
    """The exact Euclidean distance from every voxel to the nearest foreground voxel's centre.

    Args:
        label: label map (z, y, x); every value above 0 is foreground.
        spacing_zyx_mm: distance between voxel centres.

    Returns:
        float32 (z, y, x) in mm, 0 on the foreground; `NO_FOREGROUND_MM` everywhere if there is none.
    """
    foreground = label > 0
    if not foreground.any():
        return np.full(label.shape, NO_FOREGROUND_MM, np.float32)
    image = sitk.GetImageFromArray(foreground.astype(np.uint8))
    image.SetSpacing([float(step) for step in spacing_zyx_mm[::-1]])
    # Maurer et al., doi 10.1109/TPAMI.2003.1177156: three times as fast as scipy's on one thread, and it takes all.
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    distance: NDArray[np.float32] = np.maximum(sitk.GetArrayViewFromImage(signed), np.float32(0))
    return distance


def nearest_lesion(
    components: NDArray[np.int32], count: int, spacing_zyx_mm: Sequence[float]
) -> NDArray[np.unsignedinteger]:
    """The number of the lesion that each voxel is nearest to, by Euclidean distance; of several as near, any.

    Args:
        components: (z, y, x), 0 outside and 1 to `count` in the lesions.
        spacing_zyx_mm: distance between voxel centres.

    Returns:
        (z, y, x) of the smallest unsigned type that holds `count`; 0 everywhere if there is no lesion.
    """
    kind = np.min_scalar_type(count)
    if not count:
        return np.zeros(components.shape, kind)
    if count == 1:
        return np.ones(components.shape, kind)
    indices = scipy.ndimage.distance_transform_edt(
        components == 0, sampling=spacing_zyx_mm, return_distances=False, return_indices=True
    )
    nearest: NDArray[np.unsignedinteger] = components.astype(kind)[tuple(indices)]
    return nearest


def background_weight(
    distance_mm: Tensor, form: BackgroundWeight, k_per_mm: float, floor: float, cap_mm: float
) -> Tensor:
    """The weight w_d of a background voxel at distance D from the nearest lesion.

    exponential: exp(-k D); gaussian: exp(-(k D)^2); reciprocal: 1 / (1 + k D); growth: 1 + k min(D, cap);
    constant: 1. Never less than `floor`. The method's own formula is lost; these are readings of its text
    (docs/method.md). From `INFINITE_FROM_MM` on a distance counts as infinite.

    Args:
        distance_mm: D >= 0, any shape, any floating dtype.
        k_per_mm: k > 0 in 1/mm.
        floor: least weight, >= 0.
        cap_mm: where `growth` stops.

    Returns:
        float32 (float64 for float64 input) weights of the same shape.
    """
    distance = distance_mm if distance_mm.dtype == torch.float64 else distance_mm.float()
    distance = torch.where(distance >= INFINITE_FROM_MM, torch.inf, distance)
    if form == "exponential":
        weight = torch.exp(-k_per_mm * distance)
    elif form == "gaussian":
        weight = torch.exp(-((k_per_mm * distance) ** 2))
    elif form == "reciprocal":
        weight = 1 / (1 + k_per_mm * distance)
    elif form == "growth":
        weight = 1 + k_per_mm * distance.clamp(max=cap_mm)
    else:
        weight = torch.ones_like(distance)
    return weight.clamp(min=floor)

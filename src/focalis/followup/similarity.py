"""How alike two registered images are: the mean local correlation, and how much of the body both show."""

from __future__ import annotations

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.followup.transform import Transform

_WINDOW = 5
_LEAST_VOXELS = 50
_FLAT = 1e-4
"""Windows of a smaller variance (of values from 0 to 1) hold no structure to compare."""


def similarity(
    fixed: sitk.Image, moving: sitk.Image, transform: Transform, where: sitk.Image
) -> tuple[float, float]:
    """Compare two images in windows of 5 voxels.

    Args:
        fixed, moving: float32 images of values from 0 to 1.
        transform: from places of `fixed` to places of `moving`.
        where: mask on the grid of `fixed`; windows centred outside of it do not count.

    Returns:
        The correlation of the values in a window, averaged with the fixed image's standard deviation there as the
        weight, and the share of the mask that lies in the moving image's field of view. 0 for the first if fewer than
        50 windows hold a structure.
    """
    affine = transform.to_sitk()
    other = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, affine, sitk.sitkLinear, 0.0))
    everywhere = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(moving)
    seen = (
        sitk.GetArrayViewFromImage(sitk.Resample(everywhere, fixed, affine, sitk.sitkNearestNeighbor, 0)) > 0
    )
    mask = sitk.GetArrayViewFromImage(where) > 0
    share = float((mask & seen).sum() / max(int(mask.sum()), 1))
    own = sitk.GetArrayFromImage(fixed)
    mean, other_mean = _mean(own), _mean(other)
    variance = _mean(own * own) - mean**2
    structured = mask & seen & (variance > _FLAT)
    if np.count_nonzero(structured) < _LEAST_VOXELS:
        return 0.0, share
    other_variance = np.maximum(_mean(other * other) - other_mean**2, 0)
    shared = (_mean(own * other) - mean * other_mean)[structured]
    correlation = shared / np.sqrt(np.maximum((variance * other_variance)[structured], 1e-10))
    return float(np.average(correlation, weights=np.sqrt(variance[structured]))), share


def _mean(array: NDArray[np.float32]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = scipy.ndimage.uniform_filter(array.astype(np.float64), _WINDOW)
    return result

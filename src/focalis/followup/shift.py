"""The shift at which two images correlate best, over all shifts at once."""

from __future__ import annotations

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.followup.transform import Transform

_VOXEL_MM = 8.0
_LEAST_COMMON = 0.15
"""Shifts that leave less of the smaller image in common do not count."""


def best_shift(fixed: sitk.Image, moving: sitk.Image) -> Transform:
    """The shift along x, y, z, to whole voxels of 8 mm (finer for small images), of the highest correlation.

    The normalised correlation of the part that both images have, by fast Fourier transform (Padfield, Masked Object
    Registration in the Fourier Domain, IEEE TIP 2012).

    Args:
        fixed, moving: float32 images, of any grid.
    """
    longest = max(_longest(fixed), _longest(moving))
    voxel_mm = min(_VOXEL_MM, longest / 32)
    (one, own, start), (two, other, begin) = (_axis_aligned(image, voxel_mm) for image in (fixed, moving))
    shape = [scipy.fft.next_fast_len(a + b - 1, real=True) for a, b in zip(one.shape, two.shape, strict=True)]
    two, other = (array[::-1, ::-1, ::-1] for array in (two, other))

    def spectrum(array: NDArray[np.float64]) -> NDArray[np.complex128]:
        result: NDArray[np.complex128] = scipy.fft.rfftn(array, shape)
        return result

    def product(first: NDArray[np.complex128], second: NDArray[np.complex128]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = scipy.fft.irfftn(first * second, shape)
        return result

    one_f, own_f, two_f, other_f = (spectrum(array) for array in (one, own, two, other))
    common = np.round(product(own_f, other_f))
    count = np.maximum(common, 1)
    sums = product(one_f, other_f), product(own_f, two_f)
    covariance = product(one_f, two_f) - sums[0] * sums[1] / count
    squares = (
        product(spectrum(one * one), other_f) - sums[0] ** 2 / count,
        product(own_f, spectrum(two * two)) - sums[1] ** 2 / count,
    )
    scale = np.sqrt(np.maximum(squares[0], 0) * np.maximum(squares[1], 0))
    enough = (common >= _LEAST_COMMON * min(own.sum(), other.sum())) & (scale > 1e-3 * scale.max())
    correlation = np.where(enough, covariance / np.maximum(scale, 1e-9), -1.0)
    place = np.unravel_index(int(correlation.argmax()), correlation.shape)
    lag = np.asarray(place) - (np.asarray(two.shape) - 1)
    return Transform.identity(begin - start - lag[::-1] * voxel_mm)


def _longest(image: sitk.Image) -> float:
    return float(np.max(np.multiply(image.GetSize(), image.GetSpacing())))


def _axis_aligned(
    image: sitk.Image, voxel_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """An image on cubic voxels along the patient's axes, where it has values, and the place of the first voxel."""
    size = np.asarray(image.GetSize())
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((np.asarray(corner) * (size - 1)).tolist())
        for corner in np.ndindex(2, 2, 2)
    ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    count = np.maximum(np.ceil((high - low) / voxel_mm), 1).astype(int) + 1
    grid = sitk.Image(count.tolist(), sitk.sitkFloat32)
    grid.SetSpacing([voxel_mm] * 3)
    grid.SetOrigin(low.tolist())
    there = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    there.CopyInformation(image)
    smooth = sitk.SmoothingRecursiveGaussian(image, voxel_mm / 2) if min(size) >= 4 else image
    values = sitk.GetArrayFromImage(sitk.Resample(smooth, grid)).astype(np.float64)
    mask = sitk.GetArrayFromImage(sitk.Resample(there, grid, sitk.Transform(), sitk.sitkNearestNeighbor))
    return values * mask, mask.astype(np.float64), low

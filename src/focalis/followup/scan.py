"""A scan made small for registration: its clipped image and where the body is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.volume import Grid, Volume, to_sitk

_PERCENTILES = (0.5, 99.5)
_LEAST_BODY = 0.1
"""Share of the image. Brighter parts smaller than this are organs, as in SPECT, and the body is darker."""


@dataclass(frozen=True)
class SmallScan:
    """A scan at a coarse spacing.

    Attributes:
        image: float32, 0 to 1 between the 0.5th and 99.5th percentile.
        body: uint8, 1 where the values lie above Otsu's threshold (a second one below it if organs glow): the largest
            part, holes filled.
    """

    image: sitk.Image
    body: sitk.Image

    def flipped(self, axis: int) -> SmallScan:
        """The same with its values in the other order along an array axis (0 to 2 for z, y, x), on the same grid."""
        image, body = (
            _like(np.flip(sitk.GetArrayViewFromImage(each), axis), each) for each in (self.image, self.body)
        )
        return SmallScan(image, body)

    @property
    def body_places(self) -> NDArray[np.float64]:
        """Places in the body, about two thousand, in mm (LPS), shape (n, 3)."""
        inside = np.argwhere(sitk.GetArrayViewFromImage(self.body) > 0)[:, ::-1]
        chosen = inside[:: max(1, len(inside) // 2000)]
        spacing, direction = np.asarray(self.body.GetSpacing()), np.reshape(self.body.GetDirection(), (3, 3))
        places: NDArray[np.float64] = np.asarray(self.body.GetOrigin()) + (chosen * spacing) @ direction.T
        return places


def extent_mm(grid: Grid) -> float:
    """The length of a cube's edge with the volume of a grid's box."""
    return float(np.prod(np.multiply(grid.size_xyz, grid.spacing_xyz_mm)) ** (1 / 3))


def make_small(volume: Volume, voxel_mm: float) -> SmallScan:
    """Average a scan over blocks of whole voxels of about `voxel_mm`."""
    factors = [
        min(count, max(1, int(voxel_mm / spacing + 0.5)))
        for count, spacing in zip(volume.grid.size_xyz, volume.grid.spacing_xyz_mm, strict=True)
    ]
    source = volume.array
    if source.dtype.kind == "f":
        source = np.where(np.isfinite(source), source, np.nanmin(source[np.isfinite(source)], initial=0))
    image = sitk.Cast(sitk.BinShrink(to_sitk(Volume(source, volume.grid)), factors), sitk.sitkFloat32)
    array = sitk.GetArrayFromImage(image)
    low, high = np.percentile(array, _PERCENTILES)
    if high <= low:  # a few bright voxels on an empty image
        low, high = float(array.min()), float(array.max())
    array = np.clip((array - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    return SmallScan(_like(array, image), _like(_body(array), image))


def _body(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    threshold = _otsu(array)
    if np.mean(array > threshold) < _LEAST_BODY and (array <= threshold).any():
        threshold = _otsu(array[array <= threshold][:, None, None])
    above = array > threshold
    labelled, count = scipy.ndimage.label(above)
    if count > 1:
        above = labelled == 1 + int(np.argmax(np.bincount(labelled.ravel())[1:]))
    filled: NDArray[np.uint8] = scipy.ndimage.binary_fill_holes(above).astype(np.uint8)
    return filled


def _otsu(array: NDArray[np.float32]) -> float:
    finder = sitk.OtsuThresholdImageFilter()
    finder.Execute(sitk.GetImageFromArray(array))
    return float(finder.GetThreshold())


def _like(array: NDArray[np.generic], image: sitk.Image) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made

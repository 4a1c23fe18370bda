"""Images that lie in memory: NumPy arrays, torch tensors, SimpleITK and nibabel images.

Nothing is guessed: an array needs its spacing, and axes point where `orientation` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.errors import DataError, UsageError
from focalis.volume.files import NIFTI_HEADER_BYTES
from focalis.volume.grid import Grid
from focalis.volume.itk import checked_grid
from focalis.volume.nifti_grid import nifti_grid
from focalis.volume.repair import nibabel_values
from focalis.volume.volume import Absent, Volume

Axes = Literal["zyx", "xyz"]
"""The order of an array's axes; nibabel's is x, y, z."""
ORIENTATION = "SPL"
_DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
"""Where a letter points, in x, y, z of the patient (LPS)."""


def knows_its_grid(image: Any) -> bool:
    """Whether an image says itself where its voxels lie."""
    return isinstance(image, sitk.Image) or (_library(image) == "nibabel" and hasattr(image, "affine"))


def volumes_in_memory(
    images: Any,
    spacing_mm: Sequence[float] | None = None,
    orientation: str = ORIENTATION,
    *,
    masks: bool = False,
) -> tuple[tuple[Volume, ...], Axes]:
    """The channels of a case, and the order of the axes that they came in.

    Args:
        images: an image, or a list of one image per channel, None for one that the case lacks. An array or tensor has
            the axes z, y, x, or channel, z, y, x. SimpleITK and nibabel images know their grid: it is that of the same
            image in a file. A nibabel image of four axes is one of several channels.
        spacing_mm: of an array or tensor, the distance between voxel centres along its last three axes, in their order.
        orientation: where these three axes point as their index grows, a letter each of L or R, P or A, S or I: SPL is
            slices from the feet to the head, rows from front to back, columns from right to left.
        masks: whether these are masks, which may be boolean.

    Raises:
        UsageError: an array without spacing, an image with one, or a spacing or orientation that is none.
        DataError: something else than an image of real numbers.
    """
    if isinstance(images, list | tuple):
        found = [
            None if image is None else volumes_in_memory(image, spacing_mm, orientation, masks=masks)
            for image in images
        ]
        there = [each for each in found if each is not None]
        if not there:
            raise UsageError("no image is given; give one per channel")
        if len({axes for _, axes in there}) > 1:
            raise UsageError("nibabel images and others are mixed; give all channels in one kind")
        absent = (Absent.on(there[0][0][0].grid),)
        return tuple(volume for each in found for volume in (each[0] if each else absent)), there[0][1]
    if knows_its_grid(images):
        if spacing_mm is not None or orientation != ORIENTATION:
            raise UsageError(
                "the image knows its spacing and orientation; leave spacing_mm and orientation out"
            )
        if isinstance(images, sitk.Image):
            return (_of_sitk(images),), "zyx"
        return _of_nibabel(images), "xyz"
    if _library(images) == "torch":
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if not isinstance(images, np.ndarray):
        raise UsageError(
            f"a {type(images).__module__}.{type(images).__name__} is not an image that Focalis knows; give a NumPy "
            "array, a torch tensor, a SimpleITK or a nibabel image"
        )
    if spacing_mm is None:
        raise UsageError("the array has no spacing; give spacing_mm, one number per axis: z, y, x")
    if images.ndim not in (3, 4):
        raise DataError(f"an array of {images.ndim} axes is not an image; give z, y, x or channel, z, y, x")
    if masks and images.dtype == np.bool_:
        images = images.astype(np.uint8)
    array, grid = _values(images), _grid(images.shape[-3:], spacing_mm, orientation)
    return tuple(Volume(channel, grid) for channel in (array if array.ndim == 4 else array[None])), "zyx"


def _library(image: Any) -> str:
    return type(image).__module__.partition(".")[0]


def _grid(shape: Sequence[int], spacing_mm: Sequence[float], orientation: str) -> Grid:
    try:
        spacing = [float(value) for value in spacing_mm]
    except (TypeError, ValueError):
        spacing = []
    if len(spacing) != 3 or not all(0 < value < np.inf for value in spacing):
        raise UsageError(f"spacing_mm is {spacing_mm}; give three numbers above 0, for z, y and x")
    letters = orientation.upper()
    axes = [_DIRECTIONS.get(letter, (0, 0, 0)) for letter in letters]
    if len(letters) != 3 or not np.abs(axes).sum(axis=0).tolist() == [1, 1, 1]:
        raise UsageError(
            f"orientation {orientation!r} is not an orientation; give one letter for each axis, of L or R, P or A, "
            "and S or I"
        )
    z, y, x = (int(size) for size in shape)
    columns = np.asarray(axes[::-1], dtype=float).T
    return Grid((x, y, z), (spacing[2], spacing[1], spacing[0]), direction=tuple(columns.ravel().tolist()))


def _of_sitk(image: sitk.Image) -> Volume:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"a SimpleITK image of {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} "
            "components is not a channel; give a list of 3D images, one per channel"
        )
    return Volume(_values(sitk.GetArrayFromImage(image)), checked_grid("the SimpleITK image", image))


def _of_nibabel(image: Any) -> tuple[Volume, ...]:
    """The volumes of a nibabel image, each where the file would lie that nibabel makes of it."""
    import nibabel

    name = image.get_filename() or "the nibabel image"
    # Without values: nibabel writes the affine into the header where the two differ, and makes one where there is none.
    stand_in = np.broadcast_to(np.uint8(0), image.shape)
    header = image.header if isinstance(image.header, nibabel.Nifti1Header) else None
    try:
        with nibabel.imageglobals.LoggingOutputSuppressor():
            described: Any = nibabel.Nifti1Image(stand_in, image.affine, header).header  # type: ignore[no-untyped-call]
        described.set_data_dtype(np.uint8)
    except (nibabel.spatialimages.HeaderDataError, ValueError) as error:
        raise DataError.at(
            name, f"does not fit into a NIfTI header ({error})", "crop or resample it"
        ) from error
    described["magic"], described["vox_offset"] = b"n+1", NIFTI_HEADER_BYTES
    grid = nifti_grid(name, described.binaryblock, several=True)
    values = _values(nibabel_values(image).T)
    return tuple(Volume(each, grid) for each in values.reshape(-1, *grid.shape_zyx))


def _values(array: NDArray[Any]) -> NDArray[Any]:
    """The values in this machine's byte order; only real numbers are an image."""
    if array.dtype.kind not in "iuf":
        raise DataError(f"an array of {array.dtype} is not an image; give real numbers")
    kept = array.dtype.newbyteorder("=")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        kept = np.dtype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return np.ascontiguousarray(array, dtype=kept)

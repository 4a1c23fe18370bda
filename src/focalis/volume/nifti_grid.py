"""From a NIfTI header to the grid: the one way, of a file and of an image in memory."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume.grid import Grid
from focalis.volume.integrity import REAL_TYPES
from focalis.volume.itk import (
    checked_grid,
    gist,
    is_skewed,
    no_itk_warnings,
    require_dimension,
    require_length,
    require_scalar,
)
from focalis.volume.placement import HeaderPlacement, contradiction, placement_in
from focalis.volume.repair import GridWarning, straightened

COMPARE = "compare it with its label on the screen"
_NO_EXTENSIONS = bytes(4)


def nifti_grid(name: object, header: bytes, *, several: bool) -> Grid:
    """The grid that a NIfTI-1 header describes; `focalis.volume.read_volume` says by which rules.

    Args:
        name: the file, or what to call the image in errors and warnings.
        header: its 348 bytes.
        several: whether it may describe several volumes.

    Raises:
        DataError: the placement is malformed, the axes are not perpendicular, or the header describes something else
            than a 3D (or 4D) image of one real number per voxel.
    """
    placement = placement_in(name, header)
    if doubt := contradiction(placement):
        warnings.warn(GridWarning(name, doubt, COMPARE), stacklevel=2)
    with tempfile.TemporaryDirectory(prefix="focalis-") as folder, no_itk_warnings():
        file = Path(folder) / "image.nii"
        file.write_bytes(header + _NO_EXTENSIONS)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("NiftiImageIO")
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if not is_skewed(error):
                raise DataError.at(
                    name, f"cannot be read ({gist(error)})", "export the file again"
                ) from error
            if placement.datatype not in REAL_TYPES:
                raise DataError.at(
                    name,
                    f"holds values of NIfTI datatype {placement.datatype}",
                    "give one file per channel, one real number per voxel",
                ) from error
            require_dimension(name, placement.shape, several)
            return _skewed_grid(name, placement)
    require_scalar(name, reader)
    require_dimension(name, tuple(reader.GetSize()), several)
    return checked_grid(name, reader)


def _skewed_grid(name: object, placement: HeaderPlacement) -> Grid:
    """Of axes that SimpleITK refuses: those of the sform, as it looks at no other. Spacing is pixdim's there too."""
    sform = placement.sform
    lengths = np.zeros(3) if sform is None else np.linalg.norm(sform[:3, :3], axis=0)
    if sform is None or not lengths.all():
        raise DataError.at(name, "its position in the patient is not given in numbers", "export it again")
    lps = np.diag([-1.0, -1.0, 1.0]) @ sform[:3]
    cosines = straightened(name, lps[:, :3] / lengths)
    unit = placement.unit_mm
    dx, dy, dz = (spacing * unit for spacing in placement.spacing_xyz)
    x, y, z = (float(value) * unit for value in lps[:, 3])
    grid = Grid(placement.size_xyz, (dx, dy, dz), (x, y, z), tuple(cosines.ravel().tolist()))
    require_length(name, grid)
    return grid

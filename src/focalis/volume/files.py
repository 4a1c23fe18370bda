"""Read and write NIfTI files, strictly: a damaged file is an error here, never an image of zeros."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume.grid import Grid
from focalis.volume.integrity import inspect_nifti
from focalis.volume.volume import Volume

IMAGE_SUFFIXES = (".nii.gz", ".nii")


def image_stem(path: Path) -> str | None:
    """The file's name without its image suffix, or None if it is hidden or no image file by its name."""
    name = path.name
    if name.startswith("."):
        return None
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def read_volume(path: Path | str) -> Volume:
    """Read a three-dimensional NIfTI image (.nii, .nii.gz).

    Args:
        path: the file.

    Returns:
        The values as stored (a scale slope is applied; NaN and infinity stay), z, y, x, with their grid.

    Raises:
        DataError: the file is missing, damaged, not NIfTI, not 3D, or holds several values per voxel.
    """
    path = Path(path)
    _suffix(path)
    non_finite = inspect_nifti(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NiftiImageIO")
    try:
        with _no_itk_warnings():
            reader.ReadImageInformation()
            _require_scalar_3d(path, reader)
            image = reader.Execute()
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be read ({_gist(error)}); export the file again") from error
    volume = from_sitk(image)
    if non_finite.positions.size:
        volume.array.reshape(-1)[non_finite.positions] = non_finite.values
    return volume


def write_volume(volume: Volume, path: Path | str) -> None:
    """Write a volume as NIfTI; either the whole file appears under its name or none does.

    Booleans are written as uint8 and float16 as float32; every other dtype is kept. Missing folders are made.

    Raises:
        DataError: the suffix is not .nii or .nii.gz, or the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(to_sitk(volume), str(temporary), useCompression=suffix == ".nii.gz")
        temporary.replace(path)
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written ({_gist(error)}); check folder and disk") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: cannot be written ({reason}); check folder and disk") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def to_sitk(volume: Volume) -> sitk.Image:
    """The same image as a SimpleITK image (a copy); bool becomes uint8 and float16 float32."""
    array = volume.array
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(volume.grid.spacing_xyz_mm)
    image.SetOrigin(volume.grid.origin_xyz_mm)
    image.SetDirection(volume.grid.direction)
    return image


def from_sitk(image: sitk.Image) -> Volume:
    """A 3D SimpleITK image as a volume (a copy)."""
    grid = Grid(
        size_xyz=tuple(image.GetSize()),
        spacing_xyz_mm=tuple(image.GetSpacing()),
        origin_xyz_mm=tuple(image.GetOrigin()),
        direction=tuple(image.GetDirection()),
    )
    return Volume(sitk.GetArrayFromImage(image), grid)


def _require_scalar_3d(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse what is not one real value per voxel of a 3D image; the reader has read the header."""
    size = " x ".join(str(length) for length in reader.GetSize())
    dimension = reader.GetDimension()
    if dimension != 3:
        raise DataError(f"{path}: is {dimension}-dimensional ({size}); give one 3D image per channel")
    kind = str(sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    if reader.GetNumberOfComponents() != 1 or "complex" in kind:
        raise DataError(f"{path}: holds {kind} values; give one file per channel, one real number per voxel")


def _suffix(path: Path) -> str:
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise DataError(f"{path}: is not a NIfTI file by its name; use a name that ends in .nii or .nii.gz")


def _gist(error: RuntimeError) -> str:
    """The telling line of SimpleITK's several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = lines[-1] if lines else type(error).__name__
    return " ".join(telling.rpartition("ERROR:")[2].split()).rstrip(".!")


@contextmanager
def _no_itk_warnings() -> Iterator[None]:
    """Keep ITK's own warnings off the standard error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)

"""Read and write image files, strictly: a damaged file is an error here, never an image of zeros."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.errors import DataError, refused
from focalis.files import states_of, whole_file
from focalis.volume.compress import gzip_file
from focalis.volume.grid import Grid
from focalis.volume.integrity import inspect_nifti
from focalis.volume.itk import (
    checked_grid,
    gist,
    is_skewed,
    no_itk_warnings,
    require_dimension,
    require_scalar,
)
from focalis.volume.nifti_grid import COMPARE, nifti_grid
from focalis.volume.payload import find_payload, require_whole, surplus_of
from focalis.volume.placement import placement_in, read_header
from focalis.volume.repair import GridWarning, read_oblique_values
from focalis.volume.segments import NamedSegment, segment_fields, segments_in
from focalis.volume.volume import Volume

_NIFTI, _NRRD, _META = "NiftiImageIO", "NrrdImageIO", "MetaImageIO"
_READERS = {".nii.gz": _NIFTI, ".nii": _NIFTI, ".nrrd": _NRRD, ".nhdr": _NRRD, ".mha": _META, ".mhd": _META}
_HEADER_SUFFIXES = (".nhdr", ".mhd")
_SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
IMAGE_SUFFIXES = tuple(_READERS)
NIFTI_HEADER_BYTES = 352
"""Before the values of an uncompressed NIfTI file that `write_volume` wrote."""


def image_stem(path: Path) -> str | None:
    """The file's name without its image suffix, or None if it is hidden or no image file by its name.

    `.seg.nrrd`, by which 3D Slicer names a segmentation of CASE.nrrd, is a suffix too.
    """
    name = path.name
    if name.startswith("."):
        return None
    for suffix in (*_SEGMENTATION_SUFFIXES, *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def is_segmentation(path: Path) -> bool:
    """Whether a file is a segmentation by its name, as 3D Slicer gives it."""
    return path.name.lower().endswith(_SEGMENTATION_SUFFIXES)


def read_volume(path: Path | str) -> Volume:
    """Read a three-dimensional image: NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd).

    The grid is the one that SimpleITK takes. For a NIfTI file whose sform and qform disagree, that is the sform if
    its code is 1 (scanner) or the qform's is 0, else the qform; a sform whose axes are not perpendicular counts
    only where there is no qform. Spacing is pixdim's. Direction cosines that are off by up to 1e-3 are repaired
    with a `GridWarning`; a NIfTI file that SimpleITK refuses for them is read by nibabel.

    Args:
        path: the file; of an image in two files (.nhdr, .mhd), the header.

    Returns:
        The values as stored (a scale slope is applied; NaN and infinity stay), z, y, x, with their grid.

    Raises:
        DataError: the file is missing, damaged, of another format, not 3D, or holds several values per voxel; or
            its axes are not perpendicular.
    """
    with refused(path):
        return _read(Path(path), several=False)[0]


def read_volumes(path: Path | str) -> tuple[Volume, ...]:
    """Read all volumes of a 4D image, in their order, or the one of a 3D image; else as `read_volume`."""
    with refused(path):
        return _read(Path(path), several=True)


def placement_lacks(path: Path) -> str:
    """What a file's header would need to say how the image lies in the patient, a phrase; empty if it says so.

    Raises:
        DataError: the file cannot be read, or its placement is malformed.
    """
    if _READERS[_suffix(path)] != _NIFTI:
        return find_payload(path).lacks
    return "" if placement_in(path, read_header(path)).is_given else "sform_code and qform_code are 0"


def read_segments(path: Path) -> tuple[NamedSegment, ...]:
    """The segments that the header of a NRRD file names, as 3D Slicer writes them; none in any other file.

    Raises:
        DataError: the file cannot be read.
    """
    if _READERS[_suffix(path)] != _NRRD:
        return ()
    try:
        with image_reader(path) as reader:
            reader.ReadImageInformation()
            return _segments(reader)
    except RuntimeError as error:
        raise DataError.at(path, f"cannot be read ({gist(error)})", "export the file again") from error


def data_files(path: Path) -> tuple[Path, ...]:
    """The files that an image consists of: the file itself and, if its header names one, the data file.

    Raises:
        DataError: the header of a NRRD or MetaImage file cannot be read.
    """
    if _READERS[_suffix(path)] == _NIFTI:
        return (path,)
    return tuple(dict.fromkeys((path, find_payload(path).path)))


def write_volume(volume: Volume, path: Path | str, names: Mapping[int, str] | None = None) -> None:
    """Write a volume in the format of the suffix; either the whole file appears under its name or none does.

    Booleans are written as uint8 and float16 as float32; every other dtype is kept. Values are compressed, except for
    .nii. Missing folders are made. A .nhdr or .mhd file is a header; its values go into STEM.raw.gz or STEM.zraw
    beside it. A `.seg.nrrd` file names its segments, as 3D Slicer expects it, if `names` has those of its label values.

    Raises:
        DataError: the suffix is none of `IMAGE_SUFFIXES`, the file cannot be written, or the data file of a new
            header would replace a file of that name.
    """
    path = Path(path)
    write = _write_pair if _suffix(path) in _HEADER_SUFFIXES else _write_one
    image = to_sitk(volume)
    for key, text in segment_fields(names, volume.grid).items() if names and is_segmentation(path) else ():
        image.SetMetaData(key, text)
    try:
        with DataError.of_system(path, "check folder and disk", "cannot be written"):
            write(image, path)
    except RuntimeError as error:
        raise DataError.at(path, f"cannot be written ({gist(error)})", "check folder and disk") from error


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


def _read(path: Path, *, several: bool) -> tuple[Volume, ...]:
    """Read what was inspected: a file that changes in between is refused."""
    kind = _READERS[_suffix(path)]
    before = states_of(data_files(path))
    if kind == _NIFTI:
        not_finite = inspect_nifti(path)
        surplus = surplus_of(not_finite.surplus) if not_finite.surplus else ""
        _warn(path, filter(None, [surplus]))
        grid = nifti_grid(path, read_header(path), several=several)
        array = _nifti_values(path)
        if not_finite.positions.size:
            array.reshape(-1)[not_finite.positions] = not_finite.values
    else:
        _warn(path, require_whole(path))
        array, grid = _read_other(path, several)
    if states_of(data_files(path)) != before:
        raise DataError.at(path, "changed while it was read", "wait until it is complete, and start again")
    stack: NDArray[Any] = array.reshape(-1, *grid.shape_zyx)
    return tuple(Volume(values, grid) for values in stack)


def _warn(path: Path, doubts: Iterable[str]) -> None:
    for doubt in doubts:
        warnings.warn(GridWarning(path, doubt, COMPARE), stacklevel=4)


def _nifti_values(path: Path) -> NDArray[Any]:
    """The values (t, z, y, x or z, y, x), by nibabel where SimpleITK refuses the file for its axes."""
    try:
        with image_reader(path) as reader:
            return sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        if is_skewed(error):
            return read_oblique_values(path)
        raise DataError.at(path, f"cannot be read ({gist(error)})", "export the file again") from error


def _read_other(path: Path, several: bool) -> tuple[NDArray[Any], Grid]:
    """Values and grid of a file that is not NIfTI."""
    try:
        with image_reader(path) as reader:
            reader.ReadImageInformation()
            if _READERS[_suffix(path)] == _NRRD:
                _require_one_layer(path, _segments(reader))
            require_scalar(path, reader)
            require_dimension(path, tuple(reader.GetSize()), several)
            image = reader.Execute()
    except RuntimeError as error:
        raise DataError.at(path, f"cannot be read ({gist(error)})", "export the file again") from error
    return sitk.GetArrayFromImage(image), checked_grid(path, image)


@contextmanager
def image_reader(path: Path) -> Iterator[sitk.ImageFileReader]:
    """SimpleITK's reader of a file by its suffix; ITK's own warnings are kept off the standard error meanwhile."""
    reader = sitk.ImageFileReader()
    kind = _READERS[_suffix(path)]
    reader.SetImageIO(kind)
    with no_itk_warnings(), _alone(path, kind) as place:
        reader.SetFileName(str(place))
        yield reader


def _segments(reader: sitk.ImageFileReader) -> tuple[NamedSegment, ...]:
    return segments_in({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})


def _require_one_layer(path: Path, segments: tuple[NamedSegment, ...]) -> None:
    """Refuse a segmentation in which one voxel may belong to several segments."""
    layers = len({segment.layer for segment in segments})
    if layers > 1:
        raise DataError.at(
            path,
            f"holds segments in {layers} layers, because some overlap, and a voxel has one label",
            "subtract one from the other, or export a label map",
        )


def _write_one(image: sitk.Image, path: Path) -> None:
    """Write a file and read it back before it takes its place: ITK can lose values without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: the NIfTI library cuts names such as a.nii.nii at the first suffix it knows.
    with whole_file(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        suffix = _suffix(path)
        nifti = _READERS[suffix] == _NIFTI
        made = Path(folder) / ("image.nii" if nifti else f"image{suffix}")
        sitk.WriteImage(image, str(made), useCompression=not nifti)
        _require_written(made, path)
        if suffix == ".nii.gz":
            gzip_file(made, temporary)
        else:
            made.replace(temporary)


def _require_written(made: Path, path: Path) -> None:
    """DataError that names `path` if the file `made` for it does not hold all its values."""
    try:
        if _READERS[_suffix(made)] == _NIFTI:
            inspect_nifti(made)
        else:
            require_whole(made)
    except DataError as error:
        advice = "check disk space, quota and the limit on file sizes"
        raise DataError.at(path, "cannot be written (only a part arrived)", advice) from error


def _write_pair(image: sitk.Image, path: Path) -> None:
    """Write a header and its data file; the header is absent while the data file changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        header = Path(folder) / path.name
        sitk.WriteImage(image, str(header), useCompression=True)
        _require_written(header, path)
        (data,) = (file for file in header.parent.iterdir() if file != header)
        target = path.parent / data.name
        if target.exists() and not path.exists():
            raise DataError.at(target, f"is in the way of the values of {path.name}", "choose another name")
        path.unlink(missing_ok=True)
        for source, place in ((data, target), (header, path)):
            with whole_file(place) as temporary:
                source.replace(temporary)


def _suffix(path: Path) -> str:
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise DataError.at(
        path,
        "is not an image file by its name",
        f"use a name that ends in {', '.join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}",
    )


@contextmanager
def _alone(path: Path, kind: str) -> Iterator[Path]:
    """A name for a file under which ITK finds that file and no other.

    The NIfTI library takes the header from A.nii.gz and the values from an A.nii beside it, and cuts names such as
    a.img.nii.gz short. So it is given a link with a plain name in an empty folder.
    """
    if kind != _NIFTI:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="focalis-") as folder:
        link = Path(folder) / f"image{_suffix(path)}"
        link.symlink_to(path.resolve())
        yield link

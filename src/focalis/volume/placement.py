"""What a NIfTI header says of where its voxels lie, and what it says wrong or not at all.

SimpleITK takes a spacing that is not a number, or 0, for 1 mm, and does not say which of two placements it follows.
"""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.files import require_regular

_UNITS_MM = {1: 1000.0, 3: 0.001}
_HEADER_BYTES = 348
_LONGEST_QUATERNION = 1.001
"""Three of the four numbers of a quaternion of length 1, rounded."""
_LARGEST_SHIFT = 0.1
"""In voxels: what rounding in float32 and in quaternions may move a corner of an image by, amply."""


@dataclass(frozen=True)
class HeaderPlacement:
    """The placement fields of a NIfTI header.

    Attributes:
        unit_mm: millimetres per unit of length.
        sform: 4 x 4, index to RAS+ in the header's unit; None if its code is 0.
        qform: likewise.
        shape: voxels per axis: x, y, z and what comes after them, without axes of length 1 at the end.
        spacing_xyz: pixdim 1 to 3, in the header's unit.
        datatype: NIfTI's code for the type of the values.
    """

    unit_mm: float
    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    shape: tuple[int, ...]
    spacing_xyz: tuple[float, float, float]
    datatype: int

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z, *_ = *self.shape, 1, 1, 1
        return x, y, z

    @property
    def is_given(self) -> bool:
        """Whether the header says how the image lies in the patient at all."""
        return self.sform is not None or self.qform is not None


def read_header(path: Path) -> bytes:
    """The header of a NIfTI file (.nii, .nii.gz by its name), as far as the file goes.

    Raises:
        DataError: the file cannot be read.
    """
    require_regular(path)
    try:
        with path.open("rb") as raw:
            return (gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw).read(
                _HEADER_BYTES
            )
    except (OSError, EOFError, zlib.error) as error:
        raise DataError.at(path, f"cannot be read ({error})", "copy or export the file again") from error


def placement_in(path: object, start: bytes) -> HeaderPlacement:
    """The placement in a NIfTI-1 header of either byte order.

    Source: nifti1.h (nifti.nimh.nih.gov), "3D image orientation and location in space".

    Args:
        path: the file, or what to call the image.
        start: the header.

    Raises:
        DataError: a field that is used is not a number, a spacing is not above 0, or the qform is not a rotation; the
            line names the field.
    """
    order = _byte_order(path, start)
    dim = struct.unpack_from(f"{order}8h", start, 40)
    pixdim = struct.unpack_from(f"{order}8f", start, 76)
    quaternion = struct.unpack_from(f"{order}6f", start, 256)
    rows = struct.unpack_from(f"{order}12f", start, 280)
    units = start[123]
    form = struct.unpack_from(f"{order}2h", start, 252)
    qform_code, sform_code = form
    for axis in (1, 2, 3):
        if not (math.isfinite(pixdim[axis]) and pixdim[axis] > 0):
            raise DataError.at(
                path,
                f"its spacing along {'xyz'[axis - 1]} (pixdim[{axis}]) is {pixdim[axis]:g}",
                "correct the header or export the image again",
            )
    for name, code, values in (("sform", sform_code, rows), ("qform", qform_code, quaternion)):
        if code > 0 and not all(math.isfinite(value) for value in values):
            raise DataError.at(
                path,
                f"its {name} holds values that are not numbers",
                "correct the header or export the image again",
            )
    if qform_code > 0 >= sform_code and math.hypot(*quaternion[:3]) > _LONGEST_QUATERNION:
        raise DataError.at(
            path,
            "its qform is not a rotation (quatern_b, c and d are "
            f"{', '.join(f'{q:g}' for q in quaternion[:3])})",
            "correct the header or export the image again",
        )
    sform = np.vstack([np.reshape(rows, (3, 4)), [0, 0, 0, 1]]) if sform_code > 0 else None
    return HeaderPlacement(
        unit_mm=_UNITS_MM.get(units & 7, 1.0),
        sform=sform,
        qform=_qform(quaternion, pixdim) if qform_code > 0 else None,
        shape=_shape(dim),
        spacing_xyz=(pixdim[1], pixdim[2], pixdim[3]),
        datatype=struct.unpack_from(f"{order}h", start, 70)[0],
    )


def contradiction(placement: HeaderPlacement) -> str:
    """How the placement fields contradict each other by more than rounding, a phrase; empty if they agree."""
    spacing = np.asarray(placement.spacing_xyz)
    if placement.sform is not None:
        lengths = np.linalg.norm(placement.sform[:3, :3], axis=0)
        if not np.allclose(lengths, spacing, rtol=0.01):
            return (
                f"its sform has a spacing of {_listed(lengths)}, its pixdim {_listed(spacing)}, which is used"
            )
    if placement.sform is None or placement.qform is None:
        return ""
    last = np.asarray(placement.size_xyz) - 1
    corners = np.asarray([(*corner, 1) for corner in itertools.product(*((0, end) for end in last))])
    away = np.linalg.norm((corners @ (placement.sform - placement.qform).T)[:, :3], axis=1).max()
    if away <= _LARGEST_SHIFT * float(spacing.min()):
        return ""
    return f"its sform and qform place it up to {away * placement.unit_mm:.3g} mm apart"


def _shape(dim: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths that `dim` says; an axis of length 1 behind the third is none."""
    shape = [max(1, length) for length in dim[1 : 1 + max(0, min(7, dim[0]))]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _byte_order(path: object, start: bytes) -> str:
    """The byte order of a header, as `struct` names it."""
    for order in "<>":
        if len(start) >= _HEADER_BYTES and struct.unpack_from(f"{order}i", start)[0] == _HEADER_BYTES:
            return order
    raise DataError.at(path, "is not a NIfTI file", "export the image as NIfTI")


def _qform(quaternion: tuple[float, ...], pixdim: tuple[float, ...]) -> NDArray[np.float64]:
    b, c, d, *offset = quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.asarray(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.multiply(pixdim[1:4], (1, 1, -1 if pixdim[0] < 0 else 1))
    affine[:3, 3] = offset
    return affine


def _listed(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"

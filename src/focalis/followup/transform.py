"""Where a place of one scan lies in another: an affine map between patient coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Transform:
    """An affine map of places in the patient, in mm (LPS): `matrix @ place + offset`.

    Attributes:
        matrix: shape (3, 3).
        offset: shape (3,), in mm.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def identity(cls, shift_mm: Sequence[float] = (0.0, 0.0, 0.0)) -> Transform:
        """No rotation, and a shift by so many mm along x, y, z."""
        return cls(np.eye(3), np.asarray(shift_mm, dtype=np.float64))

    @classmethod
    def from_sitk(cls, transform: sitk.Transform) -> Transform:
        """The map of an affine SimpleITK transform, read off at four places."""
        base = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.asarray(transform.TransformPoint(tuple(axis))) - base for axis in 1e3 * np.eye(3)]
        return cls(np.stack(columns, axis=1) / 1e3, base)

    def to_sitk(self) -> sitk.AffineTransform:
        """The same map for SimpleITK."""
        return sitk.AffineTransform(self.matrix.ravel().tolist(), self.offset.tolist())

    def apply(self, places: ArrayLike) -> NDArray[np.float64]:
        """Where places lie, shape (3,) or (n, 3), x, y, z in mm."""
        moved: NDArray[np.float64] = np.asarray(places, dtype=np.float64) @ self.matrix.T + self.offset
        return moved

    def inverse(self) -> Transform:
        """The way back."""
        back: NDArray[np.float64] = np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)
        return Transform(back, -back @ self.offset)

    def then(self, following: Transform) -> Transform:
        """This map, and after it another one."""
        return Transform(following.matrix @ self.matrix, following.apply(self.offset))

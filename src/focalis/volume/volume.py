"""An image or a label map together with its grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.volume.grid import Grid


@dataclass(frozen=True)
class Volume:
    """A three-dimensional array on a grid.

    A case with several channels (FLAIR and T1, say) is several volumes on one grid.

    Attributes:
        array: values in the order z, y, x; any numeric dtype.
        grid: where the voxels lie.
    """

    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape_zyx:
            raise DataError(
                f"an array of shape {self.array.shape} does not fit a grid of {self.grid.shape_zyx} (z, y, x)"
            )

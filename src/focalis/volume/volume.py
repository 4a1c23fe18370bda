"""An image or a label map together with its grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.errors import DataError
from focalis.volume.grid import Grid


@dataclass(frozen=True, repr=False)
class Volume(Shown):
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


class Absent(Volume):
    """A channel that a case lacks: zeros that take no memory, on the grid of the channels that are there."""

    @classmethod
    def on(cls, grid: Grid) -> Absent:
        """The absent channel of a case on this grid."""
        return cls(np.broadcast_to(np.uint8(0), grid.shape_zyx), grid)


def with_absent(volumes: Sequence[Volume], lacks: Collection[int]) -> list[Volume]:
    """The channels of a case in their order: those that are there, and `Absent` ones at the places that it lacks."""
    there = iter(volumes)
    grid = volumes[0].grid
    return [Absent.on(grid) if place in lacks else next(there) for place in range(len(volumes) + len(lacks))]

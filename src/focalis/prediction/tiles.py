"""Overlapping tiles whose smooth weights sum to one in every voxel.

The weights are separable, so their sum over a grid of tiles is too: each axis is normalised on its own, and
the tiles' contributions simply add up. No second accumulator is needed.

The overlap is a quarter of a tile. The Gaussian hides a tile's border, where the network sees padding in
place of context, and tiles are as large as the memory budget allows. For many tiles a quarter means 2.4 times
the work of no overlap, a half 8 times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]

OVERLAP = 0.25
SIGMA = 1 / 8
"""Standard deviation of the Gaussian as a share of the tile; at the border it has fallen to exp(-8)."""


@dataclass(frozen=True)
class Tile:
    """One tile of a volume.

    Attributes:
        where: its slices along z, y, x.
        weights_zyx: one vector per axis; the weight of a voxel is the product of its three entries.
    """

    where: tuple[slice, slice, slice]
    weights_zyx: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

    def weigh(self, values: NDArray[np.float32]) -> None:
        """Multiply values (..., z, y, x) of this tile by its weights, in place."""
        z, y, x = self.weights_zyx
        values *= z[:, None, None]
        values *= y[:, None]
        values *= x


def tiles(shape_zyx: Triple, tile_zyx: Triple, overlap: float = OVERLAP) -> list[Tile]:
    """Tiles of one size that cover a volume; the weights of all tiles sum to 1 in every voxel.

    Args:
        shape_zyx: the volume's size in voxels.
        tile_zyx: the tile's size; along no axis more than the volume's.
        overlap: the least share of a tile that it has in common with the next one, in [0, 1).
    """
    axes = [list(_along(size, tile, overlap)) for size, tile in zip(shape_zyx, tile_zyx, strict=True)]
    return [
        Tile((z, y, x), (weights_z, weights_y, weights_x))
        for z, weights_z in axes[0]
        for y, weights_y in axes[1]
        for x, weights_x in axes[2]
    ]


def tile_starts(size: int, tile: int, overlap: float = OVERLAP) -> list[int]:
    """First voxels of evenly spread tiles along one axis; the first starts at 0, the last ends at `size`."""
    if not 0 < tile <= size:
        raise ValueError(f"a tile of {tile} voxels does not fit into {size}")
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap lies in [0, 1), not at {overlap}")
    step = max(1, int(tile * (1 - overlap)))
    intervals = -(-(size - tile) // step)
    return [round(i * (size - tile) / intervals) for i in range(intervals + 1)] if intervals else [0]


def _along(size: int, tile: int, overlap: float) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    starts = tile_starts(size, tile, overlap)
    centred = np.arange(tile) - (tile - 1) / 2
    bell = np.exp(-0.5 * (centred / (SIGMA * tile)) ** 2)
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += bell
    for start in starts:
        where = slice(start, start + tile)
        yield where, (bell / total[where]).astype(np.float32)

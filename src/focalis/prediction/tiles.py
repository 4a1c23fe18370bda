"""Overlapping tiles whose weights sum to one in every voxel.

The weights are separable, so their sum over a grid of tiles is too: each axis is normalised on its own, and
the tiles' contributions simply add up. No second accumulator is needed.

Where tiles are so large that the network's reach is a small part of them, neighbours overlap by twice that reach and
each voxel is taken from one tile, far enough from its border: the result is that of the whole volume. Smaller tiles
overlap by a quarter and are blended by a Gaussian, which hides the border, where the network sees padding in place of
context. For many tiles a quarter means 2.4 times the work of no overlap, a half 8 times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]

OVERLAP = 0.25
EXACT_UP_TO = 1 / 3
"""Tiles are exact as long as that takes no more than this share of their length."""
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

    def weigh(self, values: Any, put: Callable[[NDArray[np.float32]], Any] = np.asarray) -> None:
        """Multiply values (..., z, y, x) of this tile by its weights, in place; `put` brings these to the values."""
        for weights, shape in zip(self.weights_zyx, ((-1, 1, 1), (-1, 1), (-1,)), strict=True):
            if (weights != 1).any():
                values *= put(weights.reshape(shape))


@dataclass(frozen=True)
class Axis:
    """How tiles lie along one axis.

    Attributes:
        stride: the network's raster; tiles have multiples of it as their length.
        reach: how far the network sees, in voxels; None without bound.
    """

    stride: int = 1
    reach: int | None = None

    def lengths(self, size: int, least: int) -> list[int]:
        """The lengths of a tile, longest first: for one, two, three ... tiles; none below `least`."""
        lengths = [size]
        for count in range(2, size + 1):
            length = self._length(size, count)
            if length <= least:
                break
            if length < lengths[-1]:
                lengths.append(length)
        return lengths if size == least else [*lengths, least]

    def starts(self, size: int, tile: int) -> list[int]:
        """First voxels of evenly spread tiles; the first starts at 0, the last ends at `size`."""
        if not 0 < tile <= size:
            raise ValueError(f"a tile of {tile} voxels does not fit into {size}")
        # A tile that begins beside the raster would not see what the whole volume's pass sees.
        raster = self.stride if self.is_exact(tile) else 1
        overlap = self._exact() if self.is_exact(tile) else math.ceil(tile * OVERLAP)
        free = (size - tile) // raster
        intervals = -(-free // max(1, (tile - overlap) // raster))
        return [i * free // intervals * raster for i in range(intervals)] + [size - tile]

    def is_exact(self, tile: int) -> bool:
        """Whether every voxel is taken from a tile whose border is out of the network's reach."""
        return self.reach is not None and self._exact() <= tile * EXACT_UP_TO

    def _exact(self) -> int:
        """The overlap that an exact result takes: a multiple of the stride."""
        return -(-2 * (self.reach or 0) // self.stride) * self.stride

    def _length(self, size: int, count: int) -> int:
        """The least length of so many tiles."""
        exact = -(-(size + (count - 1) * self._exact()) // (count * self.stride)) * self.stride
        if self.is_exact(exact):
            return exact
        return int(-(-size / (count - (count - 1) * OVERLAP) // self.stride) * self.stride)


def tiles(shape_zyx: Triple, tile_zyx: Triple, axes_zyx: tuple[Axis, Axis, Axis]) -> list[Tile]:
    """Tiles of one size that cover a volume; the weights of all tiles sum to 1 in every voxel.

    Args:
        shape_zyx: the volume's size in voxels.
        tile_zyx: the tile's size; along no axis more than the volume's.
        axes_zyx: what the network wants.
    """
    cut = [list(_along(*axis)) for axis in zip(shape_zyx, tile_zyx, axes_zyx, strict=True)]
    return [
        Tile((z, y, x), (weights_z, weights_y, weights_x))
        for z, weights_z in cut[0]
        for y, weights_y in cut[1]
        for x, weights_x in cut[2]
    ]


def _along(size: int, tile: int, axis: Axis) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    starts = axis.starts(size, tile)
    if axis.is_exact(tile):
        borders = [(before + tile + after) // 2 for before, after in pairwise(starts)]
        for start, first, last in zip(starts, [0, *borders], [*borders, size], strict=True):
            mine = np.zeros(tile, dtype=np.float32)
            mine[first - start : last - start] = 1
            yield slice(start, start + tile), mine
        return
    centred = np.arange(tile) - (tile - 1) / 2
    bell = np.exp(-0.5 * (centred / (SIGMA * tile)) ** 2)
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += bell
    for start in starts:
        where = slice(start, start + tile)
        yield where, (bell / total[where]).astype(np.float32)

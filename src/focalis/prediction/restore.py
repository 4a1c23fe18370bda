"""Back from the network's grid to the grid on which a case came."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from focalis.volume import Grid, Volume, resample_probabilities, to_canonical

SLAB_BYTES = 256 * 2**20


def restore(
    probabilities: NDArray[np.float32], grid: Grid, input_grid: Grid, slab_bytes: int = SLAB_BYTES
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Probabilities on the input's own grid, slab by slab along z: no second volume of all labels is needed.

    Where preparation only turned and mirrored the axes the values come back untouched; otherwise they are
    interpolated linearly.

    Args:
        probabilities: float32 (label, z, y, x) on `grid`, the background first; as many labels as are wanted.
        slab_bytes: the most bytes of a slab (at least one slice).

    Yields:
        The slices along z, and float32 (label, z of the slab, y, x) there.
    """
    turned = turn_back(probabilities, grid, input_grid)
    depth, height, width = input_grid.shape_zyx
    # a single label's background takes as much again while it is tempered
    rows = max(1, slab_bytes // (4 * max(2, len(probabilities)) * height * width))
    for start in range(0, depth, rows):
        where = slice(start, min(start + rows, depth))
        if turned is not None:
            yield where, turned[:, where]
        else:
            slab = input_grid.part((0, 0, where.start), (width, height, where.stop - where.start))
            yield where, resample_probabilities(probabilities, grid, slab)


def turn_back(array: NDArray[np.float32], grid: Grid, input_grid: Grid) -> NDArray[np.float32] | None:
    """A view of the array (label, z, y, x) along the input's axes; None if the grids hold other voxels."""
    canonical = to_canonical(Volume(np.zeros(input_grid.shape_zyx, dtype=np.uint8), input_grid)).grid
    if grid.differences(canonical):
        return None
    cosines = grid.direction_matrix.T @ input_grid.direction_matrix
    along = np.abs(cosines).argmax(axis=0)  # the prepared axis that runs along each input axis, x, y, z
    mirrored = [cosines[along[axis], axis] < 0 for axis in range(3)]
    turned = array.transpose([0, *(3 - int(along[axis]) for axis in (2, 1, 0))])
    result: NDArray[np.float32] = np.flip(turned, axis=tuple(3 - axis for axis in range(3) if mirrored[axis]))
    return result

"""Tiles cover the volume, and their weights add up to one."""

import itertools

import numpy as np
import pytest

from focalis.prediction import tile_starts, tiles

SHAPES = [
    ((20, 17, 33), (8, 17, 16)),
    ((9, 9, 9), (9, 9, 9)),
    ((64, 5, 31), (16, 5, 30)),
    ((3, 3, 40), (1, 2, 8)),
]


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_constant_field_comes_back(shape, tile, overlap):
    total = np.zeros((2, *shape), dtype=np.float32)
    for part in tiles(shape, tile, overlap):
        values = np.full((2, *tile), 3.0, dtype=np.float32)
        part.weigh(values)
        total[(slice(None), *part.where)] += values
    np.testing.assert_allclose(total, 3.0, rtol=1e-5)


@pytest.mark.parametrize(("size", "tile"), list(itertools.product([8, 9, 31, 100], [1, 2, 7, 8])))
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_starts_cover_the_axis_with_at_least_the_overlap(size, tile, overlap):
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile == size
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, tile * (1 - overlap)) + 0.5).all()


def test_one_tile_that_fits_exactly():
    (only,) = tiles((4, 5, 6), (4, 5, 6))
    assert only.where == (slice(0, 4), slice(0, 5), slice(0, 6))
    assert all((weights == 1).all() for weights in only.weights_zyx)


def test_a_seam_has_no_step():
    """Two tiles that say 0 and 1: the blend rises smoothly from one to the other across their overlap."""
    left, right = tiles((1, 1, 28), (1, 1, 16))
    profile = np.zeros(28)
    profile[right.where[2]] += right.weights_zyx[2]
    assert left.where[2].stop - right.where[2].start == 4
    assert profile[11] == 0
    assert profile[12] < 0.1
    assert profile[15] > 0.9
    assert (np.diff(profile) >= 0).all()


def test_a_tile_larger_than_the_volume_is_a_mistake():
    with pytest.raises(ValueError, match="does not fit"):
        tile_starts(5, 6)
    with pytest.raises(ValueError, match="overlap"):
        tile_starts(5, 4, 1.0)

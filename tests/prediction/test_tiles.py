"""Tiles cover the volume, and their weights add up to one."""

import itertools

import numpy as np
import pytest

from focalis.prediction import Axis, tiles

SHAPES = [
    ((20, 17, 33), (8, 17, 16)),
    ((9, 9, 9), (9, 9, 9)),
    ((64, 5, 31), (16, 5, 30)),
    ((3, 3, 40), (1, 2, 8)),
]


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize("reach", [None, 0, 1, 3])
def test_a_constant_field_comes_back(shape, tile, reach):
    total = np.zeros((2, *shape), dtype=np.float32)
    for part in tiles(shape, tile, (Axis(1, reach),) * 3):
        values = np.full((2, *tile), 3.0, dtype=np.float32)
        part.weigh(values)
        total[(slice(None), *part.where)] += values
    np.testing.assert_allclose(total, 3.0, rtol=1e-5)


@pytest.mark.parametrize(("size", "tile"), list(itertools.product([8, 9, 31, 100], [1, 2, 7, 8])))
def test_starts_cover_the_axis_with_a_quarter_in_common(size, tile):
    starts = Axis().starts(size, tile)
    assert starts[0] == 0
    assert starts[-1] + tile == size
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, tile * 0.75)).all()


@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("reach", [0, 5, 13])
@pytest.mark.parametrize("size", [96, 200, 512])
def test_large_tiles_take_every_voxel_from_where_the_border_is_out_of_reach(size, stride, reach):
    axis = Axis(stride, reach)
    for length in axis.lengths(size, stride)[1:]:
        if not axis.is_exact(length):
            continue
        taken = np.zeros(size, dtype=int)
        for start, part in zip(
            axis.starts(size, length),
            tiles((1, 1, size), (1, 1, length), (Axis(), Axis(), axis)),
            strict=True,
        ):
            assert start % stride == 0
            assert part.where[2] == slice(start, start + length)
            mine = start + np.flatnonzero(part.weights_zyx[2])
            taken[mine] += 1
            assert start == 0 or mine[0] >= start + reach
            assert start + length == size or mine[-1] < start + length - reach
        assert (taken == 1).all()


def test_a_tile_too_small_for_the_reach_is_blended():
    assert not Axis(8, 50).is_exact(96)
    assert Axis(8, 50).is_exact(312)
    assert not Axis(8, None).is_exact(312)


def test_lengths_shrink_to_the_least():
    lengths = Axis(8, 20).lengths(512, 64)
    assert lengths[0] == 512
    assert lengths[-1] == 64
    assert lengths == sorted(set(lengths), reverse=True)
    assert all(length % 8 == 0 for length in lengths)


def test_one_tile_that_fits_exactly():
    (only,) = tiles((4, 5, 6), (4, 5, 6), (Axis(),) * 3)
    assert only.where == (slice(0, 4), slice(0, 5), slice(0, 6))
    assert all((weights == 1).all() for weights in only.weights_zyx)


def test_a_seam_has_no_step():
    """Two tiles that say 0 and 1: the blend rises smoothly from one to the other across their overlap."""
    left, right = tiles((1, 1, 28), (1, 1, 16), (Axis(),) * 3)
    profile = np.zeros(28)
    profile[right.where[2]] += right.weights_zyx[2]
    assert left.where[2].stop - right.where[2].start == 4
    assert profile[11] == 0
    assert profile[12] < 0.1
    assert profile[15] > 0.9
    assert (np.diff(profile) >= 0).all()


def test_a_tile_larger_than_the_volume_is_a_mistake():
    with pytest.raises(ValueError, match="does not fit"):
        Axis().starts(5, 6)

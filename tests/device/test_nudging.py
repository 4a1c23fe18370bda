"""Changes of a lesion's outline, against plain references that go through voxel by voxel."""

from itertools import product

import numpy as np
import pytest

from focalis.device.nudging import cut, grow, redraw, shrink

PLANES = [0, 1, 2]


@pytest.fixture
def blob():
    rng = np.random.default_rng(3)
    mask = np.zeros((7, 9, 8), dtype=bool)
    mask[2:5, 2:7, 2:6] = rng.random((3, 5, 4)) < 0.8
    return mask


def neighbours(at, axis):
    """A voxel's four neighbours in the plane that fixes `axis`."""
    for along, step in product({0, 1, 2} - {axis}, (-1, 1)):
        found = list(at)
        found[along] += step
        yield tuple(found)


def inside(at, mask):
    return all(0 <= i < n for i, n in zip(at, mask.shape, strict=True))


@pytest.mark.parametrize("axis", PLANES)
def test_growing_adds_the_neighbours_in_the_plane(blob, axis):
    wanted = blob.copy()
    for at in np.argwhere(blob):
        for near in neighbours(at, axis):
            wanted[near] = True

    np.testing.assert_array_equal(grow(blob, axis), wanted)


@pytest.mark.parametrize("axis", PLANES)
def test_shrinking_removes_what_has_a_neighbour_outside_in_the_plane(blob, axis):
    wanted = blob.copy()
    for at in np.argwhere(blob):
        wanted[tuple(at)] = all(blob[near] for near in neighbours(at, axis))

    np.testing.assert_array_equal(shrink(blob, axis), wanted)


def test_the_edge_of_the_images_is_not_an_outline():
    mask = np.zeros((1, 5, 5), dtype=bool)
    mask[0, :3] = True

    assert shrink(mask, 0).sum(axis=2).tolist() == [[5, 5, 0, 0, 0]]


@pytest.mark.parametrize("axis", PLANES)
@pytest.mark.parametrize(
    "line", [((1.3, 0.0), (5.2, 6.1)), ((3, 1), (3, 6)), ((2, 3), (6, 3)), ((5, 5), (1, 2))]
)
@pytest.mark.parametrize("keep_smaller", [False, True])
def test_a_cut_removes_one_side_of_the_line_in_all_slices(blob, axis, line, keep_smaller):
    (r0, c0), (r1, c1) = line
    sides = {-1: [], 0: [], 1: []}
    for at in np.argwhere(blob):
        row, column = np.delete(at, axis)
        sides[int(np.sign((c1 - c0) * (row - r0) - (r1 - r0) * (column - c0)))].append(tuple(at))
    assert 0 < len(sides[-1]) != len(sides[1]) > 0
    gone = min if not keep_smaller else max
    wanted = blob.copy()
    for at in gone(sides[-1], sides[1], key=len):
        wanted[at] = False

    found = cut(blob, axis, np.array(line, dtype=float), keep_smaller=keep_smaller)

    np.testing.assert_array_equal(found, wanted)


def test_a_line_beside_the_lesion_cuts_nothing(blob):
    np.testing.assert_array_equal(cut(blob, 0, np.array([[0.0, 0.0], [0.0, 5.0]])), blob)


@pytest.mark.parametrize("axis", PLANES)
def test_a_redrawn_slice_holds_the_voxels_within_the_outline(blob, axis):
    outline = np.array([[0.6, 0.7], [0.6, 5.2], [4.4, 5.2], [4.4, 2.7]])  # row, column; one slanting side
    wanted = blob.copy()
    plane = np.moveaxis(wanted, axis, 0)[3]
    for row, column in np.ndindex(plane.shape):
        left = 0.7 if row < 0.6 else 0.7 + (row - 0.6) / 3.8 * 2.0
        plane[row, column] = 0.6 < row < 4.4 and left < column < 5.2

    found = redraw(blob, axis, 3, outline)

    np.testing.assert_array_equal(found, wanted)
    assert found is not blob


def test_an_outline_that_crosses_itself_leaves_no_hole():
    # once around, and on over its own beginning
    way = [(1, 1), (1, 7), (7, 7), (7, 1), (1, 1), (1, 7), (4, 7), (4, 1)]

    found = redraw(np.zeros((1, 9, 9), dtype=bool), 0, 0, np.array(way, dtype=float) + 0.5)

    assert found[0, 2:8, 2:8].all()
    assert found.sum() == 36

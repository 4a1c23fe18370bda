"""Outlines and the choice of the cut."""

import numpy as np
import pytest

from focalis.report.slice_drawing import find_focus, outline


def test_one_pixel_has_four_edges_in_millimetres() -> None:
    plane = np.zeros((4, 5), np.uint8)
    plane[2, 3] = 1
    segments = {tuple(map(tuple, segment)) for segment in outline(plane, (2.0, 0.5)).tolist()}
    assert segments == {
        ((1.5, 4.0), (2.0, 4.0)),
        ((1.5, 6.0), (2.0, 6.0)),
        ((1.5, 4.0), (1.5, 6.0)),
        ((2.0, 4.0), (2.0, 6.0)),
    }


def test_the_edge_between_two_labels_is_drawn_and_the_volume_closes_a_lesion() -> None:
    plane = np.array([[1, 2]], np.uint8)
    assert len(outline(plane, (1, 1))) == 7  # six around both, one between them
    assert len(outline(np.zeros((3, 3), np.uint8), (1, 1))) == 0


def test_focus_is_the_largest_true_lesion() -> None:
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[1, 1, 1] = True
    truth[10:13, 4:9, 4:9] = True
    predicted[15:19, 10:19, 10:19] = True
    focus = find_focus(truth, predicted, (2.0, 1.0, 1.0))
    assert focus.voxel_zyx == (11, 6, 6)
    assert focus.extent_mm == 6.0
    assert find_focus(truth & False, predicted, (1, 1, 1)).voxel_zyx[0] in (16, 17)
    empty = find_focus(truth & False, truth & False, (1, 1, 1))
    assert (empty.voxel_zyx, empty.extent_mm) == ((10, 10, 10), 0.0)


def test_the_cut_of_a_bent_lesion_meets_the_lesion() -> None:
    ring = np.zeros((3, 15, 15), bool)
    ring[1, 2:13, 2:13] = True
    ring[1, 4:11, 4:11] = False
    assert ring[find_focus(ring, ring, (1, 1, 1)).voxel_zyx]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_any_integer_type(dtype: type) -> None:
    assert len(outline(np.ones((2, 2), dtype), (1, 1))) == 8

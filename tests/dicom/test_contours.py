"""Outlines of masks and back, against naive references for every way in which readers fill polygons."""

from itertools import product

import numpy as np
import pytest

from focalis.dicom.contours import fill_contours, trace_contours

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def naive_crossings(contour: np.ndarray, x: float, y: float) -> int:
    """How many edges a ray to the left crosses, by the textbook."""
    crossed = 0
    for (x1, y1), (x2, y2) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        if (y1 <= y) != (y2 <= y) and x1 + (y - y1) / (y2 - y1) * (x2 - x1) <= x:
            crossed += 1
    return crossed


def naive_winding(contour: np.ndarray, x: float, y: float) -> int:
    """How often a polygon runs round a point: the sum of the angles its edges are seen under."""
    from_point = contour - (x, y)
    angles = np.arctan2(from_point[:, 1], from_point[:, 0])
    turns = (np.diff(angles, append=angles[:1]) + np.pi) % (2 * np.pi) - np.pi
    return round(float(turns.sum()) / (2 * np.pi))


def every_pixel(shape: tuple[int, int], inside: object) -> np.ndarray:
    return np.array([[inside(x, y) for x in range(shape[1])] for y in range(shape[0])])  # type: ignore[operator]


def small_masks() -> list[np.ndarray]:
    """All masks of 3 x 3 pixels, and random larger ones of every density, with holes in holes."""
    rng = np.random.default_rng(0)
    every = [np.array(bits, bool).reshape(3, 3) for bits in product((0, 1), repeat=9)]
    return every + [rng.random(rng.integers(4, 10, 2)) < rng.uniform(0.3, 0.95) for _ in range(100)]


def test_filling_returns_the_mask_that_was_traced() -> None:
    for mask in small_masks():
        np.testing.assert_array_equal(fill_contours(trace_contours(mask), mask.shape), mask)


def test_uniting_the_polygons_one_by_one_returns_the_mask_too() -> None:
    for mask in small_masks():
        found = np.zeros(mask.shape, int)
        for contour in trace_contours(mask):
            found += fill_contours([contour], mask.shape)
        np.testing.assert_array_equal(found, mask.astype(int))  # each pixel once: uniting and xor agree


def test_counting_windings_returns_the_mask_too() -> None:
    for mask in small_masks()[:512:7] + small_masks()[512::10]:
        contours = trace_contours(mask)
        found = every_pixel(mask.shape, lambda x, y, c=contours: sum(naive_winding(each, x, y) for each in c))
        np.testing.assert_array_equal(found, mask.astype(int))


def test_polygons_run_through_pixel_corners_without_needless_points() -> None:
    for mask in small_masks():
        for contour in trace_contours(mask):
            np.testing.assert_array_equal(contour % 1, 0.5)
            arriving = np.sign(contour - np.roll(contour, 1, axis=0))
            assert (np.abs(arriving).sum(axis=1) == 1).all()  # along an axis, never standing still
            straight = contour[(arriving == np.roll(arriving, -1, axis=0)).all(axis=1)]
            # only the ends of a keyhole, which are passed twice
            assert all((contour == point).all(axis=1).sum() == 2 for point in straight)


def test_a_single_pixel_is_a_square_around_its_centre() -> None:
    mask = np.zeros((3, 5), bool)
    mask[1, 3] = True
    (contour,) = trace_contours(mask)
    assert contour.tolist() == [[2.5, 0.5], [3.5, 0.5], [3.5, 1.5], [2.5, 1.5]]


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    assert [len(contour) for contour in trace_contours(np.eye(2, dtype=bool))] == [4, 4]
    assert [len(contour) for contour in trace_contours(np.eye(2, dtype=bool)[::-1])] == [4, 4]


def test_a_hole_is_joined_to_its_outline_by_a_keyhole() -> None:
    (contour,) = trace_contours(RING)
    outline = [[-0.5, -0.5], [2.5, -0.5], [2.5, 2.5], [-0.5, 2.5]]
    keyhole = [[-0.5, 0.5], [0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5], [0.5, 0.5], [-0.5, 0.5]]
    assert contour.tolist() == outline + keyhole


def test_an_empty_mask_has_no_contours() -> None:
    assert trace_contours(np.zeros((3, 4), bool)) == []
    assert not fill_contours([], (3, 4)).any()


def test_a_hole_may_be_a_polygon_of_its_own() -> None:
    outline = np.array([[-0.5, -0.5], [2.5, -0.5], [2.5, 2.5], [-0.5, 2.5]])
    hole = np.array([[0.5, 0.5], [1.5, 0.5], [1.5, 1.5], [0.5, 1.5]])
    for ways in ([outline, hole], [hole, outline], [outline[::-1], hole]):
        np.testing.assert_array_equal(fill_contours(ways, (3, 3)), RING)


@pytest.mark.parametrize("seed", range(5))
def test_filling_counts_crossings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    contours = [
        rng.uniform(-3, 12, (rng.integers(3, 12), 2)) for _ in range(4)
    ]  # self-crossing, beyond edges
    expected = every_pixel((8, 9), lambda x, y: sum(naive_crossings(c, x, y) for c in contours) % 2 == 1)
    np.testing.assert_array_equal(fill_contours(contours, (8, 9)), expected)


def test_polygons_that_share_an_edge_through_pixel_centres_share_no_pixel() -> None:
    left = np.array([[0, 0], [3, 0], [3, 4], [0, 4.0]])
    right = np.array([[3, 0], [6, 0], [6, 4], [3, 4.0]])
    found = [fill_contours([contour], (6, 8)).astype(int) for contour in (left, right)]
    assert found[0].sum() == found[1].sum() == 3 * 4
    assert (found[0] + found[1]).max() == 1


def test_large_masks_are_affordable() -> None:
    mask = np.random.default_rng(0).random((256, 256)) < 0.6
    np.testing.assert_array_equal(fill_contours(trace_contours(mask), mask.shape), mask)

import numpy as np
import pytest

from focalis.dataset.phantoms.geometry import Canvas, Sheet, Tube, blob_depth, draw_sheet, draw_tube

CUBES = Canvas((12, 14, 16), (1.0, 1.0, 1.0))
THICK = Canvas((6, 14, 16), (4.0, 1.0, 1.0), axis=0, parts=2)


def test_a_straight_tube_is_as_deep_as_the_distance_to_its_line_says() -> None:
    line = np.stack([np.full(301, 5.0), np.full(301, 6.0), np.linspace(0, 15, 301)], axis=1)

    depth = Tube(line, np.full(301, 2.5)).depth_mm(CUBES)

    np.testing.assert_allclose(depth[5, 6, 1:15], 2.5, atol=0.02)
    np.testing.assert_allclose(depth[5, 8, 1:15], 0.5, atol=0.02)
    np.testing.assert_allclose(depth[7, 8, 1:15], 2.5 - np.sqrt(8), atol=0.02)
    assert (depth[:, 12] < 0).all()


def test_a_tube_that_leaves_the_patch_is_cut() -> None:
    line = np.stack([np.full(40, 5.0), np.full(40, 6.0), np.linspace(-30, 30, 40)], axis=1)

    depth = Tube(line, np.full(40, 2.0)).depth_mm(CUBES)

    assert (depth[5, 6] > 1).all()
    assert (depth[11] < 0).all()


def test_a_tube_across_thick_slices_is_measured_in_mm() -> None:
    line = np.stack([np.linspace(0, 20, 200), np.full(200, 7.0), np.full(200, 8.0)], axis=1)

    depth = Tube(line, np.full(200, 3.0)).depth_mm(THICK)

    assert depth.shape == (12, 14, 16)
    np.testing.assert_allclose(depth[:10, 7, 10], 1.0, atol=0.05)


def test_a_sheet_is_a_sphere_without_its_waves() -> None:
    sheet = Sheet(np.array([5.0, 6.0, 7.0]), 4.0, 0.0, 3.0)

    depth = sheet.depth_mm(CUBES, np.random.default_rng(0))

    assert depth[5, 6, 7] == pytest.approx(4)
    assert depth[5, 6, 11] == pytest.approx(0, abs=1e-5)
    assert depth[8, 10, 7] == pytest.approx(-1)


def test_the_nearest_point_lies_on_the_sheet() -> None:
    sheet = Sheet(np.array([5.0, 6.0, 7.0]), 4.0, 0.0, 3.0)

    np.testing.assert_allclose(sheet.nearest(np.array([5.0, 6.0, 30.0])), [5, 6, 11])


def test_every_sheet_that_is_drawn_crosses_the_patch() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        depth = draw_sheet(THICK, rng).depth_mm(THICK, rng)

        assert depth.min() < 0 < depth.max()


def test_a_branch_starts_on_its_parent_and_is_thinner() -> None:
    rng = np.random.default_rng(1)
    parent = Tube(
        np.stack([np.full(60, 5.0), np.full(60, 6.0), np.linspace(0, 15, 60)], axis=1), np.full(60, 3.0)
    )
    branch = draw_tube(CUBES, rng, parent)

    gap = np.linalg.norm(parent.path_zyx_mm - branch.path_zyx_mm[0], axis=1).min()
    assert gap <= 2.0
    assert branch.radius_mm.max() < 3.0


@pytest.mark.parametrize("radius_mm", [1.0, 3.0, 5.0])
def test_blobs_have_about_the_volume_of_their_radius(radius_mm: float) -> None:
    canvas = Canvas((30, 30, 30), (1.0, 1.0, 1.0))
    volumes = []
    for seed in range(30):
        depth, box = blob_depth(canvas, np.array([15.0, 14.5, 15.2]), radius_mm, np.random.default_rng(seed))
        assert depth.shape == tuple(part.stop - part.start for part in box)
        volumes.append(np.sum(canvas.seen(depth)))

    assert np.median(volumes) == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.35)


def test_a_blob_is_irregular_and_differs_from_the_next() -> None:
    canvas = Canvas((30, 30, 30), (1.0, 1.0, 1.0))
    masks = [
        blob_depth(canvas, np.full(3, 15.0), 5.0, np.random.default_rng(seed))[0] > 0 for seed in (1, 2, 3)
    ]

    assert (masks[0] != masks[1]).sum() > 50
    assert all((mask != mask[::-1]).sum() > 20 for mask in masks)


def test_a_voxel_on_the_border_is_half_filled() -> None:
    depth = np.array([[[-3.0, -0.5, -0.25, 0.0, 0.25, 0.5, 3.0]]], dtype=np.float32)
    canvas = Canvas((1, 1, 7), (1.0, 1.0, 1.0))

    np.testing.assert_allclose(canvas.seen(depth)[0, 0], [0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_a_thick_slice_shows_the_mean_of_its_parts() -> None:
    depth = np.full((12, 14, 16), -5, dtype=np.float32)
    depth[3] = 5  # the second half of slice 1

    seen = THICK.seen(depth)

    assert seen.shape == (6, 14, 16)
    assert (seen[1] == 0.5).all()
    assert seen.sum() == pytest.approx(0.5 * 14 * 16)


def test_boxes_hold_whole_thick_slices() -> None:
    fine, coarse = THICK.boxes(np.array([9.0, 7.0, 8.0]), 1.0)

    assert (fine[0].start, fine[0].stop) == (2 * coarse[0].start, 2 * coarse[0].stop)
    assert fine[1:] == coarse[1:]
    assert coarse[0].start <= 2 < coarse[0].stop

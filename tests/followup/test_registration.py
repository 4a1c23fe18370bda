"""Registration of two scans of one person, against known movements of a generated body."""

import numpy as np
import pytest
import SimpleITK as sitk
from follow_scenes import HALF_BODY_MM, Ball, grid_of, scan, turned

from focalis.followup import Study, Transform, make_study, register
from focalis.followup.local import refine
from focalis.volume import Grid, Volume

BALLS = [Ball((20, 10, 15), 6), Ball((-25, -8, -20), 4)]
PLACES = np.random.default_rng(3).uniform(-0.7, 0.7, (200, 3)) * HALF_BODY_MM


def miss_mm(found: Transform, true: Transform) -> float:
    """The greatest distance between where places are said to be and where they are."""
    return float(np.linalg.norm(found.apply(PLACES) - true.apply(PLACES), axis=1).max())


@pytest.mark.parametrize(
    ("degrees", "shift_mm"),
    [
        pytest.param((3, -4, 5), (6, -5, 8), marks=pytest.mark.slow),
        ((-8, 6, 12), (35, -20, 50)),
    ],
)
def test_a_movement_is_found(degrees: tuple[float, ...], shift_mm: tuple[float, ...]) -> None:
    moved = turned(degrees, shift_mm)
    low, high = np.asarray([-72, -60, -80]) + shift_mm, np.asarray([72, 60, 80]) + shift_mm
    first, _ = scan(BALLS, grid_of((4, 4, 4)), seed=1)
    second, _ = scan(BALLS, grid_of((4, 4, 4), low, high), moved, seed=2)
    found = register(first, second)
    assert not found.problem
    assert miss_mm(found.transform, moved) < 2
    assert found.similarity > 0.75
    assert found.inconsistency_mm < 1


def test_another_spacing_and_a_part_of_the_body_are_enough() -> None:
    moved = turned((2, 3, -4), (5, 5, -8))
    first, _ = scan(BALLS, grid_of((4, 4, 4)), seed=1)
    second, _ = scan(BALLS, grid_of((3, 3, 6), (-50, -60, -40), (72, 60, 40)), moved, seed=2)
    found = register(first, second)
    assert not found.problem
    assert miss_mm(found.transform, moved) < 2.5


def test_axes_stored_in_another_order_change_nothing() -> None:
    first, _ = scan(BALLS, grid_of((4, 4, 4)), seed=1)
    second, _ = scan(BALLS, grid_of((4, 4, 4)), turned((2, 0, 3), (4, 0, 0)), seed=2)
    size, grid = second.grid.size_xyz, second.grid
    coronal = Grid(
        (size[2], size[0], size[1]), (4.0, 4.0, 4.0), grid.origin_xyz_mm, (0, 1, 0, 0, 0, 1, 1, 0, 0)
    )
    turned_over = Volume(np.ascontiguousarray(second.array.transpose(1, 2, 0)), coronal)
    straight, other = register(first, second), register(first, turned_over)
    assert miss_mm(other.transform, straight.transform) < 0.5


def test_the_number_of_threads_moves_no_digit() -> None:
    first, _ = scan(BALLS, grid_of((6, 6, 6)), seed=1)
    second, _ = scan([Ball((0, 0, 0), 12)], grid_of((6, 6, 6)), turned((30, -20, 40), (20, 5, 9)), seed=2)
    usual = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 4, 4):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(register(first, second))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(usual)
    for other in found[1:]:
        np.testing.assert_array_equal(other.transform.matrix, found[0].transform.matrix)
        assert other.inconsistency_mm == found[0].inconsistency_mm
        assert other.similarity == found[0].similarity


def test_two_persons_could_not_be_registered() -> None:
    first, _ = scan(BALLS, grid_of((4, 4, 4)), seed=1)
    second, _ = scan([], grid_of((4, 4, 4)), seed=2, body_seed=99)
    assert register(first, second).problem


@pytest.mark.parametrize(
    "axis", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_a_mirrored_scan_could_not_be_registered(axis: int) -> None:
    first, _ = scan(BALLS, grid_of((5, 5, 5)), seed=1)
    second, _ = scan(BALLS, grid_of((5, 5, 5)), turned((2, 1, 3), (4, 3, 2)), seed=2)
    mirrored = Volume(np.ascontiguousarray(np.flip(second.array, axis)), second.grid)
    assert register(first, mirrored).problem


def test_scans_of_different_parts_could_not_be_registered() -> None:
    first, _ = scan(BALLS, grid_of((4, 4, 4), high_mm=(72, 60, -5)), seed=1)
    second, _ = scan(BALLS, grid_of((4, 4, 4), low_mm=(-72, -60, 5)), seed=2)
    assert register(first, second).problem


def test_values_that_are_not_finite_do_not_stop_it() -> None:
    first, _ = scan(BALLS, grid_of((4, 4, 4)), seed=1)
    second, _ = scan(BALLS, grid_of((4, 4, 4)), seed=2)
    second.array[0] = np.nan
    assert not register(first, second).problem


NEAR = grid_of((1.5, 1.5, 1.5), (-20, -30, -25), (60, 50, 55))


def study(balls: list[Ball], moved: Transform | None = None, seed: int = 1) -> Study:
    image, label = scan(balls, NEAR, moved, seed=seed)
    return make_study("scan", image, label.array, {1: "lesion"})


def refined_at(first: Study, second: Study) -> np.ndarray:
    """Where the first lesion of a date lies in another one, by refinement alone."""
    return refine(first, second, first.voxels_zyx((0,)), Transform.identity()).transform.apply((20, 10, 15))


def test_registration_is_refined_around_a_lesion_that_moved_on_its_own() -> None:
    found = refined_at(study(BALLS), study(BALLS, turned((0, 0, 0), (5, -3, 4)), seed=2))
    np.testing.assert_allclose(found, (25, 7, 19), atol=1)


def test_a_lesion_that_is_gone_does_not_draw_its_surroundings_along() -> None:
    found = refined_at(study(BALLS), study([Ball((20, 24, 15), 6)], seed=2))
    np.testing.assert_allclose(found, (20, 10, 15), atol=1)


def test_a_neighbour_that_is_gone_does_not_draw_a_lesion_to_its_place() -> None:
    first = study([Ball((20, 10, 15), 6), Ball((20, 25, 15), 6)])
    np.testing.assert_allclose(
        refined_at(first, study([Ball((20, 10, 15), 6)], seed=2)), (20, 10, 15), atol=1
    )

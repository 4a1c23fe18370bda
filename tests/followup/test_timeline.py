"""Which lesion is which over several dates: scans that lie as the scanner says, so that nothing is registered here."""

from collections.abc import Sequence

import numpy as np
import pytest
from follow_scenes import Ball, grid_of, scan

from focalis.followup import Placement, Study, Track, Transform, make_study, track
from focalis.volume import Grid, Volume

GRID = grid_of((2, 2, 2), (-30, -30, -30), (30, 30, 30))


def study(balls: Sequence[Ball], grid: Grid = GRID, labels: Sequence[int] = ()) -> Study:
    """A date with these lesions; `labels` gives each another label value than 1."""
    image, label = scan(balls, grid, seed=len(balls))
    for ball, value in zip(balls, labels, strict=False):
        places = np.argwhere(label.array)[:, ::-1] * grid.spacing_xyz_mm + np.asarray(grid.origin_xyz_mm)
        inside = np.linalg.norm(places - ball.centre_mm, axis=1) < ball.radius_mm
        z, y, x = np.argwhere(label.array)[inside].T
        label.array[z, y, x] = value
    return make_study("scan", image, label.array, {1: "nodule", 2: "cyst"})


def followed(*studies: Study) -> tuple[Track, ...]:
    placements = [Placement(0, max(day - 1, 0), None, Transform.identity()) for day in range(len(studies))]
    return track(studies, placements)


def statuses(found: Sequence[Track]) -> list[list[str]]:
    return [[each.status for each in lesion.sightings] for lesion in found]


A, B = Ball((-12, 0, 0), 5), Ball((12, 4, -4), 4)


def test_a_lesion_keeps_its_identity_as_it_grows() -> None:
    found = followed(study([A, B]), study([Ball((-12, 0, 0), 8), B]), study([Ball((-12, 0, 0), 9), B]))
    assert statuses(found) == [["baseline", "persistent", "persistent"]] * 2


def test_new_and_gone_lesions_are_reported() -> None:
    found = followed(study([A]), study([B]))
    assert statuses(found) == [["baseline", "gone"], ["absent", "new"]]


def test_a_lesion_may_come_back() -> None:
    found = followed(study([A, B]), study([B]), study([A, B]))
    assert ["baseline", "gone", "returned"] in statuses(found)
    assert len(found) == 2


def test_a_lesion_may_come_back_after_a_scan_that_does_not_show_it() -> None:
    right = grid_of((2, 2, 2), (0, -30, -30), (30, 30, 30))
    found = followed(study([A, B]), study([B]), study([B], right), study([A, B]))
    assert ["baseline", "gone", "outside", "returned"] in statuses(found)
    assert len(found) == 2


def test_what_the_other_scan_does_not_show_is_neither_new_nor_gone() -> None:
    left = grid_of((2, 2, 2), (-30, -30, -30), (0, 30, 30))
    found = followed(study([A, B]), study([A], left), study([A, B]))
    assert sorted(statuses(found)) == [
        ["baseline", "outside", "persistent"],
        ["baseline", "persistent", "persistent"],
    ]
    assert statuses(followed(study([A], left), study([A, B])))[1] == ["outside", "first view"]


def test_two_lesions_merge_into_the_one_that_shares_more() -> None:
    apart = [Ball((-8, 0, 0), 6), Ball((6, 0, 0), 4)]
    one = [Ball((-6, 0, 0), 8), Ball((5, 0, 0), 6)]
    found = followed(study(apart), study(one), study(one))
    assert sorted(statuses(found)) == [
        ["baseline", "merged", "merged"],
        ["baseline", "persistent", "persistent"],
    ]
    gone = next(each for each in found if each.sightings[1].status == "merged")
    kept = next(each for each in found if each is not gone)
    assert gone.sightings[1].merged_into == gone.sightings[2].merged_into == kept.number


def test_the_parts_of_a_split_lesion_are_one_lesion() -> None:
    one = [Ball((-6, 0, 0), 8), Ball((5, 0, 0), 6)]
    parts = [Ball((-8, 0, 0), 5), Ball((7, 0, 0), 4)]
    found = followed(study(one), study(parts), study(parts))
    assert statuses(found) == [["baseline", "split", "persistent"]]
    assert len(found[0].sightings[2].pieces) == 2


def test_neighbours_that_both_moved_are_not_taken_for_each_other() -> None:
    row = [Ball((-12, 0, 0), 4), Ball((0, 0, 0), 4), Ball((12, 0, 0), 4)]
    moved = [Ball((-9, 0, 0), 4), Ball((3, 0, 0), 4), Ball((15, 0, 0), 4)]
    found = followed(study(row), study(moved))
    assert statuses(found) == [["baseline", "persistent"]] * 3


def test_a_small_lesion_beside_its_place_is_matched_by_distance_and_says_so() -> None:
    found = followed(study([Ball((0, 0, 0), 2.2)]), study([Ball((6, 0, 0), 2.2)]))
    assert statuses(found) == [["baseline", "persistent"]]
    assert found[0].sightings[1].distance_mm == pytest.approx(6, abs=1)


def test_a_new_lesion_a_diameter_away_is_not_taken_for_one_that_is_gone() -> None:
    found = followed(study([Ball((0, 0, 0), 4)]), study([Ball((14, 0, 0), 4)]))
    assert statuses(found) == [["baseline", "gone"], ["absent", "new"]]


def test_lesions_of_two_labels_are_not_matched() -> None:
    found = followed(study([A], labels=[1]), study([A], labels=[2]))
    assert [(each.name, each.sightings[1].status) for each in found] == [("nodule", "gone"), ("cyst", "new")]


def test_a_date_that_could_not_be_registered_claims_nothing() -> None:
    studies = [study([A]), study([B]), study([A, B])]
    placements = [
        Placement(0, None, None, Transform.identity()),
        Placement(1, None, None, Transform.identity()),
        Placement(0, 0, None, Transform.identity()),
    ]
    assert statuses(track(studies, placements)) == [
        ["baseline", "unknown", "persistent"],
        ["unknown", "first view", "unknown"],
        ["absent", "unknown", "new"],
    ]


def test_a_date_without_lesions_is_not_an_obstacle() -> None:
    empty = study([])
    assert followed(empty, empty) == ()
    assert statuses(followed(empty, study([A]))) == [["absent", "new"]]


def test_measures_are_those_of_each_scans_own_grid() -> None:
    image, label = scan([A], grid_of((1, 1, 3), (-30, -30, -30), (30, 30, 30)))
    found = make_study("scan", Volume(image.array, image.grid), label.array, {1: "nodule"})
    assert found.pieces[0].lesion.volume_mm3 == np.count_nonzero(label.array) * 3.0
    assert found.pieces[0].surface_mm2 == pytest.approx(4 * np.pi * 25, rel=0.15)
    assert not found.pieces[0].cut

"""Whether cases lie the same way: shapes that do, shapes that do not, and the plan that follows."""

import dataclasses

import numpy as np
import pytest

from focalis.planning import Fingerprint, make_plan
from focalis.planning.make import AGREEMENT_KEPT
from focalis.planning.pose import LEAST_CASES, Pose, pose, sketch

FIGURES = Fingerprint(
    ((48, 48, 48),) * 3, ((1.0, 1.0, 1.0),) * 3, (0.01,) * 3, (100.0,), (0.0,), (0.0,), (1.0,), (0.5,), (0.2,)
)


def comma(rng):
    """A thick head with a thin tail to +x, bent towards +z and, less, towards +y: no two of its sides are alike."""
    label = np.zeros((32, 32, 40), np.uint8)
    z, y, x = (int(start) for start in rng.integers(0, 3, 3))
    label[z + 2 : z + 9, y + 3 : y + 10, x + 6 : x + 13] = 1
    for step in range(20):
        label[
            z + 2 + step : z + 6 + step,
            y + 5 + step * 2 // 3 : y + 9 + step * 2 // 3,
            x + 13 + step,
        ] = 2
    return label


def turned_any_way(label, rng):
    cube = np.pad(label, [((48 - size) // 2, 48 - size - (48 - size) // 2) for size in label.shape])
    cube = cube.transpose(rng.permutation(3))
    return cube[tuple(slice(None, None, int(step)) for step in rng.choice([-1, 1], 3))]


def pose_of(labels, spacing=(1.0, 1.0, 1.0)):
    rng = np.random.default_rng(0)
    return pose([sketch(label, spacing, rng) for label in labels])


def test_a_structure_that_always_lies_the_same_way_is_seen():
    rng = np.random.default_rng(1)
    seen = pose_of([comma(rng) for _ in range(12)])
    assert max(*seen.flipped_zyx, *seen.turned_zyx) < AGREEMENT_KEPT


def test_a_structure_that_lies_any_way_round_is_seen():
    rng = np.random.default_rng(1)
    seen = pose_of([turned_any_way(comma(rng), rng) for _ in range(60)])
    assert min(*seen.flipped_zyx, *seen.turned_zyx) > AGREEMENT_KEPT


def test_only_the_axis_with_two_alike_sides_is_free():
    rng = np.random.default_rng(1)
    labels = [comma(rng) for _ in range(12)]
    seen = pose_of([label | label[::-1] for label in labels])
    assert seen.flipped_zyx[0] > 0.95
    assert max(seen.flipped_zyx[1:]) < AGREEMENT_KEPT


def test_distances_are_millimetres():
    # A bar that is as long along z as along x in mm, though it has a quarter of the voxels along z.
    label = np.zeros((12, 40, 40), np.uint8)
    label[2:10, 18:22, 4:36] = 1
    assert pose_of([label] * LEAST_CASES, (4.0, 1.0, 1.0)).turned_zyx[1] > 0.9
    assert pose_of([label] * LEAST_CASES, (1.0, 1.0, 1.0)).turned_zyx[1] < 0.7


def test_few_cases_and_cases_without_foreground_say_nothing():
    rng = np.random.default_rng(1)
    empty = np.zeros((8, 8, 8), np.uint8)
    assert pose_of([comma(rng) for _ in range(LEAST_CASES - 1)] + [empty] * 5) is None


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_plan_flips_and_turns_as_the_cases_lie(share):
    figures = dataclasses.replace(FIGURES, pose=Pose((1.0, share, 1.0), (1.0, 1.0, share)))
    training = make_plan(figures, ("image",), {1: "lesion"}).training
    assert training.flip_axes_zyx == (True, share == 1.0, True)
    assert training.quarter_turns == (share == 1.0)
    assert training.turn_limit_deg == (45 if share == 1.0 else 30)


@pytest.mark.parametrize(
    ("change", "quarters"),
    [
        ({}, True),
        ({"spacings_zyx_mm": ((1.0, 0.996, 1.0),) * 3}, True),
        ({"spacings_zyx_mm": ((3.3, 5.5, 5.5),) * 3}, False),
        ({"shapes_zyx": ((20, 60, 60),) * 3}, False),
    ],
)
def test_only_cubes_are_turned_by_quarters_and_the_rest_by_any_angle(change, quarters):
    figures = dataclasses.replace(FIGURES, pose=Pose(), **change)
    training = make_plan(figures, ("image",), {1: "lesion"}).training
    assert (training.quarter_turns, training.turn_limit_deg) == ((True, 45) if quarters else (False, 180))


def test_named_sides_are_kept_apart_even_if_the_cases_lie_any_way_round():
    figures = dataclasses.replace(FIGURES, pose=Pose())
    training = make_plan(figures, ("image",), {1: "left", 2: "right"}).training
    assert training.flip_axes_zyx == (True, True, False)
    assert not training.quarter_turns
    assert training.turn_limit_deg == 30

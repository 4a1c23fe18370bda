"""The scores of one case."""

from dataclasses import replace

import numpy as np
import pytest

from focalis.errors import DataError
from focalis.evaluation import Score, evaluate_case, lesion_scores, surface_scores, voxel_scores
from focalis.volume import Grid, Volume

GRID = Grid((30, 20, 10), (0.5, 1.0, 2.0))
LABELS = {1: "core", 2: "rim"}


def volume(**boxes: tuple[slice, slice, slice]) -> Volume:
    array = np.zeros(GRID.shape_zyx, np.uint8)
    for name, box in boxes.items():
        array[box] = {"core": 1, "rim": 2}[name]
    return Volume(array, GRID)


CORE = (slice(2, 5), slice(4, 9), slice(10, 18))
SHIFTED = (slice(2, 5), slice(4, 9), slice(11, 19))
RIM = (slice(7, 9), slice(2, 6), slice(20, 26))


def test_one_row_per_label_with_volumes_in_cubic_millimetres() -> None:
    core, rim = evaluate_case(volume(core=CORE, rim=RIM), volume(core=SHIFTED, rim=RIM), LABELS, case="A")
    assert (core.case, core.label, core.name) == ("A", 1, "core")
    assert (core.truth_voxels, core.truth_volume_mm3) == (120, 120.0)
    assert core.dice == 7 / 8
    assert core.hd95_mm == 0.5
    assert rim.dice == 1
    assert rim.lesion_f1 == 1


def test_voxels_that_nobody_judged_count_in_neither_map() -> None:
    truth = volume(core=CORE)
    truth.array[RIM] = 9
    (score,) = evaluate_case(truth, volume(core=CORE, rim=RIM), {2: "rim"}, ignore=9)
    assert (score.predicted_voxels, score.dice) == (0, 1)
    (score,) = evaluate_case(truth, volume(core=CORE, rim=RIM), {2: "rim"})
    assert (score.predicted_voxels, score.dice) == (48, 0)


def test_cropping_changes_nothing() -> None:
    truth, prediction = volume(core=CORE), volume(core=SHIFTED)
    (score,) = evaluate_case(truth, prediction, {1: "core"})
    a, b = truth.array == 1, prediction.array == 1
    assert score.surface_dice == surface_scores(a, b, GRID.spacing_zyx_mm).surface_dice
    assert score.assd_mm == surface_scores(a, b, GRID.spacing_zyx_mm).assd_mm
    assert score.iou == voxel_scores(a, b).iou
    assert score.detected_lesions == lesion_scores(a, b).detected_lesions == 1


@pytest.mark.parametrize(
    ("truth", "prediction", "dice", "distance"),
    [
        (volume(), volume(), 1, 0),
        (volume(core=CORE), volume(), 0, None),
        (volume(), volume(core=CORE), 0, None),
    ],
)
def test_empty_masks(truth: Volume, prediction: Volume, dice: float, distance: float | None) -> None:
    (score,) = evaluate_case(truth, prediction, {1: "core"})
    assert (score.dice, score.iou, score.surface_dice, score.lesion_f1) == (dice, dice, dice, dice)
    assert (score.hd95_mm, score.assd_mm) == (distance, distance)


@pytest.mark.parametrize(
    ("change", "property_name"),
    [
        ({"spacing_xyz_mm": (0.6, 1.0, 2.0)}, "spacing"),
        ({"origin_xyz_mm": (0.0, 0.0, 1.0)}, "origin"),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "direction"),
    ],
)
def test_different_grids_are_refused(change: dict[str, tuple[float, ...]], property_name: str) -> None:
    truth = volume(core=CORE)
    other = Volume(truth.array, replace(GRID, **change))
    with pytest.raises(DataError, match=f"^A: .*{property_name}"):
        evaluate_case(truth, other, LABELS, case="A")


def test_scores_are_plain_numbers() -> None:
    (score,) = evaluate_case(volume(core=CORE), volume(core=SHIFTED), {1: "core"})
    assert isinstance(score, Score)
    assert {type(value) for value in vars(score).values()} <= {str, int, float}

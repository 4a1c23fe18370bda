"""What became of each lesion."""

import numpy as np

from focalis.evaluation import JUDGED_COLUMNS, judge_lesions
from focalis.lesions import measure_lesions
from focalis.volume import Grid, Volume

GRID = Grid((60, 5, 5), (1.0, 1.0, 2.0))


def bars(*spans: tuple[int, int], value: int = 1) -> np.ndarray:
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    for start, stop in spans:
        labels[1:3, 1:3, start:stop] = value
    return labels


def judged(truth, predicted, names=None, **more):
    return judge_lesions("c", Volume(truth, GRID), Volume(predicted, GRID), names or {1: "lesion"}, **more)


def test_found_missed_right_and_false() -> None:
    rows, candidates = judged(bars((2, 8), (20, 26)), bars((3, 9), (40, 42)))
    assert [(r.side, r.status, r.partner) for r in rows] == [
        ("true", "found", 1),
        ("true", "missed", None),
        ("predicted", "right", 1),
        ("predicted", "false positive", None),
    ]
    assert rows[0].iou == rows[2].iou == 5 / 7
    assert candidates == ()
    assert tuple(rows[0].row()) == JUDGED_COLUMNS


def test_splits_and_merges_are_marked() -> None:
    rows, _ = judged(bars((2, 20), (30, 35), (37, 42)), bars((2, 9), (12, 20), (30, 42)))
    assert [r.split_or_merged for r in rows] == [True, False, False, False, False, True]


def test_small_components_are_not_lesions_and_numbers_stay_those_of_the_mask() -> None:
    rows, _ = judged(bars((2, 3), (20, 26)), bars((10, 11), (21, 26)), minimum_mm3=20)
    assert [(r.side, r.status, r.lesion.number, r.partner) for r in rows] == [
        ("true", "found", 2, 2),
        ("predicted", "right", 2, 2),
    ]


def test_confidence_is_kept_where_a_lesion_is_cut_by_what_nobody_judged() -> None:
    predicted = bars((2, 8), (20, 30))
    probability = np.zeros(GRID.shape_zyx, np.float32)
    probability[..., 2:8], probability[..., 20:30] = 0.6, 0.7
    probability[1, 1, 29] = 0.9
    known = measure_lesions(predicted, GRID, {1: "lesion"}, probability)
    truth = bars((20, 24))
    truth[..., 26:28] = 9  # cuts the second predicted lesion into two
    rows, (candidates,) = judged(truth, predicted, known=known, ignore=9)
    predicted_rows = [r for r in rows if r.side == "predicted"]
    np.testing.assert_allclose([r.lesion.confidence for r in predicted_rows], [0.6, 0.9, 0.9], atol=1e-6)
    np.testing.assert_allclose(candidates.confidence, [0.6, 0.9, 0.9], atol=1e-6)
    assert [r.status for r in predicted_rows] == ["false positive", "right", "false positive"]


def test_labels_are_judged_apart() -> None:
    rows, _ = judged(bars((2, 8)), bars((2, 8), value=2), {1: "core", 2: "rim"})
    assert [(r.side, r.lesion.name, r.status) for r in rows] == [
        ("true", "core", "missed"),
        ("predicted", "rim", "false positive"),
    ]

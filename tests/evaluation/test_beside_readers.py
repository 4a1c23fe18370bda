"""The model beside the readers: figures that can be counted by hand, and the three verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from focalis.errors import DataError
from focalis.evaluation.beside_readers import set_beside, summarise_beside
from focalis.volume import Grid, Volume

GRID = Grid((20, 6, 6))
LABELS = {1: "tumour"}


def bar(start):
    """Four planes; two bars whose starts differ by d of 0 to 4 have Dice (4 - d) / 4."""
    array = np.zeros(GRID.shape_zyx, np.uint8)
    array[:, :, start : start + 4] = 1
    return Volume(array, GRID)


def rows(*cases):
    """Rows of cases given as (model's start, readers' starts)."""
    found = []
    for number, (model, readers) in enumerate(cases):
        drawn = {f"r{place}": bar(start) for place, start in enumerate(readers, start=1)}
        found += set_beside(bar(model), drawn, LABELS, case=f"case{number}")
    return found


def test_a_case_against_every_reader_and_every_reader_against_the_others():
    (row,) = rows((8, [7, 9, 9]))
    assert {reader: score.dice for reader, score in row.scores.items()} == {
        "r1": 0.75,
        "r2": 0.75,
        "r3": 0.75,
    }
    assert row.readers_dice == {"r1": 0.5, "r2": 0.75, "r3": 0.75}
    assert row.model_dice == 0.75
    assert row.mean_readers_dice == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert row.not_odd_one_out
    assert {score.case for score in row.scores.values()} == {"case0"}


def test_the_index_is_the_ratio_of_the_sums():
    (found,) = summarise_beside(rows((8, [8, 9]), (8, [9, 10]), (4, [4, 4])))
    ours, theirs = [0.875, 0.625, 1.0], [0.75, 0.75, 1.0]
    assert found.index.value == pytest.approx(sum(ours) / sum(theirs))
    assert found.model_dice.value == pytest.approx(np.mean(ours))
    assert found.readers_dice.value == pytest.approx(np.mean(theirs))
    assert found.not_odd_one_out.value == pytest.approx(2 / 3)
    assert [(one.reader, one.cases) for one in found.against] == [("r1", 3), ("r2", 3)]
    assert found.against[0].dice.value == pytest.approx((1 + 0.75 + 1) / 3)


@pytest.mark.parametrize(
    ("places", "verdict"),
    [((11,), "outside"), ((8,), "above"), ((7, 9, 12, 12), "inside")],
    ids=["far from both", "between both", "often as one of them"],
)
def test_the_verdict_is_the_intervals(places, verdict):
    (found,) = summarise_beside(rows(*[(place, [7, 9]) for place in places * (12 // len(places))]))
    assert found.verdict == verdict


def test_a_single_reader_has_no_spread():
    (found,) = summarise_beside(rows((8, [8]), (8, [9])))
    assert found.cases == 0
    assert found.against[0].dice.value == pytest.approx(0.875)
    assert (found.index.value, found.verdict, found.not_odd_one_out.value) == (None, None, None)


def test_one_patient_gives_no_verdict():
    (found,) = summarise_beside(rows((8, [8, 9]), (8, [8, 9])), {"case0": "P", "case1": "P"})
    assert found.index.value == pytest.approx(0.875 / 0.75)
    assert (found.index.low, found.verdict) == (None, None)


def test_a_reader_on_another_grid_is_named():
    moved = replace(bar(8), grid=replace(GRID, origin_xyz_mm=(5.0, 0.0, 0.0)))
    with pytest.raises(DataError, match="x of reader r2: truth and prediction lie on different grids"):
        set_beside(bar(8), {"r1": bar(8), "r2": moved}, LABELS, case="x")

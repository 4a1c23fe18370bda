"""Agreement of readers: known figures, the limit that the kappa stands for, and the rule of the figure."""

from dataclasses import replace

import numpy as np
import pytest

from focalis.errors import DataError
from focalis.evaluation.agreement import (
    compare_readers,
    representative_pairs,
    summarise_agreement,
)
from focalis.volume import Grid, Volume

GRID = Grid((20, 12, 10), (1.0, 1.0, 2.0))


def boxes(*starts, value=1):
    """A label map of bars, 4 voxels long each; their places decide what two readers share."""
    array = np.zeros(GRID.shape_zyx, np.uint8)
    for row, start in enumerate(starts):
        if start is not None:
            array[3:6, 1 + 4 * row : 3 + 4 * row, start : start + 4] = value
    return Volume(array, GRID)


def cohens_kappa(both, first, second, neither):
    total = both + first + second + neither
    seen = (both + neither) / total
    chance = ((both + first) * (both + second) + (second + neither) * (first + neither)) / total**2
    return (seen - chance) / (1 - chance)


def test_every_pair_in_alphabetical_order_with_known_figures():
    pairs = compare_readers({"c": boxes(3), "a": boxes(2), "b": boxes(2)}, {1: "tumour"}, case="x")
    assert [(p.first, p.second, p.dice) for p in pairs] == [
        ("a", "b", 1.0),
        ("a", "c", 0.75),
        ("b", "c", 0.75),
    ]
    assert {p.structure for p in pairs} == {"tumour"}
    assert pairs[0].first_volume_mm3 == 3 * 2 * 4 * 2.0


def test_volume_difference_is_second_minus_first_over_the_mean_of_both():
    (pair,) = compare_readers({"a": boxes(2), "b": boxes(2, 2, 2)}, {1: "tumour"})
    assert pair.volume_difference_mm3 == 2 * 48.0
    assert pair.relative_volume_difference == pytest.approx(96 / 96)
    assert pair.absolute_relative_volume_difference == pytest.approx(1.0)


def test_the_detection_kappa_is_cohens_with_endless_empty_places():
    (pair,) = compare_readers({"a": boxes(2, 2), "b": boxes(3, None, 9)}, {1: "tumour"})
    assert (pair.shared_lesions, pair.first_lesions, pair.second_lesions) == (1, 2, 2)
    assert pair.detection_kappa == pytest.approx(cohens_kappa(1, 1, 1, 1e9))


def test_without_any_lesion_the_kappa_is_undefined_and_the_dice_is_one():
    (pair,) = compare_readers({"a": boxes(), "b": boxes()}, {1: "tumour"})
    assert (pair.dice, pair.detection_kappa, pair.relative_volume_difference) == (1.0, None, None)
    (found,) = summarise_agreement([pair])
    assert found.detection_kappa.value is None
    assert found["absolute_relative_volume_difference"].undefined == 1


def test_a_case_with_many_readers_counts_as_much_as_one_with_two():
    pairs = compare_readers({"a": boxes(2), "b": boxes(2), "c": boxes(6)}, {1: "tumour"}, case="three")
    pairs += compare_readers({"a": boxes(2), "b": boxes(2)}, {1: "tumour"}, case="two")
    (found,) = summarise_agreement(pairs)
    assert found.cases == 2
    assert found["dice"].mean == pytest.approx((1 / 3 + 1) / 2)
    assert [(p.first, p.second, p.cases) for p in found.pairs] == [
        ("a", "b", 2),
        ("a", "c", 1),
        ("b", "c", 1),
    ]
    assert found.pairs[0].dice == 1.0
    # 2 x 1 of 2, 0 of 2, 0 of 2 in the one case, 2 x 1 of 2 in the other
    assert found.detection_kappa.value == pytest.approx(4 / 8)


def test_patients_are_drawn_with_all_of_their_cases():
    pairs = []
    for case, start in (("p1", 2), ("p2", 6), ("q1", 6)):
        pairs += compare_readers({"a": boxes(2), "b": boxes(start)}, {1: "tumour"}, case=case)
    dice = summarise_agreement(pairs, {"p1": "P", "p2": "P", "q1": "Q"})[0]["dice"]
    assert (dice.low, dice.high) == (0.0, 0.5)
    alone = summarise_agreement(pairs[:1])[0]["dice"]
    assert (alone.mean, alone.low, alone.high) == (1.0, None, None)


def test_what_one_of_two_has_not_judged_counts_for_neither():
    one, other = boxes(2), boxes(2, 2)
    one.array[3:6, 5:7, 2:6] = 9
    (pair,) = compare_readers({"a": one, "b": other}, {1: "tumour"}, ignore=9)
    assert pair.dice == 1.0


def test_another_grid_names_case_and_readers():
    moved = replace(boxes(2), grid=replace(GRID, origin_xyz_mm=(5.0, 0.0, 0.0)))
    with pytest.raises(DataError, match="x7: readers a and b lie on different grids: origin"):
        compare_readers({"a": boxes(2), "b": moved}, {1: "tumour"}, case="x7")


def test_the_figure_shows_the_median_and_the_worst_case():
    pairs = []
    for case, start in (("u", 2), ("v", 3), ("w", 5)):
        drawn = {"a": boxes(2), "b": boxes(start), "c": boxes(start)}
        pairs += compare_readers(drawn, {1: "tumour"}, case=case)
    shown = representative_pairs(pairs)
    assert [(kind, pair.case) for kind, pair in shown] == [("median", "v"), ("worst", "w")]
    assert shown[1][1].dice == min(pair.dice for pair in pairs)
    assert representative_pairs(()) == ()
    assert [kind for kind, _ in representative_pairs(pairs[:3])] == ["median"]

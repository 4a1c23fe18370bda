"""Predictions that found nothing, or mark everything: seen whatever the mean Dice says."""

import numpy as np
import pytest

from focalis.evaluation import Score, evaluate_case, figures_of, find_collapse
from focalis.volume import Grid, Volume

SHAPE = (10, 12, 14)
NAMES = {1: "lesion"}


def box(start: int, value: int = 1, side: int = 3) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[start : start + side, 3 : 3 + side, 3 : 3 + side] = value
    return array


def scored(truth: np.ndarray, guess: np.ndarray, case: str, names: dict[int, str] = NAMES) -> list[Score]:
    grid = Grid(SHAPE[::-1])
    return list(evaluate_case(Volume(truth, grid), Volume(guess, grid), names, case=case))


EMPTY = np.zeros(SHAPE, np.uint8)
FULL = np.ones(SHAPE, np.uint8)


def test_nothing_found_is_seen_behind_a_dice_of_empty_cases() -> None:
    scores = [row for i in range(4) for row in scored(box(2) if i else EMPTY, EMPTY, f"c{i}")]
    collapse = find_collapse(scores)
    assert collapse is not None
    assert (collapse.kind, collapse.total) == ("nothing", True)
    assert "none of the 3 lesions in 4 cases was found; nothing is marked" in collapse.line
    assert "mean Dice of 0.250 over all cases comes from the 1 of them without a lesion" in collapse.line


def test_marks_that_miss_every_lesion() -> None:
    collapse = find_collapse(scored(box(1), box(6), "a"))
    assert collapse is not None
    assert collapse.kind == "elsewhere"
    assert "without a lesion" not in collapse.line


@pytest.mark.parametrize("side", [3, 7])
def test_everything_marked(side: int) -> None:
    """A lesion of a fifth of the scan is then found by its IoU, and still it is not a result."""
    collapse = find_collapse(scored(box(1, side=side), FULL, "a"))
    assert collapse is not None
    assert (collapse.kind, collapse.total) == ("everything", True)


def test_far_too_much_marked_is_not_a_total_collapse() -> None:
    guess = box(1)
    guess[6:] = 1
    collapse = find_collapse(scored(box(1), guess, "a"))
    assert collapse is not None
    assert (collapse.kind, collapse.total) == ("too much", False)
    assert "times the volume" in collapse.line


def test_one_label_of_two() -> None:
    truth = box(1) + box(6, 2)
    collapse = find_collapse(scored(truth, box(1), "a", {1: "core", 2: "rim"}))
    assert collapse is not None
    assert (collapse.kind, collapse.total) == ("a label", False)
    assert collapse.line.startswith("rim: none of the 1 lesions")


@pytest.mark.parametrize(
    ("truth", "guess"), [(box(2), box(3)), (EMPTY, EMPTY), (EMPTY, box(2)), (FULL, FULL)]
)
def test_what_found_something_or_had_nothing_to_find_is_not_a_collapse(truth, guess) -> None:
    assert find_collapse(scored(truth, guess, "a")) is None


def test_empty_cases_flatter_neither_the_distance_nor_the_second_dice_of_a_comparison() -> None:
    run = [*scored(box(2), box(3), "filled"), *scored(EMPTY, EMPTY, "empty")]
    figures = figures_of([run])
    assert figures["dice"].value == pytest.approx((run[0].dice + 1) / 2)
    assert (figures["dice_with_lesion"].value, figures["dice_with_lesion"].cases) == (run[0].dice, 1)
    assert (figures["hd95_mm"].value, figures["hd95_mm"].cases) == (run[0].hd95_mm, 1)

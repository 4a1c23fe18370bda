"""The first sentence of a report, and what it advises."""

import numpy as np

from focalis.evaluation import evaluate_case, judge_lesions, summarise
from focalis.report.verdict import next_steps, verdict
from focalis.volume import Grid, Volume

GRID = Grid((30, 20, 10))


def volume(*boxes):
    """Boxes of (first x, length along x), each 4 voxels high and wide."""
    array = np.zeros(GRID.shape_zyx, np.uint8)
    for start, length in boxes:
        array[2:6, 5:9, start : start + length] = 1
    return Volume(array, GRID)


def judged(*pairs):
    scores, lesions = [], []
    for number, (truth, guess) in enumerate(pairs):
        scores += evaluate_case(truth, guess, {1: "lesion"}, case=f"case{number}")
        lesions += judge_lesions(f"case{number}", truth, guess, {1: "lesion"})[0]
    return scores, summarise(scores), tuple(lesions)


def test_the_verdict_counts_lesions_and_false_positives_and_gives_the_mean_dice():
    both = volume((1, 6), (15, 2))
    _, summary, _ = judged((both, both), (both, volume((1, 6), (25, 2))))
    said = verdict(summary)
    assert said.startswith("3 of 4 lesions were found, a share of 0.75 (")
    assert "0.50 false positives per scan" in said
    assert "Mean Dice of the 2 cases with a lesion: 0.88 (" in said  # of 1 and 0.75


def test_without_a_lesion_the_verdict_is_of_false_positives_alone():
    _, summary, _ = judged((volume(), volume((1, 2))), (volume(), volume()))
    assert verdict(summary).startswith("No case holds a lesion; 0.50 false positives per scan")


def test_small_lesions_that_are_missed_and_cases_that_fail_are_named():
    pairs = [(volume((1, 6), (15, 1)), volume((1, 6))) for _ in range(3)]
    failing = [(volume((1, 6)), volume((20, 4))), (volume((1, 6)), volume())]
    steps = next_steps(*judged(*pairs, *failing))
    assert steps[0].startswith("In 1 case every mark lies beside the lesion: case3.")
    assert "shifted or mirrored" in steps[0]
    assert steps[1].startswith(
        "In 1 case nothing is marked, though a lesion is there: case4. A lower threshold"
    )
    assert "half of the missed ones have at most 16 mm³, half of those found at most 96 mm³" in steps[2]
    assert steps[-1].startswith("Only 5 cases with a lesion")


def test_many_good_cases_give_no_advice():
    assert next_steps(*judged(*[(volume((1, 6)), volume((1, 6)))] * 20)) == []

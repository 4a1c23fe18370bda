"""Mirrored cases by the side of their label: found where the label has a side, and nowhere else."""

import numpy as np
import pytest

from focalis.quality.position import on_the_other_side


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def suspects(offsets: np.ndarray) -> list[int]:
    return np.flatnonzero(on_the_other_side(offsets)).tolist()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cases", [12, 40, 300])
def test_a_mirrored_case_is_found_on_either_side(cases: int, sign: int, rng: np.random.Generator) -> None:
    offsets = sign * rng.normal(25, 3, cases)
    offsets[4] *= -1
    assert suspects(offsets) == [4]


def test_several_mirrored_cases_are_found_up_to_one_in_twenty(rng: np.random.Generator) -> None:
    offsets = rng.normal(25, 3, 60)
    offsets[[3, 30, 50]] *= -1
    assert suspects(offsets) == [3, 30, 50]
    offsets[7] *= -1
    assert suspects(offsets) == []


def test_a_case_just_across_the_middle_is_not_mirrored(rng: np.random.Generator) -> None:
    offsets = rng.normal(25, 3, 20)
    offsets[0] = -4
    assert suspects(offsets) == []


def test_eleven_cases_are_too_few_to_say_what_is_usual() -> None:
    assert suspects(np.array([20.0] * 10 + [-20.0])) == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.uniform(-80, 80, n),  # lesions anywhere
        lambda rng, n: rng.choice([-1, 1], n) * rng.normal(40, 5, n),  # lesions in either of two organs
        lambda rng, n: rng.normal(1, 3, n),  # in the middle
        lambda rng, n: np.abs(rng.normal(0, 40, n)) * rng.choice([1, 1, 1, -1], n),  # mostly on one side
    ],
    ids=["anywhere", "two organs", "middle", "mostly one side"],
)
@pytest.mark.parametrize("cases", [12, 30, 100])
def test_false_alarms_on_labels_without_a_side_are_rare(draw, cases: int, rng: np.random.Generator) -> None:
    alarms = sum(bool(suspects(draw(rng, cases))) for _ in range(500))
    assert alarms <= 5  # one in a hundred

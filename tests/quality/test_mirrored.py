"""Labels that fit their image only after they were mirrored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focalis.dataset import Case, Dataset
from focalis.quality import Finding
from focalis.quality.contrast import FLIPS, contrasts
from focalis.quality.facts import Measurements
from focalis.quality.mirrored import find_mirrored
from focalis.volume import Grid, Volume

GRID = Grid((24, 22, 20))


def a_mask(number: int) -> np.ndarray:
    """A ball that lies in no plane of symmetry, nor do its mirror images touch it."""
    z, y, x = np.indices(GRID.shape_zyx)
    at = np.array([5, 5, 6]) + np.random.default_rng(number).integers(-2, 3, 3)
    return (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 <= 6


def an_image(mask: np.ndarray, seed: int, contrast: float = 4.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, mask.shape).astype(np.float32) + contrast * mask


def found(
    flips: dict[int, tuple[int, ...]], cases: int = 14, contrast: float = 4.0, turned: Grid = GRID
) -> list[Finding]:
    """What is found in a set in which the labels of some cases are mirrored along some of z, y, x (0, 1, 2).

    The files of case 6 lie along the axes of `turned`.
    """
    listed = [Case(f"c{number:02d}", (Path("i.nii"),), Path("l.nii")) for number in range(cases)]
    measured = Measurements(Dataset(Path(), tuple(listed), ("image",)))
    for number, case in enumerate(listed):
        grid = turned if number == 6 else GRID
        mask = a_mask(number)
        label = np.ascontiguousarray(np.flip(mask, flips.get(number, ()))).astype(np.uint8)
        measured.image(case, 0, Volume(an_image(mask, number, contrast), grid))
        measured.label(case, Volume(label, grid))
    return list(find_mirrored(measured.facts({}), {1: "lesion"}, ("image",)))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((1, 2), "front and back and left and right exchanged"),
        ((0, 1), "top and bottom and front and back exchanged"),
        ((0,), "with top and bottom exchanged"),
        ((0, 1, 2), "top and bottom and front and back and left and right exchanged"),
    ],
)
def test_a_mirrored_label_is_found_and_the_axes_are_reported(axes: tuple[int, ...], said: str) -> None:
    (finding,) = found({6: axes})
    assert finding.cases == ("c06",)
    assert said in finding.message


@pytest.mark.parametrize("contrast", [4.0, -4.0, 0.0])
def test_sound_labels_of_any_contrast_pass(contrast: float) -> None:
    assert found({}, contrast=contrast) == []


def test_few_cases_are_not_compared() -> None:
    assert found({3: (1, 2)}, cases=7) == []


@pytest.mark.parametrize("cases", [range(2), range(5, 8), range(0, 14, 2), range(14)])
def test_several_labels_that_are_mirrored_alike_are_one_line(cases: range) -> None:
    (finding,) = found(dict.fromkeys(cases, (0, 2)))
    assert finding.cases == ()
    assert finding.message.startswith(f"in {len(cases)} of 14 cases (c{cases[0]:02d}, ")
    assert finding.message.endswith("with top and bottom and left and right exchanged")


def test_labels_that_lie_in_several_ways_are_not_judged() -> None:
    assert found({3: (1, 2), 4: (0,), 5: (0, 1), 6: (0, 2)}) == []


@pytest.mark.parametrize(("cases", "lines"), [(3, 0), (4, 1)])
def test_beside_a_label_that_fits_in_no_way_four_must_be_mirrored_alike(cases: int, lines: int) -> None:
    assert len(found({**dict.fromkeys(range(cases), (0, 2)), 6: (0,)})) == lines


def test_the_contrast_is_a_difference_of_means_in_standard_deviations() -> None:
    mask = a_mask(0)
    values = contrasts(an_image(mask, 1), mask)
    assert len(values) == len(FLIPS)
    assert values[0] == pytest.approx(4, rel=0.15)
    assert max(np.abs(values[1:])) < 1
    assert contrasts(an_image(np.flip(mask, (0, 2)), 1), mask)[
        FLIPS.index((True, False, True))
    ] == pytest.approx(4, rel=0.15)


def test_files_along_other_axes_are_compared_in_the_patient() -> None:
    turned = replace(GRID, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    (finding,) = found({6: (1, 2)}, turned=turned)
    assert finding.cases == ("c06",)
    assert finding.message.endswith("with front and back and left and right exchanged")

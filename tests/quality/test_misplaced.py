"""Labels of another case, and labels that were shifted or turned."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from focalis.dataset import Case, Dataset
from focalis.quality import Finding
from focalis.quality.contrast import ranks
from focalis.quality.facts import Measurements
from focalis.quality.misplaced import find_misplaced
from focalis.volume import Grid, Volume

GRID = Grid((18, 18, 18))
CASES = 12


def a_label(number: int) -> NDArray[np.uint8]:
    """A ball somewhere, of label 1, and beside it a box of label 2."""
    z, y, x = np.indices(GRID.shape_zyx)
    at = np.random.default_rng(number).integers((4, 4, 4), (11, 14, 9))
    ball = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 <= 6
    box = (abs(z - at[0]) <= 1) & (abs(y - at[1]) <= 1) & (abs(x - at[2] - 6) <= 1)
    return (ball + 2 * box).astype(np.uint8)


def findings(labels: list[NDArray[np.uint8]], contrasts: tuple[float, float] = (5, -4)) -> list[Finding]:
    """What is found where these labels stand beside the images of the right ones."""
    return findings_of(labels, [contrasts] * len(labels))


def findings_of(labels: list[NDArray[np.uint8]], contrasts: Sequence[tuple[float, float]]) -> list[Finding]:
    """The same, with contrasts of each image's own."""
    cases = [Case(f"c{number:02d}", (Path("i.nii"),), Path("l.nii")) for number in range(len(labels))]
    measured = Measurements(Dataset(Path(), tuple(cases), ("image",)))
    for number, (case, label) in enumerate(zip(cases, labels, strict=True)):
        right = a_label(number)
        image = np.random.default_rng(100 + number).normal(50, 1, GRID.shape_zyx)
        image += contrasts[number][0] * (right == 1) + contrasts[number][1] * (right == 2)
        image[-2:] = 0  # nothing was scanned there
        measured.image(case, 0, Volume(image.astype(np.float32), GRID))
        measured.label(case, Volume(np.ascontiguousarray(label), GRID))
    return list(find_misplaced(measured.facts({}), {1: "ball", 2: "box"}, ("image",)))


def sound() -> list[NDArray[np.uint8]]:
    return [a_label(number) for number in range(CASES)]


@pytest.mark.parametrize("contrasts", [(5, -4), (1, 3), (-2, -2)])
def test_labels_of_any_contrast_that_fit_pass(contrasts: tuple[float, float]) -> None:
    assert findings(sound(), contrasts) == []


def test_two_labels_that_were_exchanged_are_named() -> None:
    labels = sound()
    labels[2], labels[5] = labels[5], labels[2]
    first, second = findings(labels)
    assert (first.cases, second.cases) == (("c02",), ("c05",))
    assert "is it the label of c05" in first.message


@pytest.mark.parametrize(
    "change",
    [
        lambda label: np.roll(label, 7, axis=1),
        lambda label: np.roll(label, (5, -6), axis=(0, 2)),
        lambda label: label.transpose(2, 0, 1),
        lambda label: np.where(label > 0, 3 - label, 0).astype(np.uint8),
    ],
    ids=["shifted", "shifted along two axes", "other axes", "values exchanged"],
)
def test_a_label_that_does_not_fit_is_named(change) -> None:  # type: ignore[no-untyped-def]
    labels = sound()
    labels[4] = change(labels[4])
    (finding,) = findings(labels)
    assert finding.cases == ("c04",)


@pytest.mark.parametrize("cases", [8, 10])
def test_a_label_that_does_not_fit_is_named_among_few(cases: int) -> None:
    labels = sound()[:cases]
    labels[4] = np.roll(labels[4], 7, axis=1)
    (finding,) = findings(labels)
    assert finding.cases == ("c04",)


def test_a_label_that_shows_badly_among_labels_that_differ_is_not_a_fault() -> None:
    """As tumours of unlike uptake in PET: what else they show lies apart by far more than half."""
    contrasts = (5.0, 1.2, 2.0, 9.0, 3.5, 6.0, 4.0, 5.5, 0.2, 7.0)
    labels = [a_label(number) * (a_label(number) == 1) for number in range(len(contrasts))]
    assert findings_of(labels, [(each, 0.0) for each in contrasts]) == []


def test_labels_that_were_all_moved_on_by_a_case_are_one_line() -> None:
    labels = [label * (label == 1) for label in sound()]
    (finding,) = findings([*labels[1:], labels[0]])
    assert finding.cases == ()
    assert "assigned to the wrong cases" in finding.message


def test_a_label_where_nothing_was_scanned_is_named_in_a_small_set() -> None:
    labels = sound()[:4]
    labels[2] = np.zeros_like(labels[2])
    labels[2][-2:, 3:9, 3:9] = 1
    (finding,) = findings(labels)
    assert finding.cases == ("c02",)
    assert "its least value" in finding.message


def test_a_rank_is_the_share_of_voxels_below_the_label() -> None:
    image = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    mask = np.zeros(image.shape, np.bool_)
    mask[7, 5, 3] = True
    found = ranks(image, mask)
    assert found[0] == pytest.approx(0.753, abs=1e-3)
    assert found[-1] == pytest.approx(0.246, abs=1e-3)

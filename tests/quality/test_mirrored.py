"""Labels that fit their image only after they were mirrored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focalis.dataset import open_dataset
from focalis.quality import Finding, measure
from focalis.quality.contrast import FLIPS, contrasts
from focalis.quality.mirrored import find_mirrored
from focalis.volume import Grid, Volume, write_volume

GRID = Grid((24, 22, 20))


def a_mask(number: int) -> np.ndarray:
    """A ball that lies in no plane of symmetry, nor do its mirror images touch it."""
    z, y, x = np.indices(GRID.shape_zyx)
    at = np.array([5, 5, 6]) + np.random.default_rng(number).integers(-2, 3, 3)
    return (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 <= 6


def an_image(mask: np.ndarray, seed: int, contrast: float = 4.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, mask.shape).astype(np.float32) + contrast * mask


def found(
    tmp_path: Path, flips: dict[int, tuple[int, ...]], cases: int = 14, contrast: float = 4.0
) -> list[Finding]:
    """What is found in a set in which the labels of some cases are mirrored along some of z, y, x (0, 1, 2)."""
    for number in range(cases):
        mask = a_mask(number)
        label = np.flip(mask, flips.get(number, ())).astype(np.uint8)
        write_volume(
            Volume(an_image(mask, number, contrast), GRID), tmp_path / "images" / f"c{number:02d}.nii.gz"
        )
        write_volume(Volume(np.ascontiguousarray(label), GRID), tmp_path / "labels" / f"c{number:02d}.nii.gz")
    dataset = open_dataset(tmp_path)
    return list(find_mirrored(measure(dataset).facts, {1: "lesion"}, dataset.channels))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((1, 2), "front and back and left and right exchanged"),
        ((0, 1), "top and bottom and front and back exchanged"),
        ((0,), "with top and bottom exchanged"),
        ((0, 1, 2), "top and bottom and front and back and left and right exchanged"),
    ],
)
def test_a_mirrored_label_is_found_and_the_axes_are_told(
    tmp_path: Path, axes: tuple[int, ...], said: str
) -> None:
    (finding,) = found(tmp_path, {6: axes})
    assert finding.cases == ("c06",)
    assert said in finding.message


@pytest.mark.parametrize("contrast", [4.0, -4.0, 0.0])
def test_sound_labels_of_any_contrast_pass(tmp_path: Path, contrast: float) -> None:
    assert found(tmp_path, {}, contrast=contrast) == []


def test_few_cases_are_not_compared(tmp_path: Path) -> None:
    assert found(tmp_path, {3: (1, 2)}, cases=7) == []


def test_what_concerns_many_cases_is_usual(tmp_path: Path) -> None:
    assert found(tmp_path, {3: (1, 2), 4: (1, 2), 5: (1, 2)}) == []


def test_the_contrast_is_a_difference_of_means_in_standard_deviations() -> None:
    mask = a_mask(0)
    values = contrasts(an_image(mask, 1), mask)
    assert len(values) == len(FLIPS)
    assert values[0] == pytest.approx(4, rel=0.15)
    assert max(np.abs(values[1:])) < 1
    assert contrasts(an_image(np.flip(mask, (0, 2)), 1), mask)[
        FLIPS.index((True, False, True))
    ] == pytest.approx(4, rel=0.15)


def test_files_along_other_axes_are_compared_in_the_patient(tmp_path: Path) -> None:
    found(tmp_path, {6: (1, 2)})
    turned = replace(GRID, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    for kind in ("images", "labels"):
        path = tmp_path / kind / "c06.nii.gz"
        case = open_dataset(tmp_path).select(("c06",))[0]
        volume = case.read_label() if kind == "labels" else case.read_images()[0]
        write_volume(Volume(volume.array, turned), path)
    dataset = open_dataset(tmp_path)
    (finding,) = find_mirrored(measure(dataset).facts, {1: "lesion"}, dataset.channels)
    assert finding.cases == ("c06",)

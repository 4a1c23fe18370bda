"""Images and label maps that were taken for each other."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from focalis.dataset import open_dataset
from focalis.quality import CheckResult, check_dataset, measure, survey
from focalis.quality.label_values import may_be_an_image
from focalis.quality.mixup import looks_like_a_label_map
from focalis.volume import Grid, Volume, write_volume

GRID = Grid((14, 12, 10), (1.0, 1.0, 2.0))
CASES = [f"c{number}" for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six cases, two of them without a lesion."""
    for number, case in enumerate(CASES):
        rng = np.random.default_rng(number)
        label = np.zeros(GRID.shape_zyx, np.uint8)
        if number < 4:
            label[3:6, 2:6, number : number + 5] = 1
        image = rng.normal(10, 2, GRID.shape_zyx) + 8 * label
        write_volume(Volume(image.astype(np.int16), GRID), tmp_path / "images" / f"{case}.nii.gz")
        write_volume(Volume(label, GRID), tmp_path / "labels" / f"{case}.nii.gz")
    return tmp_path


def check(root: Path) -> CheckResult:
    return check_dataset(open_dataset(root))


def test_sound_cases_of_few_grey_values_pass(root: Path) -> None:
    assert check(root).problems == ()


def test_swapped_folders_are_one_line(root: Path) -> None:
    (root / "images").rename(root / "x")
    (root / "labels").rename(root / "images")
    (root / "x").rename(root / "labels")
    (problem,) = check(root).problems
    assert (
        "stand in each other's place, in 6 of 6 cases (c0, c1, c2 and 3 more); swap them" in problem.message
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_labels_in_place_of_all_images_are_one_line(root: Path, dtype: type) -> None:
    for case in CASES:
        label = open_dataset(root).select((case,))[0].read_label()
        write_volume(Volume(label.array.astype(dtype), GRID), root / "images" / f"{case}.nii.gz")
    (problem,) = check(root).problems
    assert "the image holds what the label holds, in 6 of 6 cases" in problem.message


def test_a_single_swapped_case_is_named(root: Path) -> None:
    image, label = (root / kind / "c2.nii.gz" for kind in ("images", "labels"))
    image.rename(root / "x.nii.gz")
    label.rename(image)
    (root / "x.nii.gz").rename(label)
    (problem,) = check(root).problems
    assert problem.case == "c2"
    assert problem.message == f"{label}: image and label stand in each other's place; swap them"


def test_an_image_in_place_of_a_label_is_named(root: Path) -> None:
    shutil.copy(root / "images" / "c1.nii.gz", root / "labels" / "c1.nii.gz")
    (problem,) = check(root).problems
    assert problem.case == "c1"
    assert "the label map holds an image or a map of probabilities" in problem.message


def test_an_empty_image_beside_an_empty_label_is_an_empty_image(root: Path) -> None:
    shutil.copy(root / "labels" / "c5.nii.gz", root / "images" / "c5.nii.gz")
    (problem,) = check(root).problems
    assert "every voxel has the same value" in problem.message


def test_a_label_map_among_several_channels_may_be_one(root: Path) -> None:
    for case in CASES:
        (root / "images" / f"{case}.nii.gz").rename(root / "images" / f"{case}_CT.nii.gz")
        mask = np.zeros(GRID.shape_zyx, np.uint8)
        mask[2:8, 1:8, 1:12] = 1
        write_volume(Volume(mask, GRID), root / "images" / f"{case}_organ.nii.gz")
    assert check(root).problems == ()


@pytest.mark.parametrize(
    ("array", "is_one"),
    [
        (np.kron(np.arange(8).reshape(2, 2, 2), np.ones((5, 5, 5))), True),
        (np.kron(np.arange(9).reshape(1, 3, 3), np.ones((5, 5, 5))), False),
        (np.kron(np.arange(8).reshape(2, 2, 2) / 2, np.ones((5, 5, 5))), True),
        (np.kron(np.arange(8).reshape(2, 2, 2) - 1, np.ones((5, 5, 5))), True),
        (np.random.default_rng(0).integers(0, 4, (9, 9, 9)), False),
    ],
)
def test_what_looks_like_a_label_map(array: np.ndarray, is_one: bool) -> None:
    assert looks_like_a_label_map(array) == is_one


@pytest.mark.parametrize("scale", [255, 1 / 255, -1, 100.5])
def test_scaled_labels_in_place_of_images_are_copies_too(root: Path, scale: float) -> None:
    for case in CASES[:3]:
        label = open_dataset(root).select((case,))[0].read_label()
        write_volume(
            Volume(label.array.astype(np.float32) * np.float32(scale), GRID),
            root / "images" / f"{case}.nii.gz",
        )
    (problem,) = check(root).problems
    assert "the image holds what the label holds, in 3 of 6 cases" in problem.message


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=shape)
    image = ndimage.gaussian_filter(noise, 3)
    return np.round(60 * (image - image.min()) / np.ptp(image)).astype(np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(0, 2, (20, 20, 20)),
        np.random.default_rng(1).integers(0, 4, (8, 30, 20)) - 1,
        (np.random.default_rng(2).random((20, 20, 20)) < 0.1).astype(np.uint8) * 3,
        smooth((30, 30, 30)),
    ],
)
def test_an_image_of_few_values_or_a_smooth_one_may_stand_for_a_label(array: np.ndarray) -> None:
    assert may_be_an_image(array)


def blocks(values: np.ndarray, edge: int) -> np.ndarray:
    return np.kron(values, np.ones((edge,) * 3, int))


@pytest.mark.parametrize(
    "array",
    [
        blocks(np.random.default_rng(0).integers(0, 2, (5, 5, 5)), 4),
        blocks(np.arange(1, 126).reshape(5, 5, 5), 5),
        np.pad(blocks(np.arange(1, 25).reshape(24, 1, 1), 5), ((0, 0), (3, 3), (3, 3))),
        np.tile(np.arange(6) % 2, (9, 9, 4)),
        (np.random.default_rng(0).random((20, 20, 20)) < 0.02).astype(np.uint8),
    ],
)
def test_structures_sheets_and_scattered_voxels_are_labels(array: np.ndarray) -> None:
    assert not may_be_an_image(array)


def test_an_image_that_may_stand_for_a_label_is_a_warning(root: Path) -> None:
    for case in CASES:
        speckle = np.random.default_rng(ord(case[-1])).integers(0, 3, GRID.shape_zyx).astype(np.uint8)
        write_volume(Volume(speckle, GRID), root / "labels" / f"{case}.nii.gz")
    dataset = open_dataset(root)
    found = [
        finding for finding in survey(dataset, measure(dataset), None).findings if finding.kind == "mixup"
    ]
    assert [finding.cases for finding in found] == [(case,) for case in CASES]

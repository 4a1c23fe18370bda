import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import open_dataset
from focalis.quality import CheckResult, Problem, check_dataset, measure
from focalis.quality import problems as check_module
from focalis.volume import Grid, GridWarning, Volume, write_volume

GRID = Grid((6, 5, 4), (1.0, 1.0, 2.0))


def an_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=GRID.shape_zyx).astype(np.float32)


def a_label(value: int = 1) -> np.ndarray:
    label = np.zeros(GRID.shape_zyx, dtype=np.int16)
    label[1:3, 2:4, 2:4] = value
    return label


def put(root: Path, stem: str, image: np.ndarray | None, label: np.ndarray | None, grid: Grid = GRID) -> None:
    (root / "images").mkdir(exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    if image is not None:
        write_volume(Volume(image, GRID), root / "images" / f"{stem}.nii.gz")
    if label is not None:
        write_volume(Volume(label, grid), root / "labels" / f"{stem}.nii.gz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with one good case."""
    put(tmp_path, "good", an_image(), a_label())
    return tmp_path


def check(root: Path) -> CheckResult:
    result = check_dataset(open_dataset(root))
    assert all("\n" not in problem.message for problem in result.problems)
    return result


def only_problem(root: Path) -> Problem:
    problems = check(root).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_a_good_data_set_passes(root: Path) -> None:
    put(root, "other", an_image(1), a_label(4))
    put(root, "empty", an_image(2), a_label(0))
    assert check(root) == CheckResult((), (1, 4))


def test_an_unreadable_image_and_label(root: Path) -> None:
    put(root, "bad", an_image(), a_label())
    for folder in ("images", "labels"):
        path = root / folder / "bad.nii.gz"
        path.write_bytes(path.read_bytes()[:-20])
    image, label = check(root).problems
    assert image.case == label.case == "bad"
    assert image.message.startswith(f"{root / 'images/bad.nii.gz'}: is cut short")
    assert label.message.startswith(f"{root / 'labels/bad.nii.gz'}: is cut short")


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (
            replace(GRID, spacing_xyz_mm=(1.0, 1.0, 2.5)),
            "spacing (1, 1, 2) against (1, 1, 2.5) mm (off by up to 0.5)",
        ),
        (
            replace(GRID, origin_xyz_mm=(0.0, 3.0, 0.0)),
            "origin (0, 0, 0) against (0, 3, 0) mm (off by up to 3)",
        ),
        (replace(GRID, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)), "direction"),
    ],
)
def test_a_label_on_another_grid(root: Path, grid: Grid, said: str) -> None:
    put(root, "bad", an_image(), a_label(), grid)
    problem = only_problem(root)
    assert problem.case == "bad"
    assert problem.message.startswith(
        f"{root / 'labels/bad.nii.gz'}: is not on the grid of bad.nii.gz: {said}"
    )


def test_a_label_of_another_size(root: Path) -> None:
    put(root, "bad", an_image(), a_label()[1:], replace(GRID, size_xyz=(6, 5, 3)))
    assert "size 6 x 5 x 4 against 6 x 5 x 3 voxels" in only_problem(root).message


def two_channels(root: Path, shift_mm: float) -> None:
    put(root, "a", None, a_label())
    write_volume(Volume(an_image(), GRID), root / "images" / "a_T1.nii.gz")
    moved = replace(GRID, origin_xyz_mm=(shift_mm, 0.0, 0.0))
    write_volume(Volume(an_image(1), moved), root / "images" / "a_T2.nii.gz")


def test_a_channel_on_another_grid_will_be_resampled(tmp_path: Path) -> None:
    two_channels(tmp_path, 1.0)
    with pytest.warns(GridWarning, match=r"a_T2.nii.gz: is resampled onto the grid of a_T1.nii.gz"):
        assert check(tmp_path).problems == ()


def test_a_channel_that_shows_nothing_of_the_first(tmp_path: Path) -> None:
    two_channels(tmp_path, 50.0)
    assert "a_T2.nii.gz: shows nothing of what a_T1.nii.gz shows" in only_problem(tmp_path).message


def test_a_4d_image_of_another_number_of_volumes(root: Path) -> None:
    dataset = open_dataset(root)
    case = replace(dataset.cases[0], images=dataset.cases[0].images * 2)
    (problem,) = check_dataset(replace(dataset, cases=(case,), channels=("T1", "T2"))).problems
    assert "holds one 3D image where 2 channels are wanted" in problem.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers(root: Path, value: float) -> None:
    image = an_image()
    image[0, 0, :2] = value
    put(root, "bad", image, a_label())
    assert "images/bad.nii.gz: 2 of 120 values are NaN or infinite" in only_problem(root).message


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_constant_image(root: Path, dtype: type) -> None:
    put(root, "bad", np.full(GRID.shape_zyx, 7, dtype=dtype), a_label())
    assert "every voxel has the same value" in only_problem(root).message


def test_an_image_without_label_and_a_label_without_image(root: Path) -> None:
    put(root, "image_only", an_image(), None)
    put(root, "label_only", None, a_label(3))
    first, second = check(root).problems
    assert (first.case, second.case) == ("image_only", "label_only")
    assert first.message.startswith(f"{root / 'images/image_only.nii.gz'}: has no label")
    assert second.message.startswith(f"{root / 'labels/label_only.nii.gz'}: has no image")


def test_unknown_label_values(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    put(root, "bad", an_image(), a_label(5))
    problem = only_problem(root)
    assert problem.case == "bad"
    assert "labels/bad.nii.gz: unknown label value 5; dataset.json names 0, 1" in problem.message
    assert check(root).label_values == (1,)


def test_negative_and_fractional_label_values(root: Path) -> None:
    put(root, "negative", an_image(), a_label(-2))
    put(root, "fraction", an_image(), a_label().astype(np.float32) * 0.5)
    fraction, negative = check(root).problems
    assert "must be whole numbers, not 0.5" in fraction.message
    assert "must not be negative (-2)" in negative.message


def test_a_label_of_nan(root: Path) -> None:
    label = a_label().astype(np.float32)
    label[0, 0, 0] = np.nan
    put(root, "bad", an_image(), label)
    assert "must be whole numbers, not nan" in only_problem(root).message


def test_no_foreground_anywhere(tmp_path: Path) -> None:
    put(tmp_path, "a", an_image(), a_label(0))
    problem = only_problem(tmp_path)
    assert problem.case == ""
    assert str(problem).startswith(f"{tmp_path / 'labels'}: no label holds any foreground")


def test_one_line_per_problem_of_every_case(root: Path) -> None:
    put(
        root,
        "bad",
        np.zeros(GRID.shape_zyx, dtype=np.float32),
        a_label(-1),
        replace(GRID, origin_xyz_mm=(9.0, 0, 0)),
    )
    series = sitk.GetImageFromArray(np.ones((2, 4, 5, 6), dtype=np.float32), isVector=False)
    sitk.WriteImage(series, str(root / "images" / "series.nii.gz"))
    problems = check(root).problems
    assert [problem.case for problem in problems] == ["bad", "bad", "bad", "series", "series"]
    assert str(problems[0]).startswith("bad: ")


@pytest.mark.slow
@pytest.mark.skipif("FOCALIS_DATA" not in os.environ, reason="FOCALIS_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "cases", "channels", "values"),
    [
        ("lidc_nodules", 104, ("image",), (1,)),
        ("msd_hippocampus", 200, ("image",), (1, 2)),
        ("sts_pet", 51, ("image",), (1,)),
        ("ms_brain", 2, ("FLAIR", "T1"), (1,)),
        ("oasis_inferior_ventricle", 15, ("image",), (1,)),
    ],
)
def test_clean_real_data_passes(
    name: str, cases: int, channels: tuple[str, ...], values: tuple[int, ...]
) -> None:
    dataset = open_dataset(Path(os.environ["FOCALIS_DATA"]) / name)
    assert len(dataset.cases) == cases
    assert dataset.channels == channels
    assert check_dataset(dataset) == CheckResult((), values)


def test_a_value_to_be_ignored_is_neither_unknown_nor_a_label(root: Path) -> None:
    put(root, "other", an_image(1), a_label(4))
    dataset = replace(open_dataset(root), labels={1: "lesion"}, ignore=4)
    assert check_dataset(dataset) == CheckResult((), (1,))


def test_masks_that_overlap(root: Path) -> None:
    put(root, "mask", None, a_label(255))
    dataset = open_dataset(root)
    good = next(case for case in dataset.cases if case.name == "good")
    mask = root / "labels" / "mask.nii.gz"
    case = replace(good, label=(*good.label_files, mask))
    (problem,) = check_dataset(replace(dataset, cases=(case,))).problems
    assert problem.message.startswith(f"{mask}: shares 8 voxels with {good.label}")


def test_the_channels_of_a_4d_image_are_looked_at_one_by_one(root: Path) -> None:
    path = root / "images" / "good.nii.gz"
    stack = sitk.JoinSeries([sitk.GetImageFromArray(an_image(seed)) for seed in (0, 1)])
    sitk.WriteImage(stack, str(path))
    dataset = open_dataset(root)
    case = replace(dataset.cases[0], images=(path, path))
    label = case.read_label()
    write_volume(Volume(label.array, Grid((6, 5, 4))), root / "labels" / "good.nii.gz")
    measured = measure(replace(dataset, cases=(case,), channels=("T1", "T2")))
    assert measured.result.problems == ()
    assert [image.channel for image in measured.facts[0].images] == ["T1", "T2"]
    assert [image.middle for image in measured.facts[0].images] == pytest.approx(
        [float(np.median(an_image(seed))) for seed in (0, 1)]
    )


def test_the_look_changes_nothing_of_the_result(root: Path) -> None:
    put(root, "bad", np.zeros(GRID.shape_zyx, np.float32), a_label(-1))
    dataset = open_dataset(root)
    assert measure(dataset).result == check_dataset(dataset)


@pytest.mark.parametrize("error", [RuntimeError("itk::ERROR"), MemoryError(), IndexError("no axis")])
def test_any_error_of_a_case_is_a_problem_of_that_case(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put(root, "bad", an_image(1), a_label(4))
    right = check_module.read_entries

    def broken(path: Path, entries: int) -> tuple[Volume, ...]:
        if path.name == "bad.nii.gz":
            raise error
        return right(path, entries)

    monkeypatch.setattr(check_module, "read_entries", broken)
    problem = only_problem(root)
    assert problem.case == "bad"
    assert problem.message.startswith(f"{root / 'images/bad.nii.gz'}: ")
    assert type(error).__name__ in problem.message
    assert check(root).label_values == (1,)


def test_a_link_to_itself_is_a_problem_of_its_case(root: Path) -> None:
    put(root, "loop", None, a_label())
    (root / "images" / "loop.nii.gz").symlink_to("loop.nii.gz")
    assert only_problem(root).case == "loop"

"""Faults of every kind, each planted in one case of a copy of real data, are found there and nowhere else."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import open_dataset
from focalis.errors import UsageError
from focalis.planning import fingerprint, make
from focalis.quality import KINDS, Survey, intensity
from focalis.volume import Grid, Volume, files, read_volume, write_volume
from focalis.workflows.check import check

Plant = Callable[[Path, list[str]], None]
CASES, WIDTH = 12, 38


@pytest.fixture(scope="session")
def data() -> Path:
    if "FOCALIS_DATA" not in os.environ:
        pytest.skip("FOCALIS_DATA names no folder of real data")
    return Path(os.environ["FOCALIS_DATA"])


@pytest.fixture(scope="session")
def nodules(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real data set to plant faults in: 12 small lung nodules, cut so that they lie left of the middle."""
    source, root = data / "lidc_nodules", tmp_path_factory.mktemp("real") / "nodules"
    names: list[str] = []
    for path in sorted((source / "labels").iterdir()):
        name = path.name.removesuffix(".nii.gz")
        label, image = read_volume(path), read_volume(source / "images" / path.name)
        if np.count_nonzero(label.array) > 400:
            continue
        for kind, volume in (("labels", label), ("images", image)):
            grid = Grid((WIDTH, *volume.grid.size_xyz[1:]))
            write_volume(Volume(volume.array[..., :WIDTH].copy(), grid), root / kind / path.name)
        names.append(name)
        if len(names) == CASES:
            break
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "nodule": 1}}))
    halves = {"train": names[:6], "val": names[6:]}, {"train": names[6:], "val": names[:6]}
    (root / "splits.json").write_text(json.dumps(halves))
    return root


def image(root: Path, name: str) -> Path:
    return root / "images" / f"{name}.nii.gz"


def label(root: Path, name: str) -> Path:
    return root / "labels" / f"{name}.nii.gz"


def change(path: Path, how: Callable[[np.ndarray], np.ndarray], **grid: object) -> None:
    volume = read_volume(path)
    array = np.ascontiguousarray(how(volume.array.copy()))
    write_volume(Volume(array, replace(volume.grid, size_xyz=array.shape[::-1], **grid)), path)


def put(array: np.ndarray, place: object, value: float) -> np.ndarray:
    array[place] = value
    return array


def both(root: Path, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in (image(root, name), label(root, name)):
        change(path, how)


def truncated(root: Path, names: list[str]) -> None:
    path = image(root, names[0])
    path.write_bytes(path.read_bytes()[:-500])


def not_an_image(root: Path, names: list[str]) -> None:
    label(root, names[0]).write_text("no image")


def moved_label(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a, origin_xyz_mm=(5.0, 0.0, 0.0))


def nan(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: put(a.astype(np.float32), (0, 0, 0), np.nan))


def constant(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), np.zeros_like)


def no_label(root: Path, names: list[str]) -> None:
    label(root, names[0]).unlink()
    (root / "splits.json").unlink()


def no_image(root: Path, names: list[str]) -> None:
    image(root, names[0]).unlink()


def unknown_value(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a * 3)


def fraction(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a * np.float32(0.5))


def negative(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a.astype(np.int16) * -1)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (truncated, "is cut short"),
        (not_an_image, "not an intact gzip file"),
        (moved_label, "is not on the grid of"),
        (nan, "1 of 98838 values are NaN"),
        (constant, "every voxel has the same value"),
        (no_label, "has no label"),
        (no_image, "has no image"),
        (unknown_value, "unknown label value 3"),
        (fraction, "must be whole numbers, not 0.5"),
        (negative, "must not be negative"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_error_is_found_in_its_case(nodules: Path, tmp_path: Path, plant: Plant, said: str) -> None:
    root, names = copy(nodules, tmp_path)
    plant(root, names)
    (problem,) = check(root, tmp_path / "checked").result.problems
    assert problem.case == names[0]
    assert said in problem.message
    assert said in (tmp_path / "checked/report.html").read_text()


def copied_image(root: Path, names: list[str]) -> None:
    shutil.copy(image(root, names[1]), image(root, names[0]))


def copied_image_under_another_header_and_type(root: Path, names: list[str]) -> None:
    volume = read_volume(image(root, names[1]))
    grid = replace(volume.grid, origin_xyz_mm=(7.0, 0.0, 0.0))
    write_volume(Volume(volume.array.astype(np.float32), grid), image(root, names[0]))
    change(label(root, names[0]), lambda a: a, origin_xyz_mm=(7.0, 0.0, 0.0))


def copied_image_along_other_axes(root: Path, names: list[str]) -> None:
    volume = read_volume(image(root, names[1]))
    x, y, z = volume.grid.size_xyz
    turned = Grid((y, x, z), (1.0, 1.0, 1.0), (0.0, y - 1.0, 0.0), (0, 1, 0, -1, 0, 0, 0, 0, 1))
    for path, array in (
        (image(root, names[0]), volume.array),
        (label(root, names[0]), read_volume(label(root, names[0])).array),
    ):
        write_volume(Volume(np.ascontiguousarray(array.transpose(0, 2, 1)[..., ::-1]), turned), path)


def copied_label(root: Path, names: list[str]) -> None:
    shutil.copy(label(root, names[1]), label(root, names[0]))


def one_patient(root: Path, names: list[str]) -> None:
    rows = [f"{name},{names[6] if name == names[0] else name}" for name in names]
    (root / "cases.csv").write_text("\n".join(["case,patient", *rows]))


def too_much_foreground(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: put(a, np.s_[1:-1, 1:-1, 6:-1], 1))


def too_little_foreground(root: Path, names: list[str]) -> None:
    both(root, names[0], lambda a: np.pad(a, 40, mode="edge"))
    change(label(root, names[0]), lambda a: put(np.zeros_like(a), (60, 60, 80), 1))


def no_foreground(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), np.zeros_like)


def speck(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: put(a, np.s_[5, 6, 7:10], 1))


def at_the_border(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: put(a, np.s_[:, 24:27, 24:27], 1))


def mirrored(root: Path, names: list[str]) -> None:
    both(root, names[0], lambda a: a[..., ::-1])


def mirrored_in_the_header(root: Path, names: list[str]) -> None:
    for path in (image(root, names[0]), label(root, names[0])):
        change(path, lambda a: a, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


def offset_not_applied(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: a + 1024)


def window_burnt_in(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: ((np.clip(a, -1000, 400) + 1000) / 1400 * 255).astype(np.uint8))


def other_unit(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: a.astype(np.int32) * 20)


def padded(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: put(a, np.s_[0, 0, :2], -32768))


def skewed_axes(root: Path, names: list[str]) -> None:
    for path in (image(root, names[0]), label(root, names[0])):
        stored = nibabel.load(path)
        affine = stored.affine.copy()
        affine[0, 1] = 5e-4
        skewed = nibabel.Nifti1Image(np.asarray(stored.dataobj), affine)
        skewed.set_qform(None, 0)
        nibabel.save(skewed, path)


def spacing_in_metres(root: Path, names: list[str]) -> None:
    for path in (image(root, names[0]), label(root, names[0])):
        stored = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), stored.affine / 1000), path)


def lost_reader(root: Path, names: list[str]) -> None:
    (root / "raters").mkdir()
    shutil.copy(label(root, names[0]), root / "raters" / f"{names[0]}_r1.nii.gz")
    shutil.copy(label(root, names[0]), root / "raters" / "another_r1.nii.gz")


def forgotten_structure(root: Path, _names: list[str]) -> None:
    labels = {"background": 0, "nodule": 1, "vessel": 2}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))


def subject_without_a_column(root: Path, names: list[str]) -> None:
    (root / "cases.csv").write_text("\n".join(["case,site", *(f"{name},1" for name in names)]))


def renamed_segment(root: Path, names: list[str]) -> None:
    for name in names:
        volume = sitk.ReadImage(str(label(root, name)))
        volume.SetMetaData("Segment0_LabelValue", "1")
        volume.SetMetaData("Segment0_Name", "cyst" if name == names[2] else "nodule")
        label(root, name).unlink()
        sitk.WriteImage(volume, str(root / "labels" / f"{name}.nrrd"))


def a_label_of_one_patient(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a * 2)
    labels = {"background": 0, "nodule": 1, "vessel": 2}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    (root / "splits.json").unlink()


def a_mask_for_an_image(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: (a > -600).astype(np.uint8))


def label_mirrored_along_two_axes(root: Path, names: list[str]) -> None:
    change(label(root, names[0]), lambda a: a[:, ::-1, ::-1])


def a_label_where_nothing_was_scanned(root: Path, names: list[str]) -> None:
    change(image(root, names[0]), lambda a: put(a, np.s_[:12, :12, -12:], -2000))
    change(label(root, names[0]), lambda a: put(0 * a, np.s_[4:8, 4:8, -8:-4], 1))


def unjudged_voxels(root: Path, names: list[str]) -> None:
    (root / "dataset.json").unlink(missing_ok=True)
    for name in names:
        change(label(root, name), lambda a: put(a, (slice(3, 6), slice(3, 6), slice(3, 6)), 255))


FAULTS = [
    (unjudged_voxels, "sentinel", (), "is trained as a label like 1"),
    (a_label_of_one_patient, "few", (0,), "is the only patient with vessel"),
    (a_mask_for_an_image, "mixup", (0,), "holds a few values, as a label map does"),
    (label_mirrored_along_two_axes, "mirrored", (0,), "with front and back and left and right exchanged"),
    (a_label_where_nothing_was_scanned, "misplaced", (0,), "lies where the image has its least value"),
    (
        subject_without_a_column,
        "names",
        (),
        "cases.csv has no column patient (case, site): each case counts as",
    ),
    (forgotten_structure, "absent", (), "label 2, vessel, occurs in no case"),
    (spacing_in_metres, "size", (0,), "the spacing or its unit may be wrong"),
    (renamed_segment, "segment", (2,), "differ on what label 1 is"),
    (copied_image, "duplicate", (0, 1), "hold the same image"),
    (copied_image_under_another_header_and_type, "duplicate", (0, 1), "under other headers (origin"),
    (copied_image_along_other_axes, "duplicate", (0, 1), "under other headers (size"),
    (copied_label, "duplicate", (0, 1), "hold the same contours, but their images differ"),
    (one_patient, "split", (0, 6), "splits 0 and 1 train on some and validate on others"),
    (too_much_foreground, "foreground", (0,), "% of the image, more than 30 %"),
    (too_little_foreground, "foreground", (0,), "% of the image, less than 0.0001 %"),
    (no_foreground, "foreground", (0,), "the label holds no foreground"),
    (speck, "small", (0,), "1 of 2 of nodule (3 at x 8, y 6, z 5)"),
    (at_the_border, "border", (0,), "nodule touches the inferior and superior end"),
    (mirrored, "side", (0,), "mm right of the image's centre, in the other cases"),
    (mirrored_in_the_header, "side", (0,), "mm right of the image's centre, in the other cases"),
    (offset_not_applied, "intensity", (0,), "no Hounsfield units, unlike the others"),
    (window_burnt_in, "intensity", (0,), "no Hounsfield units, unlike the others"),
    (other_unit, "intensity", (0,), "usual in this set are"),
    (padded, "padding", (0,), "the value -32768 most likely means no data"),
    (skewed_axes, "grid", (0,), "not quite perpendicular"),
    (lost_reader, "reader", (), "raters/another_r1.nii.gz belongs to no case"),
]


def copy(nodules: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    root = shutil.copytree(nodules, tmp_path / "data")
    return root, [case.name for case in open_dataset(root).cases]


def test_the_data_without_a_fault_are_clean(nodules: Path) -> None:
    found = check(nodules)
    assert found.result.problems == ()
    assert found.findings == ()


@pytest.mark.parametrize(("plant", "kind", "cases", "said"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_fault_is_found_in_its_case_and_nowhere_else(
    nodules: Path, tmp_path: Path, plant: Plant, kind: str, cases: tuple[int, ...], said: str
) -> None:
    root, names = copy(nodules, tmp_path)
    plant(root, names)
    found = check(root)
    assert found.result.problems == ()
    wanted = tuple(names[place] for place in cases)
    matching = [finding for finding in found.findings if finding.kind == kind]
    assert [finding.cases for finding in matching] in ([wanted], [wanted, wanted])
    assert said in matching[0].message
    assert all(set(finding.cases) <= set(wanted) for finding in found.findings)


@pytest.mark.parametrize("empty", [2, 5])
def test_cases_without_a_lesion_are_one_line(nodules: Path, tmp_path: Path, empty: int) -> None:
    root, names = copy(nodules, tmp_path)
    for name in names[:empty]:
        change(label(root, name), np.zeros_like)
    (root / "splits.json").unlink()
    found = check(root)
    assert found.result.problems == ()
    (finding,) = [finding for finding in found.findings if finding.kind == "foreground"]
    assert finding.message.startswith(f"{empty} of {len(names)} cases hold no lesion ({names[0]}, {names[1]}")
    assert ("and 2 more" in finding.message) == (empty == 5)
    assert "read the Dice of the cases with a lesion" in finding.message


def test_labels_that_usually_touch_the_border_are_one_line(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    for name in names:
        at_the_border(root, [name])
    found = check(root)
    (finding,) = [finding for finding in found.findings if finding.kind == "border"]
    assert finding.message.startswith(
        f"in {len(names)} of {len(names)} cases with a lesion a label touches the end"
    )


def test_there_is_a_planted_fault_of_every_kind() -> None:
    assert {kind for _, kind, _, _ in FAULTS} == set(KINDS)


def test_a_copy_across_a_split_is_said_to_be_one(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    shutil.copy(image(root, names[7]), image(root, names[0]))
    (finding,) = check(root).findings
    assert finding.message.endswith("; split 0 trains on one and validates on the other")


def test_two_channels_of_the_same_content(tmp_path: Path) -> None:
    grid = Grid((8, 8, 8))
    values = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    for name in ("a_FLAIR", "a_T1"):
        write_volume(Volume(values, grid), image(tmp_path, name))
    write_volume(Volume(np.pad(np.ones((4, 4, 4), np.uint8), 2), grid), label(tmp_path, "a"))
    (finding,) = [finding for finding in check(tmp_path).findings if finding.kind == "duplicate"]
    assert finding.cases == ("a",)
    assert finding.message == "a_FLAIR.nii.gz and a_T1.nii.gz hold the same image"


def test_a_whole_second_scale_is_not_a_fault(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    for name in names[:3]:
        change(image(root, name), lambda a: a.astype(np.int32) * 20)
    assert check(root).findings == ()


def test_missing_readers_are_counted_and_no_fault(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    (root / "raters").mkdir()
    for reader in ("r1", "r2"):
        shutil.copy(label(root, names[3]), root / "raters" / f"{names[3]}_{reader}.nii.gz")
    found = check(root)
    assert found.findings == ()
    assert [case.readers for case in found.facts] == [
        ("r1", "r2") if name == names[3] else () for name in names
    ]


def test_readers_masks_that_cannot_be_used_are_errors_by_name(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    folder = root / "raters"
    folder.mkdir()
    masks = [folder / f"{names[1]}_r{number}.nii.gz" for number in (1, 2, 3)]
    for path in masks:
        shutil.copy(label(root, names[1]), path)
    volume = read_volume(masks[0])
    write_volume(replace(volume, grid=replace(volume.grid, origin_xyz_mm=(9.0, 0.0, 0.0))), masks[0])
    write_volume(replace(volume, array=volume.array * 7), masks[1])
    masks[2].write_bytes(b"nonsense")
    problems = [str(problem) for problem in check(root).result.problems]
    assert len(problems) == 3
    assert any(f"{masks[0]}: the mask of reader r1 is not on the grid of" in problem for problem in problems)
    assert any(str(masks[1]) in problem and "value" in problem and "7" in problem for problem in problems)
    assert any(str(masks[2]) in problem for problem in problems)


def test_channels_and_plans_take_the_same_images_for_ct() -> None:
    assert intensity.CT_FIRST_PERCENTILE == make.CT_FIRST_PERCENTILE


def by_kind(found: Survey) -> dict[str, int]:
    kinds = [finding.kind for finding in found.findings]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


@pytest.mark.parametrize(("name", "border"), [("sts_pet", 1)])
def test_a_part_of_a_clean_real_set_passes(data: Path, tmp_path: Path, name: str, border: int) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for path in sorted((data / name / kind).iterdir())[:12]:
            (tmp_path / kind / path.name).symlink_to(path)
    found = check(tmp_path)
    assert found.result.problems == ()
    assert by_kind(found) == {"border": border}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("lidc_nodules", {"border": 1}),
        ("msd_hippocampus", {"small": 1}),
        ("sts_pet", {"border": 8}),
        ("ms_brain", {"few": 1, "small": 1}),
        ("oasis_inferior_ventricle", {"small": 13}),
    ],
)
def test_clean_real_sets_pass_with_few_warnings(data: Path, name: str, warnings: dict[str, int]) -> None:
    found = check(data / name)
    assert found.result.problems == ()
    assert by_kind(found) == warnings


@pytest.mark.slow
def test_a_mirrored_brain_is_found_by_the_sides_of_its_structures(data: Path, tmp_path: Path) -> None:
    source = data / "oasis_inferior_ventricle"
    for kind, folder in (("images", "images"), ("labels", "labels_multi")):
        for path in sorted((source / folder).iterdir()):
            volume = read_volume(path)
            array = volume.array[::2, ::2, ::2]
            if path.name.startswith("oas1006"):
                array = array[..., ::-1]
            x, y, z = array.shape[::-1]
            spacing = tuple(2 * value for value in volume.grid.spacing_xyz_mm)
            grid = replace(volume.grid, size_xyz=(x, y, z), spacing_xyz_mm=spacing)
            write_volume(Volume(np.ascontiguousarray(array), grid), tmp_path / kind / path.name)
    (finding,) = [finding for finding in check(tmp_path).findings if finding.kind == "side"]
    assert finding.cases == ("oas1006",)
    assert "label 13 lies" in finding.message
    assert "label 12" not in finding.message  # the third ventricle lies in the middle


def test_check_json_says_it_all(nodules: Path, tmp_path: Path) -> None:
    root, names = copy(nodules, tmp_path)
    speck(root, names)
    nan(root, names[1:])
    check(root, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check.json", "report.html"]
    said = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [error["case"] for error in said["errors"]] == [names[1]]
    (warning,) = said["warnings"]
    assert warning["kind"] == "small"
    assert warning["cases"] == [names[0]]
    assert warning["why"] == KINDS["small"].why
    assert warning["advice"] == KINDS["small"].advice
    assert said["planned_spacing_zyx_mm"] == [1.0, 1.0, 1.0]
    assert set(said["rules"]) == {*KINDS, "planned_spacing"}
    (part,) = said["facts"][0]["label"]["labels"]
    assert part["lesions"][0]["voxels"] == 3
    assert len(said["facts"]) == len(names)


def small(root: Path, cases: int = 2) -> Path:
    """A data set of noise with a block in each case."""
    rng = np.random.default_rng(0)
    block = np.pad(np.ones((4, 4, 4), np.uint8), 2)
    for number in range(cases):
        values = rng.normal(size=(8, 8, 8)).astype(np.float32)
        write_volume(Volume(values, Grid((8, 8, 8))), image(root, f"c{number}"))
        write_volume(Volume(np.roll(block, number, 2), Grid((8, 8, 8))), label(root, f"c{number}"))
    return root


def test_every_case_is_reported_once_and_then_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    check(small(tmp_path), progress=lambda *now: told.append(now))
    assert told == [(0, 2, "c0"), (1, 2, "c1"), (2, 2, "")]


@pytest.mark.parametrize("when", ["reading", "writing"])
def test_ctrl_c_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    if when == "writing":
        monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        check(small(tmp_path / "data"), out, progress=stop if when == "reading" else None)
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", "is not valid JSON"),
        ('[{"train": ["c0"], "val": ["c7"]}]', "names c7, not in the data set"),
        ('[{"train": ["c0", "c1"], "val": []}]', "split 0 has no val cases"),
    ],
)
def test_a_splits_file_that_stops_training_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    (small(tmp_path) / "splits_final.json").write_text(content)
    (problem,) = check(tmp_path).result.problems
    assert problem.case == ""
    assert said in problem.message


def test_of_two_splits_files_one_must_be_named(tmp_path: Path) -> None:
    root = small(tmp_path)
    for name in ("splits_a.json", "splits_b.json"):
        (root / name).write_text('[{"train": ["c0"], "val": ["c1"]}]')
    with pytest.raises(UsageError, match="has 2 files splits"):
        check(root)
    assert check(root, splits=root / "splits_b.json").splits == root / "splits_b.json"


def test_a_file_in_the_reports_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="is a file"):
        check(small(tmp_path / "data"), tmp_path / "out")


def test_the_planned_spacing_is_the_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path, 5)
    for number, spacing in enumerate((4.0, 5.0, 5.0, 6.0, 6.0)):
        for path in (image(root, f"c{number}"), label(root, f"c{number}")):
            change(path, lambda a: a, spacing_xyz_mm=(1.0, 1.0, spacing))
    figures = fingerprint(open_dataset(root).cases)
    monkeypatch.setattr(make, "within_memory", lambda plan: plan)  # needs no network
    plan = make.make_plan(figures, ("image",), {1: "lesion"})
    planned = check(root).planned
    assert planned is not None
    assert planned.spacing_zyx_mm == plan.spacing_zyx_mm == (4.4, 1.0, 1.0)
    assert planned.rule == plan.reasons["spacing_zyx_mm"]


def test_nothing_is_read_twice(nodules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    inspect = files.inspect_nifti
    monkeypatch.setattr(files, "inspect_nifti", lambda path: read.append(path) or inspect(path))
    check(nodules)
    assert len(read) == len(set(read)) == 2 * CASES


@pytest.mark.parametrize("silent", [1, 3])
def test_headers_that_do_not_say_how_they_lie(nodules: Path, tmp_path: Path, silent: int) -> None:
    root, names = copy(nodules, tmp_path)
    for name in names[:silent]:
        for path in (image(root, name), label(root, name)):
            stored = nibabel.load(path)
            bare = nibabel.Nifti1Image(np.asarray(stored.dataobj), None, stored.header)
            bare.set_sform(None, 0)
            bare.set_qform(None, 0)
            nibabel.save(bare, path)
    found = [finding for finding in check(root).findings if "how it lies" in finding.message]
    assert [finding.cases for finding in found] == [(name,) for name in names[:silent]]
    assert all("sform_code and qform_code are 0" in finding.message for finding in found)

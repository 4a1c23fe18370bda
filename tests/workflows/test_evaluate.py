"""Evaluation of files and folders."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dataset import ReaderWarning
from focalis.errors import DataError, UsageError
from focalis.volume import Grid, Volume, write_volume
from focalis.workflows import evaluate as evaluate_workflow
from focalis.workflows.agree import agree
from focalis.workflows.evaluate import evaluate

GRID = Grid((12, 11, 10), (1.0, 1.0, 2.0))
BOXES = {"a": 2, "b": 3, "c": 6}


def label_map(start: int, value: int = 1, dtype: type = np.uint8) -> Volume:
    array = np.zeros(GRID.shape_zyx, dtype)
    array[3:6, 3:6, start : start + 4] = value
    return Volume(array, GRID)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Truths and predictions that are shifted by 0, 1 and 4 voxels of 4."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for case, start in BOXES.items():
        write_volume(label_map(2), labels / f"{case}.nii.gz")
        write_volume(label_map(start), predictions / f"{case}.nii.gz")
    (labels / "README.md").touch()
    return predictions, labels


def test_known_figures(folders: tuple[Path, Path]) -> None:
    evaluation = evaluate(*folders, None)
    assert [(s.case, s.dice) for s in evaluation.scores] == [("a", 1.0), ("b", 0.75), ("c", 0.0)]
    assert evaluation.summary.overall["dice"].mean == pytest.approx(1.75 / 3)
    assert evaluation.summary.overall.lesions.sensitivity.value == pytest.approx(2 / 3)
    assert evaluation.summary.labels[0].name == "label 1"


@pytest.mark.parametrize(
    ("value", "dtype"), [(300, np.uint16), (70_000, np.int32), (2**31, np.uint32), (2**31, np.float64)]
)
def test_labels_of_any_value_have_their_own_figures(tmp_path: Path, value: int, dtype: type) -> None:
    write_volume(label_map(2, value, dtype), tmp_path / "truth.nii.gz")
    write_volume(label_map(3, value, dtype), tmp_path / "mask.nii.gz")
    evaluation = evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", None)
    assert [(s.label, s.dice, s.detected_lesions) for s in evaluation.scores] == [(value, 0.75, 1)]
    assert {lesion.lesion.label for lesion in evaluation.lesions} == {value}


@pytest.mark.parametrize("value", [2**32, np.inf])
def test_a_value_beyond_all_labels_is_refused(tmp_path: Path, value: float) -> None:
    write_volume(label_map(2), tmp_path / "truth.nii.gz")
    write_volume(label_map(2, value, np.float64), tmp_path / "mask.nii.gz")
    with pytest.raises(DataError, match=r"mask\.nii\.gz: holds"):
        evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", None)


def test_an_image_is_not_a_label_map(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 900, GRID.shape_zyx).astype(np.int16)
    write_volume(label_map(2), tmp_path / "truth.nii.gz")
    write_volume(Volume(image, GRID), tmp_path / "mask.nii.gz")
    with pytest.raises(DataError, match="holds values as an image does; give a label map"):
        evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", None)


def test_files_that_are_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, images = tmp_path / "out", tmp_path / "images"
    for case in BOXES:
        write_volume(
            Volume(np.random.default_rng(0).normal(size=GRID.shape_zyx), GRID), images / f"{case}_0000.nii.gz"
        )
    evaluation = evaluate(*folders, out, images=images, label_names={1: "tumour"}, seed=4)
    assert sorted(p.name for p in out.iterdir()) == [
        "cases.csv",
        "evaluation.json",
        "lesions.csv",
        "report.html",
    ]

    document = json.loads((out / "evaluation.json").read_text())
    assert document["cases"][1]["dice"] == 0.75
    assert document["summary"]["overall"]["statistics"][0]["mean"] == evaluation.summary.overall["dice"].mean
    assert "IoU reaches 0.1" in document["rules"]["lesion_matching"]
    assert "both empty" in document["rules"]["empty_masks"]
    assert "seed 4" in document["rules"]["interval"]
    assert document["version"] == 1

    with (out / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["name"], row["dice"]) for row in rows][2] == ("c", "tumour", "0.0")
    page = (out / "report.html").read_text()
    for caption in ("Best case: a, Dice 1.000", "Median case: b, Dice 0.750", "Worst case: c, Dice 0.000"):
        assert caption in page


def test_same_seed_same_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        evaluate(*folders, tmp_path / name, seed=1)
    for file in ("evaluation.json", "cases.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_intervals_are_over_patients_where_a_table_names_them(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """a and b are of one patient: with Dice 1, 0.75 and 0 the two patients draw 1.75 of 2 or 0 of 1, or both."""
    table = tmp_path / "cases.csv"
    table.write_text("case,patient\na,P1\nb,P1\nc,P2\n")
    dice = evaluate(*folders, None, patients=table).summary.overall["dice"]
    assert (dice.low, dice.high) == (0.0, pytest.approx(0.875))
    alone = evaluate(*folders, None).summary.overall["dice"]
    assert alone.high == 1.0
    table.write_text("case,patient\na,P1\nb,P1\n")
    with pytest.raises(DataError, match=r"cases\.csv: lacks case c"):
        evaluate(*folders, None, patients=table)
    table.write_text("case,sex\na,f\n")
    with pytest.raises(DataError, match="needs the columns case and patient"):
        evaluate(*folders, None, patients=table)


def test_two_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    image = write_image(tmp_path)
    evaluation = evaluate(predictions / "b.nii.gz", labels / "a.nii.gz", tmp_path / "out", images=image)
    assert [(s.case, s.dice) for s in evaluation.scores] == [("a", 0.75)]
    assert "Best case: a" in (tmp_path / "out" / "report.html").read_text()


def write_image(folder: Path) -> Path:
    write_volume(Volume(np.ones(GRID.shape_zyx, np.float32), GRID), folder / "scan.nii")
    return folder / "scan.nii"


def test_truths_that_are_compared_with_themselves_are_reported(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    predictions, labels = folders
    (tmp_path / "link").symlink_to(labels)
    for same in (labels, tmp_path / "link"):
        assert (
            evaluate(same, labels, None).alerts[0].startswith("predictions and truths are the same 3 files")
        )
    assert not any("the same" in line for line in evaluate(predictions, labels, None).alerts)


def test_every_missing_counterpart_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    (predictions / "a.nii.gz").unlink()
    (labels / "c.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        evaluate(predictions, labels, tmp_path / "out")
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{labels / 'a.nii.gz'}: has no prediction in")
    assert second.startswith(f"{predictions / 'c.nii.gz'}: has no truth in")
    assert not (tmp_path / "out").exists()


def test_every_bad_file_is_named_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    shifted = replace(GRID, origin_xyz_mm=(0.0, 3.0, 0.0))
    write_volume(Volume(label_map(2).array, shifted), predictions / "a.nii.gz")
    (predictions / "b.nii.gz").write_bytes(b"nonsense")
    write_volume(Volume(label_map(2).array * np.float32(0.5), GRID), labels / "c.nii.gz")
    with pytest.raises(DataError) as caught:
        evaluate(predictions, labels, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any(line.startswith("a: truth and prediction") and "origin" in line for line in lines)
    assert any(str(predictions / "b.nii.gz") in line for line in lines)
    assert any(f"{labels / 'c.nii.gz'}: holds values that are not whole numbers" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_values_that_are_not_labels(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    write_volume(label_map(2, value=3), predictions / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: holds the value 3, which is not a label; labels are 1"):
        evaluate(predictions, labels, None, label_names={1: "lesion"})
    write_volume(label_map(2, value=-1, dtype=np.int16), predictions / "a.nii.gz")
    with pytest.raises(DataError, match="negative value -1"):
        evaluate(predictions, labels, None)


def test_a_value_of_the_prediction_alone_counts_against_it(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    write_volume(label_map(2, value=2), predictions / "a.nii.gz")
    evaluation = evaluate(predictions, labels, None)
    assert [summary.label for summary in evaluation.summary.labels] == [1, 2]
    assert [s.dice for s in evaluation.scores if s.case == "a"] == [0.0, 0.0]
    assert [s.dice for s in evaluation.scores if s.case == "b"] == [0.75, 1.0]


def test_whole_numbers_stored_as_float_are_labels(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    write_volume(label_map(2, dtype=np.float32), predictions / "a.nii.gz")
    assert evaluate(predictions, labels, None).scores[0].dice == 1.0


def test_nothing_anywhere(tmp_path: Path) -> None:
    for folder in ("p", "l"):
        write_volume(label_map(2, value=0), tmp_path / folder / "x.nii")
    (score,) = evaluate(tmp_path / "p", tmp_path / "l", None).scores
    assert (score.label, score.dice, score.hd95_mm) == (1, 1.0, 0.0)


def test_intervals_over_patients(folders: tuple[Path, Path]) -> None:
    evaluation = evaluate(*folders, None, patients={"a": "P", "b": "P", "c": "Q"})
    dice = evaluation.summary.overall["dice"]
    assert (dice.low, dice.high) == (0.0, 0.875)


def test_progress(folders: tuple[Path, Path]) -> None:
    calls: list[tuple[int, int, str]] = []
    evaluate(*folders, None, progress=lambda *call: calls.append(call))
    assert calls == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c"), (3, 3, "")]


def test_wrong_calls(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, labels = folders
    with pytest.raises(UsageError, match="is not there"):
        evaluate(tmp_path / "nowhere", labels, None)
    with pytest.raises(UsageError, match="two folders or two files"):
        evaluate(predictions, labels / "a.nii.gz", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no label map"):
        evaluate(tmp_path / "empty", tmp_path / "empty", None)
    with pytest.raises(UsageError, match="1 is ignored, and there is no other label"):
        evaluate(labels, labels, None, ignore=1)
    with pytest.raises(DataError, match="holds no image of case a"):
        evaluate(predictions, labels, tmp_path / "out", images=tmp_path / "empty")
    write_volume(label_map(2), labels / "a.nii")
    with pytest.raises(DataError, match="a second time"):
        evaluate(predictions, labels, None)


@pytest.mark.parametrize(
    "compare", [evaluate, lambda first, second, out, **more: agree([first, second], out, **more)]
)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance_mm": float("inf")}, "a tolerance of inf mm"),
        ({"tolerance_mm": float("nan")}, "a tolerance of nan mm"),
        ({"tolerance_mm": -1.0}, "a tolerance of -1.0 mm"),
        ({"seed": -1}, "seed is -1"),
        ({"images": "nowhere"}, "nowhere: is not there"),
    ],
)
def test_options_are_looked_at_before_any_file(tmp_path, compare, options, said) -> None:
    for name in ("read", "again"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii.gz").touch()  # reading it would be another error
    with pytest.raises(UsageError, match=said):
        compare(tmp_path / "read", tmp_path / "again", tmp_path / "out", **options)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        compare(tmp_path / "read", tmp_path / "again", tmp_path / "file")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def raters(folders: tuple[Path, Path]) -> Path:
    """Two readers of every case but c, which has one; they draw what the labels say, and one voxel beside it."""
    folder = folders[1].parent / "raters"
    for case in BOXES:
        write_volume(label_map(2), folder / f"{case}_ann.nii.gz")
        if case != "c":
            write_volume(label_map(3), folder / f"{case}_ben.nii.gz")
    return folder


def test_a_model_beside_the_readers(folders: tuple[Path, Path], raters: Path, tmp_path: Path) -> None:
    evaluation = evaluate(*folders, tmp_path / "out", readers=raters)
    (found,) = evaluation.readers
    assert (found.cases, found.model_dice.value, found.readers_dice.value) == (2, 0.875, 0.75)
    assert found.index.value == pytest.approx(0.875 / 0.75)
    assert [(one.reader, one.cases, one.dice.value) for one in found.against] == [
        ("ann", 3, pytest.approx(1.75 / 3)),
        ("ben", 2, pytest.approx(0.875)),
    ]
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())["readers"]
    assert document["structures"][0]["verdict"] == found.verdict
    assert document["cases"][1]["model_dice"] == {"ann": 0.75, "ben": 1.0}
    assert "Williams" in document["rule"]
    assert "Beside the readers" in (tmp_path / "out" / "report.html").read_text()


def test_a_data_set_stands_for_its_readers_and_without_any_it_is_an_error(
    folders: tuple[Path, Path], raters: Path, tmp_path: Path
) -> None:
    assert (
        evaluate(*folders, None, readers=raters.parent).readers
        == evaluate(*folders, None, readers=raters).readers
    )
    with pytest.raises(DataError, match="holds no reader's mask of any case"):
        evaluate(*folders, None, readers=folders[1])
    with pytest.raises(UsageError, match="is not there"):
        evaluate(*folders, None, readers=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "whole": [2, 5], "core": 5, "ignore": 9},
        {"background": 0, "edge": 2, "core": 5, "Ignored": 9},
        {"0": "background", "2": "edge", "5": "core", "9": "ignore label"},
    ],
)
@pytest.mark.parametrize("told", [None, 9])
def test_the_value_that_the_data_set_ignores_counts_nowhere(
    tmp_path: Path, labels: dict[str, object], told: int | None
) -> None:
    drawn = np.zeros(GRID.shape_zyx, np.uint8)
    drawn[2:6, 2:6, 1:4] = 2
    drawn[3:5, 3:5, 2] = 5
    predicted = drawn.copy()
    predicted[2:6, 2:6, 7:9], predicted[7:9, 7:9, 7:9] = 2, 5  # where nobody has judged
    truth = drawn.copy()
    truth[:, :, 6:] = 9
    write_volume(Volume(truth, GRID), tmp_path / "labels" / "a.nii.gz")
    write_volume(Volume(predicted, GRID), tmp_path / "predictions" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = evaluate(tmp_path / "predictions", tmp_path / "labels", ignore=told)
    assert [(score.label, score.dice) for score in found.scores] == [(2, 1.0), (5, 1.0)]
    assert {lesion.status for lesion in found.lesions} == {"found", "right"}
    assert found.to_json()["rules"]["ignored_value"] == 9


def test_what_is_asked_for_is_ignored_in_place_of_the_data_sets_own(tmp_path: Path) -> None:
    drawn, predicted = label_map(2), label_map(3)
    drawn.array[8, 8, 8] = 7
    write_volume(drawn, tmp_path / "labels" / "a.nii.gz")
    write_volume(predicted, tmp_path / "predictions" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"lesion": 7, "ignore": 1}}))
    found = evaluate(tmp_path / "predictions", tmp_path / "labels", ignore=7)
    assert [(score.label, score.dice) for score in found.scores] == [(1, 0.75)]


def test_regions_are_set_beside_the_readers_in_place_of_labels(tmp_path: Path) -> None:
    """The readers draw one whole of 4 x 4 x 6 voxels; the one core has 2 x 2 x 2 voxels, the other 2 x 2 x 4."""
    regions = {"background": 0, "whole": [4, 6], "core": 6}
    for folder, name, length in (("raters", "a_ann", 2), ("raters", "a_ben", 4), ("predictions", "a", 4)):
        drawn = np.zeros(GRID.shape_zyx, np.uint8)
        drawn[2:6, 2:6, 2:8] = 4
        drawn[3:5, 3:5, 3 : 3 + length] = 6
        write_volume(Volume(drawn, GRID), tmp_path / folder / f"{name}.nii.gz")
        write_volume(Volume(drawn, GRID), tmp_path / "labels" / "a.nii.gz")
        write_volume(Volume(drawn.astype(np.float32), GRID), tmp_path / "images" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": regions, "regions_class_order": [4, 6]})
    )
    beside = evaluate(tmp_path / "predictions", tmp_path / "labels", readers=tmp_path).readers
    assert {each.structure: (each.model_dice.value, each.readers_dice.value) for each in beside} == {
        "whole": (1.0, 1.0),
        "core": (pytest.approx((1 + 2 / 3) / 2), pytest.approx(2 / 3)),
    }
    agreed = agree(tmp_path, tmp_path / "agreement")
    assert {pair.structure: pair.dice for pair in agreed.pairs} == {
        "whole": 1.0,
        "core": pytest.approx(2 / 3),
    }
    page = (tmp_path / "agreement" / "report.html").read_text()
    assert "worst case a, core: ann and ben, Dice 0.667" in page


def test_a_readers_mask_on_another_grid_is_named(folders: tuple[Path, Path], raters: Path) -> None:
    write_volume(
        Volume(label_map(2).array, replace(GRID, origin_xyz_mm=(0.0, 3.0, 0.0))), raters / "b_ben.nii.gz"
    )
    with pytest.raises(DataError, match=r"b_ben\.nii\.gz: lies on another grid than the truth: origin"):
        evaluate(*folders, None, readers=raters)


def test_a_readers_value_that_is_not_a_label_is_not_taken_for_nothing(
    folders: tuple[Path, Path], raters: Path
) -> None:
    scaled = label_map(2)
    write_volume(Volume(scaled.array * np.uint8(255), scaled.grid), raters / "b_ben.nii.gz")
    with pytest.raises(DataError, match=r"b_ben\.nii\.gz: holds the value 255, which is not a label"):
        evaluate(*folders, None, readers=raters)


def test_a_file_that_is_not_a_readers_mask_is_named_in_a_warning(
    folders: tuple[Path, Path], raters: Path
) -> None:
    write_volume(label_map(2), raters / "bee_ben.nii.gz")
    with pytest.warns(ReaderWarning, match=r"bee_ben\.nii\.gz: no reader's mask of any case, left out"):
        evaluate(*folders, None, readers=raters)


def test_without_readers_nothing_is_said_of_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(*folders, tmp_path / "out")
    assert "readers" not in json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert "Beside the readers" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("error", [RuntimeError("itk::ERROR"), MemoryError(), TypeError("none")])
@pytest.mark.parametrize("where", ["read_label_map", "evaluate_case", "case_lesions"])
@pytest.mark.parametrize("names", [None, {1: "tumour"}])
def test_any_error_of_a_case_is_reported_with_its_file_beside_those_of_the_others(
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    where: str,
    names: dict[int, str],
) -> None:
    predictions, _ = folders
    write_volume(label_map(2, 7), predictions / "c.nii.gz")
    right = getattr(evaluate_workflow, where)

    def broken(*given, **options):
        if any(str(each).endswith("b.nii.gz") or each == "b" for each in given):
            raise error
        return right(*given, **options)

    monkeypatch.setattr(evaluate_workflow, where, broken)
    with pytest.raises(DataError) as caught:
        evaluate(*folders, None, label_names=names)
    assert any(
        "b.nii.gz: " in line and type(error).__name__ in line for line in str(caught.value).splitlines()
    )
    if names:
        assert any("c.nii.gz: holds the value 7" in line for line in str(caught.value).splitlines())


def test_a_link_to_itself_is_a_file_that_cannot_be_read(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "loop.nii.gz").symlink_to("loop.nii.gz")
    with pytest.raises(DataError, match=r"loop\.nii\.gz: cannot be read"):
        evaluate(*folders, None)


def test_nothing_found_comes_first_and_no_figure_hides_it(tmp_path: Path) -> None:
    """Two empty cases of three: their Dice of 1 and their distance of 0 are no success."""
    predictions, labels, out = (tmp_path / name for name in ("predictions", "labels", "out"))
    nothing = Volume(np.zeros(GRID.shape_zyx, np.uint8), GRID)
    for case in "abc":
        write_volume(label_map(2) if case == "c" else nothing, labels / f"{case}.nii.gz")
        write_volume(nothing, predictions / f"{case}.nii.gz")
        write_volume(
            Volume(np.random.default_rng(0).normal(size=GRID.shape_zyx), GRID),
            tmp_path / "images" / f"{case}.nii.gz",
        )
    done = CliRunner().invoke(
        app, ["evaluate", str(predictions), str(labels), "-o", str(out), "--images", str(tmp_path / "images")]
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("WARNING: none of the 1 lesions in 3 cases was found; nothing is marked")
    assert "3 cases, Dice 0.667" in done.stdout
    assert "over the 1 with a lesion 0.000" in done.stdout
    page = (out / "report.html").read_text()
    assert page.index("none of the 1 lesions") < page.index("Dice, mean of 3 cases")
    assert "Dice, the 1 with a lesion" in page
    assert "HD95 in mm, 0 of the 1 with a lesion" in page
    assert "Best case of the 1 with a lesion: c, Dice 0.000" in page
    document = json.loads((out / "evaluation.json").read_text())
    assert document["alerts"][0].startswith("none of the 1 lesions")
    with (out / "cases.csv").open() as file:
        assert [(row["dice"], row["dice_with_lesion"]) for row in csv.DictReader(file)] == [
            ("1.0", ""),
            ("1.0", ""),
            ("0.0", "0.0"),
        ]


@pytest.mark.parametrize("side", [0, 1])
def test_a_folder_of_images_in_place_of_masks_is_one_line(folders: tuple[Path, Path], side: int) -> None:
    noise = np.random.default_rng(0).normal(100, 10, GRID.shape_zyx).astype(np.float32)
    for case in BOXES:
        write_volume(Volume(noise, GRID), folders[side] / f"{case}.nii.gz")
    with pytest.raises(DataError) as refused:
        evaluate(*folders, None)
    assert str(refused.value).startswith(
        f"{folders[side]}: holds 3 images or probabilities, and no label map"
    )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("side", ["mask", "truth"])
def test_a_label_map_that_holds_no_numbers_is_refused(
    tmp_path: Path, value: float, suffix: str, side: str
) -> None:
    for name in ("mask", "truth"):
        volume = label_map(2, 1, np.float32)
        if name == side:
            volume.array[0, 0, 0] = value
        write_volume(volume, tmp_path / f"{name}.{suffix}")
    with pytest.raises(DataError, match=rf"{side}\.{suffix}: holds values that are not whole numbers"):
        evaluate(tmp_path / f"mask.{suffix}", tmp_path / f"truth.{suffix}", None)

"""Splits, operating points and figures depend on what the cases hold: lesions, labels, or nothing."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dataset import open_dataset
from focalis.errors import DataError, UsageError
from focalis.evaluation import Score
from focalis.model import load_model
from focalis.planning import read_plan, write_plan
from focalis.settings import Folds
from focalis.volume import Grid, Volume, write_volume
from focalis.workflows.check import check
from focalis.workflows.evaluate import evaluate
from focalis.workflows.fit import FitResult, fit
from focalis.workflows.setup import checked, divide

GRID = Grid((20, 18, 16))


def a_set(root: Path, labels: Sequence[Sequence[int]]) -> Path:
    """A data set of a case per list of labels; a box of 4 x 4 x 4 bright voxels for each."""
    for number, values in enumerate(labels):
        rng = np.random.default_rng(number)
        label = np.zeros(GRID.shape_zyx, np.uint32)
        for place, value in enumerate(values):
            label[6:10, 6:10, 2 + 6 * place : 6 + 6 * place] = value
        image = rng.normal(0, 1, GRID.shape_zyx).astype(np.float32) + 4 * (label > 0)
        write_volume(Volume(image, GRID), root / "images" / f"c{number:02d}.nii.gz")
        write_volume(Volume(label, GRID), root / "labels" / f"c{number:02d}.nii.gz")
    return root


def splits(root: Path, train: Sequence[int], val: Sequence[int]) -> Path:
    names = {"train": [f"c{n:02d}" for n in train], "val": [f"c{n:02d}" for n in val]}
    (root / "splits.json").write_text(json.dumps([names]))
    return root


def scores(result: FitResult) -> list[Score]:
    return json.loads((result.run / "evaluation.json").read_text())["cases"]


def test_the_inner_split_holds_a_lesion(tmp_path: Path) -> None:
    a_set(tmp_path / "d", [[1], [1], *[[]] * 6])
    result = fit(tmp_path / "d", tmp_path / "run", steps=1, eight_bit=False, seed=3)
    cases = json.loads((result.run / "record.json").read_text())["cases"]
    assert {"c00", "c01"} & set(cases["inner"])
    assert {"c00", "c01"} & set(cases["train"])


def test_the_only_lesion_trains_and_the_figures_are_said_to_be_worth_nothing(tmp_path: Path) -> None:
    a_set(tmp_path / "d", [[], [1], *[[]] * 5])
    result = fit(tmp_path / "d", tmp_path / "run", steps=1, eight_bit=False)
    cases = json.loads((result.run / "record.json").read_text())["cases"]
    assert "c01" in cases["train"]
    assert result.caveats[0] == "c01: is the only patient with a lesion: it can train or be judged, not both"
    assert any(
        "none of the 3 cases holds a lesion: the figures say nothing" in line for line in result.caveats
    )
    point = load_model(result.model).operating_point
    assert point.how.startswith(
        "not chosen, the default: none of the 3 cases of the inner split holds a lesion"
    )
    report = (result.run / "report.html").read_text()
    assert report.index("is the only patient with a lesion") < report.index("Dice")


def test_a_given_split_that_leaves_a_label_untrained_is_refused_before_training(tmp_path: Path) -> None:
    root = splits(a_set(tmp_path / "d", [[1], [1], [1], [1], [1], [1, 3]]), range(5), [5])
    said = r"splits\.json: split 0 trains on no case with label 3 \(label 3\), which c05 holds; move some to train"
    with pytest.raises(DataError, match=said):
        fit(root, tmp_path / "run", steps=2, fold=0)
    assert not (tmp_path / "run" / "plan.yaml").exists()
    (problem,) = check(root).result.problems
    assert "split 0 trains on no case with label 3" in problem.message


def test_a_given_split_without_a_lesion_to_train_on_is_refused(tmp_path: Path) -> None:
    root = splits(a_set(tmp_path / "d", [[], [], [], [], [1], [1]]), range(4), [4, 5])
    with pytest.raises(DataError, match="split 0 has no training case with a lesion; move some there"):
        fit(root, tmp_path / "run", steps=2, fold=0)


def test_a_given_split_that_holds_out_no_lesion_is_reported_before_training(tmp_path: Path) -> None:
    root = splits(a_set(tmp_path / "d", [[1], [1], [1], [1], [], []]), range(4), [4, 5])
    said: list[str] = []
    fit(root, tmp_path / "run", plan_only=True, fold=0, doubt=said.append)
    assert any(
        line.startswith("fold 0: none of its 2 held-out cases holds a lesion (c04, c05)") for line in said
    )


def test_folds_that_are_made_train_every_label(tmp_path: Path) -> None:
    data, _ = checked(open_dataset(a_set(tmp_path, [*[[1]] * 6, [1, 2], [1, 2], [1, 9]])))
    for _, split in divide(data, Folds(folds=3), 0):
        held = {label for case in data.select(split.train) for label in case.holds or ()}
        assert held == {1, 2, 9}


def test_a_label_that_is_named_and_that_no_case_holds_has_no_output(tmp_path: Path) -> None:
    root = a_set(tmp_path / "d", [[1]] * 6)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1, "vessel": 2}}))
    said: list[str] = []
    result = fit(root, tmp_path / "run", plan_only=True, doubt=said.append)
    assert read_plan(result.plan).labels == {1: "lesion"}
    assert said[-1] == "label 2, vessel, occurs in no case"


@pytest.mark.slow
def test_the_figures_of_a_label_that_a_plan_adds_are_left_out(tmp_path: Path) -> None:
    root = a_set(tmp_path / "d", [[1]] * 6)
    plan = read_plan(fit(root, tmp_path / "plan", plan_only=True).plan)
    write_plan(plan.model_copy(update={"labels": {1: "lesion", 5: "vessel"}}), tmp_path / "plan.yaml")
    result = fit(root, tmp_path / "run", plan=tmp_path / "plan.yaml", steps=1, eight_bit=False)
    assert {score["label"] for score in scores(result)} == {1}
    assert any(line.startswith("no training case holds label 5 (vessel)") for line in result.caveats)


def test_doubts_are_reported_before_the_training_and_three_of_a_kind(tmp_path: Path) -> None:
    root = a_set(tmp_path / "d", [[1]] * 7)
    for number in range(5):
        image = np.zeros(GRID.shape_zyx, np.uint8)
        image[1:9, 1:9, 1 : 9 + number] = 1
        write_volume(Volume(image, GRID), root / "images" / f"c{number:02d}.nii.gz")
    said: list[str] = []
    fit(root, tmp_path / "run", plan_only=True, doubt=said.append)
    assert [line[:3] for line in said[:3]] == ["c00", "c01", "c02"]
    assert said[3] == "images and label maps that look like each other: 2 more; `focalis check` lists them"


@pytest.mark.slow
def test_the_command_says_first_that_the_cases_are_few(tmp_path: Path) -> None:
    root = a_set(tmp_path / "d", [[1], [1]])
    runner = CliRunner()
    done = runner.invoke(app, ["check", str(root)])
    assert done.stdout.startswith(
        "WARNING: 2 cases of 2 patients are too few to judge what is trained on them\n"
    )
    done = runner.invoke(app, ["fit", str(root), "-o", str(tmp_path / "run"), "--steps", "2"])
    assert "WARNING: 2 cases of 2 patients are too few to judge what is trained on them\n" in done.stdout
    assert done.stdout.startswith("WARNING: ")
    assert "warning: 2 cases of 2 patients are too few" in done.stderr


@pytest.mark.slow
def test_few_held_out_cases_are_said_to_be_few(tmp_path: Path) -> None:
    root = a_set(tmp_path / "d", [[1]] * 6)
    result = fit(root, tmp_path / "run", steps=1, eight_bit=False, fold=0, folds=None)
    assert result.caveats == ("the figures are those of 2 cases: too few to judge a model by",)


def partly(root: Path) -> Path:
    """Six cases with both labels; in three only label 4 was drawn, in the others only label 6."""
    a_set(root, [[4], [6], [4], [6], [4], [6]])
    said = {"labels": {"background": 0, "front": 4, "back": 6}}
    said["drawn"] = {f"c{number:02d}": ["back" if number % 2 else "front"] for number in range(6)}
    (root / "dataset.json").write_text(json.dumps(said))
    return root


@pytest.mark.slow
def test_figures_of_a_label_come_from_the_cases_in_which_it_was_drawn(tmp_path: Path) -> None:
    root = partly(tmp_path / "d")
    splits(root, [0, 1, 2], [3, 4, 5])
    result = fit(root, tmp_path / "run", steps=1, eight_bit=False, fold=0)
    rows = scores(result)
    judged = {(row["case"], row["label"]) for row in rows}
    assert judged == {("c03", 6), ("c04", 4), ("c05", 6)}
    line = "not every label is judged in each of the 3 cases, front on 1, back on 2: their figures are of"
    assert line in (result.run / "report.html").read_text()
    again = evaluate(result.run / "predictions", copied(root, result.run))
    assert {(row.case, row.label) for row in again.scores} == judged
    assert any("each of the 3 cases, label 4 on 1, label 6 on 2" in alert for alert in again.alerts)


def copied(root: Path, run: Path) -> Path:
    """The labels of a run's judged cases, beside the data set's description."""
    (run / "truth" / "labels").mkdir(parents=True)
    for path in (run / "predictions").glob("*.nii.gz"):
        shutil.copy(root / "labels" / path.name, run / "truth" / "labels")
    shutil.copy(root / "dataset.json", run / "truth")
    return run / "truth" / "labels"


def test_a_label_that_was_not_drawn_and_lies_there_all_the_same_is_refused(tmp_path: Path) -> None:
    root = partly(tmp_path / "d")
    shutil.copy(root / "labels" / "c01.nii.gz", root / "labels" / "c00.nii.gz")
    (problem,) = check(root).result.problems
    assert 'c00.nii.gz: holds label 6 (back), which "drawn" says nobody drew in this case' in problem.message


def test_a_promise_is_refused_where_labels_were_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a promise needs cases in which every label was drawn"):
        fit(partly(tmp_path / "d"), tmp_path / "run", steps=2, promise="miss<=20%")


def test_cases_with_labels_that_were_not_drawn_do_not_choose_an_ensembles_point_together(
    tmp_path: Path,
) -> None:
    """What the network finds of such a label is not false."""
    result = fit(partly(tmp_path / "d"), tmp_path / "run", steps=1, folds=2, eight_bit=False)
    assert load_model(result.model).operating_point.how.startswith("mean of ")

"""Trainings that learn nothing: said first, wherever the model goes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.evaluation import evaluate_case
from focalis.lesions import OperatingPoint
from focalis.model import load_model, save_model
from focalis.planning import read_plan, write_plan
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.fit import fit
from focalis.workflows.judge import verdict
from focalis.workflows.model_record import collapse_alert

SETTINGS = PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1)


@pytest.fixture(scope="module")
def third_empty(tmp_path_factory):
    """Nine phantoms, a third of them without a lesion."""
    root = tmp_path_factory.mktemp("third_empty")
    write_phantoms(root, 9, SETTINGS, 0)
    for case in open_dataset(root).cases[::3]:
        label = read_volume(case.label)
        write_volume(Volume(np.zeros_like(label.array), label.grid), case.label)
    return root


@pytest.fixture(scope="module")
def still(third_empty, tmp_path_factory):
    """A plan by which nothing is learned."""
    root = tmp_path_factory.mktemp("still")
    plan = read_plan(fit(third_empty, root / "plan", plan_only=True, start="scratch").plan)
    training = plan.training.model_copy(update={"learning_rate": 1e-12})
    write_plan(plan.model_copy(update={"training": training}), root / "still.yaml")
    return root / "still.yaml"


@pytest.fixture(scope="module")
def still_from_shapes(third_empty, tmp_path_factory):
    """The plan that is made without options, by which nothing is learned either."""
    root = tmp_path_factory.mktemp("shapes")
    plan = read_plan(fit(third_empty, root / "plan", plan_only=True).plan)
    assert plan.start == "shapes"
    training = plan.training.model_copy(update={"learning_rate": 1e-12})
    write_plan(plan.model_copy(update={"training": training}), root / "still.yaml")
    return root / "still.yaml"


def cli(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def collapsed(third_empty, still, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return run, cli("fit", third_empty, "-o", run, "--steps", 2, "--fold", 0, "--plan", still)


def test_fit_says_first_that_nothing_was_learned_and_ends_with_1(collapsed):
    run, done = collapsed
    assert done.exit_code == 1
    assert done.stdout.startswith("WARNING: nothing was learned: none of the ")
    assert "train longer (--minutes)" in done.stdout.splitlines()[0]
    assert "with a lesion 0.000" in done.stdout
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.index("nothing was learned: none of the") < page.index("Dice, mean of")
    assert json.loads((run / "evaluation.json").read_text())["alerts"]


def test_a_training_that_never_leaves_its_start_learned_nothing(third_empty, still_from_shapes, tmp_path):
    """What the start itself marks is no success of the training, be it much or little."""
    done = cli(
        "fit", third_empty, "-o", tmp_path / "run", "--steps", 2, "--fold", 0, "--plan", still_from_shapes
    )
    assert done.exit_code == 1
    assert done.stdout.startswith("WARNING: nothing was learned: ")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["learned"] is False
    assert 0 < record["before_training"]["val_dice_with_lesion"] < 0.3


@pytest.mark.parametrize(
    ("found", "best", "learned"), [(8, 0.3, True), (5, 0.6, True), (5, 0.305, False), (0, 0.0, False)]
)
def test_low_probabilities_at_one_half_do_not_hide_what_the_operating_point_finds(found, best, learned):
    """A loss may keep the Dice at one half where it was, though the training found a good point."""
    half = {"val_dice_with_lesion": 0.004}
    record = {"before_training": half | {"cases": 8}, "start_at_its_point": {"found": 5, "dice": 0.3}}
    point = OperatingPoint(0.2, curve=((0.2, best),), lesions=10, found=found)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    scores = evaluate_case(*[Volume(mask, Grid((8, 8, 8)))] * 2, {1: "lesion"})
    metrics = [{"loss": 1.1}, half | {"val_dice_with_lesion": 0.008, "loss": 0.3}]
    collapse, said, still = verdict(scores, record, metrics, point, "shapes")
    assert (said, collapse is None) == (learned, learned)
    assert "is 0.008, and was 0.004 before the training (mean over those with a lesion of 8 cases" in still
    assert f"finds {found} of the 10 lesions there, the start 5 at its own" in still
    older = {"before_training": half}
    assert verdict(scores, older, [half], point, "shapes")[1] == bool(found)


@pytest.mark.parametrize(
    ("lesions", "found", "loss", "learned"),
    [
        (3, 2, 0.3, True),
        (3, 2, 0.9, False),
        (3, 0, 0.3, False),
        (5, 4, 0.3, False),
        (4, 4, 0.3, True),
        (4, 1, 0.3, False),
    ],
)
def test_a_few_lesions_do_not_prove_that_nothing_was_learned(lesions, found, loss, learned):
    """A start that marks blobs may find all of three; the training is doubted, but it is no failure."""
    before = {"val_dice_with_lesion": 0.68}
    record = {"before_training": before, "start_at_its_point": {"found": lesions, "dice": 0.6}}
    point = OperatingPoint(0.5, curve=((0.5, 0.56),), lesions=lesions, found=found)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    scores = evaluate_case(*[Volume(mask, Grid((8, 8, 8)))] * 2, {1: "lesion"})
    metrics = [{"loss": 1.0}, {"loss": loss, "val_dice_with_lesion": 0.56}]
    collapse, said, still = verdict(scores, record, metrics, point, "shapes")
    assert (said, collapse is None) == (learned, learned)
    assert "is 0.560, and was 0.680 before the training" in still


def test_a_threshold_that_nothing_stands_behind_is_not_called_chosen(collapsed):
    point = load_model(collapsed[0] / "model.safetensors").operating_point
    assert point.how.startswith("not chosen, the default")
    assert (point.threshold, point.minimum_mm3, point.minimum_confidence, point.found) == (0.5, 0, 0, 0)


def test_predict_warns_of_a_model_that_learned_nothing(collapsed, third_empty, tmp_path):
    image = open_dataset(third_empty).cases[0].images[0]
    done = cli("predict", collapsed[0] / "model.safetensors", image, "-o", tmp_path, "--runtime", "torch")
    assert done.exit_code == 0
    assert "warning: this model did not learn what it should: none of the " in done.stderr
    (table,) = (tmp_path / "lesions").glob("*.json")
    assert json.loads(table.read_text())["model_alert"].startswith("this model did not learn")


@pytest.mark.slow
def test_json_says_so_too(collapsed, third_empty):
    run, _ = collapsed
    done = cli("fit", third_empty, "-o", run, "--steps", 2, "--fold", 0, "--resume", "--json")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert (result["learned"], result["alert"][:20]) == (False, "nothing was learned:")
    assert "WARNING: nothing was learned" in done.stderr


@pytest.mark.slow
def test_folds_that_learned_nothing_are_named(third_empty, still, tmp_path):
    result = fit(third_empty, tmp_path / "run", steps=1, folds=2, plan=still)
    assert (result.collapsed_folds, result.learned) == ((0, 1), False)
    assert result.alert.startswith("nothing was learned: 2 of 2 folds (fold 0: none of the")
    model = load_model(result.model)
    assert model.operating_point.found == 0
    assert collapse_alert(model).startswith("2 of the model's 2 members did not learn")


def test_an_earlier_model_file_says_nothing_of_it(collapsed, tmp_path):
    model = load_model(collapsed[0] / "model.safetensors")
    old = replace(model, provenance={"cases": 104}, operating_point=OperatingPoint(0.4, "chosen"))
    save_model(old, tmp_path / "old.safetensors")
    assert collapse_alert(load_model(tmp_path / "old.safetensors")) == ""

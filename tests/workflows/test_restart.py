"""A training that finds nothing begins once more, by a safer plan."""

import json

import pytest

from focalis.model import open_model
from focalis.planning import read_plan
from focalis.training import NothingLearnedWarning, loop
from focalis.training.validation import Watched
from focalis.workflows.fit import fit
from focalis.workflows.train_run import safer


@pytest.fixture
def finds_nothing(monkeypatch):
    """Whatever is trained finds none of four lesions, and is looked at after every step."""
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.0, 0.0, 4, 0))


@pytest.mark.usefixtures("finds_nothing")
def test_a_run_that_finds_nothing_begins_once_more_and_says_so(phantoms, tmp_path):
    with pytest.warns(NothingLearnedWarning) as caught:
        result = fit(phantoms, tmp_path / "run", steps=4)

    lines = [str(warning.message) for warning in caught]
    assert (
        "none of the 4 lesions that are watched is found after 2 of 4 steps; it began once more" in lines[0]
    )
    assert len(lines) == 2  # the second try finds nothing either, and goes on to its end
    header = open_model(result.model)
    assert header.plan.loss.name == "present_dice_cross_entropy"
    assert header.plan.training.learning_rate == pytest.approx(7.5e-4)
    assert read_plan(result.plan).loss.name == "dice_cross_entropy"
    assert result.caveats[0].startswith("the training was restarted: none of the 4 lesions")
    assert "the training was restarted" in result.report.read_text()
    rows = [json.loads(row) for row in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    record = json.loads((result.run / "record.json").read_text())
    first, second = record["seconds_before_restart"], rows[-1]["seconds"]
    assert first > 0
    assert record["training_seconds"] == pytest.approx(first + second)


@pytest.mark.usefixtures("finds_nothing")
@pytest.mark.filterwarnings("ignore::focalis.training.loop.NothingLearnedWarning")
@pytest.mark.slow
def test_a_restarted_run_is_resumed_by_its_safer_plan(phantoms, tmp_path, monkeypatch):
    result = fit(phantoms, tmp_path / "run", steps=4)
    record = json.loads((result.run / "record.json").read_text())
    del record["finished"]
    (result.run / "record.json").write_text(json.dumps(record))
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.5, 0.5, 4, 4))

    again = fit(phantoms, tmp_path / "run", steps=4, resume=True)

    assert open_model(again.model).plan.loss.name == "present_dice_cross_entropy"
    assert json.loads((again.run / "record.json").read_text())["restarted"] == record["restarted"]


@pytest.mark.parametrize("loss", ["distance_focal", "tversky"])
def test_another_loss_is_kept(phantoms, tmp_path, loss):
    plan = read_plan(fit(phantoms, tmp_path / "run", plan_only=True, loss=loss).plan)

    assert safer(plan).loss == plan.loss
    assert safer(plan).training.learning_rate == plan.training.learning_rate / 2

"""A training that finds nothing begins once more, by a safer plan."""

import json

import pytest
from small_plan import small_plan

from focalis.dataset import open_dataset
from focalis.lesions import OperatingPoint
from focalis.model import Model, open_model
from focalis.planning import read_plan
from focalis.settings import Length
from focalis.training import NothingLearnedWarning, loop
from focalis.training.validation import Watched
from focalis.workflows.fit import fit
from focalis.workflows.fit_figures import on_all_cases
from focalis.workflows.model_record import collapse_alert
from focalis.workflows.record import write_json
from focalis.workflows.run import Task
from focalis.workflows.train_run import safer


@pytest.fixture
def finds_nothing(monkeypatch):
    """Whatever is trained finds none of four lesions, and is looked at after every step."""
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(
        loop, "watch", lambda _plan, _network, cases, _runtime: Watched(0.0, 0.0, 4, 0) if cases else None
    )


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
def test_folds_that_begin_once_more_say_so_beside_the_pooled_figures(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=4, folds=2, eight_bit=False)
    (line,) = (line for line in result.caveats if "restarted" in line)
    assert line.startswith("folds 0, 1: the training was restarted: none of the 4 lesions")
    assert line in result.report.read_text()


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


@pytest.mark.parametrize(("anew", "safe"), [(0, False), (1, False), (2, True), (3, True)])
def test_all_cases_train_by_the_recipe_that_most_folds_ended_with(phantoms, tmp_path, anew, safe):
    data = open_dataset(phantoms)
    tasks = [
        Task.model_construct(
            home=tmp_path / f"fold_{fold}", plan=small_plan(), record={"seed": 0}, point=None
        )
        for fold in range(3)
    ]
    for number, task in enumerate(tasks):
        write_json(task.home / "record.json", {"restarted": "it began once more"} if number < anew else {})

    whole = on_all_cases(tasks, tmp_path, data, OperatingPoint())

    assert len(whole.split.train) == 6
    assert whole.plan == (safer(small_plan()) if safe else small_plan())
    said = f"{anew} of 3 folds began once more, so the training on all cases has the loss present_dice_cross_entropy"
    assert whole.record.get("safer_because", "").startswith(said) == safe
    assert whole.record["seed"] == 0


def of_one(home, **more):
    return Task.model_construct(
        **{"home": home, "plan": small_plan(), "record": {}, "point": None, "length": Length(), **more}
    )


@pytest.mark.parametrize(
    ("begun", "steps"),
    [
        (None, "as before"),
        ({"steps": 200}, 200),  # interrupted
        ({"steps": 250, "finished": "now", "minutes_asked": 30.0}, 250),  # had measured its own
        ({"steps": 200, "finished": "now", "minutes_asked": None}, "as before"),
    ],
)
def test_a_training_on_all_cases_that_was_begun_keeps_its_steps(phantoms, tmp_path, begun, steps):
    write_json(tmp_path / "record.json", {"steps": 400})
    if begun:
        write_json(tmp_path / "all" / "record.json", begun)
    task = on_all_cases([of_one(tmp_path)], tmp_path, open_dataset(phantoms), OperatingPoint())
    as_before = task.same_steps_as == (tmp_path,) and task.length.steps is None
    assert ("as before" if as_before else task.length.steps) == steps


@pytest.mark.parametrize(
    ("collapse", "found", "said"),
    [(None, 3, ""), ("nothing is marked", 3, "nothing is marked"), (None, 0, "it found none of the lesions")],
)
def test_a_model_of_all_cases_says_that_the_training_before_it_failed(
    phantoms, tmp_path, collapse, found, said
):
    write_json(tmp_path / "record.json", {"collapse": collapse})
    point = OperatingPoint(lesions=4, found=found)
    task = on_all_cases([of_one(tmp_path)], tmp_path, open_dataset(phantoms), point)
    alert = collapse_alert(Model(small_plan(), (), task.point, task.record))
    assert said in alert
    assert bool(alert) == bool(said)


@pytest.mark.usefixtures("finds_nothing")
@pytest.mark.filterwarnings("ignore::focalis.training.loop.NothingLearnedWarning")
@pytest.mark.slow
def test_a_training_on_all_cases_says_why_its_recipe_is_safer(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=4, folds=2, then_all=True)

    assert open_model(result.all_cases).plan.loss.name == "present_dice_cross_entropy"
    record = json.loads((tmp_path / "run" / "all" / "record.json").read_text())
    assert result.caveats[0] == record["safer_because"]
    assert record["safer_because"].startswith("2 of 2 folds began once more")
    assert "restarted" not in record


@pytest.mark.parametrize("loss", ["distance_focal", "tversky"])
def test_another_loss_is_kept(phantoms, tmp_path, loss):
    plan = read_plan(fit(phantoms, tmp_path / "run", plan_only=True, loss=loss).plan)

    assert safer(plan).loss == plan.loss
    assert safer(plan).training.learning_rate == plan.training.learning_rate / 2

"""A finished run goes on for more steps; after the folds a model learns from all cases."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.errors import TrainingError, UsageError
from focalis.model import load_model
from focalis.training.loop import CHECKPOINT
from focalis.workflows.fit import fit


def record(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.mark.slow
def test_a_finished_run_goes_on_and_says_from_where(phantoms, tmp_path):
    first = load_model(fit(phantoms, tmp_path / "run", steps=3).model)
    result = fit(phantoms, tmp_path / "run", steps=6, resume=True)
    found = record(result.run)
    assert (found["steps"], found["continued_from"]) == (6, 3)
    assert load_model(result.model).provenance["continued_from"] == 3
    rows = [json.loads(row) for row in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 6]
    before, after = (
        next(each.members[0].parameters()).detach() for each in (first, load_model(result.model))
    )
    assert not np.array_equal(before, after)
    again = fit(phantoms, tmp_path / "run", steps=6, resume=True)
    assert record(again.run)["finished"] == found["finished"]
    with pytest.raises(TrainingError, match=r"other settings: steps \(6, now 5\)"):
        fit(phantoms, tmp_path / "run", steps=5, resume=True)
    (result.run / CHECKPOINT).unlink()
    with pytest.raises(TrainingError, match="is gone, so the run cannot be continued"):
        fit(phantoms, tmp_path / "run", steps=9, resume=True)
    assert record(result.run)["steps"] == 6


@pytest.mark.slow
def test_after_the_folds_all_cases_train_with_the_folds_operating_point(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=3, folds=2, then_all=True)
    whole, ensemble = load_model(result.all_cases), load_model(result.model)
    assert len(whole.members) == 1
    cases = whole.provenance["cases"]
    assert (len(cases["train"]), cases["inner"], cases["held_out"]) == (6, [], [])
    point = whole.operating_point
    assert (point.threshold, point.temperature) == (
        ensemble.operating_point.threshold,
        ensemble.operating_point.temperature,
    )
    assert point.how.startswith("cross-validation: mean of")
    assert not (result.run / "all" / "predictions").exists()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fold": 0},
        {"folds": 2, "promise": "miss<=10%"},
        {"folds": 2, "network": "dense+crf"},
        {"folds": 2, "on": "slurm"},
    ],
)
def test_the_operating_point_of_all_cases_comes_from_folds(phantoms, tmp_path, options):
    with pytest.raises(UsageError, match="--then-all takes the operating point of --folds"):
        fit(phantoms, tmp_path / "run", then_all=True, **options)
    assert not (tmp_path / "run").exists()


def test_the_command_offers_it():
    assert "--then-all" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["fit", "--help"]).output

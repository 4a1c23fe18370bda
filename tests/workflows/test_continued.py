"""A finished run goes on for more steps; after the folds a model learns from all cases."""

import json
from dataclasses import replace

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
    assert [row["step"] for row in rows] == [3, 6]
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
    ("there", "given", "advice"),
    [
        ("fold_2/record.json", {}, "holds a run of 1 folds; give --folds"),
        ("fold_0/checkpoint.safetensors", {"fold": 0, "then_all": True}, "give --folds"),
        ("record.json", {"folds": 3}, "holds one training, without --folds; leave --folds out"),
    ],
)
def test_a_run_of_folds_and_a_single_training_do_not_go_on_as_each_other(
    phantoms, tmp_path, there, given, advice
):
    """They would write over each other's model and figures."""
    (tmp_path / "run" / there).parent.mkdir(parents=True)
    (tmp_path / "run" / there).write_text("{}")
    with pytest.raises(UsageError, match=advice):
        fit(phantoms, tmp_path / "run", steps=1, resume=True, **given)
    assert [str(path.relative_to(tmp_path / "run")) for path in tmp_path.rglob("*.*")] == [there]


@pytest.mark.parametrize("held_out", [{}, {"fold": 1}])
def test_without_folds_all_cases_train_by_the_point_that_was_chosen_without_them(
    phantoms, tmp_path, held_out
):
    first = fit(phantoms, tmp_path / "run", steps=2, **held_out)
    before, at = load_model(first.model), first.model.stat().st_mtime_ns
    assert first.all_cases is None

    result = fit(phantoms, tmp_path / "run", resume=True, then_all=True, **held_out)

    assert record(result.run / "all")["steps"] == 2
    whole = load_model(result.all_cases)
    assert result.all_cases == tmp_path / "run" / "all" / "model.safetensors"
    cases = whole.provenance["cases"]
    assert (len(cases["train"]), cases["inner"], cases["held_out"]) == (6, [], [])
    assert sorted(whole.provenance["images"]["trained the model"]) == [f"phantom_{n:03}" for n in range(6)]
    point, chosen = whole.operating_point, before.operating_point
    how = f"from a training without the cases that chose it: {chosen.how}"
    assert point == replace(chosen, how=how)
    assert (result.summary.overall["dice"], result.judged_on) == (
        first.summary.overall["dice"],
        first.judged_on,
    )
    assert first.model.stat().st_mtime_ns == at
    assert not (result.run / "all" / "predictions").exists()


def test_the_figures_of_the_inner_split_say_how_its_cases_train_too(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1)
    assert result.judged_on == (
        "3 cases of the inner split, which chose the operating point, so the figures flatter; they did not train "
        "(--then-all adds a model of all cases)"
    )


@pytest.mark.parametrize(
    "options",
    [{"promise": "miss<=10%"}, {"fold": 0, "network": "dense+crf"}, {"folds": 2, "on": "slurm"}],
)
def test_a_model_of_all_cases_has_no_promise_refinement_or_slurm(phantoms, tmp_path, options):
    with pytest.raises(
        UsageError, match="--then-all keeps the operating point that was chosen before; leave"
    ):
        fit(phantoms, tmp_path / "run", then_all=True, **options)
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_refinement_gets_no_model_of_all_cases_afterwards(phantoms, tmp_path):
    fit(phantoms, tmp_path / "run", plan_only=True, network="dense+crf")
    with pytest.raises(UsageError, match="leave --promise, --on slurm and \\+crf out"):
        fit(phantoms, tmp_path / "run", resume=True, then_all=True, steps=1)
    assert not (tmp_path / "run" / "all").exists()


def test_the_command_offers_it():
    assert "--then-all" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["fit", "--help"]).output

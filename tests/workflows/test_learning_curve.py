"""What twenty more cases are likely to bring, asked of `fit`."""

import json
from types import SimpleNamespace

import pytest

from focalis.dataset import PhantomSettings, Split, write_phantoms
from focalis.errors import UsageError
from focalis.workflows import learning_curve
from focalis.workflows.executors import Executor
from focalis.workflows.fit import fit
from focalis.workflows.record import write_json
from focalis.workflows.run import Task


def phantoms_of(folder, cases, empty_share=0.0):
    settings = PhantomSettings(
        shape_zyx=(16, 16, 16), foreground_share=0.03, lesions=1, empty_share=empty_share
    )
    write_phantoms(folder, cases, settings, 3)
    return folder


def test_held_out_cases_are_needed(tmp_path):
    with pytest.raises(UsageError, match="held-out cases; give --fold"):
        fit(tmp_path, tmp_path / "run", learning_curve=True)
    with pytest.raises(UsageError, match="held-out cases; give --fold"):
        fit(tmp_path, tmp_path / "run", folds=3, learning_curve=True)


def test_trainings_of_other_kinds_of_operating_points_are_not_compared(tmp_path):
    with pytest.raises(UsageError, match="chosen alike; leave --promise out, or"):
        fit(tmp_path, tmp_path / "run", fold=0, learning_curve=True, promise="miss<=10%")


def test_few_cases_are_refused_before_any_training(tmp_path):
    data = phantoms_of(tmp_path / "data", 10)
    with pytest.raises(UsageError, match="needs 18 training cases or more, and fold 0 has 8"):
        fit(data, tmp_path / "run", fold=0, steps=2, learning_curve=True)
    assert not (tmp_path / "run" / "record.json").exists()


def test_parts_take_the_steps_that_the_whole_training_measured(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="each in its own time; give steps"):
        fit(tmp_path, tmp_path / "run", fold=0, minutes=1, learning_curve=True, on="slurm")
    calls = []

    def run(tasks, parallel, _tell):
        if isinstance(tasks[0], Task):
            calls.append((len(tasks), parallel))
            if len(calls) == 2:
                raise InterruptedError
        return ""

    monkeypatch.setattr("focalis.workflows.setup.executor", lambda *_: Executor(run))
    data = phantoms_of(tmp_path / "data", 30)
    with pytest.raises(InterruptedError):
        fit(data, tmp_path / "run", fold=0, minutes=1, learning_curve=True, on="processes", parallel=2)
    assert calls == [(1, 2), (2, 1)]  # each has the whole memory and all threads


@pytest.mark.parametrize("anew", [[30, 20, 10], [20, 10], [10], []])
def test_trainings_by_two_recipes_are_not_compared(tmp_path, monkeypatch, anew):
    tasks, judgements = [], {}
    for cases, dice in ((30, 0.7), (20, 0.6), (10, 0.4)):
        names = tuple(f"c{number}" for number in range(cases))
        task = Task.model_construct(home=tmp_path / str(cases), split=Split(names, ("a", "b")))
        restarted = {"restarted": "none of the 4 lesions was found"} if cases in anew else {}
        write_json(task.home / "record.json", {"cases": {"train": names[3:]}, **restarted})
        scores = [SimpleNamespace(case=name, truth_voxels=5, dice=dice) for name in task.split.val]
        judgements[task.home] = SimpleNamespace(scores=scores, collapse=None)
        tasks.append(task)
    monkeypatch.setattr(learning_curve, "read_judgement", lambda task: judgements[task.home])

    said = learning_curve.outlook(tasks, {})

    if len(anew) in (0, 3):
        assert said.startswith("20 more training cases are likely to raise")
        assert "0.400 with 10, 0.600 with 20, 0.700 with 30 training cases" in said
    else:
        assert said.startswith("what more training cases would bring cannot be said: ")
        assert f"that on {', '.join(map(str, anew))} began once more" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::focalis.training.loop.NothingLearnedWarning")
def test_thirds_train_alike_and_the_report_says_what_more_would_bring(tmp_path):
    data = phantoms_of(tmp_path / "data", 30, empty_share=0.3)
    result = fit(data, tmp_path / "run", fold=0, steps=3, learning_curve=True)

    records = [
        json.loads((folder / "record.json").read_text())
        for folder in (result.run, result.run / "on_16_cases", result.run / "on_8_cases")
    ]
    cases = [set(record["cases"]["train"]) | set(record["cases"]["inner"]) for record in records]
    assert cases[2] < cases[1] < cases[0]
    assert len({tuple(record["cases"]["held_out"]) for record in records}) == 1
    assert {record["steps"] for record in records} == {3}
    assert records[0]["learning_curve"] == result.outlook
    assert "more training cases" in result.outlook
    assert result.outlook in result.report.read_text()

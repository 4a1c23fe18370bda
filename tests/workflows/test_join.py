"""Few cases: those that chose the operating point train too, after that, and the figures stay those from before."""

import json
from dataclasses import replace

import numpy as np
import pytest

from focalis import predict
from focalis.dataset import Split, open_dataset
from focalis.lesions import OperatingPoint
from focalis.model import load_model
from focalis.volume import read_volume, write_volume
from focalis.workflows.fit import fit
from focalis.workflows.record import write_json
from focalis.workflows.run import Run, Task


def record(folder):
    return json.loads((folder / "record.json").read_text())


def weights(model):
    return [value.detach().numpy() for value in load_model(model).members[0].state_dict().values()]


def same(first, second):
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def joined(phantoms, tmp_path_factory):
    return fit(phantoms, tmp_path_factory.mktemp("joined") / "run", steps=4)


@pytest.mark.parametrize(
    ("training", "joins"), [(2, True), (7, True), (20, True), (21, False), (34, False), (150, False)]
)
def test_they_join_where_three_are_more_than_the_usual_share(phantoms, training, joins):
    case = open_dataset(phantoms).cases[0]
    cases = [replace(case, name=f"case_{number}", patient=f"{number}") for number in range(training)]
    data = replace(open_dataset(phantoms), cases=tuple(cases))
    names = tuple(case.name for case in cases)

    def run(**more):
        return Run(
            Task.model_construct(split=Split(names, ()), seed=3, **{"point": None, **more}), data, None
        )

    assert run().joins == joins
    assert not run(point=OperatingPoint()).joins


def test_all_cases_train_in_the_end_and_the_figures_say_from_when_they_are(joined):
    found, model = record(joined.run), load_model(joined.model)
    assert (found["chosen_after"], found["steps"], found["joined"]["cases"]) == (2, 4, 6)
    assert (len(found["cases"]["train"]), len(found["cases"]["inner"])) == (3, 3)
    assert sorted(model.provenance["images"]["trained the model"]) == [f"phantom_{n:03}" for n in range(6)]
    assert model.provenance["images"]["chose its operating point"] == {}
    assert model.operating_point.lesions == 3
    assert joined.judged_on == (
        "3 cases of the inner split, judged before they trained too: they chose the operating point, so the figures "
        "flatter; but since then the model has learned from all 6"
    )
    assert joined.judged_on in joined.report.read_text().replace("\n", " ")
    rows = [json.loads(row) for row in (joined.run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["val_dice"] is None) for row in rows] == [(2, False), (4, True)]


def test_the_figures_are_those_of_a_network_that_has_not_seen_the_judged_cases(
    phantoms, joined, tmp_path, monkeypatch
):
    monkeypatch.setattr(Run, "joins", False)
    apart = fit(phantoms, tmp_path / "run", steps=2)  # where the other one chose its point
    assert record(apart.run)["cases"] == record(joined.run)["cases"]
    figures = [json.loads((each.run / "evaluation.json").read_text())["cases"] for each in (apart, joined)]
    assert figures[0] == figures[1]
    assert load_model(apart.model).operating_point == load_model(joined.model).operating_point
    assert not same(weights(apart.model), weights(joined.model))


def test_the_model_has_learned_from_the_cases_that_chose(phantoms, joined, tmp_path):
    chose = record(joined.run)["cases"]["inner"]
    for case in open_dataset(phantoms).cases:
        label = case.read_label()
        if case.name in chose:  # the lesion lies somewhere else
            label = replace(label, array=np.roll(label.array, 9, axis=2))
        write_volume(case.read_images()[0], tmp_path / "data" / "images" / f"{case.name}.nii.gz")
        write_volume(label, tmp_path / "data" / "labels" / f"{case.name}.nii.gz")
    again = fit(tmp_path / "data", tmp_path / "run", steps=4, plan=joined.plan)
    assert record(again.run)["cases"] == record(joined.run)["cases"]
    assert not same(weights(again.model), weights(joined.model))


def test_held_out_cases_are_judged_by_the_model_that_is_kept(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=4, fold=0, eight_bit=False)
    found = record(result.run)
    assert found["joined"]["cases"] == len(found["cases"]["train"]) + len(found["cases"]["inner"])
    assert found["model_sha256"] == load_model(result.model).identity.weights_sha256
    (name, *_) = found["cases"]["held_out"]
    predict(result.model, phantoms / "images" / f"{name}.nii.gz", tmp_path / "masks")
    kept, judged = (
        read_volume(folder / f"{name}.nii.gz").array
        for folder in (tmp_path / "masks", result.run / "predictions")
    )
    assert np.array_equal(kept, judged)
    assert "held-out cases of fold 0" in result.judged_on


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_was_stopped_before_or_after_they_joined_ends_in_the_same_model(
    phantoms, joined, tmp_path, at
):
    def stop(_stage, progress):
        if progress and progress.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(phantoms, tmp_path / "run", steps=4, progress=stop)
    judged = tmp_path / "run" / "judgement.json"
    assert judged.exists() == (at == 3)
    before = judged.stat().st_mtime_ns if judged.exists() else None

    result = fit(phantoms, tmp_path / "run", steps=4, resume=True)

    assert same(weights(result.model), weights(joined.model))
    assert load_model(result.model).operating_point == load_model(joined.model).operating_point
    assert result.summary.overall["dice"].mean == joined.summary.overall["dice"].mean
    assert before is None or judged.stat().st_mtime_ns == before


def test_a_finished_run_that_is_resumed_is_not_judged_by_a_model_that_saw_the_judged_cases(phantoms, joined):
    kept = [joined.run / name for name in ("judgement.json", "evaluation.json", "model.safetensors")]
    before = [path.stat().st_mtime_ns for path in kept]
    again = fit(phantoms, joined.run, steps=4, resume=True)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert again.judged_on == joined.judged_on


def test_more_steps_train_all_cases_and_choose_nothing_anew(phantoms, tmp_path):
    first = fit(phantoms, tmp_path / "run", steps=3)
    point, before, judged = load_model(first.model).operating_point, weights(first.model), first.summary
    longer = fit(phantoms, tmp_path / "run", steps=5, resume=True)
    found = record(longer.run)
    assert (found["steps"], found["continued_from"], found["chosen_after"]) == (5, 3, 1)
    assert found["joined"]["cases"] == 6
    assert load_model(longer.model).operating_point == point
    assert load_model(longer.model).provenance["steps"] == 5
    assert not same(weights(longer.model), before)
    assert longer.summary.overall["dice"].mean == judged.overall["dice"].mean


def test_a_run_that_an_earlier_version_began_ends_as_it_began(phantoms, tmp_path):
    def stop(_stage, progress):
        if progress and progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(phantoms, tmp_path / "run", steps=4, progress=stop)
    begun = record(tmp_path / "run")
    del begun["chosen_after"]  # it did not know of it
    write_json(tmp_path / "run" / "record.json", begun)
    (tmp_path / "run" / "checkpoint.safetensors").unlink(missing_ok=True)

    result = fit(phantoms, tmp_path / "run", steps=4, resume=True)

    assert "joined" not in record(result.run)
    assert "none trained, but they chose the operating point" in result.judged_on
    assert len(load_model(result.model).provenance["images"]["trained the model"]) == 3


def test_a_single_step_is_not_divided(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1)
    assert "joined" not in record(result.run)

"""`fit` and `compare` from other weights than random ones: on small phantoms, with few steps."""

import json

import pytest

from focalis.dataset import PhantomSettings, Split, open_dataset, write_phantoms, write_splits
from focalis.errors import ModelError, PlanError, TrainingError, UsageError
from focalis.model import load_model, open_model
from focalis.planning import read_plan, write_plan
from focalis.planning.make import FEW_CASES
from focalis.planning.plan import TrainingSettings
from focalis.workflows.compare import compare
from focalis.workflows.fit import fit
from focalis.workflows.run_plan import with_rate_of_start


def first_cases(result):
    return json.loads((result.run / "record.json").read_text())["cases"]


@pytest.fixture(scope="module")
def first(phantoms, tmp_path_factory):
    return fit(phantoms, tmp_path_factory.mktemp("runs") / "first", steps=2, seed=5, network="dense")


@pytest.fixture(scope="module")
def second(phantoms, first, tmp_path_factory):
    """Holds out a case that the first run trained on."""
    run = tmp_path_factory.mktemp("runs") / "second"
    trained = first_cases(first)["train"]
    every = [case.name for case in open_dataset(phantoms).cases]
    rest = tuple(name for name in every if name != trained[0])
    write_splits([Split(rest, (trained[0],))], run.with_suffix(".json"))
    return fit(
        phantoms, run, steps=2, fold=0, splits=run.with_suffix(".json"), seed=5, start=str(first.model)
    )


def test_what_was_taken_over_is_reported_and_recorded(first, second):
    assert first.start.startswith("shapes: 104 of 104 tensors")
    assert second.start == "model: 104 of 104 tensors; 0.1 of the usual learning rate"
    record = json.loads((second.run / "record.json").read_text())["start"]
    assert record["taken"] == "104 of 104 tensors"
    assert len(record["sha256"]) == 64
    assert open_model(second.model).provenance["start"] == record
    assert "104 of 104 tensors" in second.report.read_text()
    assert read_plan(second.plan).start == str(first.model)
    assert read_plan(second.plan).reasons["start"] == "as asked for"


def test_few_cases_of_one_channel_have_the_small_unet_from_its_shapes(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1)
    plan = read_plan(result.plan)
    assert (plan.network.name, plan.start) == ("small-unet", "shapes")
    assert plan.reasons["network"].startswith("small-unet: with up to 40 cases")
    assert result.start.startswith("shapes-small-unet: 91 of 91 tensors")
    assert json.loads((result.run / "record.json").read_text())["start"]["name"] == "shapes-small-unet"


def test_where_the_small_unet_would_not_start_from_shapes_the_network_is_dense(phantoms, tmp_path):
    plan = read_plan(fit(phantoms, tmp_path / "run", plan_only=True, start="scratch").plan)
    assert (plan.network.name, plan.start) == ("dense", "scratch")
    assert plan.reasons["network"].startswith("dense: small-unet is usual from shapes alone")


@pytest.mark.parametrize("held_out", [{}, {"fold": 0}, {"fold": 1}, {"folds": 5}])
def test_the_same_data_has_the_same_network_whatever_is_held_out(tmp_path, held_out):
    """Of 41 cases folds train 32 or 33: the figure that may be quoted is that of the model's network."""
    write_phantoms(tmp_path / "data", FEW_CASES + 1, PhantomSettings(shape_zyx=(16, 20, 20), lesions=1), 0)
    plan = read_plan(fit(tmp_path / "data", tmp_path / "run", plan_only=True, **held_out).plan)
    assert plan.network.name == "dense"


def test_a_plan_whose_network_is_changed_no_longer_tells_why_it_had_another(phantoms, tmp_path):
    before = read_plan(fit(phantoms, tmp_path / "run", plan_only=True).plan)
    after = read_plan(fit(phantoms, tmp_path / "run", plan_only=True, network="dense").plan)
    assert after.network.name == "dense"
    assert after.reasons["network"] == before.reasons["network"].replace(
        before.reasons["network"].split("; ")[0], "as asked for", 1
    )


@pytest.mark.parametrize("network", ["dense", "unet"])
def test_a_new_plan_has_the_network_of_the_model_that_it_starts_from(phantoms, tmp_path, network):
    model = fit(phantoms, tmp_path / "before", steps=1, network=network).model
    plan = read_plan(fit(phantoms, tmp_path / "run", plan_only=True, start=str(model)).plan)
    assert plan.network.name == network
    assert plan.reasons["network"].startswith(f"{network}: that of the model it starts from")


def test_another_network_in_a_plan_starts_as_that_network_does(phantoms, tmp_path):
    run = tmp_path / "run"
    assert read_plan(fit(phantoms, run, plan_only=True).plan).start == "shapes"
    assert read_plan(fit(phantoms, run, plan_only=True, network="unet").plan).start == "scratch"
    assert read_plan(fit(phantoms, run, plan_only=True, network="dense").plan).start == "shapes"


def test_a_start_that_was_asked_for_stays_with_another_network(phantoms, tmp_path):
    run = tmp_path / "run"
    fit(phantoms, run, plan_only=True, start="scratch")
    fit(phantoms, run, plan_only=True, network="unet")
    assert read_plan(fit(phantoms, run, plan_only=True, network="dense").plan).start == "scratch"


def test_figures_on_images_that_trained_the_start_are_said_to_flatter(first, second):
    held_out = first_cases(second)["held_out"][0]
    assert held_out in first_cases(first)["train"]
    text = second.report.read_text()
    assert "1 of 1 cases were seen when the model was made (1 trained the model)" in text
    assert f"{held_out} (as {held_out} of model)" in text


@pytest.mark.slow
def test_a_frozen_start_is_still_there_in_the_model(phantoms, first, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=2, start=first.model, freeze="encoder")

    before, after = (load_model(each.model).members[0].state_dict() for each in (first, result))
    assert all(
        (before[name] == after[name]).all()
        for name in before
        if name.startswith(("stem.", "downs.", "blocks."))
    )
    assert read_plan(result.plan).freeze == "encoder"


def test_freezing_random_weights_is_refused(phantoms, tmp_path):
    with pytest.raises(UsageError, match=r"freeze is encoder.*start is scratch"):
        fit(phantoms, tmp_path / "run", steps=1, start="scratch", freeze="encoder")


def test_a_plan_that_freezes_random_weights_is_refused(phantoms, first, tmp_path):
    plan = read_plan(first.plan).model_copy(update={"freeze": "all-but-head", "start": "scratch"})
    write_plan(plan, tmp_path / "plan.yaml")

    with pytest.raises(PlanError, match=r"plan\.yaml: .*freeze is all-but-head"):
        fit(phantoms, tmp_path / "run", steps=1, plan=tmp_path / "plan.yaml")


def test_a_start_of_another_network_stops_before_anything_is_prepared(phantoms, first, tmp_path):
    with pytest.raises(
        ModelError,
        match=r"model \(dense\): does not fit the plan's network unet: .* or take the network dense$",
    ):
        fit(phantoms, tmp_path / "run", steps=1, network="unet", start=str(first.model))
    assert not (tmp_path / "run" / "plan.yaml").exists()


def test_a_run_is_not_resumed_from_another_start(phantoms, second):
    with pytest.raises(PlanError, match="the run follows another plan"):
        fit(phantoms, second.run, steps=2, fold=0, seed=5, start="scratch", resume=True)


@pytest.mark.slow
def test_a_run_is_not_resumed_when_the_start_was_replaced(phantoms, first, tmp_path):
    start = tmp_path / "start.safetensors"
    start.write_bytes(first.model.read_bytes())
    fit(phantoms, tmp_path / "run", steps=1, start=str(start))
    assert fit(phantoms, tmp_path / "run", steps=1, resume=True).model  # the same start goes on
    other = fit(phantoms, tmp_path / "other", steps=1, seed=7)
    start.write_bytes(other.model.read_bytes())

    with pytest.raises(TrainingError, match="other settings: start"):
        fit(phantoms, tmp_path / "run", steps=1, resume=True)


def test_a_trained_model_goes_on_at_a_tenth_of_the_learning_rate(phantoms, first, tmp_path):
    usual, doubts = TrainingSettings().learning_rate, []

    def rate(name, **options):
        options = {"network": "dense", "doubt": doubts.append, **options}
        result = fit(phantoms, tmp_path / name, plan_only=True, **options)
        plan = read_plan(result.plan)
        factor = plan.training.learning_rate / usual
        assert plan.reasons["training"].count("a tenth of the usual") == (factor < 0.5)
        assert ("of the usual learning rate" in result.start) == (factor != 1)
        return factor

    model = str(first.model)
    assert [rate("a", start=model), rate("a", start=model)] == pytest.approx([0.1, 0.1])
    assert [rate("a", start="shapes"), rate("a", start=model)] == pytest.approx([1, 0.1])
    assert [rate("a", start="scratch"), rate("b", start="shapes")] == [1, 1]
    made = read_plan(tmp_path / "b" / "plan.yaml")
    write_plan(made.model_copy(update={"start": model}), tmp_path / "given.yaml")
    assert not any("forgets" in doubt for doubt in doubts)
    assert rate("c", plan=tmp_path / "given.yaml") == 1  # a person's plan says it
    assert "at the usual learning rate, at which a trained model forgets" in doubts[-1]
    assert [rate("c", start=model), rate("e", plan=tmp_path / "given.yaml", start=model)] == pytest.approx(
        [0.1, 0.1]
    )
    own = made.training.model_copy(update={"learning_rate": 0.7 * usual})
    write_plan(made.model_copy(update={"training": own}), tmp_path / "own.yaml")
    assert rate("d", plan=tmp_path / "own.yaml", start=model) == pytest.approx(0.7)
    renamed = made.model_copy(update={"labels": {1: "another lesion"}, "start": model})
    assert with_rate_of_start(renamed) == renamed  # its output layer starts fresh


@pytest.mark.slow
def test_rows_of_a_comparison_share_the_start(phantoms, first, tmp_path):
    result = compare(
        phantoms,
        tmp_path / "out",
        losses=("dice_cross_entropy", "focal"),
        steps=1,
        threads=1,
        start=str(first.model),
    )

    starts = [run["start"]["taken"] for row in result.content["rows"] for run in row["runs"]]
    assert starts == ["104 of 104 tensors"] * 2


def test_a_comparison_names_the_row_that_the_start_does_not_fit(phantoms, first, tmp_path):
    with pytest.raises(ModelError, match=r"model \(dense\): does not fit the plan's network unet"):
        compare(phantoms, tmp_path / "out", networks=("dense", "unet"), steps=1, start=first.model)

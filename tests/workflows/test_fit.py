"""`fit` from folder to report, as its user meets it: on small phantoms, with few steps."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.errors import DataError, FocalisError, PlanError, TrainingError, UsageError
from focalis.evaluation import Aim, choose, cut
from focalis.lesions import OperatingPoint, temper
from focalis.model import Refinement, load_model
from focalis.planning import describe, join_scopes, learn_scope, outside, read_plan, write_plan
from focalis.prediction import segment
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows import setup
from focalis.workflows.ensemble import ensemble, mean_refinement
from focalis.workflows.fit import fit

SETTINGS = PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1)


@pytest.fixture
def data(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "data")


@pytest.fixture(scope="module")
def finished(phantoms, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return fit(phantoms, run, steps=4, fold=1, seed=5)


def test_a_run_folder_holds_everything(finished):
    names = {path.name for path in finished.run.iterdir()}
    assert names >= {
        "plan.yaml",
        "metrics.jsonl",
        "record.json",
        "checkpoint.safetensors",
        "model.safetensors",
        "report.html",
        "evaluation.json",
        "cases.csv",
        "predictions",
    }
    assert not [name for name in names if name.endswith(".tmp")]


def test_the_held_out_cases_were_neither_trained_on_nor_chosen_on(finished):
    cases = json.loads((finished.run / "record.json").read_text())["cases"]
    held_out, seen = set(cases["held_out"]), set(cases["train"]) | set(cases["inner"])
    assert held_out
    assert not held_out & seen
    assert not set(cases["train"]) & set(cases["inner"])
    assert {
        path.name.removesuffix(".nii.gz") for path in (finished.run / "predictions").glob("*.nii.gz")
    } == held_out
    assert "held-out cases of fold 1" in finished.judged_on


def test_predictions_lie_on_the_input_grid(finished, phantoms):
    for path in (finished.run / "predictions").glob("*.nii.gz"):
        assert read_volume(path).grid == read_volume(phantoms / "images" / path.name).grid


def test_the_record_says_what_the_run_was_made_from(finished):
    record = json.loads((finished.run / "record.json").read_text())
    assert record["steps"] == 4
    assert record["seed"] == 5
    assert len(record["data_sha256"]) == 64
    assert record["packages"]["torch"]
    assert record["parameters"] > 1e5
    assert load_model(finished.model).provenance["data_sha256"] == record["data_sha256"]


def test_the_threshold_comes_from_the_inner_split(finished):
    point = load_model(finished.model).operating_point
    assert "inner split" in point.how
    assert len(point.curve) > 5


def test_the_temperature_is_stored_and_the_page_says_what_was_chosen(finished):
    record = json.loads((finished.run / "record.json").read_text(encoding="utf-8"))
    model = load_model(finished.model)
    assert model.operating_point.temperature == pytest.approx(record["temperature"], abs=1e-3)
    assert record["aim"] == "dice"
    page = finished.report.read_text(encoding="utf-8")
    assert "Operating point" in page
    assert "Calibration" in page
    assert {path.suffix for path in (finished.run / "predictions" / "lesions").iterdir()} == {".csv", ".json"}
    assert (finished.run / "lesions.csv").is_file()


def test_a_run_with_another_aim_is_not_resumed(finished, phantoms):
    with pytest.raises(TrainingError, match=r"other settings: .*aim"):
        fit(phantoms, finished.run, steps=4, fold=1, seed=5, aim="fp-per-scan=1", resume=True)


def test_an_unknown_aim_stops_before_anything_is_made(phantoms, tmp_path):
    with pytest.raises(UsageError, match="aim"):
        fit(phantoms, tmp_path / "run", steps=1, aim="best")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_read_back_when_resumed(finished, phantoms):
    before = (finished.run / "model.safetensors").read_bytes()
    again = fit(phantoms, finished.run, steps=4, fold=1, seed=5, resume=True)
    assert (finished.run / "model.safetensors").read_bytes() == before
    assert again.summary.overall["dice"].mean == finished.summary.overall["dice"].mean


def test_a_run_with_another_seed_is_not_resumed(finished, phantoms):
    with pytest.raises(TrainingError, match=r"other settings: .*seed"):
        fit(phantoms, finished.run, steps=4, fold=1, seed=6, resume=True)


def test_a_run_with_another_plan_is_not_resumed(finished, phantoms, tmp_path):
    plan = read_plan(finished.plan)
    write_plan(plan.model_copy(update={"batch": plan.batch + 1}), tmp_path / "other.yaml")
    with pytest.raises(PlanError, match="the run follows another plan"):
        fit(phantoms, finished.run, steps=4, fold=1, seed=5, plan=tmp_path / "other.yaml", resume=True)


def test_a_run_on_other_data_is_not_resumed(finished, data):
    label = data / "labels" / "phantom_000.nii.gz"
    volume = read_volume(label)
    volume.array[0, 0, 0] = 1
    write_volume(volume, label)
    with pytest.raises(TrainingError, match=r"other settings: .*data_sha256"):
        fit(data, finished.run, steps=4, fold=1, seed=5, resume=True)


def test_a_run_of_another_fold_is_not_resumed(finished, phantoms):
    with pytest.raises(TrainingError, match=r"other settings: .*cases"):
        fit(phantoms, finished.run, steps=4, fold=0, seed=5, resume=True)


@pytest.mark.slow
def test_a_plan_keeps_its_reasons_when_it_is_followed(phantoms, tmp_path):
    first = fit(phantoms, tmp_path / "run", plan_only=True)
    before = first.plan.read_text()
    assert "# the median spacing" in before
    fit(phantoms, tmp_path / "run", steps=1)
    assert first.plan.read_text() == before


def test_without_a_fold_the_figures_are_marked_as_flattering(phantoms, small, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1, plan=small, eight_bit=False)
    assert "inner split" in result.judged_on
    assert "flatter" in result.judged_on


def test_folds_make_an_ensemble_in_one_file_and_pool_the_held_out_cases(phantoms, small, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1, folds=2, plan=small, eight_bit=False)
    assert len(load_model(result.model).members) == 2
    assert result.summary.overall.cases == 6
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "fold_1" / "report.html").exists()


@pytest.mark.parametrize("aim", ["dice", "fp-per-scan=2"])
def test_the_held_out_cases_of_all_folds_choose_the_ensembles_operating_point(phantoms, tmp_path, aim):
    result = fit(phantoms, tmp_path / "run", steps=20, folds=2, aim=aim, eight_bit=False)

    point, cuts = load_model(result.model).operating_point, []
    for number in (0, 1):
        home = tmp_path / "run" / f"fold_{number}"
        names = json.loads((home / "record.json").read_text())["cases"]["held_out"]
        for case in open_dataset(phantoms).select(names):
            found = segment(load_model(home / "model.safetensors"), case.read_images())
            raw, truth = temper(found.probability, 1 / found.point.temperature), case.read_label()
            spacing = truth.grid.spacing_zyx_mm
            cuts.append(cut(case.name, truth.array > 0, raw, math.prod(spacing), spacing_zyx_mm=spacing))
    expected = choose(cuts, Aim.parse(aim), point.temperature, where="the folds")
    assert len(cuts) == 6
    assert point.lesions == sum(row[0].overlaps.truth_voxels.size for row in cuts)
    for name in ("threshold", "minimum_mm3", "minimum_confidence", "found", "second_look"):
        assert getattr(point, name) == pytest.approx(getattr(expected, name)), name
    assert "of the folds' held-out cases, each judged by the member that did not learn from it" in point.how


@pytest.mark.slow
def test_a_promise_that_few_cases_cannot_make_is_reported_in_the_model_and_across_folds(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=2, folds=2, promise="fp-per-scan<=1")
    model = load_model(result.model)
    assert result.promise == model.operating_point.promise
    assert result.promise.startswith("none: at most 1 false positive lesions per scan")
    assert "6 patients of the folds' held-out cases" in result.promise
    assert "it takes 29" in result.promise
    assert "it takes 29" in (tmp_path / "run" / "report.html").read_text()
    member = load_model(tmp_path / "run" / "fold_0" / "model.safetensors")
    assert "of the inner split" in member.operating_point.promise


def test_a_promise_is_read_before_anything_is_made(phantoms, tmp_path):
    with pytest.raises(UsageError, match="give miss<=10%"):
        fit(phantoms, tmp_path / "run", steps=1, promise="miss<=10")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="leave \\+crf or --promise out"):
        fit(phantoms, tmp_path / "run", steps=1, promise="miss<=10%", network="dense+crf")


def test_a_run_with_another_promise_is_not_resumed(finished, phantoms):
    with pytest.raises(TrainingError, match=r"other settings: .*promise"):
        fit(phantoms, finished.run, steps=4, fold=1, seed=5, promise="miss<=10%", resume=True)


@pytest.fixture
def small(finished, tmp_path):
    """A plan whose trainings take a moment."""
    plan = read_plan(finished.plan)
    strides = plan.network.total_stride_zyx
    quick = {"patch_zyx": tuple(2 * stride for stride in strides), "batch": 1, "memory_budget_gb": 6.0}
    write_plan(plan.model_copy(update=quick), tmp_path / "small.yaml")
    return tmp_path / "small.yaml"


@pytest.mark.slow
def test_folds_in_parallel_come_to_what_folds_one_by_one_come_to(phantoms, small, tmp_path):
    """They divide threads and memory, so those of the other are half of theirs. All train in processes of their own,
    where the fastest run time predicts: here it is the reference."""
    both = {"steps": 2, "folds": 2, "plan": small, "on": "processes"}
    result = fit(phantoms, tmp_path / "two", parallel=2, threads=2, **both)
    alone = fit(phantoms, tmp_path / "one", threads=1, memory_gb=3.0, **both)

    assert result.plan.read_text() == alone.plan.read_text()
    one, other = load_model(result.model), load_model(alone.model)
    for member, twin in zip(one.members, other.members, strict=True):
        for value, again in zip(member.state_dict().values(), twin.state_dict().values(), strict=True):
            assert torch.equal(value, again)
    assert result.summary == alone.summary
    assert (result.run / "froc.csv").read_text() == (alone.run / "froc.csv").read_text()


@pytest.mark.slow
def test_folds_share_threads_and_memory_and_the_one_that_fails_is_named(phantoms, small, tmp_path):
    (tmp_path / "run" / "fold_1").mkdir(parents=True)
    (tmp_path / "run" / "fold_1" / "predictions").write_text("is not a folder")
    options = {"steps": 1, "folds": 2, "plan": small, "parallel": 2, "threads": 2, "resume": True}

    with pytest.raises(TrainingError, match=r"^fold 1: ") as caught:
        fit(phantoms, tmp_path / "run", **options)

    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "run" / "fold_0" / "report.html").exists()
    assert read_plan(tmp_path / "run" / "plan.yaml").memory_budget_gb == 3.0
    records = [json.loads((tmp_path / "run" / f"fold_{n}" / "record.json").read_text()) for n in (0, 1)]
    assert [record["threads"] for record in records] == [1, 1]

    (tmp_path / "run" / "fold_1" / "predictions").unlink()
    assert len(load_model(fit(phantoms, tmp_path / "run", **options).model).members) == 2


@pytest.mark.slow
def test_a_network_with_a_refinement_gets_it_fitted_recorded_and_stored(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=2, fold=0, network="dense+crf")
    model = load_model(result.model)
    record = json.loads((result.run / "record.json").read_text())
    assert model.plan.network.name == "dense+crf"
    assert model.refinement is not None
    assert record["refinement"]["how"] == model.refinement.how
    assert "of the inner split" in model.refinement.how
    assert "refinement" not in model.provenance


def test_an_ensemble_refines_by_the_mean_of_its_members_parameters():
    one, two = Refinement(1.0, 2.0, 0.5, 0.0, 1.0, 2), Refinement(3.0, 4.0, 1.0, 3.0, 2.0, 10)
    mean = mean_refinement([one, two])
    assert mean == replace(Refinement(2.0, 3.0, 0.75, 1.5, 1.5, 6), how=mean.how)
    assert "mean of the parameters of 2 members" in mean.how
    assert mean_refinement([]) is None


def test_a_plan_can_be_made_edited_and_passed_back(phantoms, tmp_path):
    first = fit(phantoms, tmp_path / "plan", plan_only=True)
    assert first.model is None
    edited = read_plan(first.plan).model_copy(update={"batch": 1})
    write_plan(edited, tmp_path / "mine.yaml")
    result = fit(phantoms, tmp_path / "run", steps=1, plan=str(tmp_path / "mine.yaml"), eight_bit=False)
    assert load_model(result.model).plan.batch == 1


def test_a_plan_for_other_data_is_refused(finished, phantoms, tmp_path):
    other = read_plan(finished.plan).model_copy(update={"channels": ("T1",)})
    write_plan(other, tmp_path / "other.yaml")
    with pytest.raises(PlanError, match=r"other\.yaml: .*: channels T1 in the plan, image in the data"):
        fit(phantoms, tmp_path / "run", steps=2, plan=tmp_path / "other.yaml")


def test_a_run_goes_on_by_its_plan_whatever_reasons_are_given_for_it(finished, phantoms, tmp_path):
    before = finished.plan.read_bytes()
    plan = read_plan(finished.plan)
    write_plan(plan.model_copy(update={"reasons": {"batch": "said otherwise"}}), tmp_path / "same.yaml")
    write_plan(plan.model_copy(update={"batch": plan.batch + 1}), tmp_path / "other.yaml")
    options = {"fold": 1, "seed": 5, "resume": True, "plan_only": True}
    fit(phantoms, finished.run, plan=tmp_path / "same.yaml", **options)
    with pytest.raises(PlanError, match="the run follows another plan"):
        fit(phantoms, finished.run, plan=tmp_path / "other.yaml", **options)
    assert finished.plan.read_bytes() == before


@pytest.mark.slow
def test_the_named_loss_is_trained_and_recorded(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=2, loss="distance_focal")
    assert load_model(result.model).plan.loss.name == "distance_focal"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 1, "steps": 5}, "minutes or steps"),
        ({"fold": 0, "folds": 2}, "fold or folds"),
        ({"fold": 9}, "fold 9 is not one"),
        ({"fold": -1}, "fold is -1"),
        ({"folds": 0}, "folds is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"parallel": 2}, "only folds can run in parallel"),
        ({"folds": 2, "parallel": 0}, "parallel is 0"),
        ({"folds": 2, "parallel": 2, "on": "here"}, "here is one process"),
        ({"on": "nowhere"}, "unknown executor 'nowhere'"),
    ],
)
def test_contradictions_are_refused(phantoms, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        fit(phantoms, tmp_path / "run", **options)


@pytest.mark.parametrize(("option", "known"), [("network", "densevoxnet"), ("loss", "distance_focal")])
def test_an_unknown_name_stops_before_training(phantoms, tmp_path, option, known):
    with pytest.raises(UsageError, match=f"unknown {option} 'nonsense'.*{known}"):
        fit(phantoms, tmp_path / "run", steps=2, **{option: "nonsense"})


def test_a_folder_that_holds_something_else_is_left_alone(phantoms, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter one")
    with pytest.raises(UsageError, match="is not empty"):
        fit(phantoms, tmp_path, steps=2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_bad_data_stop_the_run_before_training_with_one_line_per_case(data, tmp_path):
    cases = open_dataset(data).cases
    cases[0].images[0].write_bytes(b"not an image")
    label = read_volume(cases[1].label)
    write_volume(Volume(label.array[:-1], read_volume_grid_without_last_plane(label)), cases[1].label)
    image = read_volume(cases[2].images[0])
    with_nan = image.array.astype(np.float32)
    with_nan[3, 3, 3] = np.nan
    write_volume(Volume(with_nan, image.grid), cases[2].images[0])
    cases[3].label.unlink()
    with pytest.raises(DataError) as caught:
        fit(data, tmp_path / "run", steps=2)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for line, case, word in zip(lines, cases, ["intact", "size", "NaN", "label"], strict=False):
        assert case.name in line
        assert word in line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def read_volume_grid_without_last_plane(volume):
    x, y, z = volume.grid.size_xyz
    return type(volume.grid)(
        (x, y, z - 1), volume.grid.spacing_xyz_mm, volume.grid.origin_xyz_mm, volume.grid.direction
    )


@pytest.fixture(scope="module")
def read_by_two(tmp_path_factory):
    root = tmp_path_factory.mktemp("read_by_two")
    write_phantoms(root, 6, replace(SETTINGS, readers=2), 0)
    (root / "raters" / "phantom_002_r1.nii.gz").unlink()
    for reader in ("r1", "r2"):
        (root / "raters" / f"phantom_003_{reader}.nii.gz").unlink()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("readers", ["majority", "staple", "mean", "random"])
def test_a_run_on_several_readers(read_by_two, tmp_path, readers):
    result = fit(read_by_two, tmp_path / "run", steps=2, fold=0, readers=readers)
    assert read_plan(result.plan).readers == readers
    assert load_model(result.model).plan.readers == readers
    record = json.loads((result.run / "record.json").read_text())
    assert record["plan"]["readers"] == readers
    again = fit(read_by_two, tmp_path / "run", steps=2, fold=0, resume=True)
    assert again.summary.overall["dice"].mean == result.summary.overall["dice"].mean


def test_a_readers_mask_on_another_grid_stops_the_run_that_needs_it(read_by_two, tmp_path):
    root = shutil.copytree(read_by_two, tmp_path / "data")
    path = root / "raters" / "phantom_004_r2.nii.gz"
    volume = read_volume(path)
    write_volume(replace(volume, grid=replace(volume.grid, spacing_xyz_mm=(2.0, 1.0, 1.0))), path)
    with pytest.raises(
        DataError, match=r"phantom_004_r2\.nii\.gz: the mask of reader r2 is not on the grid"
    ) as caught:
        fit(root, tmp_path / "run", steps=1, readers="mean")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run" / "prepared").exists()
    fit(root, tmp_path / "plain", plan_only=True)


def test_readers_without_any_mask_are_an_error(phantoms, tmp_path):
    with pytest.raises(DataError, match="holds no reader's mask"):
        fit(phantoms, tmp_path / "run", steps=1, readers="staple")
    with pytest.raises(UsageError, match="choose one of labels, majority"):
        fit(phantoms, tmp_path / "run", steps=1, readers="all")


def test_a_model_knows_what_its_training_cases_were_like(finished, phantoms):
    scope = load_model(finished.model).scope
    cases = json.loads((finished.run / "record.json").read_text())["cases"]
    held_out = open_dataset(phantoms).select(cases["held_out"])
    if len(cases["train"]) + len(cases["inner"]) < 5:
        assert scope is None
    else:
        plan = read_plan(finished.plan)
        assert scope.cases == len(cases["train"]) + len(cases["inner"])
        assert outside(scope, describe(held_out[0].read_images(), plan.normalisation), plan.channels) == ()


def test_an_ensemble_joins_the_scopes(finished):
    model = load_model(finished.model)
    rng = np.random.default_rng(0)
    volumes = [Volume(rng.normal(size=(8, 8, 8)), Grid((8, 8, 8), (1.0, 1.0, s))) for s in (1.0, 4.0)]
    scopes = [learn_scope([describe([volume], model.plan.normalisation)] * 6) for volume in volumes]
    joint = ensemble([replace(model, scope=scope) for scope in scopes]).scope
    assert joint == join_scopes(scopes)
    assert "spacing 0" in {usual.name for usual in joint.usual}
    assert ensemble([replace(model, scope=scopes[0]), replace(model, scope=None)]).scope is None


def test_a_file_that_changes_while_the_set_is_checked_is_refused(data, tmp_path, monkeypatch):
    def checked(*given):
        found = checked_for_real(*given)
        image = next((data / "images").iterdir())
        image.write_bytes(image.read_bytes() + b"\0")
        return found

    checked_for_real = setup.checked
    monkeypatch.setattr(setup, "checked", checked)
    with pytest.raises(DataError, match="was changed while the data set was checked"):
        fit(data, tmp_path / "run", plan_only=True)


HOLD = """
import sys
from pathlib import Path
from focalis.files import only_process_in
with only_process_in(Path(sys.argv[1]), "fit"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_in_the_same_folder_is_refused_and_a_killed_one_does_not_block(phantoms, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(UsageError, match="another fit is running in it"):
                fit(phantoms, tmp_path / "run", plan_only=True, resume=resume)
        other.kill()
    assert fit(phantoms, tmp_path / "run", plan_only=True).plan.exists()
    assert fit(phantoms, tmp_path / "run", plan_only=True, network="unet").plan.exists()
    said: list[str] = []
    fit(phantoms, tmp_path / "run", plan_only=True, resume=True, doubt=said.append)
    assert said[0] == f"{tmp_path / 'run'}: holds no run to go on with; a new one begins"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "toaster"}, "device 'toaster' is unknown"),
        ({"device": "cuda:77"}, "is not on this machine"),
        ({"precision": "float8"}, "precision 'float8' is unknown"),
        ({"device": "cpu", "precision": "float16"}, "float16 needs a GPU"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -2}, "threads is -2"),
        ({"memory_gb": -1.0}, "memory budget of -1.0 GB"),
        ({"memory_gb": float("nan")}, "memory budget of nan GB"),
        ({"memory_gb": 0.3}, "0.3 GB holds no training: the process alone takes 0.6 GB"),
        ({"fold": 5}, "fold 5 is not one"),
        ({"folds": 1}, "2 or more"),
        ({"folds": 7}, "6 patients cannot make 7 folds"),
        ({"fold": 0, "splits": Path("nowhere.json")}, "nowhere.json: cannot be read"),
        ({"splits": Path("nowhere.json")}, "give fold or folds too"),
        ({"plan": Path("nowhere.yaml")}, "nowhere.yaml: cannot be read"),
        ({"start": "shape"}, "no start of this name is known"),
        ({"start": "nowhere.safetensors"}, "nowhere.safetensors: "),
        ({"freeze": "encoder", "network": "unet"}, "freeze is encoder"),
        ({"readers": "vote"}, "readers is 'vote'"),
    ],
)
def test_options_are_looked_at_before_the_data(phantoms, tmp_path, monkeypatch, options, said):
    def never(*_given):
        raise AssertionError("the data set was checked")

    monkeypatch.setattr(setup, "checked", never)
    with pytest.raises(FocalisError, match=said):
        fit(phantoms, tmp_path / "run", steps=1, **options)
    assert not (tmp_path / "run").exists()


def test_a_member_that_found_nothing_has_no_say_in_the_ensembles_operating_point(finished):
    model = load_model(finished.model)
    points = [
        replace(model.operating_point, threshold=threshold, lesions=4, found=found)
        for threshold, found in ((0.2, 3), (0.4, 4), (0.5, 0))
    ]
    point = ensemble([replace(model, operating_point=each) for each in points]).operating_point
    assert point.threshold == pytest.approx(0.3)
    assert point.how.startswith("mean of 2 of 3 members (0.2, 0.4), each chosen on its own inner split")
    assert (point.lesions, point.found) == (12, 7)


def test_the_reason_of_one_member_is_not_given_for_the_mean_of_several(finished):
    model = load_model(finished.model)

    def joint(*points):
        return ensemble([replace(model, operating_point=each) for each in points]).operating_point.how

    one, other = OperatingPoint(0.998, "one half", found=1), OperatingPoint(0.377, "surest gain", found=1)
    assert joint(one, other) == (
        "mean of 2 members (0.998, 0.377), each chosen on its own inner split by the aim dice"
    )
    assert joint(one, one) == (
        "mean of 2 members (0.998, 0.998), each chosen on its own inner split: one half"
    )


def test_an_ensemble_takes_a_second_look_only_if_all_members_do(finished):
    model = load_model(finished.model)
    looks = (1.0, 2.0, 0.0, -1.0, 0.0), (3.0, 0.0, 0.0, -2.0, 0.0), ()

    def joint(count):
        points = [replace(model.operating_point, found=1, second_look=look) for look in looks[:count]]
        return ensemble([replace(model, operating_point=each) for each in points]).operating_point

    assert joint(2).second_look == (2.0, 1.0, 0.0, -1.5, 0.0)
    assert joint(3).second_look == ()

"""`compare` from folder to table, as its user meets it: on small phantoms, with one step."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.errors import PlanError, TrainingError, UsageError
from focalis.evaluation import Evaluation, Score
from focalis.planning import fingerprint, make_plan, read_plan
from focalis.workflows import executors
from focalis.workflows.compare import compare, shared_plans, waiting
from focalis.workflows.comparison import Row, nothing_learned
from focalis.workflows.setup import checked
from focalis.workflows.task import Task

SETTINGS = PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1)
OPTIONS = {
    "steps": 1,
    "threads": 1,
    "networks": ("dense",),
    "losses": ("dice_cross_entropy", "distance_focal"),
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 15, SETTINGS, 0)
    return root


@pytest.fixture(scope="module")
def first(phantoms, tmp_path_factory):
    return compare(phantoms, tmp_path_factory.mktemp("out"), on="here", **OPTIONS)


@pytest.fixture
def again(first, tmp_path):
    """A copy of the finished comparison, to go on with."""
    return shutil.copytree(first.folder, tmp_path / "again")


@pytest.fixture
def no_training(monkeypatch):
    """Whoever starts a process now gets one that the system kills."""
    code = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(executors, "COMMAND", (sys.executable, "-c", code))


def test_each_row_is_a_run_folder_beside_table_page_and_pictures(first):
    names = {path.name for path in first.folder.iterdir()}
    assert names >= {
        "compare.json",
        "compare.html",
        "figures",
        "prepared",
        "dense-dice_cross_entropy",
        "dense-distance_focal",
    }
    run = first.folder / "dense-distance_focal" / "fold_0-seed_0"
    assert {"model.safetensors", "record.json", "report.html", "predictions"} <= {
        p.name for p in run.iterdir()
    }
    assert {path.name for path in (first.folder / "figures").iterdir()} == {
        "learning-curves.png",
        "losses-median.png",
        "losses-worst.png",
    }


def test_the_table_holds_the_figures_of_the_runs(first):
    content = json.loads(first.json.read_text())
    assert content == json.loads(json.dumps(first.content))
    for row in content["rows"]:
        run = first.folder / row["folder"] / "fold_0-seed_0"
        scores = [Score(**case) for case in json.loads((run / "evaluation.json").read_text())["cases"]]
        expected = Evaluation.of(scores).summary.overall
        assert row["figures"]["overall"]["dice"]["value"] == pytest.approx(expected["dice"].mean)
        assert row["figures"]["overall"]["dice"]["low"] == pytest.approx(expected["dice"].low)
        record = json.loads((run / "record.json").read_text())
        assert row["parameters"] == record["parameters"]
        assert row["peak_memory_gb"] == record["peak_memory_gb"] > 0.1
    reference, other = content["rows"]
    assert reference["difference_to_first_row"] is None
    difference = other["difference_to_first_row"]["dice"]
    assert difference["value"] == pytest.approx(
        other["figures"]["overall"]["dice"]["value"] - reference["figures"]["overall"]["dice"]["value"]
    )
    assert content["started"] <= reference["runs"][0]["started"] <= reference["runs"][0]["finished"]
    assert content["started"] < content["finished"]
    assert content["finished"] >= reference["runs"][0]["finished"]
    for row in content["rows"]:
        assert row["few_steps"] is row["runs"][0]["few_steps"] is True
    assert content["equal"] == "steps"
    assert content["held_out_cases"] == 3


def test_all_rows_have_the_same_cases_and_choose_on_the_inner_split(first):
    records = [json.loads(path.read_text()) for path in first.folder.glob("*/*/record.json")]
    assert len(records) == 2
    assert records[0]["cases"] == records[1]["cases"]
    held_out = set(records[0]["cases"]["held_out"])
    assert not held_out & {*records[0]["cases"]["train"], *records[0]["cases"]["inner"]}
    assert records[0]["plan"] | {"loss": None} == records[1]["plan"] | {"loss": None}
    assert "inner split" in first.content["rules"]["choices"]


def test_the_prepared_cases_are_made_once_for_all_rows(first):
    cases = [path.name.partition(".")[0] for path in (first.folder / "prepared").glob("*.safetensors")]
    assert cases
    assert len(cases) == len(set(cases))


def test_the_pictured_cases_are_the_median_and_the_worst_of_the_first_row(first):
    run = first.folder / "dense-dice_cross_entropy" / "fold_0-seed_0" / "evaluation.json"
    ranked = sorted(json.loads(run.read_text())["cases"], key=lambda row: (row["dice"], row["case"]))
    by_rank = {one["rank"]: one["case"] for one in first.content["pictured_cases"]}
    dice = {row["case"]: row["dice"] for row in ranked}
    assert dice[by_rank["worst"]] == ranked[0]["dice"]
    assert dice[by_rank["median"]] == ranked[1]["dice"]


@pytest.mark.usefixtures("no_training")
def test_what_is_finished_is_not_trained_again_and_what_is_killed_is_reported(again, phantoms):
    before = {path: path.stat().st_mtime_ns for path in again.glob("*/*/model.safetensors")}

    result = compare(phantoms, again, **OPTIONS | {"losses": (*OPTIONS["losses"], "distance_focal_dice")})

    assert {path: path.stat().st_mtime_ns for path in again.glob("*/*/model.safetensors")} == before
    *others, killed = result.content["rows"]
    assert [row["runs"][0]["outcome"] for row in others] == ["finished"] * 2
    assert all(row["figures"] for row in others)
    assert killed["figures"] is None
    assert killed["runs"][0]["outcome"] == "killed"
    assert "no figures" in result.page.read_text()


@pytest.mark.slow
def test_a_row_that_was_killed_while_it_was_judged_is_judged_without_training(again, phantoms):
    """What kill -9 leaves after the training: the model and the record, and no outcome."""
    home = again / "dense-distance_focal" / "fold_0-seed_0"
    (home / "outcome.json").unlink()
    (home / "evaluation.json").unlink()
    model = (home / "model.safetensors").stat().st_mtime_ns

    result = compare(phantoms, again, **OPTIONS)

    assert (home / "model.safetensors").stat().st_mtime_ns == model
    assert result.content["rows"][1]["figures"]


@pytest.mark.usefixtures("no_training")
def test_if_nothing_finishes_it_is_an_error_with_the_reason(phantoms, tmp_path):
    with pytest.raises(TrainingError, match=r"no run finished.*SIGKILL"):
        compare(phantoms, tmp_path / "out", **OPTIONS)
    assert (tmp_path / "out" / "compare.html").exists()


def test_with_and_without_refinement_a_network_takes_the_same_number_of_steps(first):
    """Then the weights are the same, and the rows differ by the refinement alone."""
    plan = read_plan(first.folder / "dense-distance_focal" / "plan.yaml")
    names = ("dense", "dense+crf", "unet")
    tasks = [
        Task.model_construct(
            name=name,
            home=Path(name),
            plan=plan.model_copy(update={"network": plan.network.model_copy(update={"name": name})}),
        )
        for name in names
    ]
    shared = {task.name: {str(home) for home in task.same_steps_as} for task in waiting(tasks)}
    assert shared == {
        "dense (1 of 3)": {"dense", "dense+crf"},
        "dense+crf (2 of 3)": {"dense", "dense+crf"},
        "unet (3 of 3)": {"unet"},
    }


@pytest.mark.parametrize(
    ("changes", "what"), [({"steps": 2}, "steps"), ({"folds": 2}, "splits"), ({"threads": 2}, "threads")]
)
@pytest.mark.usefixtures("no_training")
def test_another_comparison_is_not_mixed_in(again, phantoms, changes, what):
    with pytest.raises(UsageError, match=rf"started with other settings:.*{what}"):
        compare(phantoms, again, **OPTIONS | changes)


@pytest.mark.usefixtures("no_training")
def test_two_at_a_time_in_one_folder_are_refused(again, phantoms):
    with FileLock(again / ".lock"), pytest.raises(UsageError, match="another comparison is running"):
        compare(phantoms, again, **OPTIONS)


@pytest.mark.usefixtures("no_training")
def test_a_comparison_that_was_killed_at_its_start_can_be_started_again(phantoms, tmp_path):
    (tmp_path / ".lock").touch()
    with pytest.raises(TrainingError, match="no run finished"):
        compare(phantoms, tmp_path, **OPTIONS)


@pytest.mark.usefixtures("no_training")
def test_rows_that_are_added_start_as_those_that_are_there(phantoms, tmp_path):
    for more in ({"start": "scratch"}, {"networks": ("dense", "unet")}):
        with pytest.raises(TrainingError, match="no run finished"):
            compare(phantoms, tmp_path, **OPTIONS | more)
    assert [read_plan(path).start for path in tmp_path.glob("*/plan.yaml")] == ["scratch"] * 3


@pytest.mark.usefixtures("no_training")
def test_a_network_that_cannot_start_as_the_rows_that_are_there_is_refused(again, phantoms):
    with pytest.raises(UsageError, match=r"rows start from shapes.*new folder.*does not fit.*unet"):
        compare(phantoms, again, **OPTIONS | {"networks": ("dense", "unet")})
    assert not (again / "unet-dice_cross_entropy").exists()


@pytest.mark.slow
def test_rows_in_parallel_train_at_the_same_time(phantoms, tmp_path):
    result = compare(phantoms, tmp_path / "out", parallel=2, **OPTIONS)
    one, other = (row["runs"][0] for row in result.content["rows"])
    assert one["outcome"] == other["outcome"] == "finished"
    assert all(row["figures"] for row in result.content["rows"])
    assert max(one["started"], other["started"]) < min(one["finished"], other["finished"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ("dense", "ddnet"), "device": "toaster"}, "device 'toaster' is unknown"),
        ({"networks": ("dense", "ddnet"), "precision": "half"}, "precision 'half' is unknown"),
        ({"networks": ("dense", "ddnet"), "threads": 0}, "threads is 0"),
        ({"networks": ("dense", "ddnet"), "memory_gb": 0.0}, "memory budget of 0.0 GB"),
        ({"networks": ("dense", "nonsense")}, "unknown network 'nonsense'; known are .*densevoxnet"),
        ({"losses": ("nonsense",)}, "unknown loss 'nonsense'; known are .*distance_focal"),
        ({"networks": ("dense",)}, "two networks or two losses; known networks are .*ddnet"),
        ({"networks": ("dense", "ddnet"), "minutes": 1, "steps": 1}, "minutes or steps"),
        ({"networks": ("dense", "ddnet"), "fold": 0, "folds": 2}, "fold or folds"),
        ({"networks": ("dense", "ddnet"), "parallel": 2, "minutes": 1}, "give steps"),
        ({"networks": ("dense", "ddnet"), "minutes": 0}, "minutes is 0"),
        ({"networks": ("dense", "ddnet"), "seeds": ()}, "no seed"),
        ({"networks": ("dense", "ddnet"), "start": "shape"}, "no start of this name is known"),
        ({"networks": ("dense", "ddnet"), "seeds": (-1,)}, "seed is -1"),
        ({"networks": ("dense", "ddnet"), "seeds": (3, 0, 0)}, "seed 0 is given twice"),
        ({"networks": ("ddnet", "dense", "ddnet")}, "network ddnet is given twice"),
        ({"networks": ("dense", "ddnet"), "memory_gb": 0.5}, "0.5 GB holds no training"),
    ],
)
def test_contradictions_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        compare(tmp_path / "nothing", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(phantoms, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter one")
    with pytest.raises(UsageError, match="is not empty"):
        compare(phantoms, tmp_path, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_networks_of_different_strides_share_preparation_patch_batch_and_training(tmp_path):
    write_phantoms(tmp_path, 5, PhantomSettings(shape_zyx=(40, 40, 40), foreground_share=0.01, lesions=1), 0)
    data, _ = checked(open_dataset(tmp_path))
    rows = [Row("densevoxnet", "distance_focal"), Row("dense", "distance_focal")]

    small, large = shared_plans(data, fingerprint(data.cases), rows, 8.0).values()

    assert small.network.total_stride_zyx != large.network.total_stride_zyx
    assert all(p % s == 0 for p, s in zip(small.patch_zyx, large.network.total_stride_zyx, strict=True))
    for name in ("spacing_zyx_mm", "normalisation", "patch_zyx", "batch", "training", "loss"):
        assert getattr(small, name) == getattr(large, name)
    assert small.loss.name == "distance_focal"


def test_rows_on_thick_slices_train_what_fit_trains(tmp_path):
    write_phantoms(tmp_path, 5, SETTINGS, 0)
    data, _ = checked(open_dataset(tmp_path))
    figures = replace(
        fingerprint(data.cases), shapes_zyx=((8, 200, 200),) * 5, spacings_zyx_mm=((6.0, 0.8, 0.8),) * 5
    )

    alone = make_plan(figures, data.channels, data.labels)
    rows = shared_plans(data, figures, [Row("dense", "focal"), Row("dense", "tversky")], 8.0).values()

    assert alone.network.strides_zyx[0] == (1, 2, 2)
    assert {(plan.patch_zyx, plan.batch) for plan in rows} == {(alone.patch_zyx, alone.batch)}
    assert all(plan.reasons["batch"].startswith(alone.reasons["batch"]) for plan in rows)


def test_the_same_comparison_again_collects_from_slurm(phantoms, tmp_path):
    options = {"losses": ("dice_cross_entropy", "tversky"), "steps": 1, "on": "slurm"}
    assert "sbatch" in compare(phantoms, tmp_path / "out", **options).left
    assert compare(phantoms, tmp_path / "out", **options).left.startswith("0 of 2 trainings are finished")


def test_losses_alone_are_compared_with_the_network_that_fit_takes(phantoms, tmp_path):
    compare(phantoms, tmp_path / "out", losses=OPTIONS["losses"], steps=1, on="slurm")
    plans = [read_plan(path) for path in (tmp_path / "out").glob("*/plan.yaml")]
    assert [(plan.network.name, plan.start) for plan in plans] == [("small-unet", "shapes")] * 2
    compare(phantoms, tmp_path / "random", losses=OPTIONS["losses"], steps=1, on="slurm", start="scratch")
    plans = [read_plan(path) for path in (tmp_path / "random").glob("*/plan.yaml")]
    assert [(plan.network.name, plan.start) for plan in plans] == [("dense", "scratch")] * 2


def test_losses_that_are_added_have_the_network_of_the_rows_that_are_there(phantoms, again):
    compare(phantoms, again, losses=(*OPTIONS["losses"], "tversky"), steps=1, threads=1, on="here")
    assert read_plan(again / "dense-tversky" / "plan.yaml").network.name == "dense"


def test_losses_that_count_lesions_are_compared_with_others(tmp_path):
    write_phantoms(tmp_path / "data", 10, SETTINGS, 0)
    losses = ("dice_cross_entropy", "cc_dice_cross_entropy")
    made = compare(tmp_path / "data", tmp_path / "out", losses=losses, steps=1)
    assert [row["loss"] for row in made.content["rows"] if row["runs"]] == [*losses]


def test_a_network_that_does_not_fit_the_memory_is_named(tmp_path):
    write_phantoms(tmp_path, 5, SETTINGS, 0)
    data, _ = checked(open_dataset(tmp_path))
    rows = [Row("dense", "focal"), Row("unet", "focal")]
    figures = fingerprint(data.cases)
    with pytest.raises(
        PlanError, match=r"dense: a memory budget of 0.5 GB is too small.*leave the network out"
    ):
        shared_plans(data, figures, rows, 0.5)


def test_a_rows_plan_can_be_read_by_a_person(first):
    plan = read_plan(first.folder / "dense-distance_focal" / "plan.yaml")
    assert plan.loss.name == "distance_focal"
    assert "one for all rows" in plan.reasons["patch_zyx"]


LOST = {"outcome": "finished", "learned": False, "collapse": "none of the 9 lesions was found"}


@pytest.mark.parametrize(
    ("other", "alerted"),
    [
        (LOST, True),
        ({"outcome": "diverged", "collapse": None}, True),
        (LOST | {"learned": True}, False),
        ({"outcome": "finished", "collapse": "of an older version"}, False),
    ],
)
def test_nothing_was_learned_if_no_finished_run_learned(other, alerted):
    said = nothing_learned([{"runs": [LOST]}, {"runs": [other]}])
    assert said.startswith("nothing was learned") == bool(said) == alerted


def test_rows_of_which_none_finished_are_another_fault():
    assert nothing_learned([{"runs": [{"outcome": "diverged", "collapse": None}]}]) == ""

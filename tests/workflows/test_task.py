"""One training as a value: through JSON and back, how it ends, and what is said of it."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_plan import small_plan

from focalis import files
from focalis.dataset import Case, PhantomSettings, Split, inner_split, open_dataset, write_phantoms
from focalis.errors import DataError, DivergedError, TrainingError
from focalis.planning import write_plan
from focalis.settings import Compute, Length
from focalis.training.prepared import KNOWN
from focalis.volume import Volume, read_volume, write_volume
from focalis.workflows import executors
from focalis.workflows import task as task_module
from focalis.workflows import train_run as train_run_module
from focalis.workflows.record import data_hash
from focalis.workflows.run import INNER_SHARE, inner_minimum
from focalis.workflows.task import (
    DIVERGED,
    FAILED,
    FINISHED,
    MEMORY,
    OUTCOME,
    Task,
    carry_out,
    kind_of,
    read_judgement,
)


@pytest.fixture
def task(tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, 5, PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1), 0)
    cases = open_dataset(data).cases
    plan = small_plan()
    write_plan(plan, tmp_path / "row" / "plan.yaml")
    home = tmp_path / "row" / "fold_0-seed_0"
    home.mkdir()
    return Task(
        name="the first",
        dataset=data,
        labels={1: "lesion"},
        holds={},
        home=home,
        prepared=tmp_path / "prepared",
        fold=0,
        split=Split(tuple(case.name for case in cases[:4]), (cases[4].name,)),
        plan=plan,
        seed=0,
        length=Length(steps=1),
        compute=Compute("cpu", "float32", threads=1),
        record={"data_sha256": data_hash(cases), "seed": 0},
    )


def with_rate(task, rate):
    training = task.plan.training.model_copy(update={"learning_rate": rate})
    return task.model_copy(update={"plan": task.plan.model_copy(update={"training": training})})


def allocator_error():
    """What torch's CPU allocator raises when there is not enough memory: a plain RuntimeError."""
    try:
        torch.empty(2**52)
    except RuntimeError as error:
        return error
    raise AssertionError("the machine has four petabytes")


def numpy_error():
    try:
        np.empty(2**60, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError("the machine has an exabyte")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (allocator_error(), MEMORY),
        (numpy_error(), MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY),
        (DivergedError("run: diverged at step 3"), DIVERGED),
        (TrainingError("run: was started with another seed"), FAILED),
        (RuntimeError("shapes cannot be multiplied"), FAILED),
    ],
)
def test_an_error_is_called_what_it_is(error, kind):
    assert kind_of(error) == kind


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_an_image_for_which_there_was_no_memory_is_reported_as_that(monkeypatch, error):
    def full(*_arguments, **_more):
        raise error

    monkeypatch.setattr("focalis.volume.files._read", full)
    with pytest.raises(DataError, match=r"a\.nii: there is not enough memory") as caught:
        read_volume("a.nii")
    assert kind_of(caught.value) == MEMORY


def test_a_task_goes_through_json_unchanged(task):
    again = Task.model_validate_json(task.model_dump_json())

    assert again == task
    assert again.plan.reasons == task.plan.reasons


def test_what_the_judged_cases_say_is_read_back_whole(task, monkeypatch):
    judged = []

    def judge(*given):
        judged.append(judge_for_real(*given))
        return judged[0]

    judge_for_real = task_module.judge
    monkeypatch.setattr(task_module, "judge", judge)

    assert carry_out(task) == {"outcome": FINISHED}

    found = read_judgement(task)
    assert found.scores == judged[0].scores
    assert found.summary == judged[0].summary
    assert found.collapse == judged[0].collapse
    one, other = found.lesions[0], judged[0].lesions[0]
    assert one.judged == other.judged
    assert one.counts.background.sum() == other.counts.background.sum() > 0
    assert one.candidates[0].confidence.tolist() == other.candidates[0].confidence.tolist()
    assert one.candidates[0].overlaps.truth_voxels.dtype == other.candidates[0].overlaps.truth_voxels.dtype


def test_it_tells_what_the_time_is_spent_on(task):
    told = []

    carry_out(task, lambda stage, progress: told.append((stage, progress and progress.step)))

    chosen_on = told[3][0].rpartition(" on ")[2]
    assert told == [
        ("the first: prepare 4 cases", None),
        ("the first: look at the inner split", None),
        ("the first", 1),
        (f"the first: choose the operating point on {chosen_on}", None),
        ("the first: look at the inner split as before training", None),
        ("the first: calibrate for 8-bit integers", None),
        ("the first: predict 1 case", None),
    ]
    assert chosen_on == "2 cases"


def test_a_training_that_diverges_says_so_in_its_outcome(task):
    diverging = with_rate(task, 1e20).model_copy(update={"length": Length(steps=6)})

    with pytest.raises(DivergedError):
        carry_out(diverging)

    assert task.outcome["outcome"] == DIVERGED, task.outcome
    assert "diverged at step" in task.outcome["message"]


def test_whatever_goes_wrong_becomes_the_outcome(task, monkeypatch):
    def fail(*_arguments, **_options):
        raise DataError("scan.nii.gz: cannot be\nread; check the disk")

    monkeypatch.setattr(task_module, "train_run", fail)

    with pytest.raises(DataError):
        carry_out(task)

    assert task.outcome == {"outcome": FAILED, "message": "scan.nii.gz: cannot be read; check the disk"}


def test_files_that_changed_after_the_check_are_refused(task):
    image = next((task.dataset / "images").iterdir())
    volume = read_volume(image)
    write_volume(Volume(volume.array + 1, volume.grid), image)
    with pytest.raises(DataError, match="its files changed after they were checked"):
        carry_out(task)


def test_files_that_change_before_the_figures_are_taken_are_reported(task):
    """Training may take hours, in which somebody corrects a label."""
    label = next((task.dataset / "labels").iterdir())

    def correct(stage, _progress):
        if "predict" in stage:
            volume = read_volume(label)
            write_volume(Volume(np.zeros_like(volume.array), volume.grid), label)

    carry_out(task, correct)
    told = "files of the data set changed after the training began: the figures are of what they hold now"
    assert told in read_judgement(task).caveats


def test_what_the_check_before_training_read_is_not_read_again(task, monkeypatch):
    def fail(*_arguments, **_options):
        raise TrainingError("no more is wanted")

    monkeypatch.setattr(files, "SETTLED_NS", 0)
    monkeypatch.setattr(train_run_module, "train", fail)
    with pytest.raises(TrainingError):
        carry_out(task)
    monkeypatch.setattr(files, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    known = files.KnownFiles(task.prepared / KNOWN)
    assert data_hash(open_dataset(task.dataset).cases, known.sha256_of) == task.record["data_sha256"]


def test_it_takes_the_number_of_steps_that_another_run_measured(task, tmp_path, monkeypatch):
    taken = []

    def train_run(run, _progress):
        taken.append(run.task.length)
        raise TrainingError("no more is wanted")

    monkeypatch.setattr(task_module, "train_run", train_run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_text('{"steps": 7}')
    others = (task.home, tmp_path / "not begun", tmp_path / "other")
    for length in (Length(minutes=3), Length(steps=2)):
        with pytest.raises(TrainingError):
            carry_out(task.model_copy(update={"same_steps_as": others, "length": length}))

    assert taken == [Length(steps=7), Length(steps=2)]


@pytest.mark.slow
def test_it_ends_with_its_parent(task):
    """The pipe that its parent holds closes when the parent is killed, whatever with."""
    process = subprocess.Popen(executors.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        process.stdin.write(
            task.model_copy(update={"length": Length(steps=100_000)}).model_dump_json() + "\n"
        )
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["steps"] == 100_000  # it trains
        begin = time.monotonic()
        process.stdin.close()
        assert process.wait(timeout=60) == 1
    assert time.monotonic() - begin < 60
    assert not (task.home / OUTCOME).exists()


@pytest.mark.parametrize("count", range(2, 13))
def test_half_of_a_few_training_cases_or_more_are_learned_from(count):
    cases = [Case(f"c{number}", (Path(f"c{number}.nii"),), None) for number in range(count)]
    inner = inner_split(cases, INNER_SHARE, inner_minimum(count), 0)
    assert len(inner.train) >= count / 2
    assert len(inner.val) == (1, 1, 2, 2, 3)[min(count, 6) - 2]

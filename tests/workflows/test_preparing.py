"""Cases prepared before the trainings, in parallel, by the executor that carries these out."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_plan import small_plan

from focalis.dataset import PhantomSettings, Split, write_phantoms
from focalis.settings import Compute, Length
from focalis.training import prepare_cases
from focalis.training.prepared import missing_cases
from focalis.workflows import setup
from focalis.workflows.executors import Executor
from focalis.workflows.fit import fit
from focalis.workflows.run import Preparation, Task
from focalis.workflows.setup import Trainers
from focalis.workflows.task import carry_out, job_of

SETTINGS = PhantomSettings(shape_zyx=(16, 16, 16), foreground_share=0.02, lesions=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "set", 8, SETTINGS, 0)


@pytest.fixture
def task(data, tmp_path):
    names = tuple(case.name for case in data.cases)
    return Task(
        name="train",
        dataset=data.root,
        labels={1: "lesion"},
        holds={},
        home=tmp_path / "run",
        prepared=tmp_path / "run" / "prepared",
        fold=None,
        split=Split(names, ()),
        plan=small_plan(),
        seed=0,
        length=Length(steps=1),
        compute=Compute("cpu", "float32", threads=1),
        record={},
    )


@pytest.fixture
def prepare(data, monkeypatch):
    """Prepare for trainings by an executor that carries jobs out as they come back from JSON; the jobs."""
    monkeypatch.setattr(setup, "CASES_PER_PREPARATION", 3)

    def call(tasks, parallel=1, **how) -> list[Preparation]:
        jobs = []

        def run(given, _parallel, tell):
            for job in given:
                jobs.append(job_of(json.loads(job.placed().model_dump_json())))
                carry_out(jobs[-1], tell)
            return ""

        trainers = Trainers(Executor(run, **how), parallel, "cpu")
        trainers.prepare(tasks, data, parallel, lambda _name, _progress: None)
        return jobs

    return call


def test_a_cluster_prepares_in_parts_what_is_missing(data, task, prepare):
    prepare_cases(data.cases[:1], task.plan, task.prepared)
    jobs = prepare([task], elsewhere=True)
    named = [name for job in jobs for name in job.names]
    assert [len(job.names) for job in jobs] == [3, 2, 2]
    assert sorted(named) == [case.name for case in data.cases[1:]]
    assert missing_cases(data.cases, task.plan, task.prepared) == []
    assert prepare([task], elsewhere=True) == []


def test_processes_prepare_in_as_many_parts_as_run_at_a_time(task, prepare):
    assert [len(job.names) for job in prepare([task], parallel=2)] == [4, 4]


def test_a_process_alone_and_slurm_leave_it_to_the_trainings(task, prepare):
    assert prepare([task], parallel=1) == []
    assert prepare([task], parallel=2, waits=False, elsewhere=True) == []


def test_folds_share_what_is_prepared_and_rows_that_need_more_have_it_prepared_too(data, task, prepare):
    names = task.split.train
    folds = [task.model_copy(update={"split": Split(part, ())}) for part in (names[:6], names[2:])]
    counting = task.plan.model_copy(
        update={"loss": task.plan.loss.model_copy(update={"name": "two_way_dice_cross_entropy"})}
    )
    jobs = prepare([*folds, task.model_copy(update={"plan": counting})], elsewhere=True)
    named = [name for job in jobs for name in job.names]
    assert sorted(named) == sorted(2 * names)
    assert missing_cases(data.cases, counting, task.prepared) == []


def test_what_is_made_in_parallel_is_what_a_training_makes(data, task, prepare, tmp_path):
    prepare([task], elsewhere=True)
    alone = prepare_cases(data.cases, task.plan, tmp_path / "alone")
    there = prepare_cases(data.cases, task.plan, task.prepared)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(alone, there, strict=True))
    assert not (task.prepared / "tasks").exists()


@pytest.mark.slow
def test_one_training_prepares_in_processes_and_gives_the_same_weights(data, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "CASES_PER_PREPARATION", 3)
    options = {
        "steps": 2,
        "start": "scratch",
        "eight_bit": False,
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
    }
    told = []
    fit(data.root, tmp_path / "one", **options)
    fit(
        data.root,
        tmp_path / "two",
        on="processes",
        parallel=2,
        progress=lambda name, _: told.append(name),
        **options,
    )
    one, two = (load_file(Path(tmp_path, run, "model.safetensors")) for run in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert {"prepare, part 1 of 2", "prepare, part 2 of 2"} <= set(told)

"""What carries out a job, and says how it ended; of a training: open its data, train, judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from focalis import ranks
from focalis.dataset import Dataset, open_dataset, with_readers
from focalis.display import counted
from focalis.errors import DataError, DivergedError, FocalisError, PlanError, not_there
from focalis.planning import Readers
from focalis.prediction import choose_runtime
from focalis.prediction.engine import is_out_of_memory
from focalis.settings import Length, first_fault
from focalis.training import prepare_cases, trusted_to_train
from focalis.workflows.judge import Judgement, held_out_note, judge
from focalis.workflows.part import Part, predict_part
from focalis.workflows.record import from_plain, read_json, to_plain, write_json
from focalis.workflows.run import (
    DIVERGED,
    FAILED,
    FINISHED,
    JUDGEMENT,
    MEMORY,
    OUTCOME,
    Job,
    Preparation,
    Run,
    Task,
    Tell,
)
from focalis.workflows.train_run import train_run


def carry_out(task: Job, tell: Tell = lambda _stage, _progress: None) -> dict[str, Any]:
    """Carry out a job, or go on with it. The one function that does: every executor ends here.

    Writes the job's folder, and in the end outcome.json.

    Returns:
        What outcome.json holds.

    Raises:
        FocalisError: what went wrong; it stands in outcome.json too.
    """
    path = task.home / OUTCOME
    path.unlink(missing_ok=True)
    try:
        result = _carried_out(task, tell)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, FocalisError):
            message = f"{type(error).__name__}: {message}"
        task.home.mkdir(parents=True, exist_ok=True)
        write_json(path, {"outcome": kind_of(error), "message": message})
        raise
    write_json(path, result)
    return result


def _carried_out(job: Job, tell: Tell) -> dict[str, Any]:
    if isinstance(job, Part):
        tell(job.name, None)
        predict_part(job)
        return {"outcome": FINISHED}
    if isinstance(job, Preparation):
        tell(job.name, None)
        prepare_cases(
            _opened(job.task).data.select(job.names), job.task.plan, job.task.prepared, job.task.store
        )
        return {"outcome": FINISHED}
    assert isinstance(job, Task)
    with ranks.joint(job):
        return train_and_judge(job, tell)


def train_and_judge(task: Task, tell: Tell = lambda _stage, _progress: None) -> dict[str, Any]:
    """What every rank does of a task, see `focalis.ranks`; for rank 0, which also writes how it ended, `carry_out`."""
    run = ranks.everywhere(partial(_opened, task))
    if why := next(filter(None, ranks.gathered(run.runtime.note)), ""):  # all ranks compute alike
        run = replace(run, runtime=run.runtime.in_float32(why))
    model = train_run(run, tell)
    if task.point is not None:
        return {"outcome": FINISHED}
    tell(f"{task.name}: predict {counted(len(run.judged))}", None)

    def judged() -> None:
        write_json(
            task.home / JUDGEMENT, to_plain(judge(run, model, held_out_note(task.fold, len(run.judged))))
        )

    ranks.from_first(judged)
    if run.runtime.device.type != "cuda":
        return {"outcome": FINISHED}
    peak = torch.cuda.max_memory_allocated(run.runtime.device)
    return {"outcome": FINISHED, "peak_gpu_memory_gb": round(peak / 1e9, 3)}


def _opened(task: Task) -> Run:
    if ranks.count() > task.plan.batch:
        raise PlanError(
            f"{ranks.count()} processes cannot share a batch of {task.plan.batch}; raise batch in the plan, or start "
            "fewer"
        )
    if task.compute.threads or ranks.count() > 1:  # torchrun leaves one thread to each
        torch.set_num_threads(task.compute.threads or ranks.threads())
    data = with_masks(open_dataset(task.dataset, task.plan.channels_may_miss), task.plan.readers)
    data = replace(data, labels=task.labels).holding(task.holds)
    compute = replace(task.compute, device=ranks.device(task.compute.device))
    runtime = trusted_to_train(choose_runtime(compute.device, compute.precision), task.plan)
    return Run(task.model_copy(update={"length": _length(task), "compute": compute}), data, runtime)


def _length(task: Task) -> Length:
    """The task's length; the steps that another run measured, if it is to take the same number."""
    records = (home / "record.json" for home in task.same_steps_as if home != task.home)
    measured = next((read_json(path)["steps"] for path in records if path.exists()), None)
    return task.length if measured is None or task.length.steps else Length(steps=measured)


def with_masks(data: Dataset, readers: Readers) -> Dataset:
    """A data set, with its readers' masks where a plan trains on them; DataError if it holds none then."""
    if readers == "labels":
        return data
    data = with_readers(data)
    if not any(case.readers for case in data.cases):
        raise DataError.at(
            data.root / "raters",
            "holds no reader's mask of any case",
            "name them CASE_READER.nii.gz, or train on labels",
        )
    return data


def read_task(path: Path) -> Job:
    """A job from its file; DataError names what is wrong with it."""
    if not path.exists():
        raise not_there(path, "give a task file that --on slurm wrote")
    try:
        return job_of(read_json(path))
    except ValidationError as error:
        where, what = first_fault(error)
        raise DataError.at(
            path, f"is not a task ({where}: {what})", "let `--on slurm` write it again"
        ) from error


def job_of(content: Any) -> Job:
    """A job from what its JSON holds; pydantic's ValidationError if it is none."""
    telling: dict[str, type[Job]] = {"inputs": Part, "names": Preparation}
    kinds = [kind for name, kind in telling.items() if isinstance(content, dict) and name in content]
    return (kinds or [Task])[0].model_validate(content)


def read_judgement(task: Task) -> Judgement:
    """What a finished task's judged cases say."""
    judged: Judgement = from_plain(Judgement, read_json(task.home / JUDGEMENT))
    return judged


def kind_of(error: BaseException) -> str:
    """What a table says of an error: diverged, out of memory, or failed."""
    if isinstance(error, DivergedError):
        return DIVERGED
    return MEMORY if is_out_of_memory(error) else FAILED

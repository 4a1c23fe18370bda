"""One training as a value: what to train, on which cases, how long and with what; and what carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from focalis.dataset import Dataset, Split, open_dataset, with_readers
from focalis.errors import DataError, DivergedError, FocalisError
from focalis.planning import Plan, Readers
from focalis.prediction import choose_runtime
from focalis.settings import Compute, Length
from focalis.training import Progress, trusted
from focalis.workflows.judge import Judgement, held_out_note, judge
from focalis.workflows.record import from_plain, provenance, read_json, to_plain, write_json
from focalis.workflows.run import Run, segmenting_as, train_run

OUTCOME, JUDGEMENT = "outcome.json", "judgement.json"
FINISHED, DIVERGED, MEMORY, KILLED, FAILED, UNTOUCHED = (
    "finished",
    "diverged",
    "out of memory",
    "killed",
    "failed",
    "not started",
)
_ALLOCATOR_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

Tell = Callable[[str, Progress | None], None]
"""Told the name of what begins (None) and, in training, how it goes on."""


class Task(BaseModel):
    """One training, with all that it needs; it goes through JSON unchanged.

    Attributes:
        name: what it is called in messages.
        dataset: the data set.
        labels: label value to name.
        holds: case name to the labels that it holds.
        home: the run's folder.
        prepared: the folder of prepared cases, which the tasks of a run share.
        fold: the fold that is held out; None if none is.
        split: the cases that may train, and those that are held out.
        plan: network, loss and everything else that is decided.
        seed: seed of every random choice.
        length: how long to train.
        same_steps_as: run folders; if one of them measured its number of steps, this one takes it instead of minutes.
        compute: with what to compute.
        aim: what the operating point is chosen for, see `focalis.evaluation.Aim`.
        promise: what the operating point is to hold on new scans, see `focalis.evaluation.Promise`.
        caveats: what has to be known of the data before any figure, a line each.
        eight_bit: calibrate the model for 8-bit integers.
        restarts: begin once more, by a safer plan, if no lesion is found.
        resume: go on with what is in `home`.
        record: command, data set and its hash, for record.json; where and by what it was carried out is added there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dataset: Path
    labels: dict[int, str]
    holds: dict[str, tuple[int, ...]]
    home: Path
    prepared: Path
    fold: int | None
    split: Split
    plan: Plan
    seed: int
    length: Length
    same_steps_as: tuple[Path, ...] = ()
    compute: Compute
    aim: str = "dice"
    promise: str | None = None
    caveats: tuple[str, ...] = ()
    eight_bit: bool = True
    restarts: bool = False
    resume: bool = True
    record: dict[str, Any]

    @property
    def outcome(self) -> dict[str, Any]:
        """How it ended: `outcome`, and a `message` of one line unless it finished."""
        path = self.home / OUTCOME
        if not path.exists():
            return {"outcome": UNTOUCHED, "message": "it was not trained"}
        found: dict[str, Any] = read_json(path)
        return found

    @property
    def finished(self) -> bool:
        """Whether it was trained and judged to the end."""
        return bool(self.outcome["outcome"] == FINISHED)


def carry_out(task: Task, tell: Tell = lambda _stage, _progress: None) -> dict[str, Any]:
    """Train and judge, or go on with it. The one function that does: every executor ends here.

    Writes the run's folder, and in the end outcome.json.

    Returns:
        What outcome.json holds.

    Raises:
        FocalisError: what went wrong; it stands in outcome.json too.
    """
    path = task.home / OUTCOME
    path.unlink(missing_ok=True)
    try:
        result = _train_and_judge(task, tell)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, FocalisError):
            message = f"{type(error).__name__}: {message}"
        task.home.mkdir(parents=True, exist_ok=True)
        write_json(path, {"outcome": kind_of(error), "message": message})
        raise
    write_json(path, result)
    return result


def _train_and_judge(task: Task, tell: Tell) -> dict[str, Any]:
    if task.compute.threads:
        torch.set_num_threads(task.compute.threads)
    data = with_masks(open_dataset(task.dataset, task.plan.channels_may_miss), task.plan.readers)
    data = replace(data, labels=task.labels).holding(task.holds)
    run = Run(
        task.home,
        task.prepared,
        data,
        task.split,
        task.plan,
        task.seed,
        trusted(choose_runtime(task.compute.device, task.compute.precision), task.plan),
        {**provenance(), **task.record},
        task.aim,
        task.caveats,
        segmenting_as(task.compute, task.plan),
        task.eight_bit,
        task.promise,
    )
    model = train_run(
        run, _length(task), resume=task.resume, progress=partial(tell, task.name), restarts=task.restarts
    )
    tell("predict", None)
    judged = judge(run, model, held_out_note(task.fold, len(run.judged)))
    write_json(task.home / JUDGEMENT, to_plain(judged))
    if run.runtime.device.type != "cuda":
        return {"outcome": FINISHED}
    peak = torch.cuda.max_memory_allocated(run.runtime.device)
    return {"outcome": FINISHED, "peak_gpu_memory_gb": round(peak / 1e9, 3)}


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
        raise DataError(
            f"{data.root / 'raters'}: holds no reader's mask of any case; name them CASE_READER.nii.gz, "
            "or train on labels"
        )
    return data


def read_task(path: Path) -> Task:
    """A task from its file; DataError names what is wrong with it."""
    try:
        return Task.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise DataError(
            f"{path}: is no task ({where}: {first['msg']}); let `--on slurm` write it again"
        ) from error


def read_judgement(task: Task) -> Judgement:
    """What a finished task's judged cases say."""
    judged: Judgement = from_plain(Judgement, read_json(task.home / JUDGEMENT))
    return judged


def kind_of(error: BaseException) -> str:
    """What a table says of an error: diverged, out of memory, or failed."""
    if isinstance(error, DivergedError):
        return DIVERGED
    # The CPU's allocator has no exception of its own: it raises a RuntimeError.
    words = str(error).lower()
    allocator = isinstance(error, RuntimeError) and any(word in words for word in _ALLOCATOR_WORDS)
    return MEMORY if isinstance(error, MemoryError | torch.OutOfMemoryError) or allocator else FAILED

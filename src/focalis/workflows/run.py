"""A piece of work as a value; a training, and what it is when it is carried out: data and run time beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from focalis.dataset import Case, Dataset, Split, inner_split
from focalis.lesions import OperatingPoint
from focalis.models import OF_A_RUN
from focalis.planning import Plan
from focalis.prediction import Runtime, Settings
from focalis.settings import Compute, Frozen, Length
from focalis.training import Progress
from focalis.training.start import first_network, start_of
from focalis.workflows.record import read_json

MODEL = OF_A_RUN
INNER_SHARE = 0.12
PROGRAM_GB = 2
"""Memory beside a training's budget: the program, its libraries, and an image being read."""
OUTCOME, JUDGEMENT = "outcome.json", "judgement.json"
FINISHED, DIVERGED, MEMORY, KILLED, FAILED, UNTOUCHED = (
    "finished",
    "diverged",
    "out of memory",
    "killed",
    "failed",
    "not started",
)

Tell = Callable[[str, Progress | None], None]
"""Told the name of what begins (None) and, in training, how it goes on."""


class Job(Frozen):
    """A piece of work with all that it needs, which an executor carries out; it goes through JSON unchanged.

    Attributes:
        kind: what several of them are called in messages.
        name: what it is called in messages.
    """

    kind: ClassVar[str]

    name: str
    home: Path

    @property
    def outcome(self) -> dict[str, Any]:
        """How it ended: `outcome`, and a `message` of one line unless it finished."""
        path = self.home / OUTCOME
        if not path.exists():
            return {"outcome": UNTOUCHED, "message": "it was not started"}
        found: dict[str, Any] = read_json(path)
        return found

    @property
    def finished(self) -> bool:
        """Whether it was carried out to the end."""
        return bool(self.outcome["outcome"] == FINISHED)

    @property
    def shared(self) -> Path:
        """The folder of the command that it is a part of."""
        raise NotImplementedError

    @property
    def needs(self) -> Needs:
        """What it takes of a machine."""
        raise NotImplementedError

    def placed(self) -> Self:
        """The same for another process, which may be on another machine or come after one that was lost."""
        raise NotImplementedError


@dataclass(frozen=True)
class Needs:
    """What a job takes of a machine.

    Attributes:
        threads: of the processor; None where nobody says.
        memory_gb: in 10^9 bytes, the program and its libraries included.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    threads: int | None
    memory_gb: int
    device: str


class Task(Job):
    """One training.

    Attributes:
        holds: case name to the labels that it holds.
        prepared: the folder of prepared cases, which the tasks of a run share.
        store: the address of the object store in which these cases lie instead.
        fold: the fold that is held out; None if none is.
        split: the cases that may train, and those that are held out.
        plan: network, loss and everything else that is decided.
        length: how long to train.
        same_steps_as: run folders; if one of them measured its number of steps, this one takes it instead of minutes.
        aim: what the operating point is chosen for, see `focalis.evaluation.Aim`.
        promise: what the operating point is to hold on new scans, see `focalis.evaluation.Promise`.
        pooled: the held-out cases choose the operating point of an ensemble, together with those of other folds.
        caveats: what has to be known of the data before any figure, a line each.
        eight_bit: calibrate the model for 8-bit integers.
        restarts: begin once more, by a safer plan, if no lesion is found.
        resume: go on with what is in `home`.
        record: command, data set and its hash, for record.json; where and by what it was carried out is added there.
        sharing: how many trainings at a time share the memory of a machine; the plan's budget is that of one.
        point: the operating point, if other trainings chose it: then all cases of the split train, and none is judged.
    """

    kind: ClassVar[str] = "trainings"

    dataset: Path
    labels: dict[int, str]
    holds: dict[str, tuple[int, ...]]
    prepared: Path
    store: str | None = None
    fold: int | None
    split: Split
    plan: Plan
    seed: int
    length: Length
    same_steps_as: tuple[Path, ...] = ()
    compute: Compute
    aim: str = "dice"
    promise: str | None = None
    pooled: bool = False
    caveats: tuple[str, ...] = ()
    eight_bit: bool = True
    restarts: bool = False
    resume: bool = True
    record: dict[str, Any]
    sharing: int = 1
    point: OperatingPoint | None = None

    @property
    def shared(self) -> Path:
        return self.prepared.parent

    @property
    def needs(self) -> Needs:
        memory_gb = math.ceil(self.plan.memory_budget_gb) + PROGRAM_GB
        return Needs(self.compute.threads, memory_gb, self.compute.device)

    @property
    def memory_gb(self) -> float:
        """What all trainings that share a machine may take together, in whole hundredths."""
        return math.floor(100 * self.plan.memory_budget_gb * self.sharing) / 100

    def placed(self) -> Task:
        """See `Job`: with absolute paths, going on with what is there."""
        absolute = {name: getattr(self, name).resolve() for name in ("dataset", "home", "prepared")}
        others = tuple(home.resolve() for home in self.same_steps_as)
        return self.model_copy(update={**absolute, "same_steps_as": others, "resume": True})


class Preparation(Job):
    """Some of the cases of a training, to be prepared before it. What is there already is taken as it is.

    Attributes:
        task: the training.
        names: the cases.
    """

    kind: ClassVar[str] = "preparations"

    task: Task
    names: tuple[str, ...]

    @property
    def shared(self) -> Path:
        return self.task.shared

    @property
    def needs(self) -> Needs:
        """See `Job`: a thread, and as much memory as a training, which reads the same cases."""
        return Needs(1, self.task.needs.memory_gb, "cpu")

    def placed(self) -> Preparation:
        return self.model_copy(update={"task": self.task.placed(), "home": self.home.resolve()})


def inner_minimum(cases: int) -> int:
    """How many of so many training cases at least choose what is chosen: three, but no more than half of them."""
    return max(1, min(3, cases // 2))


@dataclass(frozen=True)
class Run:
    """A task that is being carried out.

    Attributes:
        runtime: the device and precision that it computes with.
    """

    task: Task
    data: Dataset
    runtime: Runtime

    @cached_property
    def inner(self) -> Split:
        """The training cases, divided once more: every choice is made on the inner `val`."""
        training = self.data.select(self.task.split.train)
        if self.task.point is not None:
            return Split(self.task.split.train, ())
        return inner_split(training, INNER_SHARE, inner_minimum(len(training)), self.task.seed)

    @property
    def judged(self) -> tuple[Case, ...]:
        """The cases that the figures are taken on: those held out, or the inner split's if none are."""
        return self.data.select(self.task.split.val or self.inner.val)

    @property
    def untrained(self) -> dict[int, str]:
        """The plan's labels that no training case holds, with their names; none where nobody has looked."""
        training = self.data.select(self.inner.train)
        if any(case.holds is None for case in training):
            return {}
        held = frozenset[int]().union(*(case.holds or () for case in training))
        return {value: name for value, name in self.task.plan.labels.items() if value not in held}

    @property
    def segmenting(self) -> Settings:
        """How the judged cases are predicted: as `predict` does with the same compute (decision 0018)."""
        compute = self.task.compute
        return Settings(device=compute.device, precision=compute.precision, threads=compute.threads)


def started_from(plan: Plan) -> dict[str, str] | None:
    """The plan's start as a run records it: name, hash, and what is taken over; None for random weights.

    Raises:
        ModelError: the start cannot be read, or is that of another network.
        PlanError: what the plan freezes is not there.
    """
    start = start_of(plan)
    with torch.random.fork_rng(devices=[]):
        _, taken = first_network(plan, start)
    return None if start is None else {"name": start.name, "sha256": start.sha256, "taken": str(taken)}

"""One training run on one split: inner split, preparation, number of steps, training, operating point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from focalis.dataset import Case, Dataset, Split, inner_split
from focalis.errors import CollapsedError, TrainingError
from focalis.model import Model, load_model, save_model
from focalis.models import OF_A_RUN
from focalis.networks import Network, split_name
from focalis.planning import Plan, learn_scope
from focalis.prediction import DEFAULT_MEMORY_GB, Runtime, Settings
from focalis.settings import DEFAULT_MINUTES, Compute, Length
from focalis.training import (
    Progress,
    calibrate,
    fit_refinement,
    keep_freed_memory,
    operating_point,
    prepare_cases,
    read_metrics,
    steps_in,
    train,
)
from focalis.training.loop import CHECKPOINT, NothingLearnedWarning
from focalis.training.start import first_network, read_start
from focalis.workflows.record import now, peak_memory_gb, read_json, write_json
from focalis.workflows.restart import differences, safer
from focalis.workflows.training_cases import CHOSE, TRAINED, trained_on

MODEL = OF_A_RUN
INNER_SHARE, INNER_MINIMUM = 0.12, 3
CALIBRATED_ON = 16
"""Cases of the inner split that the cost of 8-bit integers is measured on, at most: each is predicted twice."""


@dataclass(frozen=True)
class Run:
    """A training run before it starts.

    Attributes:
        home: its folder.
        prepared: the folder of prepared cases, which the folds of a run share.
        data: the data set.
        split: the cases that may train, and those that are held out.
        plan: what to do.
        seed: seed of every random choice.
        runtime: device and precision.
        record: provenance, which record.json starts from.
        aim: what the operating point is chosen for, see `focalis.evaluation.Aim`.
        caveats: what has to be known of the data before any figure, a line each.
        segmenting: how the judged cases are predicted.
        eight_bit: whether the model is calibrated for 8-bit integers, which only a processor computes in.
        promise: what the operating point is to hold on new scans, see `focalis.evaluation.Promise`; None for nothing.
    """

    home: Path
    prepared: Path
    data: Dataset
    split: Split
    plan: Plan
    seed: int
    runtime: Runtime
    record: Mapping[str, Any]
    aim: str = "dice"
    caveats: tuple[str, ...] = ()
    segmenting: Settings = field(default_factory=Settings)
    eight_bit: bool = True
    promise: str | None = None

    @property
    def inner(self) -> Split:
        """The training cases, divided once more: every choice is made on the inner `val`."""
        return inner_split(self.data.select(self.split.train), INNER_SHARE, INNER_MINIMUM, self.seed)

    @property
    def judged(self) -> tuple[Case, ...]:
        """The cases that the figures are taken on: those held out, or the inner split's if none are."""
        return self.data.select(self.split.val or self.inner.val)

    @property
    def untrained(self) -> dict[int, str]:
        """The plan's labels that no training case holds, with their names; none where nobody has looked."""
        training = self.data.select(self.inner.train)
        if any(case.holds is None for case in training):
            return {}
        held = frozenset[int]().union(*(case.holds or () for case in training))
        return {value: name for value, name in self.plan.labels.items() if value not in held}


def segmenting_as(compute: Compute, plan: Plan) -> Settings:
    """How `predict` segments with what a run computes with; in the run's memory if that is less."""
    memory_gb = min(DEFAULT_MEMORY_GB, plan.memory_budget_gb)
    return Settings(
        memory_gb=memory_gb, device=compute.device, precision=compute.precision, threads=compute.threads
    )


def train_run(
    run: Run,
    length: Length,
    *,
    resume: bool,
    progress: Callable[[Progress], None] | None = None,
    restarts: bool = False,
) -> Model:
    """Train one member, choose its operating point, fit its refinement if it has one, calibrate it.

    Writes record.json, checkpoint and model.safetensors. A finished run that is resumed is read back instead of trained
    again. With `restarts`, a training that finds no lesion in half of its steps begins once more, by a safer plan; not
    in a comparison, whose rows must keep their loss.
    """
    run.home.mkdir(parents=True, exist_ok=True)
    path = run.home / "record.json"
    inner, folder = run.inner, run.prepared
    identity = {
        "data_sha256": run.record["data_sha256"],
        "seed": run.seed,
        "aim": run.aim,
        "promise": run.promise,
        "cases": {"train": list(inner.train), "inner": list(inner.val), "held_out": list(run.split.val)},
        "plan": run.plan.model_dump(mode="json", exclude={"reasons"}),
        "runtime": str(run.runtime),
        "threads": torch.get_num_threads(),
        "start": started_from(run.plan),
    }
    before = _started(path) if resume and path.exists() else None
    if before is not None:
        _same_run(path, before, identity | ({} if length.steps is None else {"steps": length.steps}))
        if "finished" in before:
            return load_model(run.home / MODEL)
    start = read_start(run.plan.start)
    if run.runtime.device.type == "cpu":
        keep_freed_memory()
    training = prepare_cases(run.data.select(inner.train), run.plan, folder)
    validation = prepare_cases(run.data.select(inner.val), run.plan, folder)
    steps = before["steps"] if before else length.steps
    if steps is None:
        steps = steps_in(length.minutes or DEFAULT_MINUTES, run.plan, training, run.runtime)
    record = before or {
        **run.record,
        **identity,
        "float32_because": run.runtime.note,
        "steps": steps,
        "minutes_asked": length.minutes,
    }
    write_json(path, record)

    def trained(plan: Plan, *, resume: bool, give_up: bool) -> Network:
        return train(
            plan,
            training,
            validation,
            run.home,
            steps=steps,
            seed=run.seed,
            runtime=run.runtime,
            resume=resume,
            progress=progress,
            start=start,
            give_up=give_up,
        )

    plan = safer(run.plan) if record.get("restarted") else run.plan
    try:
        network = trained(plan, resume=resume, give_up=restarts and not record.get("restarted"))
    except CollapsedError as error:
        plan = safer(run.plan)
        record["restarted"] = f"{error}; it began once more with {differences(run.plan, plan)}"
        warnings.warn(f"{run.home}: {record['restarted']}", NothingLearnedWarning, stacklevel=2)
        (run.home / CHECKPOINT).unlink(missing_ok=True)
        write_json(path, record)
        network = trained(plan, resume=False, give_up=False)
    run = replace(run, plan=plan)
    last = read_metrics(run.home)[-1]
    patients = {case.name: case.patient for case in run.data.cases}
    point = operating_point(run.plan, network, validation, run.runtime, run.aim, run.promise, patients)
    refinement = None
    if split_name(run.plan.network.name)[1]:
        refinement = fit_refinement(run.plan, network, validation, run.runtime, point)
        record["refinement"] = asdict(refinement)
    record |= {
        "training_seconds": last["seconds"],
        "threshold": point.threshold,
        **({"promised": point.promise} if point.promise else {}),
        "minimum_mm3": point.minimum_mm3,
        "minimum_confidence": point.minimum_confidence,
        "temperature": round(point.temperature, 4),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_memory_gb": peak_memory_gb(),
        "finished": now(),
    }
    network.to("cpu")
    seen_before = trained_on(start.provenance, start.name) if start else {}
    model = Model(
        run.plan,
        (network,),
        point,
        {
            **{name: value for name, value in record.items() if name not in ("plan", "refinement")},
            "images": {TRAINED: seen_before | training.digests(), CHOSE: validation.digests()},
        },
        learn_scope([*training.descriptions(), *validation.descriptions()]),
        refinement,
    )
    if run.eight_bit and run.runtime.device.type == "cpu":
        model = replace(model, eight_bit=calibrate(model, validation[:CALIBRATED_ON]))
    save_model(model, run.home / MODEL)
    write_json(path, record)
    return model


def started_from(plan: Plan) -> dict[str, str] | None:
    """The plan's start as a run records it: name, hash, and what is taken over; None for random weights.

    Raises:
        ModelError: the start cannot be read, or is that of another network.
        PlanError: what the plan freezes is not there.
    """
    start = read_start(plan.start)
    with torch.random.fork_rng(devices=[]):
        _, taken = first_network(plan, start)
    return None if start is None else {"name": start.name, "sha256": start.sha256, "taken": str(taken)}


def _started(path: Path) -> dict[str, Any]:
    """The record of a run that is resumed, with its plan as this version states it."""
    record: dict[str, Any] = {"aim": "dice", "promise": None, "start": None, **read_json(path)}
    if "plan" in record:
        record["plan"] = Plan.model_validate(record["plan"]).model_dump(mode="json", exclude={"reasons"})
    return record


def _same_run(path: Path, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """TrainingError if a run that is resumed would not be the run that was started."""
    changed = [name for name, value in identity.items() if before.get(name) != value]
    if changed:
        raise TrainingError(
            f"{path}: the run was started with another {' and '.join(changed)}; start again in a new folder"
        )

"""Train one task: inner split, preparation, number of steps, training, operating point."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from focalis import ranks
from focalis.display import counted
from focalis.errors import CollapsedError, DataError, TrainingError
from focalis.files import KnownFiles
from focalis.lesions import OperatingPoint
from focalis.model import Model, load_model, save_model
from focalis.networks import Network, split_name
from focalis.planning import Plan, learn_scope
from focalis.planning.parts import loss_settings
from focalis.settings import DEFAULT_MINUTES
from focalis.training import (
    calibrate,
    fit_refinement,
    keep_freed_memory,
    operating_point,
    prepare_cases,
    read_metrics,
    steps_in,
    stood_still,
    train,
    untrained_look,
    untrained_point,
)
from focalis.training.loop import CHECKPOINT, NothingLearnedWarning
from focalis.training.prepared import KNOWN, PreparedCases
from focalis.training.start import Start, start_of
from focalis.workflows.record import (
    changes,
    data_hash,
    now,
    peak_memory_gb,
    provenance,
    read_json,
    write_json,
)
from focalis.workflows.run import MODEL, Run, Tell, started_from
from focalis.workflows.training_cases import CHOSE, TRAINED, trained_on

RECORD = "record.json"
_WHICH_GPU = re.compile(r"(?<=^cuda):\d+")
"""A run that is resumed may use another GPU, other threads, and other processes."""
CALIBRATED_ON = 16
"""Cases of the inner split, or of the training if all train, on which the cost of 8-bit integers is measured, at most:
each is predicted twice."""


def train_run(run: Run, tell: Tell = lambda _stage, _progress: None) -> Model:
    """Train one member, choose its operating point, fit its refinement if it has one, calibrate it.

    Tells the name of each stage, for whole scans may take minutes in any of them, and how the training goes on.

    Writes record.json, checkpoint and model.safetensors. A finished run that is resumed is read back instead of trained
    again, unless more steps are asked for: then it goes on, and the learning rate warms up and falls anew. With the
    task's `point` all its cases train, and nothing is chosen. If the task `restarts`, a training that finds no
    lesion from half of its steps on begins anew, by a safer plan; `training_seconds` of the record counts both tries.

    Several ranks prepare, train and choose the operating point together, see `focalis.ranks`; the first of them writes.
    """
    task, inner, length = run.task, run.inner, run.task.length
    made_from = provenance()
    task.home.mkdir(parents=True, exist_ok=True)
    path = task.home / RECORD
    identity = {
        "data_sha256": task.record["data_sha256"],
        "seed": task.seed,
        "aim": task.aim,
        "promise": task.promise,
        "cases": {"train": list(inner.train), "inner": list(inner.val), "held_out": list(task.split.val)},
        "plan": task.plan.model_dump(mode="json", exclude={"reasons"}),
        "runtime": _WHICH_GPU.sub("", str(run.runtime)),
        "start": started_from(task.plan),
    }
    before = ranks.from_first(partial(_started, path, identity, length.steps)) if task.resume else None
    if before is not None and "finished" in before:
        return load_model(task.home / MODEL)
    start = start_of(task.plan)
    if run.runtime.device.type == "cpu":
        keep_freed_memory()
    tell(f"{task.name}: prepare {counted(len(inner.train) + len(inner.val))}", None)
    prepared = prepare_cases(
        run.data.select((*inner.train, *inner.val)), task.plan, task.prepared, task.store
    )
    training, validation = prepared[: len(inner.train)], prepared[len(inner.train) :]
    known = KnownFiles(task.prepared / KNOWN)
    if data_hash(run.data.cases, known.sha256_of) != task.record["data_sha256"]:
        raise DataError.at(task.dataset, "its files changed after they were checked", "start again")
    known.save()
    steps = before["steps"] if before else length.steps
    if steps is None:
        tell(f"{task.name}: measure a step", None)
        measured = steps_in(length.minutes or DEFAULT_MINUTES, task.plan, training, run.runtime)
        steps = ranks.from_first(lambda: measured)
    record = before or {
        **made_from,
        **task.record,
        **identity,
        "threads": torch.get_num_threads(),
        "processes": ranks.count(),
        "float32_because": run.runtime.note,
        "steps": steps,
        "minutes_asked": length.minutes,
    }
    ranks.from_first(partial(write_json, path, record))

    def trained(plan: Plan, *, resume: bool, give_up: bool) -> Network:
        return train(
            plan,
            training,
            validation,
            task.home,
            steps=steps,
            seed=task.seed,
            runtime=run.runtime,
            resume=resume,
            progress=partial(tell, task.name),
            tell=lambda what: tell(f"{task.name}: {what}", None),
            start=start,
            give_up=give_up,
            begin=record.get("continued_from", 0),
        )

    may_restart = task.restarts and not record.get("restarted") and "continued_from" not in record
    plan = safer(task.plan) if record.get("restarted") else task.plan
    try:
        network = trained(plan, resume=task.resume, give_up=may_restart)
    except CollapsedError as error:
        plan = safer(task.plan)
        record["restarted"] = f"{error}; it began once more with {differences(task.plan, plan)}"
        record["seconds_before_restart"] = ranks.from_first(lambda: read_metrics(task.home)[-1]["seconds"])
        warnings.warn(NothingLearnedWarning(task.home, record["restarted"]), stacklevel=2)

        def begin_again() -> None:
            (task.home / CHECKPOINT).unlink(missing_ok=True)
            write_json(path, record)

        ranks.from_first(begin_again)
        network = trained(plan, resume=False, give_up=False)
    if task.point is None:
        tell(f"{task.name}: choose the operating point on {counted(len(validation))}", None)
    point = task.point or operating_point(
        plan, network, validation, run.runtime, task.aim, task.promise, run.data.patients
    )
    if validation:
        tell(f"{task.name}: look at the inner split as before training", None)
    before_training = untrained_look(plan, validation, seed=task.seed, runtime=run.runtime, start=start)
    record["before_training"] = before_training
    still = stood_still(before_training or {}, ranks.from_first(lambda: read_metrics(task.home)[-1]))
    if still and task.point is None:
        at_start = untrained_point(
            plan, validation, task.aim, seed=task.seed, runtime=run.runtime, start=start
        )
        record["start_at_its_point"] = {"found": at_start.found, "dice": at_start.best_dice}
    run = replace(run, task=task.model_copy(update={"plan": plan}))
    return ranks.from_first(partial(_finish, run, network, point, start, record, training, validation, tell))


def _finish(
    run: Run,
    network: Network,
    point: OperatingPoint,
    start: Start | None,
    record: dict[str, Any],
    training: PreparedCases,
    validation: PreparedCases,
    tell: Tell,
) -> Model:
    """Make the model of a trained network, and write it and the record."""
    task, plan = run.task, run.task.plan
    refinement = None
    if split_name(plan.network.name)[1]:
        refinement = fit_refinement(plan, network, validation, run.runtime, point)
        record["refinement"] = asdict(refinement)
    record |= {
        "training_seconds": round(
            record.get("seconds_before_restart", 0.0) + read_metrics(task.home)[-1]["seconds"], 1
        ),
        "threshold": point.threshold,
        **({"promised": point.promise} if point.promise else {}),
        "minimum_mm3": point.minimum_mm3,
        "minimum_confidence": point.minimum_confidence,
        "temperature": round(point.temperature, 4),
        **({"second_look": point.second_look} if point.second_look else {}),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_memory_gb": peak_memory_gb(),
        "finished": now(),
    }
    network.to("cpu")
    seen_before = trained_on(start.provenance, start.name) if start else {}
    model = Model(
        plan,
        (network,),
        point,
        {
            **{name: value for name, value in record.items() if name not in ("plan", "refinement")},
            "images": {TRAINED: seen_before | training.digests(), CHOSE: validation.digests()},
        },
        learn_scope([*training.descriptions(), *validation.descriptions()]),
        refinement,
    )
    if task.eight_bit and run.runtime.device.type == "cpu":
        tell(f"{task.name}: calibrate for 8-bit integers", None)
        cases, of = (validation, "the inner split") if validation else (training, "the training cases")
        model = replace(model, eight_bit=calibrate(model, cases[:CALIBRATED_ON], of))
    save_model(model, task.home / MODEL)
    write_json(task.home / RECORD, record)
    return model


def safer(plan: Plan) -> Plan:
    """A plan that finds something sooner: half the learning rate, and another loss in place of the default one.

    Soft Dice then counts only the classes that a patch holds: of an empty patch it rewards nothing but silence
    (decision 0017).
    """
    training = plan.training.model_copy(update={"learning_rate": plan.training.learning_rate / 2})
    silent = plan.loss.name == "dice_cross_entropy"
    loss = loss_settings("present_dice_cross_entropy") if silent else plan.loss
    return plan.model_copy(update={"loss": loss, "training": training})


def differences(plan: Plan, other: Plan) -> str:
    """What `safer` changed, in words."""
    loss = "" if plan.loss == other.loss else f"the loss {other.loss.name} and "
    return f"{loss}a peak of the learning rate of {other.training.learning_rate:g}"


def _started(path: Path, identity: Mapping[str, Any], steps: int | None) -> dict[str, Any] | None:
    """The record of a run that is resumed, with its plan as this version states it; None if there is none.

    That of a finished run which is to have more steps is that of one which goes on from its end. TrainingError if it is
    another run than the identity's, has other steps, or cannot go on.
    """
    if not path.exists():
        return None
    record: dict[str, Any] = {"aim": "dice", "promise": None, "start": None, **read_json(path)}
    if "plan" in record:
        record["plan"] = Plan.model_validate(record["plan"]).model_dump(mode="json", exclude={"reasons"})
    record["runtime"] = _WHICH_GPU.sub("", record.get("runtime", ""))
    longer = "finished" in record and steps is not None and steps > record["steps"]
    same_steps = {} if steps is None or longer else {"steps": steps}
    if changed := changes(record, {**identity, **same_steps}):
        raise TrainingError.at(
            path, f"the run was started with other settings: {changed}", "give a new folder"
        )
    if not longer:
        return record
    if not (checkpoint := path.with_name(CHECKPOINT)).exists():
        raise TrainingError.at(checkpoint, "is gone, so the run cannot be continued", "train in a new folder")
    del record["finished"]
    return record | {"continued_from": record["steps"], "steps": steps}

"""Few cases: those that chose the operating point train too, once they have chosen (decision 0030)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from focalis import ranks
from focalis.display import counted
from focalis.model import Model, save_model
from focalis.networks import Network
from focalis.training import calibrate, prepare_cases, read_metrics, train
from focalis.training.prepared import PreparedCases
from focalis.training.start import read_start
from focalis.workflows.record import now, peak_memory_gb, read_json, write_json
from focalis.workflows.run import MODEL, Run, Tell
from focalis.workflows.train_run import (
    CALIBRATED_ON,
    CHOSEN_AFTER,
    CONTINUED_FROM,
    JOINED,
    RECORD,
    plan_used,
)
from focalis.workflows.training_cases import CHOSE, TRAINED


def joins(home: Path) -> bool:
    """Whether the cases of a run that choose its operating point join its training after that."""
    return CHOSEN_AFTER in read_json(home / RECORD)


def join_run(run: Run, model: Model, tell: Tell) -> Model:
    """Train on with all training cases, and keep the operating point; the model as it is where that is done already.

    The learning rate warms up and falls once more. Replaces model.safetensors, and says in record.json that they
    joined. All ranks train together.

    Args:
        model: what `train_run` made.
        tell: see `train_run`.
    """
    task, path = run.task, run.task.home / RECORD
    record = ranks.from_first(partial(read_json, path))
    if CHOSEN_AFTER not in record or JOINED in record:
        return model
    cases = run.data.select((*run.inner.train, *run.inner.val))
    tell(f"{task.name}: train on with all {counted(len(cases))}", None)
    training = prepare_cases(cases, task.plan, task.prepared, task.store)
    network = train(
        plan_used(task, record),
        training,
        [],
        task.home,
        steps=record["steps"],
        seed=task.seed,
        runtime=run.runtime,
        resume=True,
        progress=partial(tell, task.name),
        tell=lambda what: tell(f"{task.name}: {what}", None),
        start=read_start(task.plan.start),
        begin=record.get(CONTINUED_FROM, record[CHOSEN_AFTER]),
    )
    return ranks.from_first(partial(_joined, run, network, model, record, training, tell))


def _joined(
    run: Run,
    network: Network,
    model: Model,
    record: Mapping[str, Any],
    training: PreparedCases,
    tell: Tell,
) -> Model:
    """The model with the weights that all cases trained; written, with its record."""
    task, names = run.task, [*run.inner.train, *run.inner.val]
    seconds = record.get("seconds_before_restart", 0.0) + read_metrics(task.home)[-1]["seconds"]
    changed = {
        "training_seconds": round(seconds, 1),
        "peak_memory_gb": max(record["peak_memory_gb"] or 0, peak_memory_gb() or 0) or None,
        JOINED: {"cases": len(names), "finished": now()},
    }
    provenance: dict[str, Any] = dict(model.provenance)
    seen = provenance["images"][TRAINED] | training.digests()
    provenance |= {
        **changed,
        **{name: record[name] for name in ("steps", CONTINUED_FROM) if name in record},
        "cases": {**provenance["cases"], "train": sorted(names)},
        "images": {TRAINED: seen, CHOSE: {}},
    }
    network.to("cpu")
    model = replace(model, members=(network,), provenance=provenance, eight_bit=None)
    if task.eight_bit and run.runtime.device.type == "cpu":
        tell(f"{task.name}: calibrate for 8-bit integers", None)
        model = replace(model, eight_bit=calibrate(model, training[len(run.inner.train) :][:CALIBRATED_ON]))
    save_model(model, task.home / MODEL)
    write_json(task.home / RECORD, {**record, **changed})
    return model

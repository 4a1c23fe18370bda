"""The plan of a run: the given one, the one in its folder, or a new one, changed as was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from focalis.dataset import Dataset
from focalis.errors import PlanError, UsageError
from focalis.networks import split_name
from focalis.planning import (
    SCRATCH,
    SHAPES,
    STAGES_OF_SHAPES,
    Plan,
    make_plan,
    read_plan,
    usual_network,
    usual_start,
    within_memory,
    write_plan,
)
from focalis.planning.parts import augmentations_of, loss_of, loss_settings
from focalis.planning.plan import TrainingSettings
from focalis.planning.sizes import require_sizes_taken
from focalis.settings import DEFAULT_MEMORY_GB, first_fault
from focalis.training.start import read_start, start_of
from focalis.workflows.run import started_from
from focalis.workflows.setup import Trainings

AS_ASKED = "as asked for"
FINE_TUNING = 10
"""What the usual learning rate is divided by where a trained model goes on with its own labels: at all of it the model
forgets what it knows. A fresh output layer learns nothing at so little. Measured by benchmarks/fine_tuning.py."""
_WHY_A_TENTH = "a tenth of the usual learning rate: at all of it a trained model forgets what it knows"


def plan_of_run(
    trainings: Trainings, given: Path | None, path: Path, changes: Mapping[str, Any], resume: bool
) -> Plan:
    """The plan of the run, which is also written to `path`: the given one, the one there, or a new one.

    Its memory budget is that of one training: those that run at a time share the run's. A given plan is used as it is,
    unless it is changed in what a training step takes, or in the memory that there is for one.
    """
    data, parallel = trainings.data, trainings.trainers.sharing
    there = read_plan(path) if path.exists() else None
    whose = ""
    if given is not None or there is not None:
        before = _given_plan(given or path, data)
        shared_by = parallel if given is not None else 1
        plan = before.model_copy(update={"memory_budget_gb": before.memory_budget_gb / shared_by})
    else:
        # An ensemble has one plan. It is made from the training cases of the first fold, among which are cases that
        # later folds hold out: of those it knows spacing, shape and the lesions' range of intensities, no more.
        card_gb = trainings.trainers.card_gb
        memory = float(changes.get("memory_gb") or card_gb or DEFAULT_MEMORY_GB / parallel)
        figures = trainings.fingerprint()
        network, why = network_for(data, changes.get("network"), changes.get("start"))
        plan = before = make_plan(
            figures, data.channels, data.labels, network, memory, data.ignore, data.regions
        )
        reasons = plan.reasons | {"network": f"{why}; {plan.reasons['network']}"}
        plan = before = plan.model_copy(update={"reasons": reasons})
        if card_gb == memory:
            whose = f"the memory of {trainings.trainers.runtime}; "
    plan = _changed(plan, changes)
    if given is not None or there is not None:
        require_sizes_taken(plan)
    if there is not None and plan.without_reasons() == there.without_reasons():
        return there
    if _step_or_memory(plan) != _step_or_memory(before):
        plan = within_memory(plan)
    if whose:
        reason = whose + plan.reasons["memory_budget_gb"]
        plan = plan.model_copy(update={"reasons": plan.reasons | {"memory_budget_gb": reason}})
    if resume and there is not None and plan.without_reasons() != there.without_reasons():
        raise PlanError.at(path, "the run follows another plan", "leave --plan, --network and the like out")
    write_plan(plan, path)
    return plan


def network_for(data: Dataset, network: str | None = None, start: str | None = None) -> tuple[str, str]:
    """The network of a new plan, and why: the one asked for, that of the model it starts from, or the usual one.

    All cases of the data set count, whether held out or not: a model and the folds that tell its figures are alike.

    Args:
        network, start: what is asked for, if anything.
    """
    if network:
        return network, AS_ASKED
    if start not in (None, SHAPES):
        model = read_start(str(start))
        if model is not None and model.plan is not None:
            name = split_name(model.plan.network.name)[0]
            return name, f"{name}: that of the model it starts from"
        return "dense", "dense: small-unet is usual from shapes alone"
    return usual_network(len(data.cases), len(data.channels), nested=bool(data.regions))


def _differences(plan: Plan, data: Dataset) -> str:
    """In what a plan is not for a data set; empty if it is for it. A label that no case holds may be left out."""
    both: dict[str, tuple[Any, Any]] = {
        "channels": (plan.channels, data.channels),
        "labels": (tuple(sorted({*plan.labels})), tuple(sorted(data.labels))),
        "ignored value": (plan.ignore, data.ignore),
        "regions": (dict(plan.regions), dict(data.regions)),
    }
    return "; ".join(
        f"{what} {_told(there)} in the plan, {_told(here)} in the data"
        for what, (there, here) in both.items()
        if there != here and not (what == "labels" and set(here) <= set(there))
    )


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {list(values)}" for name, values in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value or "none")


def start_ahead(settled: Plan | None, network: str | None) -> str | None:
    """What training starts from if no start is asked for, as far as that is known before the data is looked at."""
    if settled and (not network or settled.reasons.get("start") == AS_ASKED):
        return settled.start
    return (
        SCRATCH if usual_start(network or "dense", STAGES_OF_SHAPES, 1, nested=False)[0] == SCRATCH else None
    )


def _given_plan(path: Path, data: Dataset) -> Plan:
    """The plan in a file; PlanError if it is for other data."""
    plan = read_plan(path)
    if other := _differences(plan, data):
        raise PlanError.at(path, f"is of another data set: {other}", "make a new plan")
    return plan


def _step_or_memory(plan: Plan) -> tuple[Any, ...]:
    """What decides whether a training step fits the memory, as far as options change it."""
    return plan.network, plan.loss, plan.memory_budget_gb


def with_rate_of_start(plan: Plan) -> Plan:
    """The plan with the learning rate for its start: a tenth of the usual one if that is a model of the plan's labels.

    A rate that is neither the usual one nor was chosen here for an earlier start is a person's and stays.
    """
    usual, rate = TrainingSettings().learning_rate, plan.training.learning_rate
    why = [reason for reason in plan.reasons.get("training", "").split("; ") if reason]
    chosen_here = _WHY_A_TENTH in why and math.isclose(rate, usual / FINE_TUNING)
    if rate != usual and not chosen_here:
        return plan
    why = [reason for reason in why if reason != _WHY_A_TENTH]
    if goes_on(plan):
        rate, why = usual / FINE_TUNING, [*why, _WHY_A_TENTH]
    else:
        rate = usual
    reasons = {name: reason for name, reason in plan.reasons.items() if name != "training"}
    return plan.model_copy(
        update={
            "training": plan.training.model_copy(update={"learning_rate": rate}),
            "reasons": reasons | ({"training": "; ".join(why)} if why else {}),
        }
    )


def goes_on(plan: Plan) -> bool:
    """Whether the plan's start is a model of the plan's labels, so that its output layer goes along."""
    start = start_of(plan)
    return start is not None and start.has_labels_of(plan)


def rate_told(plan: Plan) -> str:
    """The learning rate of a start, for a person: empty if it is the usual one."""
    factor = plan.training.learning_rate / TrainingSettings().learning_rate
    return "" if factor == 1 else f"{factor:.3g} of the usual learning rate"


def rate_doubted(plan: Plan) -> str:
    """A warning if a trained model goes on at the usual learning rate, as only a plan can say; else empty."""
    usual = TrainingSettings().learning_rate
    if plan.training.learning_rate < usual or plan.freeze == "all-but-head" or not goes_on(plan):
        return ""
    return (
        f"the plan starts from {plan.start} at the usual learning rate, at which a trained model forgets what it "
        "knows; for a tenth of it give --start with the model, or write training: learning_rate into the plan"
    )


def _changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    before = plan.start
    if network := changes.get("network"):
        if plan.reasons.get("start") != AS_ASKED:
            stages, nested = len(plan.network.strides_zyx), bool(plan.regions)
            start, why = usual_start(str(network), stages, len(plan.channels), nested=nested)
            plan = plan.model_copy(update={"start": start, "reasons": plan.reasons | {"start": why}})
        if network != plan.network.name:
            _, *more = plan.reasons.get("network", "").split("; ", 1)
            plan = plan.model_copy(
                update={"reasons": plan.reasons | {"network": "; ".join([AS_ASKED, *more])}}
            )
        plan = plan.model_copy(update={"network": plan.network.model_copy(update={"name": network})})
    if loss := changes.get("loss"):
        plan = plan.model_copy(update={"loss": loss_settings(str(loss))})
    if readers := changes.get("readers"):
        plan = plan.model_copy(update={"readers": readers})
    plain = ("start", "freeze", "channels_may_miss")
    plan = plan.model_copy(update={name: changes[name] for name in plain if changes.get(name)})
    if memory := changes.get("memory_gb"):
        plan = plan.model_copy(update={"memory_budget_gb": memory})
    reasons = plan.reasons | {
        name: AS_ASKED
        for name in ("loss", "readers", "start", "freeze", "channels_may_miss")
        if changes.get(name) is not None
    }
    try:
        plan = Plan.model_validate(plan.model_dump() | {"reasons": reasons})
    except ValidationError as error:
        raise UsageError(f"the plan as it would be changed: {first_fault(error)[1]}") from None
    if plan.start != before or changes.get("start"):
        plan = with_rate_of_start(plan)
    # An unknown name, or a start of another network, stops here, not after the data has been prepared.
    started_from(plan), loss_of(plan), augmentations_of(plan)
    return plan

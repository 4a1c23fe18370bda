"""Networks and losses side by side: the same cases, preparation, patches and augmentation, the same time or steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from focalis.dataset import Dataset, open_dataset
from focalis.display import Shown
from focalis.errors import ModelError, PlanError, TrainingError, UsageError
from focalis.files import only_process_in
from focalis.losses import loss_names
from focalis.networks import network_names, split_name
from focalis.planning import SCRATCH, Fingerprint, Plan, make_plan, read_plan, within_memory, write_plan
from focalis.planning.parts import check_names, loss_settings
from focalis.planning.plan import LossSettings, NetworkSettings
from focalis.settings import DEFAULT_MEMORY_GB, Compute, Folds, Length, at_least
from focalis.training.start import read_start
from focalis.workflows.comparison import Row, content_of, write_comparison
from focalis.workflows.record import changes, provenance, read_json, write_json
from focalis.workflows.run import Task, Tell, started_from
from focalis.workflows.run_plan import network_for, with_rate_of_start
from focalis.workflows.setup import Trainers, Trainings, claim, divide

SETTINGS, PLAN = "settings.json", "plan.yaml"
SPLIT_SEED = 0
"""Splits that are made and not given are the same whatever the runs' seeds are, and those of `fit` with seed 0."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What `compare` made.

    Attributes:
        folder: the folder of all rows.
        left: what is to do before all rows are there, where they train elsewhere; empty otherwise.
    """

    shows = ("folder", "page", "alert")

    folder: Path
    json: Path
    page: Path
    content: dict[str, Any]
    left: str = ""

    @property
    def alert(self) -> str:
        """What has to be known before any figure: no run learned anything; empty if one did."""
        return str(self.content.get("alert") or "")


def compare(
    dataset: Path | str,
    out: Path | str,
    *,
    networks: Sequence[str] = (),
    losses: Sequence[str] = (),
    minutes: float | None = None,
    steps: int | None = None,
    seeds: Sequence[int] = (0,),
    fold: int | None = None,
    folds: int | None = None,
    splits: Path | str | None = None,
    channels_may_miss: Sequence[str] = (),
    start: Path | str | None = None,
    parallel: int = 1,
    on: str | None = None,
    verify: bool = False,
    prepared: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    memory_gb: float | None = None,
    progress: Tell | None = None,
    doubt: Callable[[str], None] | None = None,
) -> Comparison:
    """Train networks and losses on the same data and set them side by side.

    The rows are every network with the first loss, then every other loss with the first network. Each run (a row, a
    fold, a seed) is trained in a process of its own, in a folder below `out` like one of `fit`. The same call again
    goes on where it stopped: a finished run is not trained again, one that failed is tried again.

    Args:
        dataset: as for `fit`.
        out: folder of the comparison, new or empty, or one that the same comparison was started in; rows and seeds
            may be added.
        networks, losses: names. The first of each make the row that the others are compared with. Without networks
            it is that of the rows that are there, or of the plan that `fit` would make; without losses the plan's.
        minutes: training time of each row, turned into steps once per row by measuring; 30 if `steps` is not given.
        steps: optimiser steps of each row instead.
        seeds: every row is trained once with each.
        fold: the fold to hold out, from 0; 0 if neither `fold` nor `folds` is given.
        folds: hold out each of that many folds in turn.
        splits: JSON file of splits, as for `fit`.
        channels_may_miss: channels that cases may lack, see `fit`.
        start: the weights that every row starts from, see `fit`; if not given, those of the rows that are there.
        parallel: runs at a time; more than 1 only with `steps`, because they share the processor.
        on: the executor that carries out the runs, see `fit`; `processes` if not given.
        device, precision: where and how to compute.
        threads: processor threads of each run; all, divided by `parallel`, if not given.
        memory_gb: memory that a run may take, see `fit`.
        verify: read every file of the data set again, also those whose size, times and inode are as they were.
        prepared: the object store that keeps prepared cases, such as s3://bucket/prefix; a folder in `out` by default.
        progress: called with the name of the run and, in training, with its progress.
        doubt: called with each doubt about the data, see `fit`.

    Raises:
        UsageError: unknown names, options that contradict each other, an `out` that holds something else.
        DataError: the data set has faults.
        TrainingError: no run finished; the report says why.
    """
    made_from = provenance()
    for what, given in (("network", networks), ("loss", losses), ("seed", seeds)):
        for twice in (each for place, each in enumerate(given) if each in given[:place]):
            raise UsageError(f"{what} {twice} is given twice; give each once")
    _rows(networks or [NetworkSettings().name], losses)  # names are looked at before the data is
    length = Length(minutes, steps)
    fold = 0 if fold is None and folds is None else fold
    held_out = Folds(fold, folds, None if splits is None else Path(splits))
    compute = Compute(device, precision, threads, memory_gb)
    if not seeds:
        raise UsageError("no seed is given; give one or more")
    at_least("seed", min(seeds), 0)
    start = None if start is None else str(start)
    read_start(start or SCRATCH)
    trainers = Trainers.of(on or "processes", parallel, compute)
    elsewhere = trainers.executor.elsewhere
    if (parallel > 1 or elsewhere) and length.steps is None:
        raise UsageError(
            "rows in parallel share the processor or have several, so their times say nothing; give steps"
        )
    if not elsewhere:
        compute = replace(compute, threads=compute.threads or max(1, torch.get_num_threads() // parallel))
    tell = progress or (lambda _stage, _progress: None)
    root = Path(out)
    data = open_dataset(Path(dataset), channels_may_miss)
    fault = "is not empty and holds no comparison; give a new folder"
    claim(root, "comparison", (root / SETTINGS).exists(), fault)
    divide(data, held_out, SPLIT_SEED)  # reports faults of the splits before an image is read
    with only_process_in(root, "comparison"):
        tell("check", None)
        trainings = Trainings.of(
            root, Path(dataset), data, held_out, SPLIT_SEED, trainers, doubt, verify=verify, store=prepared
        )
        divisions = [(number or 0, split) for number, split in trainings.divisions]
        tell("plan", None)
        memory = compute.memory_gb or trainers.card_gb or DEFAULT_MEMORY_GB
        there = sorted(root.glob(f"*/{PLAN}"))  # the folder's rows have one start
        kept = start or (read_plan(there[0]).start if there else None)
        figures = trainings.fingerprint()
        rows = _rows(networks or [_one_network(there, trainings.data, start)], losses)
        plans = shared_plans(trainings.data, figures, rows, memory, kept, tuple(channels_may_miss))
        try:
            for plan in plans.values():
                started_from(plan)
        except ModelError as error:
            if kept == start:
                raise
            raise UsageError.at(
                root,
                f"its rows start from {kept}, and so would those that are added",
                f"give a new folder ({error})",
            ) from error
        record = trainings.record(made_from["command"])
        settings: dict[str, Any] = {
            "dataset": record["dataset"],
            "data_sha256": record["data_sha256"],
            "minutes": length.minutes,
            "steps": length.steps,
            "runtime": trainers.runtime,
            "threads": compute.threads,
            "memory_gb": memory,
            "splits": [{"fold": n, "train": list(s.train), "val": list(s.val)} for n, s in divisions],
        }
        _same_comparison(root, settings, plans)
        tasks = [
            trainings.task(
                f"{row.network}, {row.loss}, fold {number}, seed {seed}",
                root / row.name / f"fold_{number}-seed_{seed}",
                plans[row],
                seed,
                fold=number,
                split=split,
                length=length,
                compute=compute,
                record={**record, "seed": seed},
            )
            # seeds outermost, then folds: a stop early on leaves whole comparisons
            for seed in dict.fromkeys(seeds)
            for number, split in divisions
            for row in rows
        ]
        left = ""
        trainers.prepare(tasks, trainings.data, parallel, tell)
        with suppress(TrainingError):  # the table says which failed, and why
            left = trainers.executor.run(tasks if elsewhere else waiting(tasks), parallel, tell)
        tell("report", None)
        by_row = {row: [task for task in tasks if task.plan is plans[row]] for row in rows}
        content = content_of(by_row, trainings.data, settings, made_from)
        json, page = write_comparison(root, by_row, trainings.data, content)
    if not left and not any(row["figures"] for row in content["rows"]):
        reasons = "; ".join(
            f"{run['folder']}: {run['message']}" for row in content["rows"] for run in row["runs"]
        )
        raise TrainingError.at(page, f"no run finished ({reasons})")
    return Comparison(root, json, page, content, left)


def shared_plans(
    data: Dataset,
    figures: Fingerprint,
    rows: Sequence[Row],
    memory_gb: float,
    start: str | None = None,
    channels_may_miss: tuple[str, ...] = (),
) -> dict[Row, Plan]:
    """A plan per row: spacing, normalisation, patch, batch and training are one and the same, strides the network's.

    The patch, which must be a multiple of every network's total stride, is that of the most strided one. The batch is
    the largest, up to that network's own, with which every row fits the memory. All start from `start`, or as their
    plans say if that is one and the same, or from random weights.

    Raises:
        PlanError: a network cannot be planned for the data.
    """
    plans = {
        network: _planned(
            network,
            partial(
                make_plan, figures, data.channels, data.labels, network, memory_gb, data.ignore, data.regions
            ),
        )
        for network in dict.fromkeys(row.network for row in rows)
    }
    deepest = max(plans.values(), key=lambda plan: math.prod(plan.network.total_stride_zyx))
    batch = deepest.batch
    starts = {plan.start for plan in plans.values()}
    chosen = start or (starts.pop() if len(starts) == 1 else SCRATCH)
    reasons = {
        "patch_zyx": f"{deepest.reasons['patch_zyx']}; one for all rows",
        "batch": f"{deepest.reasons['batch']}; one for all rows, so that all fit",
    }
    if start or starts:
        reasons["start"] = (
            "as asked for, or as in the rows that are there"
            if start
            else "random weights: no other start fits every row's network"
        )
    shared: dict[Row, Plan] = {}
    for row in rows:
        own = plans[row.network]
        changes = {
            "patch_zyx": deepest.patch_zyx,
            "batch": batch,
            "loss": loss_settings(row.loss),
            "channels_may_miss": channels_may_miss,
            "start": chosen,
            "reasons": own.reasons | reasons,
        }
        started = with_rate_of_start(own.model_copy(update=changes))
        shared[row] = _planned(row.network, partial(within_memory, started))
        batch = shared[row].batch
    return {
        row: plan if plan.batch == batch else within_memory(plan.model_copy(update={"batch": batch}))
        for row, plan in shared.items()
    }


def _one_network(there: Sequence[Path], data: Dataset, start: str | None) -> str:
    """The network of losses that are compared alone: that of the rows that are there, or the one that `fit` takes."""
    known = {read_plan(path).network.name for path in there}
    return known.pop() if len(known) == 1 else network_for(data, start=start)[0]


def _planned(network: str, make: Callable[[], Plan]) -> Plan:
    """What `make` makes; its PlanError says which network it was."""
    try:
        return make()
    except PlanError as error:
        raise PlanError(f"{network}: {error}; or leave the network out") from error


def _rows(networks: Sequence[str], losses: Sequence[str]) -> list[Row]:
    """Every network with the first loss, then the other losses with the first network; UsageError for unknown names."""
    for network in networks:
        check_names(network, None)
    for loss in losses:
        check_names(None, loss)
    names = list(dict.fromkeys(networks))
    terms = list(dict.fromkeys(losses)) or [LossSettings().name]
    rows = [Row(name, terms[0]) for name in names] + [Row(names[0], loss) for loss in terms[1:]]
    if len(rows) < 2:
        raise UsageError(
            "a comparison needs two networks or two losses; known networks are "
            f"{', '.join(network_names())}, known losses {', '.join(loss_names())}"
        )
    return rows


def _same_comparison(root: Path, settings: dict[str, Any], plans: dict[Row, Plan]) -> None:
    """Write settings and plans down, or refuse if the comparison in the folder was started with others."""
    path = root / SETTINGS
    before = read_json(path) if path.exists() else settings
    if changed := changes(before, settings):
        raise UsageError.at(
            path, f"the comparison was started with other settings: {changed}", "give a new folder"
        )
    for row, plan in plans.items():
        plan_path = root / row.name / PLAN
        if plan_path.exists() and (difference := _changes(read_plan(plan_path), plan)):
            raise UsageError.at(
                plan_path,
                f"the row was started with another plan ({difference}). All rows share one start, and one "
                "patch, which follows the deepest network: neither can be changed later. Give a new folder",
            )
    write_json(path, settings)
    for row, plan in plans.items():
        if not (root / row.name / PLAN).exists():
            write_plan(plan, root / row.name / PLAN)


def _changes(before: Plan, now: Plan) -> str:
    """What differs between two plans, in words; empty if nothing does."""
    old, new = (plan.model_dump(mode="json", exclude={"reasons"}) for plan in (before, now))
    return "; ".join(
        f"{name} was {old[name]} and would be {new[name]}" for name in new if old[name] != new[name]
    )


def waiting(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that are not finished, numbered. Those that train the same weights take the same number of steps.

    A row that differs by the refinement alone does: the difference is then what the refinement does.
    """

    def trained(task: Task) -> tuple[str, str]:
        return split_name(task.plan.network.name)[0], task.plan.loss.name

    left = [task for task in tasks if not task.finished]
    return [
        task.model_copy(
            update={
                "name": f"{task.name} ({number} of {len(left)})",
                "same_steps_as": tuple(other.home for other in tasks if trained(other) == trained(task)),
            }
        )
        for number, task in enumerate(left, start=1)
    ]

"""The main job: check, plan, train, choose the operating point, predict what was held out, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from focalis.dataset import Dataset, Split, empty_side, find_splits, make_splits, open_dataset, read_splits
from focalis.errors import DataError, PlanError, UsageError
from focalis.evaluation import Summary
from focalis.model import EightBit, Model, OperatingPoint, save_model
from focalis.planning import Plan, fingerprint, make_plan, read_plan, write_plan
from focalis.planning.parts import loss_of, network_of
from focalis.prediction import choose_runtime
from focalis.quality import check_dataset
from focalis.training import Progress
from focalis.workflows.judge import judge, write_judgement
from focalis.workflows.record import data_hash, provenance
from focalis.workflows.run import Budget, Run, train_run

DEFAULT_FOLDS = 5
DEFAULT_MINUTES = 30.0
DEFAULT_MEMORY_GB = 8.0
PLAN, MODEL, REPORT = "plan.yaml", "model.safetensors", "report.html"


@dataclass(frozen=True)
class FitResult:
    """What `fit` made.

    Attributes:
        run: the run's folder.
        plan: its plan file.
        model: the model file; None if only a plan was asked for.
        report: the HTML report; None likewise.
        summary: figures on the cases that `judged_on` names; None likewise.
        judged_on: one line that says which cases these are.
    """

    run: Path
    plan: Path
    model: Path | None = None
    report: Path | None = None
    summary: Summary | None = None
    judged_on: str = ""


def fit(
    dataset: Path | str,
    out: Path | str,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    fold: int | None = None,
    folds: int | None = None,
    splits: Path | None = None,
    plan: Path | None = None,
    plan_only: bool = False,
    network: str | None = None,
    loss: str | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    memory_gb: float | None = None,
    progress: Callable[[str, Progress | None], None] | None = None,
) -> FitResult:
    """Train a model on a data set and say how good it is.

    Without `fold` and `folds` all labelled cases train, but for an inner split on which the operating point is chosen
    and the figures are taken. With `fold` the cases of that fold's `val` are held out and predicted once at the end.
    With `folds` every fold is trained so; the members become one ensemble and the held-out figures are pooled.

    Args:
        dataset: folder with images/ and labels/.
        out: the run's folder, new or empty unless `resume`.
        minutes: training time per fold, turned into a number of steps once by measuring; 30 if `steps` is not given.
        steps: optimiser steps per fold instead.
        fold: the fold to hold out, from 0.
        folds: the number of folds to train.
        splits: JSON file of splits; otherwise the one splits*.json in the data set, otherwise made by patient.
        plan: a plan file to follow.
        plan_only: write plan.yaml and stop.
        network, loss: names that replace the plan's.
        seed: seed of every random choice.
        resume: go on with the run in `out`.
        device, precision, threads: where and how to compute.
        memory_gb: memory that the run may take; 8 unless the plan says otherwise.
        progress: called with the name of the stage and, in training, with its progress.

    Raises:
        DataError: the data set has faults, one per line.
        UsageError: options that contradict each other, or an `out` that holds something else.
        TrainingError: training diverged; the last good weights are kept.
    """
    if minutes is not None and steps is not None:
        raise UsageError("give minutes or steps, not both")
    if fold is not None and folds is not None:
        raise UsageError("give fold or folds, not both")
    for name, value, least in (
        ("steps", steps, 1),
        ("fold", fold, 0),
        ("folds", folds, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}; give {least} or more")
    if minutes is not None and minutes <= 0:
        raise UsageError(f"minutes is {minutes:g}; give more than 0")
    tell = progress or (lambda _stage, _progress: None)
    root = Path(out)
    data = open_dataset(Path(dataset))
    _claim(root, resume)
    tell("check", None)
    data = _checked(data)
    divisions = _divisions(data, fold, folds, splits, seed)
    tell("plan", None)
    plan_path = root / PLAN
    changes = {"network": network, "loss": loss, "memory_gb": memory_gb}
    chosen = _plan(data, divisions, plan, plan_path, changes, resume)
    if plan_only:
        return FitResult(root, plan_path)
    if threads:
        torch.set_num_threads(threads)
    runtime = choose_runtime(device, precision)
    budget = Budget(DEFAULT_MINUTES if minutes is None else minutes, steps)
    record = {
        **provenance(),
        "dataset": data.root.resolve().name,
        "data_sha256": data_hash(data.cases),
        "seed": seed,
    }

    models, judged = [], []
    for number, division in divisions:
        home = root / f"fold_{number}" if folds else root
        run = Run(home, root / "prepared", data, division, chosen, seed, runtime, record)
        name = "train" if number is None else f"fold {number}"
        models.append(train_run(run, budget, resume=resume, progress=partial(tell, name)))
        tell("predict", None)
        judged_on = _judged_on(number, len(run.judged))
        judged.append(judge(run, models[-1], judged_on))
    if not folds:
        return FitResult(root, plan_path, root / MODEL, root / REPORT, judged[0][1], judged_on)

    save_model(_ensemble(models), root / MODEL)
    judged_on = (
        f"held-out cases of {len(models)} folds, each predicted by the member that did not train on it"
    )
    pooled = [score for scores, _ in judged for score in scores]
    predictions = {
        name: root / f"fold_{n}" / "predictions" for n, division in divisions for name in division.val
    }
    summary = write_judgement(root, data, pooled, predictions, judged_on, [], record)
    return FitResult(root, plan_path, root / MODEL, root / REPORT, summary, judged_on)


def _claim(root: Path, resume: bool) -> None:
    """Make the run's folder; never write into one that holds something else."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: is a file; give a folder for the run")
    if root.is_dir() and any(root.iterdir()) and not resume:
        only_a_plan = {path.name for path in root.iterdir()} == {PLAN}
        if not only_a_plan:
            raise UsageError(
                f"{root}: is not empty; give a new folder, or --resume to go on with the run in it"
            )
    root.mkdir(parents=True, exist_ok=True)


def _checked(data: Dataset) -> Dataset:
    """The data set with its labels named; DataError with one line per fault."""
    result = check_dataset(data)
    if result.problems:
        raise DataError("\n".join(str(problem) for problem in result.problems))
    labels = dict(data.labels) or {value: f"label {value}" for value in result.label_values}
    return replace(data, labels=labels)


def _divisions(
    data: Dataset, fold: int | None, folds: int | None, path: Path | None, seed: int
) -> list[tuple[int | None, Split]]:
    """The splits to train, with their numbers; one without a number where nothing is held out."""
    names = tuple(case.name for case in data.cases)
    if fold is None and folds is None:
        return [(None, Split(names, ()))]
    path = find_splits(data.root, path)
    all_splits = read_splits(path, names) if path else make_splits(data.cases, folds or DEFAULT_FOLDS, seed)
    wanted = list(range(folds)) if folds is not None else [fold or 0]
    if max(wanted) >= len(all_splits):
        raise UsageError(
            f"there are {len(all_splits)} folds, from 0 to {len(all_splits) - 1}; fold {max(wanted)} is not one"
        )
    chosen: list[tuple[int | None, Split]] = [(number, all_splits[number]) for number in wanted]
    validated: set[str] = set()
    for number, split in chosen:
        if empty := empty_side(path, number, split):
            raise DataError(empty)
        if twice := validated & set(split.val):
            raise DataError(f"{path}: {min(twice)} validates in two folds; keep it in one")
        validated |= set(split.val)
    return chosen


def _plan(
    data: Dataset,
    divisions: Sequence[tuple[int | None, Split]],
    given: Path | None,
    path: Path,
    changes: Mapping[str, str | float | None],
    resume: bool,
) -> Plan:
    """The plan of the run, which is also written to `path`: the given one, the one there, or a new one."""
    if given is None and path.exists():
        given = path
    if given is not None:
        plan = read_plan(given)
        if (
            plan.channels != data.channels
            or not set(data.labels) <= set(plan.labels)
            or plan.ignore != data.ignore
        ):
            raise PlanError(
                f"{given}: is for channels {', '.join(plan.channels)}, labels {sorted(plan.labels)}, ignored value "
                f"{plan.ignore}; the data set has {', '.join(data.channels)}, {sorted(data.labels)}, {data.ignore}; "
                "make a new plan"
            )
    else:
        # An ensemble has one plan. It is made from the training cases of the first fold, among which are cases that
        # later folds hold out: of those it knows spacing, shape and the lesions' range of intensities, no more.
        figures = fingerprint(data.select(divisions[0][1].train), data.ignore)
        network, memory = (
            str(changes.get("network") or "dense"),
            float(changes.get("memory_gb") or DEFAULT_MEMORY_GB),
        )
        plan = make_plan(figures, data.channels, data.labels, network, memory, data.ignore)
    plan = _changed(plan, changes)
    if not path.exists() or read_plan(path) != plan:
        if resume and path.exists():
            raise PlanError(f"{path}: the run follows another plan; leave --plan, --network and the like out")
        write_plan(plan, path)
    return plan


def _changed(plan: Plan, changes: Mapping[str, str | float | None]) -> Plan:
    if network := changes.get("network"):
        plan = plan.model_copy(update={"network": plan.network.model_copy(update={"name": network})})
    if loss := changes.get("loss"):
        plan = plan.model_copy(update={"loss": plan.loss.model_copy(update={"name": loss})})
    if memory := changes.get("memory_gb"):
        plan = plan.model_copy(update={"memory_budget_gb": memory})
    plan = Plan.model_validate(plan.model_dump())
    network_of(plan), loss_of(plan)  # an unknown name stops here, not after the data has been read
    return plan


def _ensemble(models: Sequence[Model]) -> Model:
    """One model of several: probabilities are averaged, and so are the thresholds that each member chose."""
    threshold = float(np.mean([model.operating_point.threshold for model in models]))
    how = f"mean of the thresholds of {len(models)} members, each chosen on its own inner split"
    provenance_ = {"members": [dict(model.provenance) for model in models]}
    members = tuple(member for model in models for member in model.members)
    return Model(
        models[0].plan, members, OperatingPoint(threshold, how), provenance_, eight_bit=_calibration(models)
    )


def _calibration(models: Sequence[Model]) -> EightBit | None:
    """That of all members; the loss is the largest of any. None if a member has none."""
    found = [model.eight_bit for model in models if model.eight_bit is not None]
    if len(found) < len(models):
        return None
    ranges = tuple(member for each in found for member in each.ranges)
    return EightBit(ranges, max(each.dice_loss for each in found), "; ".join(each.how for each in found))


def _judged_on(number: int | None, cases: int) -> str:
    if number is not None:
        return f"{cases} held-out cases of fold {number}, predicted once after every choice was made"
    return f"{cases} cases of the inner split: none trained, but they chose the threshold, so the figures flatter"

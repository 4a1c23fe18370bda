"""The main job: check, plan, train, choose the operating point, predict what was held out, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from focalis import ranks
from focalis.dataset import open_dataset
from focalis.display import Shown
from focalis.errors import UsageError
from focalis.evaluation import Aim, Promise, Summary
from focalis.files import LOCK, only_process_in
from focalis.model import open_model
from focalis.networks import REFINED, split_name
from focalis.planning import SCRATCH, Freeze, Readers, read_plan
from focalis.planning.parts import check_names
from focalis.settings import Compute, Folds, Length, at_least
from focalis.training.start import read_start
from focalis.workflows.fit_figures import (
    ALL,
    SAFER_BECAUSE,
    Figures,
    add_outlook,
    join_folds,
    on_all_cases,
    pool_folds,
)
from focalis.workflows.learning_curve import on_parts
from focalis.workflows.record import provenance, read_json
from focalis.workflows.run import MODEL, Tell, started_from
from focalis.workflows.run_plan import plan_of_run, rate_doubted, rate_told, start_ahead
from focalis.workflows.setup import PREPARED, Trainers, Trainings, claim, divide
from focalis.workflows.slurm import TASKS
from focalis.workflows.task import read_judgement, train_and_judge, with_masks

PLAN, REPORT = "plan.yaml", "report.html"
NO_THEN_ALL = (
    "--then-all keeps the operating point that was chosen before; leave --promise, --on slurm and +crf out"
)


@dataclass(frozen=True, repr=False)
class FitResult(Shown):
    """What `fit` made.

    Attributes:
        model: the model file; None if only a plan was asked for.
        report: the HTML report; None likewise.
        summary: figures on the cases that `judged_on` names; None likewise.
        judged_on: one line that says which cases these are.
        float32_because: why the run computed in float32 where a lower precision was meant; empty otherwise.
        alert: what has to be known before any figure, with what to do: the network found nothing, or marks everything;
            empty if neither.
        learned: False if nothing at all was learned.
        collapsed_folds: with `folds`, those whose network found nothing or marks everything.
        caveats: what has to be known of the cases before any figure, a line each: that they are few, that none of those
            judged holds a lesion, and the like.
        start: the weights that training starts from, and what is taken over; empty for random ones.
        promise: what holds on new scans at the model's operating point, or why nothing does; empty if not asked for.
        outlook: what more training cases are likely to bring, in a sentence; empty if not asked for.
        all_cases: the model that was trained on all cases in the end; None unless asked for.
        left: what is to do before there is a model, where trainings run elsewhere; empty otherwise.
    """

    shows = ("run", "summary", "judged_on", "alert", "float32_because")

    run: Path
    plan: Path
    model: Path | None = None
    report: Path | None = None
    summary: Summary | None = None
    judged_on: str = ""
    float32_because: str = ""
    alert: str = ""
    learned: bool = True
    collapsed_folds: tuple[int, ...] = ()
    caveats: tuple[str, ...] = ()
    start: str = ""
    promise: str = ""
    outlook: str = ""
    left: str = ""
    all_cases: Path | None = None


@ranks.led(train_and_judge)
def fit(
    dataset: Path | str,
    out: Path | str,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    fold: int | None = None,
    folds: int | None = None,
    then_all: bool = False,
    splits: Path | str | None = None,
    plan: Path | str | None = None,
    plan_only: bool = False,
    network: str | None = None,
    loss: str | None = None,
    aim: str = "dice",
    promise: str | None = None,
    readers: Readers | None = None,
    channels_may_miss: Sequence[str] | None = None,
    start: Path | str | None = None,
    freeze: Freeze | None = None,
    seed: int = 0,
    eight_bit: bool = True,
    learning_curve: bool = False,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    memory_gb: float | None = None,
    parallel: int = 1,
    on: str | None = None,
    verify: bool = False,
    prepared: str | None = None,
    progress: Tell | None = None,
    doubt: Callable[[str], None] | None = None,
) -> FitResult:
    """Train a model on a data set and say how good it is.

    Without `fold` and `folds` all labelled cases train, except an inner split on which the operating point is chosen
    and the figures are taken. With `fold` the cases of that fold's `val` are held out and predicted once at the end.
    With `folds` every fold is trained so; the members become one ensemble and the held-out figures are pooled.
    With several processes (see `focalis.ranks`), the first one prepares and judges, and all train together.

    Args:
        dataset: folder with images/ and labels/.
        out: the run's folder, new or empty unless `resume`.
        minutes: training time per fold, turned into a number of steps once by measuring; 30 if `steps` is not given.
        steps: optimiser steps per fold instead.
        fold: the fold to hold out, from 0.
        folds: the number of folds to train.
        then_all: afterwards train one more model on all cases, those of the inner split and held-out ones too,
            OUT/all/model.safetensors, with the operating point that was chosen before.
        splits: JSON file of splits; otherwise the one splits*.json in the data set, otherwise made by patient.
        plan: a plan file to follow.
        plan_only: write plan.yaml and stop.
        network, loss: names that replace the plan's; `+crf` behind the network's name refines its probabilities.
        aim: what the operating point is chosen for: dice, or fp-per-scan=X, the greatest sensitivity with no more false
            positives per scan.
        promise: what the operating point is to hold on new scans, miss<=10% or fp-per-scan<=1, see
            `focalis.evaluation.Promise`; where it can be kept, it replaces the aim's point.
        readers: what cases with masks of several readers, `raters/CASE_READER`, train on; replaces the plan's.
        channels_may_miss: channels that cases may lack, in training and prediction; replaces the plan's.
        start: the weights to start from: scratch, shapes, or a model's file; replaces the plan's.
        freeze: which of the start's weights stay as they are: nothing, encoder, or all-but-head; replaces the plan's.
        seed: seed of every random choice.
        eight_bit: calibrate the model for 8-bit integers at the end; never done where a GPU trains.
        learning_curve: with `fold`, train on a third and on two thirds of the training cases too, and say what twenty
            more are likely to bring.
        resume: go on with the run in `out`.
        device, precision, threads: where and how to compute.
        memory_gb: memory that the run may take; 8 unless the plan says otherwise.
        parallel: folds at a time, each in a process of its own; they share threads and memory evenly. Cases are
            prepared by as many processes, also those of one training where `on` is `processes`.
        on: the executor that carries out the folds: `here`, `processes`, `slurm`, `ray`, or one that a package
            registers; `processes` if `parallel` is more than 1. With `slurm` the same call again collects.
        verify: read every file of the data set again, also those whose size, times and inode are as they were.
        prepared: the object store that keeps prepared cases, such as s3://bucket/prefix; a folder in `out` by default.
        progress: called with the name of the stage and, in training, with its progress.
        doubt: called before the training with each line that a person should know of the data: what `focalis check`
            says of mix-ups, too few cases, and names that are passed over.

    Raises:
        DataError: the data set has faults, one per line.
        UsageError: options that contradict each other, an unknown name, or an `out` that holds something else.
        TrainingError: training diverged; the last good weights are kept.
    """
    length = Length(minutes, steps)
    held_out = Folds(fold, folds, None if splits is None else Path(splits))
    plan, start = None if plan is None else Path(plan), None if start is None else str(start)
    compute = Compute(device, precision, threads, memory_gb)
    at_least("seed", seed, 0)
    if parallel > 1 and not folds and on != "processes":
        raise UsageError(
            "only folds can run in parallel; give --folds, or --on processes to prepare the cases of one training so"
        )
    if learning_curve and fold is None:
        raise UsageError("a learning curve needs held-out cases; give --fold")
    if learning_curve and promise:
        raise UsageError(
            "a learning curve compares trainings whose operating points were chosen alike; leave --promise out, or, "
            "of a run that was begun with it, --learning-curve"
        )
    if then_all and (promise or on == "slurm" or (network or "").endswith(REFINED)):
        raise UsageError(NO_THEN_ALL)
    made_from = provenance()
    Aim.parse(aim)
    asked = None if promise is None else Promise.parse(promise)
    check_names(network, loss)
    if readers is not None and readers not in get_args(Readers):
        raise UsageError(f"readers is {readers!r}; choose one of {', '.join(get_args(Readers))}")
    trainers = Trainers.of(on or ("processes" if parallel > 1 else "here"), parallel if folds else 1, compute)
    if learning_curve and trainers.executor.elsewhere and length.steps is None:
        raise UsageError(
            "the trainings of a learning curve run side by side elsewhere, each in its own time; give steps"
        )
    tell = progress or (lambda _stage, _progress: None)
    root = Path(out)
    plan_path = root / PLAN
    settled = read_plan(plan or plan_path) if plan is not None or plan_path.exists() else None
    if channels_may_miss is None and settled:
        channels_may_miss = settled.channels_may_miss
    _require_start(start or start_ahead(settled, network), freeze)
    data = open_dataset(Path(dataset), tuple(channels_may_miss or ()))
    resume |= trainers.executor.elsewhere and (root / TASKS).is_dir()  # the same command again collects
    ours = resume or (plan_path.is_file() and not begun(root))
    if resume:
        _require_same_kind(root, folds)
    claim(root, "run", ours, "is not empty; give a new folder, or --resume to go on with the run in it")
    if resume and doubt is not None and not begun(root):
        doubt(f"{root}: holds no run to go on with; a new one begins")
    divide(data, held_out, seed)  # reports faults of the splits before an image is read
    with only_process_in(root, "fit"):
        tell("check", None)
        data = with_masks(data, readers or (settled.readers if settled else "labels"))
        trainings = Trainings.of(
            root, Path(dataset), data, held_out, seed, trainers, doubt, verify=verify, store=prepared
        )
        data = trainings.data
        # where a label was not drawn, what the network finds of it is not false
        drawn = all(case.drawn_of(data.labels) == data.labels for case in data.cases)
        if asked and not drawn:
            raise UsageError(
                "a promise needs cases in which every label was drawn; leave --promise or the partly drawn cases out"
            )
        tell("plan", None)
        changes: dict[str, Any] = {
            "network": network,
            "loss": loss,
            "readers": readers,
            "start": start,
            "freeze": freeze,
            "channels_may_miss": tuple(channels_may_miss) if channels_may_miss else None,
            "memory_gb": compute.memory_gb and compute.memory_gb / trainers.sharing,
        }
        chosen = plan_of_run(trainings, plan, plan_path, changes, resume)
        refined = split_name(chosen.network.name)[1]
        if asked and refined:
            raise UsageError("a promise cannot be made for refined masks; leave +crf or --promise out")
        if then_all and refined:
            raise UsageError(NO_THEN_ALL)
        started = started_from(chosen)
        origin = f"{started['name']}: {started['taken']}" if started else ""
        if started:
            origin = "; ".join(filter(None, (origin, rate_told(chosen))))
            tell(f"start from {origin}", None)
        if doubt is not None and (warning := rate_doubted(chosen)):
            doubt(warning)
        if plan_only:
            return FitResult(root, plan_path, start=origin)
        record = trainings.record(made_from["command"], seed=seed)
        caveats = tuple(str(finding) for finding in trainings.grave if finding.kind == "few")
        pooled = folds is not None and drawn and not refined
        tasks = [
            trainings.task(
                "train" if number is None else f"fold {number}",
                root / f"fold_{number}" if folds else root,
                chosen,
                seed,
                fold=number,
                split=split,
                length=length,
                compute=_share(compute, trainers.sharing),
                aim=aim,
                promise=promise,
                pooled=pooled,
                caveats=caveats,
                eight_bit=eight_bit,
                restarts=True,
                resume=resume,
                record=record,
                sharing=trainers.sharing,
            )
            for number, split in trainings.divisions
        ]
        parts = on_parts(tasks[0], data) if learning_curve else []
        trainers.prepare(tasks, data, parallel, tell)
        # here the parts come after the task whose steps they take
        first, later = ([*tasks, *parts], []) if trainers.executor.elsewhere else (tasks, parts)
        if left := trainers.executor.run(first, parallel, tell):
            return FitResult(root, plan_path, left=left)
        if later:
            trainers.executor.run(later, trainers.parallel, tell)
        judged = [read_judgement(task) for task in tasks]
        point = (
            join_folds(root, tasks, judged, data, asked)
            if folds
            else open_model(root / MODEL).operating_point
        )
        recipe = ""
        if then_all:
            whole = on_all_cases(tasks, root, data, point)
            recipe = whole.record.get(SAFER_BECAUSE, "")
            trainers.executor.run([whole], 1, tell)
        if folds:
            promised = {"promised": point.promise} if asked else {}
            figures = pool_folds(root, tasks, judged, data, {**made_from, **record, **promised})
        else:
            note = read_json(root / "record.json")["judged_on"]
            figures = Figures(judged[0].summary, note, judged[0].alert, judged[0].caveats)
        return FitResult(
            root,
            plan_path,
            root / MODEL,
            root / REPORT,
            figures.summary,
            figures.judged_on,
            read_json(tasks[0].home / "record.json")["float32_because"],
            figures.alert,
            any(each.learned for each in judged),
            tuple(
                task.fold or 0 for task, each in zip(tasks, judged, strict=True) if folds and each.collapse
            ),
            (recipe, *figures.caveats) if recipe else figures.caveats,
            origin,
            point.promise,
            add_outlook(root, [*tasks, *parts], judged[0], data, figures) if parts else "",
            all_cases=root / ALL / MODEL if then_all else None,
        )


def _require_start(begin: str | None, freeze: Freeze | None) -> None:
    """An error if weights to start from cannot be read, or are to be kept and there are none."""
    if begin is not None:
        read_start(begin)
    if freeze not in (None, "nothing") and begin == SCRATCH:
        raise UsageError(
            f"freeze is {freeze}, which keeps weights of the start, but start is {SCRATCH}; give --start"
        )


def _require_same_kind(root: Path, folds: int | None) -> None:
    """UsageError if a folder holds a run of folds and one training is to go on, or the reverse: it would be lost."""
    if folds is None and (several := len([path for path in root.glob("fold_*") if path.is_dir()])):
        raise UsageError.at(
            root, f"holds a run of {several} folds", "give --folds as it was given then, or another folder"
        )
    if folds is not None and (root / "record.json").exists():
        raise UsageError.at(
            root, "holds one training, without --folds", "leave --folds out, or give another folder"
        )


def begun(root: Path) -> bool:
    """Whether a run's folder holds more than a plan and prepared cases."""
    return root.is_dir() and not {path.name for path in root.iterdir()} <= {LOCK, PLAN, PREPARED}


def _share(compute: Compute, parallel: int) -> Compute:
    """What one of several trainings at a time gets of the threads."""
    if parallel == 1:
        return compute
    return replace(compute, threads=max(1, (compute.threads or torch.get_num_threads()) // parallel))

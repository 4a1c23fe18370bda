"""Trainings on parts of the training cases, and what they say about more cases than there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from focalis.dataset import Dataset, make_splits
from focalis.display import counted, listed
from focalis.errors import UsageError
from focalis.evaluation import Score, forecast
from focalis.workflows.record import read_json
from focalis.workflows.run import Task
from focalis.workflows.task import read_judgement

FEWEST_CASES = 18
"""A third of fewer cases would leave three or less to train on beside the inner split."""


def on_parts(task: Task, data: Dataset) -> list[Task]:
    """The task on a third and on two thirds of its training cases, with its steps, plan and held-out cases.

    The third is part of the two thirds. Each holds its share of every label and of empty scans, and a patient is on
    one side.

    Raises:
        UsageError: the task trains on too few.
    """
    training = data.select(task.split.train)
    if len(training) < FEWEST_CASES:
        raise UsageError(
            f"a learning curve needs {FEWEST_CASES} training cases or more, and fold {task.fold} has {len(training)}; "
            "leave --learning-curve out"
        )
    without = [set(split.val) for split in make_splits(training, 3, task.seed)]
    parts = []
    for left_out in (without[1] | without[2], without[2]):
        names = tuple(name for name in task.split.train if name not in left_out)
        own = {
            "name": counted(len(names)),
            "home": task.home / f"on_{len(names)}_cases",
            "split": replace(task.split, train=names),
            "same_steps_as": (task.home,),
            "eight_bit": False,
        }
        parts.append(task.model_copy(update=own))
    return parts


def outlook(tasks: Sequence[Task], patients: Mapping[str, str]) -> str:
    """What more training cases are likely to bring, in a sentence, or why that cannot be said."""
    judged = [read_judgement(task) for task in tasks]
    sizes = [len(task.split.train) for task in tasks]
    for task, each in zip(tasks, judged, strict=True):
        if each.collapse:
            return (
                "what more training cases would bring cannot be said: the training on "
                f"{counted(len(task.split.train))} did not learn what it should ({each.collapse.line})"
            )
    records = [read_json(task.home / "record.json") for task in tasks]
    anew = [size for size, each in zip(sizes, records, strict=True) if each.get("restarted")]
    if 0 < len(anew) < len(tasks):
        return (
            f"what more training cases would bring cannot be said: of the trainings on {listed(sizes)} cases, that on "
            f"{listed(anew)} began once more by a safer recipe, so they differ by more than their cases"
        )
    dice = [_by_case(each.scores) for each in judged]
    if not dice[0]:
        return "what more training cases would bring cannot be said: no held-out case holds a lesion"
    trained = [len(each["cases"]["train"]) for each in records]
    return forecast(sizes, dice, patients, trained).line


def _by_case(scores: Sequence[Score]) -> dict[str, float]:
    """The mean Dice of the labels that a case holds, of the cases with a lesion."""
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.truth_voxels:
            found.setdefault(score.case, []).append(score.dice)
    return {case: float(np.mean(values)) for case, values in found.items()}

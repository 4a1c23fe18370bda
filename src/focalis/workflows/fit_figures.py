"""What the trainings of one `fit` say together: the ensemble of folds, pooled figures, a learning curve's outlook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from focalis.dataset import Dataset, Split
from focalis.evaluation import Aim, Promise, Summary, choose, keep_promise
from focalis.lesions import OperatingPoint
from focalis.model import load_model, save_model
from focalis.settings import Length
from focalis.training import read_metrics
from focalis.workflows.ensemble import ensemble
from focalis.workflows.judge import ADVICE, Judgement, caveats_of_cases, write_judgement
from focalis.workflows.learning_curve import outlook
from focalis.workflows.record import read_json, write_json
from focalis.workflows.run import MODEL, Task
from focalis.workflows.train_run import RECORD, differences, safer

OUT_OF_FOLD = "the folds' held-out cases, each judged by the member that did not learn from it"
ACROSS_FOLDS = f"{OUT_OF_FOLD}, as if all members together did no worse"
ALL = "all"
BEFORE = "from a training without the cases that chose it"
SAFER_BECAUSE = "safer_because"
"""In a training's record: why it has another recipe than the plan's."""


@dataclass(frozen=True)
class Figures:
    """What is said of the judged cases, see `FitResult`."""

    summary: Summary
    judged_on: str
    alert: str
    caveats: tuple[str, ...]


def join_folds(
    root: Path, tasks: Sequence[Task], judged: Sequence[Judgement], data: Dataset, asked: Promise | None
) -> OperatingPoint:
    """Write the ensemble of the folds' models; returns its operating point.

    The folds' held-out cases choose it together. Where they were not kept for that, as of a refined network, or of
    cases in which a label was not drawn, it is the mean of the members' own.
    """
    whole = ensemble([load_model(task.home / MODEL) for task in tasks])
    point, cuts = whole.operating_point, [row for each in judged for row in each.cuts]
    if cuts and len(cuts) == sum(len(each.lesions) for each in judged):
        aim = Aim.parse(tasks[0].aim)
        point = choose(cuts, aim, point.temperature, data.patients, OUT_OF_FOLD)
    if asked:
        point = keep_promise(point, cuts, asked, data.patients, where=ACROSS_FOLDS)
    whole = replace(whole, operating_point=point)
    save_model(whole, root / MODEL)
    return whole.operating_point


def on_all_cases(tasks: Sequence[Task], root: Path, data: Dataset, point: OperatingPoint) -> Task:
    """A run's training on all cases, with the operating point that was chosen before.

    It takes as many steps as the run; one that was begun keeps those that it was begun with, unless it is finished and
    the run has more by now.

    No case is left to see whether it finds anything. So it takes the safer recipe if most folds, or the one training,
    began once more with it, and its record says why (`SAFER_BECAUSE`).
    """
    task, safe = tasks[0], safer(tasks[0].plan)
    records = [read_json(each.home / RECORD) for each in tasks]
    changes: dict[str, Any] = {"same_steps_as": (task.home,)}
    if (path := root / ALL / RECORD).exists():
        begun = read_json(path)
        if "finished" not in begun or begun.get("minutes_asked") is not None:
            changes = {"same_steps_as": (), "length": Length(steps=begun["steps"])}
    failed = [line for each in records if (line := each.get("collapse"))]
    noted = {}
    if 2 * len(failed) > len(tasks) or point.found == 0:
        first = failed[0] if failed else "it found none of the lesions to choose it on"
        noted = {"collapse": f"the training that chose its operating point failed: {first}"}
    anew = sum(bool(each.get("restarted")) for each in records)
    if 2 * anew > len(tasks):
        who = f"{anew} of {len(tasks)} folds" if len(tasks) > 1 else "the training"
        why = f"{who} began once more, so the training on all cases has "
        changes["plan"] = safe
        noted[SAFER_BECAUSE] = why + differences(task.plan, safe)
    how = "cross-validation" if len(tasks) > 1 else BEFORE
    return task.model_copy(
        update={
            **changes,
            "record": task.record | noted,
            "name": "all cases",
            "home": root / ALL,
            "fold": None,
            "split": Split(tuple(case.name for case in data.cases), ()),
            "point": replace(point, how=f"{how}: {point.how}", found=point.found or None),
        }
    )


def pool_folds(
    root: Path,
    tasks: Sequence[Task],
    judged: Sequence[Judgement],
    data: Dataset,
    record: Mapping[str, Any],
) -> Figures:
    """Pool the folds' held-out cases, and write their tables and the report."""
    scores = [score for each in judged for score in each.scores]
    judged_on = f"held-out cases of {len(tasks)} folds, each predicted by the member that did not train on it"
    alert = _folds_alert(tasks, judged)
    squeezed = sum(len(each.squeezed) for each in judged)
    cases = sum(len(each.lesions) for each in judged)
    said = (
        *tasks[0].caveats,
        *caveats_of_cases(tasks[0], scores, squeezed, cases),
        *_folds_caveats(tasks, judged),
    )
    summary = write_judgement(
        root,
        data,
        scores,
        [case for each in judged for case in each.lesions],
        {name: task.home / "predictions" for task in tasks for name in task.split.val},
        judged_on,
        [],
        record,
        alerts=[alert, *said] if alert else said,
    )
    return Figures(summary, judged_on, alert, said)


def add_outlook(root: Path, tasks: Sequence[Task], judged: Judgement, data: Dataset, figures: Figures) -> str:
    """Write what more cases are likely to bring into record and report; returns it."""
    said = outlook(tasks, data.patients)
    record = read_json(root / "record.json") | {"learning_curve": said}
    write_json(root / "record.json", record)
    write_judgement(
        root,
        data,
        judged.scores,
        judged.lesions,
        dict.fromkeys(tasks[0].split.val, root / "predictions"),
        f"{figures.judged_on}; {said}",
        read_metrics(root),
        record,
        load_model(root / MODEL),
        [line for line in (figures.alert, *figures.caveats) if line],
    )
    return said


def _folds_caveats(tasks: Sequence[Task], judged: Sequence[Judgement]) -> list[str]:
    """What the folds warn of by themselves, each line once, with the numbers of its folds."""
    folds: dict[str, list[str]] = {}
    for task, each in zip(tasks, judged, strict=True):
        of_cases = caveats_of_cases(task, each.scores, len(each.squeezed), len(each.lesions))
        for line in each.caveats:
            if line not in (*task.caveats, *of_cases):
                folds.setdefault(line, []).append(str(task.fold))
    return [
        f"fold{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {line}"
        for line, numbers in folds.items()
    ]


def _folds_alert(tasks: Sequence[Task], judged: Sequence[Judgement]) -> str:
    """What is wrong with the folds of an ensemble, in a line; empty if nothing is."""
    lines = [
        f"fold {task.fold}: {each.collapse.line}"
        for task, each in zip(tasks, judged, strict=True)
        if each.collapse
    ]
    if not lines:
        return ""
    what = (
        "the ensemble averages over networks that did not learn what they should"
        if any(each.learned for each in judged)
        else "nothing was learned"
    )
    return f"{what}: {len(lines)} of {len(judged)} folds ({'; '.join(lines)}); {ADVICE}"

"""From the run folders of a comparison to its figures, `compare.json`, `compare.html` and the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dataset import Dataset
from focalis.evaluation import (
    POOLING_RULE,
    Score,
    case_dice,
    figures_of,
    paired_differences,
    representative_cases,
    views,
)
from focalis.files import write_bytes
from focalis.lesions import MATCHING_RULE
from focalis.report import contours_figure, write_comparison_report
from focalis.training import METRICS, read_metrics
from focalis.volume import read_volume
from focalis.workflows.judge import ADVICE
from focalis.workflows.record import now, read_json, write_json
from focalis.workflows.run import FINISHED, Task

CHOICES = (
    "Each run sets a part of its training patients aside (its inner split, drawn with the run's seed) and makes every "
    "choice there: the threshold, and the parameters of a refinement. The held-out cases are predicted once, after "
    "that."
)
FEW_STEPS = 100
FEW_STEPS_RULE = (
    f"A run of fewer than {FEW_STEPS} steps, or of fewer than it takes to see every training case once, is too "
    "short to judge its network or loss by."
)
_FROM_RECORD = (
    "model_sha256",
    "steps",
    "minutes_asked",
    "training_seconds",
    "seconds_per_predicted_case",
    "parameters",
    "peak_memory_gb",
    "threshold",
    "start",
    "runtime",
    "float32_because",
    "collapse",
    "learned",
    "revision",
    "packages",
    "started",
    "finished",
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    network: str
    loss: str

    @property
    def name(self) -> str:
        """The name of the row's folder."""
        return f"{self.network}-{self.loss}"


Rows = Mapping[Row, Sequence[Task]]
"""The rows of a table, each with its trainings by seed, then fold; the others are compared with the first."""


def content_of(
    rows: Rows, data: Dataset, settings: Mapping[str, Any], made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures of a comparison as plain values, as `compare.json` holds them.

    Args:
        made_from: the provenance of this process, taken when it started.
    """
    first_row, shared = next(iter(rows.items()))
    first = _scores(shared)
    patients = data.patients
    parts = views(data.labels, data.regions, data.ignore)
    names = {value: name for part, _ in parts for value, name in part.items()}
    table = []
    for row, tasks in rows.items():
        scores = _scores(tasks)
        described = [_describe(task) for task in tasks]
        table.append(
            {
                "network": row.network,
                "loss": row.loss,
                "folder": row.name,
                "runs": described,
                "collapsed_runs": sum(bool(run["collapse"]) for run in described),
                **_cost(described),
                "figures": _figures(scores, names, patients) if scores else None,
                "dice_by_seed": _dice_by_seed(tasks),
                "difference_to_first_row": {
                    name: asdict(figure)
                    for name, figure in paired_differences(scores, first, patients).items()
                }
                if scores and first and row != first_row
                else None,
            }
        )
    divisions = {task.fold: task.split for task in shared}
    return {
        "version": 1,
        **made_from,
        "finished": now(),
        **{key: value for key, value in settings.items() if key != "splits"},
        "equal": "steps" if settings["steps"] else "time",
        "folds": list(divisions),
        "seeds": list(dict.fromkeys(task.seed for task in shared)),
        "held_out_cases": sum(len(split.val) for split in divisions.values()),
        "labels": {str(value): name for value, name in names.items()},
        "shared": shared[0].plan.model_dump(
            mode="json",
            include={"channels", "spacing_zyx_mm", "normalisation", "patch_zyx", "batch", "training"},
        ),
        "rules": {
            "choices": CHOICES,
            "pooling": POOLING_RULE,
            "lesion_matching": MATCHING_RULE,
            "difference": "the row minus the first row",
            "few_steps": FEW_STEPS_RULE,
        },
        "pictured_cases": [{"rank": rank, "case": case} for rank, case in _pictured(rows)],
        "alert": nothing_learned(table),
        "rows": table,
    }


def nothing_learned(rows: Sequence[Mapping[str, Any]]) -> str:
    """What has to be said before any figure if no finished run of any row learned anything, else empty.

    A run whose record does not say whether it learned, as older ones, counts as one that did.
    """
    finished = [run for row in rows for run in row["runs"] if run["outcome"] == FINISHED]
    if not finished or any(run.get("learned") is not False for run in finished):
        return ""
    reasons = "; ".join(dict.fromkeys(run["collapse"] for run in finished))
    runs = "the one run that finished" if len(finished) == 1 else f"all {len(finished)} runs that finished"
    return f"nothing was learned in {runs}: {reasons}; {ADVICE}"


def write_comparison(root: Path, rows: Rows, data: Dataset, content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `compare.json`, `compare.html` and the pictures in `figures/`; the paths of the first two."""
    pictures = []
    reference = _reference(rows)
    for name, caption, shown in _groups(rows):
        for rank, case in _pictured(rows):
            drawn = {row: task for row in shown if (task := _run_of(rows[row], case))}
            if len(drawn) < 2 or reference is None:
                continue
            whose = f"{rank.capitalize()} case of {reference.network} with {reference.loss}: {case}."
            picture = _picture(data, case, drawn, name == "losses")
            write_bytes(root / "figures" / f"{name}-{rank}.png", picture)
            pictures.append((f"{caption}. {whose}", picture))
    page, json = root / "compare.html", root / "compare.json"
    metrics = {
        (row.network, row.loss): [read_metrics(task.home) for task in tasks if (task.home / METRICS).exists()]
        for row, tasks in rows.items()
    }
    planes = write_comparison_report(page, content, pictures, metrics)
    for name, plane in planes.items():
        write_bytes(root / "figures" / f"{name}.png", plane)
    write_json(json, content)
    return json, page


def _scores(tasks: Iterable[Task]) -> list[tuple[Score, ...]]:
    """The held-out cases' scores of each run that finished."""
    return [_scores_of(task) for task in tasks if task.finished]


def _scores_of(task: Task) -> tuple[Score, ...]:
    return tuple(Score(**row) for row in read_json(task.home / "evaluation.json")["cases"])


def _figures(
    scores: Sequence[tuple[Score, ...]], labels: Iterable[int], patients: Mapping[str, str]
) -> dict[str, Any]:
    """The figures over all labels, and of each label if there are several."""
    several = sorted(labels)
    chosen = {"overall": scores}
    if len(several) > 1:
        chosen |= {
            str(value): [tuple(score for score in run if score.label == value) for run in scores]
            for value in several
        }
    return {
        name: {key: asdict(figure) for key, figure in figures_of(some, patients).items()}
        for name, some in chosen.items()
    }


def _dice_by_seed(runs: Sequence[Task]) -> dict[str, float | None]:
    """Mean Dice of each seed over its folds, if they all finished."""
    found: dict[str, float | None] = {}
    for seed in dict.fromkeys(run.seed for run in runs):
        own = [run for run in runs if run.seed == seed]
        complete = all(run.finished for run in own)
        found[str(seed)] = figures_of(_scores(own))["dice"].value if complete else None
    return found


def _describe(run: Task) -> dict[str, Any]:
    outcome = run.outcome
    path = run.home / "record.json"
    record = read_json(path) if path.exists() else {}
    few = None if "plan" not in record or record.get("steps") is None else _is_short(record)
    return {
        "folder": f"{run.home.parent.name}/{run.home.name}",
        "fold": run.fold,
        "seed": run.seed,
        "message": None,
        **outcome,
        **{key: record.get(key) for key in _FROM_RECORD},
        "few_steps": few,
    }


def _is_short(record: Mapping[str, Any]) -> bool:
    """Whether a run took too few steps to be judged, see `FEW_STEPS_RULE`."""
    epoch = math.ceil(len(record["cases"]["train"]) / record["plan"]["batch"])
    return bool(record["steps"] < max(FEW_STEPS, epoch))


def _cost(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a row cost: means over its finished runs, and the largest peak memory."""
    finished = [run for run in runs if run["outcome"] == FINISHED]

    def mean(key: str) -> float | None:
        return float(np.mean([run[key] for run in finished])) if finished else None

    def largest(key: str) -> float | None:
        return max((run[key] for run in finished if run.get(key) is not None), default=None)

    return {
        "parameters": finished[0]["parameters"] if finished else None,
        "steps_done": mean("steps"),
        "few_steps": any(run["few_steps"] for run in finished),
        "training_seconds": mean("training_seconds"),
        "seconds_per_predicted_case": mean("seconds_per_predicted_case"),
        "peak_memory_gb": largest("peak_memory_gb"),
        "peak_gpu_memory_gb": largest("peak_gpu_memory_gb"),
    }


def _reference(rows: Rows) -> Row | None:
    """The first row of which a run finished: by it the cases of the pictures are chosen."""
    return next((row for row, tasks in rows.items() if any(task.finished for task in tasks)), None)


def _pictured(rows: Rows) -> list[tuple[str, str]]:
    """("median", case) and ("worst", case) of the first row that finished, by the mean Dice over its runs."""
    reference = _reference(rows)
    if reference is None:
        return []
    scores = [score for run in _scores(rows[reference]) for score in run]
    picks = dict(representative_cases(scores))
    picks = {"median": picks.get("median", picks["best"])} | picks  # of two cases the better is the median
    return [(rank, picks[rank]) for rank in ("median", "worst") if rank in picks]


def _groups(rows: Rows) -> list[tuple[str, str, list[Row]]]:
    """The rows that a picture shows together: networks under one loss, losses on one network."""
    first = next(iter(rows))
    networks = [row for row in rows if row.loss == first.loss]
    losses = [row for row in rows if row.network == first.network]
    return [
        ("networks", f"Every network, trained with {first.loss}", networks),
        ("losses", f"Every loss, on the network {first.network}", losses),
    ]


def _run_of(tasks: Sequence[Task], case: str) -> Task | None:
    """The finished run of a row that held the case out; of several seeds the first."""
    return next((task for task in tasks if task.finished and case in task.split.val), None)


def _picture(data: Dataset, case_name: str, drawn: Mapping[Row, Task], by_loss: bool) -> bytes:
    (case,) = data.select((case_name,))
    predictions = []
    for row, task in drawn.items():
        dice = case_dice(score for score in _scores_of(task) if score.case == case_name)
        predicted = read_volume(task.home / "predictions" / f"{case_name}.nii.gz")
        predictions.append((row.loss if by_loss else row.network, dice, predicted))
    return contours_figure(case.read_first_image(), case.read_label(), predictions, case_name)

"""Predict the cases that a run is judged on, score them, and write the run's report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalis.dataset import Dataset
from focalis.errors import DataError
from focalis.evaluation import Evaluation, Score, Summary, evaluate_case, representative_cases
from focalis.model import Model
from focalis.prediction import predict_case
from focalis.report import overlay_figure, write_fit_report
from focalis.volume import read_volume, write_volume
from focalis.workflows.evaluate import write_evaluation
from focalis.workflows.record import peak_memory_gb, read_json, write_json
from focalis.workflows.run import Run


def judge(run: Run, model: Model, judged_on: str) -> tuple[tuple[Score, ...], Summary]:
    """Predict the run's judged cases from their files, score them on their own grids, write tables and report."""
    folder = run.home / "predictions"
    folder.mkdir(exist_ok=True)
    scores: list[Score] = []
    seconds = []
    for case in run.judged:
        volumes = case.read_images()
        if case.label is None:
            raise DataError(
                f"{case.name}: has no label file, so it cannot be judged; add one or leave it out of the split"
            )
        started = time.monotonic()
        prediction = predict_case(
            model, volumes, runtime=run.runtime, budget_bytes=int(run.plan.memory_budget_gb * 1e9)
        )
        seconds.append(time.monotonic() - started)
        write_volume(prediction.label, folder / f"{case.name}.nii.gz")
        scores += evaluate_case(
            case.read_label(), prediction.label, run.plan.labels, case=case.name, ignore=run.plan.ignore
        )
    record = read_json(run.home / "record.json")
    record["seconds_per_predicted_case"] = round(sum(seconds) / len(seconds), 3)
    record["peak_memory_gb"] = max(record["peak_memory_gb"] or 0, peak_memory_gb() or 0) or None
    record["judged_on"] = judged_on
    write_json(run.home / "record.json", record)
    metrics = [
        json.loads(row) for row in (run.home / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    predictions = {case.name: folder for case in run.judged}
    return tuple(scores), write_judgement(run.home, run.data, scores, predictions, judged_on, metrics, record)


def write_judgement(
    home: Path,
    data: Dataset,
    scores: Sequence[Score],
    predictions: Mapping[str, Path],
    judged_on: str,
    metrics: list[dict[str, Any]],
    record: Mapping[str, Any],
) -> Summary:
    """Write evaluation.json, cases.csv and report.html; `predictions` maps a case to the folder of its prediction."""
    evaluation = Evaluation.of(scores, patients={case.name: case.patient for case in data.cases})
    write_evaluation(evaluation, home)
    overlays = []
    for rank, name in representative_cases(scores):
        (case,) = data.select((name,))
        if case.label is None:
            continue
        predicted = read_volume(predictions[name] / f"{name}.nii.gz")
        dice = sum(score.dice for score in scores if score.case == name) / sum(
            score.case == name for score in scores
        )
        caption = f"{rank.capitalize()} case: {name}, Dice {dice:.3f}"
        overlays.append(
            (
                caption,
                overlay_figure(case.read_images()[0], case.read_label(), predicted, caption),
            )
        )
    plan_text = (
        home / "plan.yaml" if (home / "plan.yaml").exists() else home.parent / "plan.yaml"
    ).read_text(encoding="utf-8")
    write_fit_report(
        home / "report.html",
        plan_text=plan_text,
        metrics=metrics,
        scores=scores,
        summary=evaluation.summary,
        overlays=overlays,
        record=record,
        split_note=judged_on,
    )
    return evaluation.summary


def held_out_note(fold: int | None, cases: int) -> str:
    """One line that says on which cases figures are taken: those of a fold, or the inner split's if it is None."""
    if fold is not None:
        return f"{cases} held-out cases of fold {fold}, predicted once after every choice was made"
    return f"{cases} cases of the inner split: none trained, but they chose the threshold, so the figures flatter"

"""One row of the evidence: trained, judged, written; one that was stopped goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from accuracy import dice, make_accuracy_row
from evidence_coding import packed
from evidence_data import NODULES, Task, data_folder, inner_of, task_of
from evidence_figures import FAR_MM
from evidence_networks import CHANGES, register, times_as_long, with_variant
from evidence_plan import OWN_SHAPES, RESULTS, FitRow, Row
from rivals import with_network

from focalis.errors import DivergedError
from focalis.evaluation import evaluate_case
from focalis.files import write_text
from focalis.lesions import label_components, match_lesions
from focalis.losses import distance_to_foreground
from focalis.model import Model
from focalis.planning import Plan, fingerprint, make_plan
from focalis.prediction import Runtime, Settings, choose_runtime, segment
from focalis.training import operating_point, prepare_cases, read_metrics, train
from focalis.training.prepared import PreparedCases
from focalis.training.start import read_start
from focalis.volume import Volume
from focalis.workflows.record import data_hash, peak_memory_gb, provenance

TRAINING_CASES_JUDGED = 20


def make(row: Row | FitRow, runs: Path, results: Path = RESULTS) -> Path:
    """Train and judge a row, and write its result."""
    register()
    if isinstance(row, FitRow):
        return _make_accuracy(row, runs, results)
    task, home = task_of(row, runs), runs / row.name
    home.mkdir(parents=True, exist_ok=True)
    runtime = choose_runtime()
    inner = inner_of(task, row.seed)
    usual = plan_of(row, task)
    plan = plan_of_network(usual, row, task)
    # Cases are prepared for one set of training cases, whose intensities the plan's normalisation is made from.
    prepared = prepared_folder(row, runs)
    training, watched = (
        prepare_cases(task.data.select(names), plan, prepared) for names in (inner.train, inner.val)
    )
    steps = row.steps
    if row.equal_time and row.network != "dense":
        ratio = times_as_long(row.network, (usual, plan), training, runtime, results, runs / "claims")
        steps = max(1, round(steps / ratio))
    content: dict[str, Any] = {
        **provenance(),
        "command": f"python benchmarks/evidence.py all --rows {row.name}",
        "row": {**vars(row), "loss": row.loss.model_dump(), "setting": row.setting},
        "seed": row.seed,
        "steps": steps,
        "data_sha256": data_hash(task.data.cases),
        "plan": plan.model_dump(mode="json", exclude={"reasons"}),
        "runtime": str(runtime),
        "threads": torch.get_num_threads(),
        "cases": {"train": len(inner.train), "inner": len(inner.val), "held_out": len(task.split.val)},
    }
    try:
        start = read_start(start_of(row, runs), row.network)
        network = train(
            plan, training, [], home, steps=steps, seed=row.seed, runtime=runtime, resume=True, start=start
        )
    except DivergedError as error:
        content |= {"outcome": "diverged", "message": str(error)}
    else:
        content |= {"outcome": "finished", "training_seconds": read_metrics(home)[-1]["seconds"]}
        content |= judged(row, task, plan, network, watched, runtime, (inner.train, inner.val))
    path = row.path(results)
    # A line per entry: readable for a person, and small, because there are hundreds of such files.
    lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    shutil.rmtree(home)
    return path


def start_of(row: Row, runs: Path) -> Path | str:
    """The start as `read_start` takes it."""
    if row.start != OWN_SHAPES:
        return row.start
    return runs / f"{OWN_SHAPES}-{row.network}" / "start.safetensors"


def lacks_start(row: Row, runs: Path) -> str:
    """What to do if the start of a row has to be made first; else empty."""
    start = start_of(row, runs)
    if not isinstance(start, Path) or start.exists():
        return ""
    command = f"python benchmarks/pretrain_shapes.py --network {row.network} --out {start.parent}"
    return f"{start.parent} holds no start; make it with: {command}"


def prepared_folder(row: Row, runs: Path) -> Path:
    """Where a row's cases lie prepared, for every row of the same training cases."""
    return runs / "prepared" / f"{row.data}-{row.cases or 'all'}-fold{row.fold}"


def judged(
    row: Row,
    task: Task,
    plan: Plan,
    network: torch.nn.Module,
    watched: PreparedCases,
    runtime: Runtime,
    inner: tuple[tuple[str, ...], tuple[str, ...]],
) -> dict[str, Any]:
    """What a trained row is worth: choices on the inner split, then the held-out cases, once."""
    point = operating_point(plan, network, watched, runtime)
    model = Model(plan, (network,), point)
    scores: dict[str, Any] = {"held_out": score(model, task, task.split.val)}
    if len(plan.labels) > 1:
        scores |= dice_by_label(model, task, task.split.val)
    if task.windows is not None:
        scores["dice_inner"] = mean_dice(model, task, inner[1])
        scores["dice_train"] = mean_dice(model, task, inner[0][:TRAINING_CASES_JUDGED])
    found: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_memory_gb": peak_memory_gb(),
        "threshold": point.threshold,
        "minimum_mm3": point.minimum_mm3,
        "minimum_confidence": point.minimum_confidence,
        "temperature": round(point.temperature, 4),
        "scores": scores,
    }
    if row.data == "phantoms":
        found["picture"] = picture(model, task)
    return found


def plan_of(row: Row, task: Task) -> Plan:
    """The plan of the row with the default network."""
    data = task.data
    figures = fingerprint(data.select(task.split.train), data.ignore)
    plan = make_plan(figures, data.channels, data.labels or {1: "lesion"}, ignore=data.ignore)
    changes: dict[str, Any] = {"loss": row.loss.settings, "start": row.start}
    if task.patch_zyx is not None:
        changes |= {"patch_zyx": task.patch_zyx, "batch": 2}
    return Plan.model_validate(plan.model_copy(update=changes).model_dump())


def plan_of_network(plan: Plan, row: Row | FitRow, task: Task) -> Plan:
    """The plan with the row's network: the same patch, batch and normalisation for all, the default's own."""
    if row.network in (None, plan.network.name):
        return plan
    if row.network in CHANGES:
        return with_variant(plan, row.network)
    figures = fingerprint(task.data.select(task.split.train), plan.ignore)
    return with_network(plan, figures, row.network)


def score(model: Model, task: Task, cases: Iterable[str]) -> list[dict[str, Any]]:
    """One entry per case and part: the figures at the operating point, and the Dice at one half."""
    found = []
    for case in cases:
        for number, (image, label) in enumerate(task.parts(case)):
            prediction = segment(model, [image], Settings(runtime="torch"))
            truth, predicted = label.array > 0, prediction.mask > 0
            probability = prediction.probability
            true, found_mask = (Volume(mask.astype(np.uint8), label.grid) for mask in (truth, predicted))
            (figures,) = evaluate_case(true, found_mask, {1: "lesion"}, case=case)
            distance_mm = distance_to_foreground(truth, label.grid.spacing_zyx_mm)
            far, half = distance_mm >= FAR_MM, probability >= 0.5
            found.append(
                {
                    "case": case,
                    "part": number,
                    "dice": round(figures.dice, 5),
                    "dice_at_half": round(dice(truth, half), 5),
                    "hd95_mm": None if figures.hd95_mm is None else round(figures.hd95_mm, 3),
                    "truth_voxels": figures.truth_voxels,
                    "truth_lesions": figures.truth_lesions,
                    "predicted_lesions": figures.predicted_lesions,
                    "detected_lesions": figures.detected_lesions,
                    "false_positives_mm": false_positives_mm(truth, predicted, distance_mm),
                    "predicted_voxels": int(np.count_nonzero(predicted)),
                    "predicted_voxels_at_half": int(np.count_nonzero(half)),
                    "far_voxels": int(np.count_nonzero(predicted & far)),
                    "far_voxels_at_half": int(np.count_nonzero(half & far)),
                }
            )
    return found


def mean_dice(model: Model, task: Task, cases: Iterable[str]) -> dict[str, float]:
    """Per case the mean Dice of its parts."""
    found = {}
    for case in cases:
        parts = [
            dice(label.array > 0, segment(model, [image], Settings(runtime="torch")).mask > 0)
            for image, label in task.parts(case)
        ]
        found[case] = round(float(np.mean(parts)), 5)
    return found


def dice_by_label(model: Model, task: Task, cases: Iterable[str]) -> dict[str, dict[str, float]]:
    """As dice_LABEL, each whole case's Dice at the operating point."""
    labels = model.plan.labels
    found: dict[str, dict[str, float]] = {f"dice_{name}": {} for name in labels.values()}
    for case in cases:
        ((image, truth),) = task.parts(case)
        mask = segment(model, [image], Settings(runtime="torch")).mask
        for value, name in labels.items():
            found[f"dice_{name}"][case] = round(dice(truth.array == value, mask == value), 5)
    return found


def false_positives_mm(
    truth: np.ndarray, predicted: np.ndarray, distance_mm: np.ndarray
) -> list[float | None]:
    """How far each false positive lesion lies from the nearest true one, voxel centre to voxel centre.

    None for each where there is no true lesion.
    """
    wrong = match_lesions(truth, predicted).unmatched_predicted
    if not wrong:
        return []
    if not truth.any():
        return [None] * len(wrong)
    nearest = scipy.ndimage.minimum(distance_mm, label_components(predicted)[0], wrong)
    return [round(float(value), 2) for value in nearest]


def picture(model: Model, task: Task) -> dict[str, Any]:
    """The foreground probability of the first held-out scan, and its truth, each the maximum along z: for a figure."""
    case = task.split.val[0]
    ((image, label),) = task.parts(case)
    found = segment(model, [image], Settings(runtime="torch"))
    return {
        "case": case,
        "probability": packed(found.probability.max(axis=0)),
        "truth": packed((label.array > 0).max(axis=0)),
    }


def _make_accuracy(row: FitRow, runs: Path, results: Path) -> Path:
    steps = row.steps
    if row.network is not None:
        # On the nodules' patches, whatever the row's data: how long a step takes beside another hardly depends on them.
        short = Row(NODULES)
        task, runtime = task_of(short, runs), choose_runtime()
        usual = plan_of(short, task)
        plans = usual, plan_of_network(usual, row, task)
        cases = prepare_cases(
            task.data.select(task.split.train[:4]), plans[0], runs / "prepared" / f"{NODULES}-time"
        )
        ratio = times_as_long(row.network, plans, cases, runtime, results, runs / "claims")
        steps = max(1, round(steps / ratio))
    return make_accuracy_row(
        data_folder() / row.data,
        row.name,
        runs,
        results,
        fold=row.fold,
        minutes=row.minutes,
        steps=steps,
        network=row.network,
        start=row.start,
    )

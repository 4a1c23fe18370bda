"""Accuracy on real data: train a fold, predict its held-out cases once, score them, write one result file.

    python benchmarks/accuracy.py lidc_nodules --fold 0 --minutes 12
    python benchmarks/accuracy.py msd_hippocampus --fold 0 --minutes 40
    python benchmarks/accuracy.py lidc_nodules --fold 0 --minutes 12 --network monai-unet

The environment variable FOCALIS_DATA names the folder of the data sets. A result that is there already is not made
again. `--steps` fixes the number of steps instead of the time, where several folds shall have the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from rivals import add_rivals

import focalis
from focalis.evaluation import Score
from focalis.model import Model, load_model
from focalis.planning import SCRATCH
from focalis.prediction import Settings, segment
from focalis.volume import Volume, read_volume
from focalis.workflows.record import provenance, write_json

HERE = Path(__file__).parent
WINDOW = 40


def main() -> None:
    """Parse, train, score, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dataset", choices=["lidc_nodules", "msd_hippocampus", "sts_pet", "oasis_inferior_ventricle"]
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--minutes", type=float, required=True, help="the time that the row stands for")
    parser.add_argument("--steps", type=int, help="train this many steps instead of measuring")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loss")
    parser.add_argument("--network", help="a network of Focalis, or monai-unet")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    options = parser.parse_args()
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    data = Path(os.environ["FOCALIS_DATA"]) / options.dataset
    parts = [options.dataset, options.network, options.loss, f"{options.minutes:g}min", f"fold{options.fold}"]
    name = "-".join([*(part for part in parts if part), f"seed{options.seed}"])
    add_rivals()
    path = make_accuracy_row(
        data,
        name,
        options.runs,
        HERE / "results",
        fold=options.fold,
        minutes=options.minutes,
        steps=options.steps,
        seed=options.seed,
        loss=options.loss,
        network=options.network,
    )
    print(f"{path}: {summary(json.loads(path.read_text(encoding='utf-8'))['scores'])}")


def make_accuracy_row(
    data: Path,
    name: str,
    runs: Path,
    results: Path,
    *,
    fold: int,
    minutes: float,
    steps: int | None,
    seed: int = 0,
    loss: str | None = None,
    network: str | None = None,
    start: str = SCRATCH,
) -> Path:
    """Train and score one row as `main` says, unless its file is there; the file's path.

    Args:
        data: the data set's folder.
        name: the row's name.
        runs, results: where run folders and results go.
        fold: the fold to hold out.
        minutes: the time that the row stands for.
        steps: train this many steps instead.
        seed, loss, network, start: see `focalis.fit`; the published rows start from random weights.
    """
    target = results / "accuracy" / f"{name}.json"
    if target.exists():
        return target
    run = runs / name
    result = focalis.fit(
        data,
        run,
        minutes=None if steps else minutes,
        steps=steps,
        fold=fold,
        seed=seed,
        loss=loss,
        network=network,
        start=start,
        resume=run.exists(),
    )
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    model = load_model(result.model)
    held_out = record["cases"]["held_out"]
    scored = window_dice(model, data, held_out) if data.name == "lidc_nodules" else whole_dice(run)
    row = {
        **{key: value for key, value in record.items() if key not in ("command", "cases")},
        "command": provenance()["command"],
        "minutes": minutes,
        "fold": fold,
        "scores": scored,
    }
    write_json(target, row)
    return target


def whole_dice(run: Path) -> dict[str, Any]:
    """Dice of whole held-out cases by label, from the run's own table."""
    by_label: dict[str, dict[str, float]] = defaultdict(dict)
    with (run / "cases.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_label[f"dice label {row['label']}"][row["case"]] = float(row["dice"])
    return dict(by_label)


def window_dice(model: Model, data: Path, cases: list[str]) -> dict[str, Any]:
    """The windows protocol of lidc_nodules for a model, see `score_windows`; adds the seconds per window."""
    seconds = []

    def predict(case: str, number: int, mirror: bool) -> np.ndarray:
        window = cut(read_volume(data / "images" / f"{case}.nii.gz"), windows_of(data)[case][number])
        begin = time.perf_counter()
        mask = segment(model, [window], Settings(runtime="torch", mirror=mirror)).mask
        if not mirror:
            seconds.append(time.perf_counter() - begin)
        return mask

    scores = score_windows(data, cases, predict)
    return {**scores, "seconds per window": float(np.median(seconds))}


def score_windows(
    data: Path, cases: list[str], predict: Callable[[str, int, bool], np.ndarray]
) -> dict[str, dict[str, float]]:
    """The windows protocol of lidc_nodules: every window on its own, Dice per window, the mean per case.

    Each window is predicted as if nothing existed around it: `predict` takes a case, the window's number and whether
    the eight mirror images are averaged, and gives the label map of the window. Keys say against which contours the
    Dice is, and whether it is mirrored; of several readers of a case the mean is taken.
    """
    windows = windows_of(data)
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for case in cases:
        truths = {"labels": [data / "labels" / f"{case}.nii.gz"]}
        majority = data / "labels_majority" / f"{case}.nii.gz"
        if majority.exists():
            truths["majority"] = [majority]
        truths["readers"] = sorted((data / "raters").glob(f"{case}_r*.nii.gz"))
        for mirror in (False, True):
            masks = [predict(case, number, mirror) > 0 for number in range(len(windows[case]))]
            for against, paths in truths.items():
                pairs = [
                    dice(cut(read_volume(path), origin).array > 0, mask)
                    for path in paths
                    for origin, mask in zip(windows[case], masks, strict=True)
                ]
                scores[f"dice {against}{' mirrored' if mirror else ''}"][case] = float(np.mean(pairs))
    return dict(scores)


def windows_of(data: Path) -> dict[str, list[tuple[int, int, int]]]:
    """The origins (z, y, x) of every case's windows."""
    windows: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    with (data / "windows_40.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            windows[row["case"]].append((int(row["z0"]), int(row["y0"]), int(row["x0"])))
    return windows


def values_of(score: Score) -> list[Any]:
    """The fields of a score in their order, short enough for a result file; `Score(*values)` undoes it."""
    return [round(value, 4) if isinstance(value, float) else value for value in astuple(score)]


def cut(volume: Volume, origin_zyx: Sequence[int], size_zyx: Sequence[int] = (WINDOW,) * 3) -> Volume:
    """A window of a volume as a volume of its own."""
    z, y, x = origin_zyx
    array = volume.array[z : z + size_zyx[0], y : y + size_zyx[1], x : x + size_zyx[2]]
    return Volume(array, volume.grid.part((x, y, z), array.shape[::-1]))


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0


def summary(scored: dict[str, Any]) -> str:
    """One line of means."""
    return ", ".join(
        f"{key} {np.mean(list(v.values())):.4f}" for key, v in scored.items() if isinstance(v, dict)
    )


if __name__ == "__main__":
    main()

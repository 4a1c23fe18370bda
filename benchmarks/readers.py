"""What to train on where several readers contoured: five targets on lidc_nodules, judged beside every reader.

    python benchmarks/readers.py --minutes 12                       every target, fold and seed that is not there yet
    python benchmarks/readers.py --minutes 12 --target mean --fold 0 --seed 0
    python benchmarks/readers.py --minutes 12 --table               pooled over the folds that are there, as Markdown

Each held-out case is judged by the windows protocol (docs/benchmarks.md): every window is predicted as if nothing
existed around it, and compared with every reader's contour cut alike. FOCALIS_DATA names the folder of the data sets.
A row is one file below benchmarks/results/readers; one that is there is not made again, and a run that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from accuracy import HERE, cut, windows_of

import focalis
from focalis.dataset import open_dataset, with_readers
from focalis.evaluation.beside import CaseBesideReaders, set_beside
from focalis.evaluation.intervals import bootstrap_interval, ratio_interval
from focalis.files import write_text
from focalis.model import load_model
from focalis.planning import Readers
from focalis.prediction import choose_runtime, predict_case
from focalis.volume import Volume, read_volume

RESULTS = HERE / "results" / "readers"


def main() -> None:
    """Make the rows that are not there, or the table of those that are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, required=True, help="the training time that the rows stand for"
    )
    parser.add_argument("--steps", type=int, help="train this many steps instead of measuring")
    parser.add_argument("--target", choices=get_args(Readers), action="append")
    parser.add_argument("--fold", type=int, action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    targets = options.target or get_args(Readers)
    if options.table:
        print(table(targets, options.minutes))
        return
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    data = Path(os.environ["FOCALIS_DATA"]) / "lidc_nodules"
    for seed, fold, target in product(options.seed or (0, 1), options.fold or range(5), targets):
        name = f"lidc_nodules-{target}-{options.minutes:g}min-fold{fold}-seed{seed}"
        path = RESULTS / f"{name}.json"
        if path.exists():
            print(f"{path}: is there, nothing to do")
            continue
        run = options.runs / name
        time = {"steps": options.steps} if options.steps else {"minutes": options.minutes}
        result = focalis.fit(data, run, fold=fold, seed=seed, readers=target, resume=run.exists(), **time)
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
        row = {
            "command": " ".join(["python", "benchmarks/readers.py", *sys.argv[1:]]),
            "target": target,
            "fold": fold,
            "minutes": options.minutes,
            **{key: value for key, value in record.items() if key not in ("command", "cases")},
            "windows": [_plain(row) for row in beside(result.model, data, record["cases"]["held_out"])],
        }
        write_text(path, json.dumps(row, indent=1) + "\n")
        print(f"{path}: Dice with the readers {np.mean([each['model_dice'] for each in row['windows']]):.4f}")


def beside(model_path: Path, data: Path, names: list[str]) -> list[CaseBesideReaders]:
    """Every window of every held-out case, beside its readers."""
    model, windows, runtime = load_model(model_path), windows_of(data), choose_runtime()
    rows: list[CaseBesideReaders] = []
    for case in with_readers(open_dataset(data)).select(names):
        image = case.read_images()[0]
        for number, origin in enumerate(windows[case.name]):
            label = predict_case(model, [cut(image, origin)], runtime=runtime).label
            found = Volume((label.array > 0).astype(np.uint8), label.grid)
            masks = {reader: cut(read_volume(path), origin) for reader, path in case.readers.items()}
            rows += set_beside(found, masks, {1: "nodule"}, case=f"{case.name} window {number}")
    return rows


def table(targets: tuple[str, ...], minutes: float) -> str:
    """A row per target and seed, pooled over the folds that are there; intervals are over cases."""
    lines = [
        "| trained on | seed | folds | cases | Dice with the readers | readers among themselves | agreement index |",
        "|---|---|---|---|---|---|---|",
    ]
    for target in targets:
        paths = sorted(RESULTS.glob(f"lidc_nodules-{target}-{minutes:g}min-*.json"))
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        for seed in sorted({row["seed"] for row in found}):
            rows = [row for row in found if row["seed"] == seed]
            windows = [each for row in rows for each in row["windows"]]
            lines.append(f"| {target} | {seed} | {len(rows)} | {_figures(windows)} |")
    return "\n".join(lines)


def _figures(windows: list[dict[str, Any]]) -> str:
    cases = [each["case"].split()[0] for each in windows]
    ours = [each["model_dice"] for each in windows]
    several = [
        (case, each) for case, each in zip(cases, windows, strict=True) if each["readers_dice"] is not None
    ]
    mine, theirs = ([each[name] for _, each in several] for name in ("model_dice", "readers_dice"))
    low, high = bootstrap_interval(ours, groups=cases)
    index = ratio_interval(mine, theirs, groups=[case for case, _ in several])
    return (
        f"{len(set(cases))} | {np.mean(ours):.3f} [{low:.3f}, {high:.3f}] | {np.mean(theirs):.3f} "
        f"({len({case for case, _ in several})} cases) | {sum(mine) / sum(theirs):.3f} [{index[0]:.3f}, {index[1]:.3f}]"
    )


def _plain(row: CaseBesideReaders) -> dict[str, Any]:
    return {
        "case": row.case,
        "model_dice": row.model_dice,
        "readers_dice": row.mean_readers_dice,
        "not_odd_one_out": row.not_odd_one_out,
        "by_reader": {reader: score.dice for reader, score in row.scores.items()},
    }


if __name__ == "__main__":
    main()

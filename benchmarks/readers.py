"""What to train on where several readers contoured: five targets on lidc_nodules, judged beside every reader.

    python benchmarks/readers.py --minutes 12                       every target, fold and seed that is not there yet
    python benchmarks/readers.py --minutes 12 --target mean --fold 0 --seed 0
    python benchmarks/readers.py --minutes 12 --page                what is there, pooled, into docs/evidence-tables.md

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
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from accuracy import HERE, cut, windows_of
from tables import PAGE, put

import focalis
from focalis.dataset import open_dataset, with_readers
from focalis.evaluation.beside_readers import CaseBesideReaders, set_beside
from focalis.evaluation.intervals import bootstrap_interval, paired_difference_interval, ratio_interval
from focalis.files import write_text
from focalis.model import load_model
from focalis.planning import Readers
from focalis.prediction import Settings, segment
from focalis.volume import Volume, read_volume
from focalis.workflows.record import provenance

RESULTS = HERE / "results" / "readers"
BEGIN, END = "<!-- readers: made by benchmarks/readers.py -->", "<!-- /readers -->"


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
    parser.add_argument(
        "--page", action="store_true", help="write the table into docs/evidence-tables.md and stop"
    )
    options = parser.parse_args()
    targets = options.target or get_args(Readers)
    if options.page:
        write_page(targets, options.minutes)
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
        result = focalis.fit(
            data, run, fold=fold, seed=seed, readers=target, start="scratch", resume=run.exists(), **time
        )
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
        row = {
            "command": provenance()["command"],
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
    model, windows = load_model(model_path), windows_of(data)
    rows: list[CaseBesideReaders] = []
    for case in with_readers(open_dataset(data)).select(names):
        image = case.read_images()[0]
        for number, origin in enumerate(windows[case.name]):
            made = segment(model, [cut(image, origin)], Settings(runtime="torch"))
            found = Volume((made.mask > 0).astype(np.uint8), made.grid)
            masks = {reader: cut(read_volume(path), origin) for reader, path in case.readers.items()}
            rows += set_beside(found, masks, {1: "nodule"}, case=f"{case.name} window {number}")
    return rows


def write_page(targets: Sequence[str], minutes: float) -> None:
    """Replace the measured part of the page by what is there."""
    lines = table(targets, minutes) or ["Nothing has been measured yet."]
    put(BEGIN, END, ["", *lines, ""])
    print(f"{PAGE}: {len(lines)} lines")


def table(targets: Sequence[str], minutes: float) -> list[str]:
    """A row per target, pooled over the folds and seeds that are there, cases averaged first.

    Only cases with two readers or more count: of the others nothing is known of the readers among themselves, and
    their one reader is the one whose contours `labels` trains on.
    """
    found = {target: measured(target, minutes) for target in targets}
    found = {target: rows for target, rows in found.items() if rows}
    if not found:
        return []
    revisions = sorted({str(row["revision"])[:12] for rows in found.values() for row in rows.values()})
    steps = sorted({row["steps"] for rows in found.values() for row in rows.values()})
    listed = ", ".join(f"{n:,}" for n in steps)
    measured_time = all(row["minutes_asked"] for rows in found.values() for row in rows.values())
    budget = (
        f"{minutes:g} minutes of training each ({listed} steps)" if measured_time else f"{listed} steps each"
    )
    lines = [
        f"{budget}; cases with two readers or more; revision {', '.join(f'`{each}`' for each in revisions)}.",
        "",
        "| trained on | folds, seeds | cases | Dice with the readers | by seed | minus `labels`, paired "
        "| readers among themselves | agreement index | the model lies |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(target, rows, found.get("labels", {})) for target, rows in found.items()]


def measured(target: str, minutes: float) -> dict[tuple[int, int], dict[str, Any]]:
    """The rows of a target by fold and seed."""
    paths = RESULTS.glob(f"lidc_nodules-{target}-{minutes:g}min-*.json")
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]
    return {(row["fold"], row["seed"]): row for row in rows}


Rows = Mapping[tuple[int, int], Mapping[str, Any]]


def _line(target: str, rows: Rows, labels: Rows) -> str:
    ours, theirs = of_several(rows), means(rows, "readers_dice")
    index = ratio_interval(list(ours.values()), list(theirs.values()))
    value = sum(ours.values()) / sum(theirs.values())
    seeds = sorted({seed for _, seed in rows})
    by_seed = [
        np.mean(list(of_several({key: row for key, row in rows.items() if key[1] == seed}).values()))
        for seed in seeds
    ]
    cells = [
        target,
        f"{len({fold for fold, _ in rows})}, {len(seeds)}",
        str(len(ours)),
        _text(np.mean(list(ours.values())), bootstrap_interval(list(ours.values()))),
        ", ".join(f"{dice:.3f}" for dice in by_seed),
        "" if target == "labels" else difference(rows, labels),
        f"{np.mean(list(theirs.values())):.3f}",
        _text(value, index),
        {True: "outside their spread", False: "above" if index[0] > 1 else "inside"}[index[1] < 1],
    ]
    return f"| {' | '.join(cells)} |"


def difference(rows: Rows, labels: Rows) -> str:
    """The mean paired difference of the Dice with the readers, over the folds and seeds that both have."""
    both = rows.keys() & labels.keys()
    if not both:
        return ""
    ours, theirs = (of_several({key: each[key] for key in both}) for each in (rows, labels))
    a, b = [ours[case] for case in ours], [theirs[case] for case in ours]
    return _text(float(np.mean(np.subtract(a, b))), paired_difference_interval(a, b))


def of_several(rows: Rows) -> dict[str, float]:
    """The model's Dice with the readers, of the cases with two readers or more."""
    several = means(rows, "readers_dice")
    return {case: dice for case, dice in means(rows, "model_dice").items() if case in several}


def means(rows: Rows, name: str) -> dict[str, float]:
    """A figure of each case, the mean over its windows and seeds; cases where it is defined."""
    found: dict[str, list[float]] = {}
    for row in rows.values():
        for window in row["windows"]:
            if window[name] is not None:
                found.setdefault(window["case"].split()[0], []).append(window[name])
    return {case: float(np.mean(values)) for case, values in sorted(found.items())}


def _text(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


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

"""Trainings beside each other that differ in one thing: their options, a row of figures for each, and the table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dataset import Case, Dataset, Split, find_splits, open_dataset, read_splits
from focalis.evaluation import evaluate_case, paired_difference_interval
from focalis.model import Model, load_model
from focalis.prediction import Settings, segment
from focalis.volume import Absent, Volume
from focalis.workflows.record import read_json, write_json


def options_of(text: str | None) -> argparse.ArgumentParser:
    """The options of such a benchmark; `text` describes it."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True, help="runs and rows")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run_or_table(text: str | None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The options of a benchmark with the commands `run` and `table`, and those of `run`; `text` describes it."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    commands.add_parser("table")
    return parser, run


def published_split(data: Dataset, fold: int) -> Split:
    """A fold of the splits that lie with a data set."""
    path = find_splits(data.root, None)
    if path is None:
        raise SystemExit(f"{data.root}: holds no splits")
    return read_splits(path, tuple(case.name for case in data.cases))[fold]


def print_rows(
    arms: Iterable[str], options: argparse.Namespace, trained: Callable[[str, Path], dict[str, Any]]
) -> None:
    """Make the row of each arm that is not there, by a run in the folder that it is given; print the table.

    Args:
        arms: the first is the one that the others are compared with.
        options: as `options_of` parses them.
        trained: arm and folder of the run to the row; its `dice` maps a condition to each held-out case's mean Dice.
    """
    shared = {"steps": options.steps, "fold": options.fold, "seed": options.seed}
    for arm in arms:
        run = options.out / f"{arm}-{options.steps}steps-fold{options.fold}-seed{options.seed}"
        row = run.with_suffix(".json")
        if not row.exists():
            write_json(row, {"arm": arm, **shared, **trained(arm, run)})
    rows = [read_json(path) for path in sorted(options.out.glob(f"*-{options.steps}steps-*.json"))]
    print("\n".join(table([row for arm in arms for row in rows if row["arm"] == arm])))


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Mean Dice by condition and arm, over folds and seeds, and the paired difference to the first arm."""
    yield "| condition | arm | cases | Dice | difference, 95 % interval |"
    yield "|---|---|---|---|---|"
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for condition in rows[0]["dice"]:
        by_arm = {
            arm: _by_case([row["dice"][condition] for row in rows if row["arm"] == arm]) for arm in arms
        }
        first = by_arm[arms[0]]
        for arm, cases in by_arm.items():
            both = sorted(set(first) & set(cases))
            a, b = ([each[case] for case in both] for each in (cases, first))
            low, high = paired_difference_interval(a, b)
            apart = "" if arm == arms[0] else f"{np.mean(np.subtract(a, b)):+.3f} ({low:+.3f} to {high:+.3f})"
            yield f"| {condition} | {arm} | {len(cases)} | {np.mean(list(cases.values())):.3f} | {apart} |"


def _by_case(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for case, dice in run.items():
            found.setdefault(case, []).append(dice)
    return {case: float(np.mean(dice)) for case, dice in found.items()}


def held_out(model: Path, dataset: Path) -> Iterator[tuple[Model, Case]]:
    """The model of a run, and each case that the run held out."""
    names = read_json(model.parent / "record.json")["cases"]["held_out"]
    loaded = load_model(model)
    for case in open_dataset(dataset).select(names):
        yield loaded, case


def dice_on(model: Model, case: Case, volumes: Sequence[Volume | Absent]) -> float:
    """The mean Dice over the labels of a case, predicted from these volumes."""
    found = segment(model, volumes, Settings(runtime="torch"))
    mask = Volume(found.mask, found.grid)
    scores = evaluate_case(case.read_label(), mask, case.drawn_of(model.plan.labels), case=case.name)
    return float(np.mean([score.dice for score in scores]))

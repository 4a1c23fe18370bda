"""What it brings few cases that those which choose the operating point train too (`fit --then-all`).

    python benchmarks/all_cases.py run lidc_nodules --cases 10                     train what is missing
    python benchmarks/all_cases.py run lidc_nodules --cases 10 --only draw
    python benchmarks/all_cases.py table                    the tables of docs/evidence-tables.md, from what is there

`apart` trains on all cases but the inner split, which chooses the operating point. `all` trains on all of them for as
many steps, and keeps that point. Both start from shapes. A `draw` is of fold 0's training cases, judged on other
training cases of it. A `fold` has the cases of the few-case rows of `evidence.py`, judged on its held-out cases; with
`--beside` that row itself is `apart`. A row that is there is not made again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import table
from evidence_data import Task, inner_of, task_of
from evidence_plan import RESULTS, Row
from evidence_rows import plan_of, score
from tables import PAGE, replaced

from focalis.dataset import Split
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.networks import Network
from focalis.planning import SHAPES, Plan
from focalis.prediction import choose_runtime
from focalis.training import operating_point, prepare_cases, train
from focalis.training.start import read_start
from focalis.workflows.record import data_hash, provenance, read_json, write_json

APART, ALL = "apart", "all"
STEPS, DRAWS, JUDGED = 350, range(4), 40
FOLDS, SEEDS = (0, 1), (1, 2)
POINT = ("threshold", "minimum_mm3", "minimum_confidence", "temperature")
FOLDER = RESULTS / "all_cases"
BEGIN, END = "<!-- all cases: made by benchmarks/all_cases.py -->", "<!-- /all cases -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make rows, or the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("data", choices=["lidc_nodules", "msd_hippocampus", "sts_pet"])
    run.add_argument("--cases", type=int, default=10)
    run.add_argument("--steps", type=int, default=STEPS)
    run.add_argument("--beside", action="store_true", help="take `apart` from the rows of evidence.py")
    run.add_argument("--only", default="", help="rows whose place, draw0 or fold0-seed1, holds this text")
    commands.add_parser("table")
    options = parser.parse_args(arguments)
    if options.command == "table":
        lines = tables()
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, lines), encoding="utf-8")
        print("\n".join(lines))
        return
    torch.set_num_threads(1)
    draws = [] if options.beside else [f"draw{draw}" for draw in DRAWS]
    places = [*draws, *(f"fold{f}-seed{s}" for s in SEEDS for f in FOLDS)]
    for place in places:
        path = FOLDER / f"{options.data}-{options.cases}cases-{options.steps}steps-{place}.json"
        if options.only in place and not path.exists():
            write_json(path, {"rows": made(options, place)})
            print(path.name, flush=True)


def made(options: argparse.Namespace, place: str) -> list[dict[str, Any]]:
    """Both ways to train, from the same cases, as rows of `arms.table`."""
    began = provenance()
    with tempfile.TemporaryDirectory() as folder:
        row, task = _task(options, place, Path(folder))
        trial = Trial(row, task, Path(folder))
        if options.beside:
            beside = read_json(row.path())
            point = OperatingPoint(**{name: beside[name] for name in POINT})
            apart = by_case(beside["scores"]["held_out"])
        else:
            network = trial.trained(APART, trial.inner.train)
            point = trial.point(network)
            apart = trial.judged(network, point)
        whole = trial.judged(trial.trained(ALL, task.split.train), point)
    said = {
        **began,
        "place": place,
        "seed": row.seed,
        "steps": row.steps,
        "data_sha256": data_hash(task.data.cases),
        "minimum_confidence": point.minimum_confidence,
    }
    if options.beside:
        said["apart_is"] = row.name
    return [
        {**said, "arm": APART, "cases": len(trial.inner.train), "dice": apart},
        {**said, "arm": ALL, "cases": len(task.split.train), "dice": whole},
    ]


def by_case(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean Dice of the parts of each case, at the operating point and at one half."""
    found: dict[str, dict[str, list[float]]] = {}
    for part in parts:
        for title, key in (("at its point", "dice"), ("at one half", "dice_at_half")):
            found.setdefault(title, {}).setdefault(part["case"], []).append(part[key])
    return {
        title: {case: round(float(np.mean(each)), 5) for case, each in cases.items()}
        for title, cases in found.items()
    }


def _task(options: argparse.Namespace, place: str, folder: Path) -> tuple[Row, Task]:
    """The cases that train and those that judge, by the place."""
    data, cases, steps = options.data, options.cases, options.steps
    if place.startswith("fold"):
        fold, seed = (
            int(part.removeprefix(name))
            for part, name in zip(place.split("-"), ("fold", "seed"), strict=True)
        )
        row = Row(data, cases=cases, fold=fold, seed=seed, steps=steps, start=SHAPES)
        return row, task_of(row, folder)
    draw = int(place.removeprefix("draw"))
    row = Row(data, seed=draw, steps=steps, start=SHAPES)
    task = task_of(row, folder)
    order = np.random.default_rng((7, draw)).permutation(task.split.train)
    split = Split(tuple(sorted(order[:cases])), tuple(sorted(order[cases : cases + JUDGED])))
    return row, replace(task, split=split)


class Trial:
    """What both ways share: the cases, their plan, the start."""

    def __init__(self, row: Row, task: Task, folder: Path) -> None:
        self.row, self.task, self.folder, self.runtime = row, task, folder, choose_runtime()
        self.inner = inner_of(task, row.seed)
        self.plan: Plan = plan_of(row, task)

    def trained(self, arm: str, names: Sequence[str]) -> Network:
        """A training on these cases."""
        home = self.folder / arm
        home.mkdir()
        return train(
            self.plan,
            prepare_cases(self.task.data.select(names), self.plan, self.folder / "prepared"),
            [],
            home,
            steps=self.row.steps,
            seed=self.row.seed,
            runtime=self.runtime,
            start=read_start(SHAPES),
        )

    def point(self, network: Network) -> OperatingPoint:
        """The one that the inner split chooses."""
        cases = prepare_cases(self.task.data.select(self.inner.val), self.plan, self.folder / "prepared")
        return operating_point(self.plan, network, cases, self.runtime)

    def judged(self, network: Network, point: OperatingPoint) -> dict[str, dict[str, float]]:
        """The mean Dice of each case that trained nothing, see `by_case`."""
        return by_case(score(Model(self.plan, (network,), point), self.task, self.task.split.val))


def tables() -> list[str]:
    """A table per data set, number of cases and kind of place, of the rows that are there."""
    lines = []
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        data, cases, steps, place = path.stem.split("-")[:4]
        groups.setdefault((data, cases, steps, place[:4]), []).extend(read_json(path)["rows"])
    for (data, cases, steps, kind), rows in groups.items():
        judged = "other training cases" if kind == "draw" else "held-out cases of two folds"
        count = len({row["place"] for row in rows})
        what = f"{cases.removesuffix('cases')} cases, {steps.removesuffix('steps')} steps"
        said = f"{data}, {what}, {count} trainings each, on {judged}:"
        lines += [said, "", *table([row for arm in (APART, ALL) for row in rows if row["arm"] == arm]), ""]
    return lines


if __name__ == "__main__":
    main()

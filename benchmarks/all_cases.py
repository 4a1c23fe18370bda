"""What it brings few cases that those which choose the operating point train too (`fit --then-all`).

    python benchmarks/all_cases.py run lidc_nodules --cases 10                     train what is missing
    python benchmarks/all_cases.py run lidc_nodules --only fold0-seed1             one row
    python benchmarks/all_cases.py table                    the tables of docs/evidence-tables.md, from what is there

`apart` trains on all cases but the inner split, which chooses the operating point. `all` trains on all of them for as
many steps, and keeps that point. `all, three` averages it with two more, which have other seeds. All start from shapes,
with the cases of the few-case rows of `evidence.py`, and are judged on the held-out ones. With `--beside` the row of
`evidence.py` itself is `apart`. A row that is there is not made again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from arms import run_or_table, table
from evidence_plan import RESULTS, Row
from evidence_rows import plan_of, plan_of_network, score
from few_cases import CASES, FOLDS, SEEDS, STEPS, Trial, by_case
from tables import put

from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import SHAPES, SHAPES_OF
from focalis.training import operating_point, prepare_cases
from focalis.workflows.record import data_hash, provenance, read_json, write_json

APART, ALL, THREE = ARMS = "apart", "all", "all, three"
MORE = 10
"""From one member's seed to the next one's."""
POINT = ("threshold", "minimum_mm3", "minimum_confidence", "temperature")
CONDITIONS = {"at its point": "dice", "at one half": "dice_at_half"}
FOLDER = RESULTS / "all_cases"
BEGIN, END = "<!-- all cases: made by benchmarks/all_cases.py -->", "<!-- /all cases -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make rows, or the tables."""
    parser, run = run_or_table(__doc__)
    run.add_argument("data", choices=["lidc_nodules", "msd_hippocampus", "sts_pet"])
    run.add_argument("--network", choices=list(SHAPES_OF), default="dense")
    run.add_argument("--cases", type=int, default=CASES)
    run.add_argument("--steps", type=int, default=STEPS)
    run.add_argument("--beside", action="store_true", help="take `apart` from the rows of evidence.py")
    run.add_argument("--only", default="", help="rows whose place, such as fold0-seed1, holds this text")
    options = parser.parse_args(arguments)
    if options.command == "table":
        lines = tables()
        put(BEGIN, END, lines)
        print("\n".join(lines))
        return
    torch.set_num_threads(1)
    for seed in SEEDS:
        for fold in FOLDS:
            row = Row(
                options.data,
                network=options.network,
                cases=options.cases,
                fold=fold,
                seed=seed,
                steps=options.steps,
                start=SHAPES,
            )
            place = f"fold{fold}-seed{seed}"
            network = "" if row.network == "dense" else f"{row.network}-"
            path = FOLDER / f"{row.data}-{row.cases}cases-{row.steps}steps-{network}{place}.json"
            if options.only in place and not path.exists():
                write_json(path, {"rows": made(row, place, options.beside)})
                print(path.name, flush=True)


def made(row: Row, place: str, is_beside: bool) -> list[dict[str, Any]]:
    """The ways to train, from the same cases, as rows of `arms.table`."""
    began = provenance()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(row, Path(folder))
        data, plan = trial.task.data, plan_of_network(plan_of(row, trial.task), row, trial.task)

        def trained(names: Sequence[str], *seeds: int) -> Model:
            cases = data.select(names)
            return Model(
                plan, tuple(trial.network(cases, plan, trial.start, seed, row.steps) for seed in seeds)
            )

        def judged(model: Model, at: OperatingPoint) -> list[dict[str, Any]]:
            return score(Model(plan, model.members, at), trial.task, trial.task.split.val)

        if is_beside:
            beside = read_json(row.path())
            point = OperatingPoint(**{name: beside[name] for name in POINT})
            apart = beside["scores"]["held_out"]
        else:
            model = trained(trial.inner.train, row.seed)
            choosing = prepare_cases(data.select(trial.inner.val), plan, Path(folder) / "prepared")
            point = operating_point(plan, model.members[0], choosing, trial.runtime)
            apart = judged(model, point)
        everything = trial.task.split.train
        three = trained(everything, *(row.seed + MORE * number for number in range(3)))
        alone = judged(Model(plan, three.members[:1]), point)
        together = judged(three, point)
    said = {
        **began,
        "network": row.network,
        "place": place,
        "seed": row.seed,
        "steps": row.steps,
        "data_sha256": data_hash(data.cases),
        "minimum_confidence": point.minimum_confidence,
    }
    if is_beside:
        said["apart_is"] = row.name
    return [
        {
            **said,
            "arm": arm,
            "cases": len(names),
            "dice": {title: by_case(parts, key) for title, key in CONDITIONS.items()},
        }
        for arm, names, parts in (
            (APART, trial.inner.train, apart),
            (ALL, everything, alone),
            (THREE, everything, together),
        )
    ]


def tables() -> list[str]:
    """A table per data set, number of cases and steps, of the rows that are there."""
    lines = []
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        rows = read_json(path)["rows"]
        network = rows[0].get("network", "dense")
        groups.setdefault((*path.stem.split("-")[:3], network), []).extend(rows)
    for (data, cases, steps, network), rows in groups.items():
        count = len({row["place"] for row in rows})
        what = f"{cases.removesuffix('cases')} cases, {steps.removesuffix('steps')} steps"
        said = f"{data}, `{network}`, {what}, {count} trainings each, on held-out cases of two folds:"
        arms = [arm for arm in ARMS if sum(row["arm"] == arm for row in rows) == count]
        lines += [said, "", *table([row for arm in arms for row in rows if row["arm"] == arm]), ""]
    return lines


if __name__ == "__main__":
    main()

"""Which learning rate suits a training that starts from a trained model (`fit --start MODEL`).

    python benchmarks/fine_tuning.py run --runs runs/fine-tuning     train what is missing; a row takes two minutes
    python benchmarks/fine_tuning.py table                           the tables of docs/evidence-tables.md

A model of half of a fold's nodules meets ten new cases: other nodules, the same nodules drawn more generously (the
union of the readers) or by another name, so that the output layer is fresh, or sarcomas in PET. From there the peak
of the learning rate is that of every training, times 1, 0.3, 0.1 or 0.03; beside them the ten cases alone, from
shapes. All take 350 steps. The figure is the Dice at one half. The rate is chosen by training cases that neither
model has seen; held-out cases only report. An arm that is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import run_or_table, table
from evidence_data import NODULES, Task, data_folder
from evidence_plan import RESULTS, Row
from evidence_rows import score
from few_cases import CASES, FOLDS, SEEDS, STEPS, Trial, by_case
from tables import put

from focalis.dataset import Case
from focalis.model import Model, load_model, save_model
from focalis.planning import SHAPES, Plan
from focalis.training.start import read_start
from focalis.volume import Volume, read_volume, write_volume
from focalis.workflows.record import data_hash, provenance, read_json, write_json

BASE_STEPS = 2700
FACTORS = {"rate x 1": 1.0, "rate x 0.3": 0.3, "rate x 0.1": 0.1, "rate x 0.03": 0.03}
ALONE, UNTRAINED = "ten cases alone, from shapes", "the model as it is"
ARMS = (*FACTORS, ALONE, UNTRAINED)
NEW = {"nodules": NODULES, "generous": NODULES, "renamed": NODULES, "sarcomas": "sts_pet"}
"""What the model meets, and the data set that it is of."""
CHOOSING = 20
FOLDER = RESULTS / "fine_tuning"
BEGIN, END = "<!-- fine-tuning: made by benchmarks/fine_tuning.py -->", "<!-- /fine-tuning -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make rows, or the tables."""
    parser, run = run_or_table(__doc__)
    run.add_argument(
        "--runs", type=Path, default=Path("runs") / "fine-tuning", help="the models to start from"
    )
    run.add_argument(
        "--only", default="", help="rows whose name, such as nodules-fold0-seed1, holds this text"
    )
    options = parser.parse_args(arguments)
    if options.command == "table":
        lines = tables()
        put(BEGIN, END, lines)
        print("\n".join(lines))
        return
    torch.set_num_threads(1)
    for seed in SEEDS:
        for fold in FOLDS:
            for new in NEW:
                path = FOLDER / f"{new}-fold{fold}-seed{seed}.json"
                there = read_json(path)["rows"] if path.exists() else []
                missing = [arm for arm in ARMS if arm not in {row["arm"] for row in there}]
                if options.only in path.stem and missing:
                    rows = [*there, *made(new, fold, seed, options.runs, missing)]
                    write_json(path, {"rows": sorted(rows, key=lambda row: ARMS.index(row["arm"]))})
                    print(path.name, flush=True)


def tables() -> list[str]:
    """A table per kind of new cases, of the rows that are there."""
    lines = []
    for new in NEW:
        rows = [row for path in sorted(FOLDER.glob(f"{new}-*.json")) for row in read_json(path)["rows"]]
        if rows:
            count = len({row["place"] for row in rows})
            said = f"A model of nodules meets {CASES} {new}, {STEPS} steps, {count} trainings each:"
            lines += [said, "", *table([row for arm in ARMS for row in rows if row["arm"] == arm]), ""]
    return lines


def made(new: str, fold: int, seed: int, runs: Path, arms: Sequence[str]) -> list[dict[str, Any]]:
    """A row of `arms.table` for each of these arms: each choosing and each held-out case's mean Dice at one half."""
    began, place = provenance(), f"fold{fold}-seed{seed}"
    path = base_model(fold, runs)
    base = load_model(path)
    row = Row(NEW[new], cases=CASES, fold=fold, seed=seed, steps=STEPS, start=SHAPES)
    trial = Trial(row, runs / f"{new}-{place}")
    known = base.provenance["cases"] if NEW[new] == NODULES else []
    assert isinstance(known, list)
    unseen = [name for name in trial.unlabelled if name not in known]
    choosing = [unseen[i] for i in np.random.default_rng(seed).permutation(len(unseen))[:CHOOSING]]
    task = drawn_generously(trial.task, trial.folder) if new == "generous" else trial.task
    cases, plan = task.data.select(trial.inner.train), trial.plan
    if new == "renamed":
        plan = plan.model_copy(update={"labels": dict.fromkeys(plan.labels, new)})
    found = []
    for arm in arms:
        if arm == UNTRAINED:
            model = Model(base.plan.model_copy(update={"ignore": plan.ignore}), base.members)
        else:
            start = trial.start if arm == ALONE else read_start(path)
            assert start is not None
            rated = with_rate(plan, FACTORS.get(arm, 1.0))
            model = Model(rated, (trial.network(cases, rated, start, seed, STEPS),))
        found.append(
            {
                **began,
                "command": f"python benchmarks/fine_tuning.py run --only {new}-{place}",
                "arm": arm,
                "place": place,
                "data_sha256": data_hash(task.data.cases),
                "cases": len(cases),
                "dice": {
                    title: by_case(score(model, task, names))
                    for title, names in (("choosing cases", choosing), ("held out", task.split.val))
                },
            }
        )
    return found


def with_rate(plan: Plan, factor: float) -> Plan:
    """The plan with so many times its peak of the learning rate."""
    rate = plan.training.learning_rate * factor
    return plan.model_copy(update={"training": plan.training.model_copy(update={"learning_rate": rate})})


def base_model(fold: int, runs: Path) -> Path:
    """The model of half of a fold's training cases, without the ten; trained if it is not there."""
    path = runs / f"nodules-of-fold{fold}.safetensors"
    if not path.exists():
        row = Row(NODULES, cases=CASES, fold=fold, seed=0, steps=BASE_STEPS, start=SHAPES)
        trial = Trial(row, runs / f"base-fold{fold}")
        order = np.random.default_rng(fold).permutation(len(trial.unlabelled))
        names = sorted(trial.unlabelled[i] for i in order[: len(order) // 2])
        network = trial.network(trial.task.data.select(names), trial.plan, trial.start, 0, BASE_STEPS)
        save_model(Model(trial.plan, (network,), provenance={"cases": names}), path)
    return path


def drawn_generously(task: Task, folder: Path) -> Task:
    """The task with every label the union of its readers."""
    cases: list[Case] = []
    for case in task.data.cases:
        masks = [
            read_volume(path).array > 0
            for path in sorted((data_folder() / NODULES / "raters").glob(f"{case.name}_r*.nii.gz"))
        ]
        label = case.read_label()
        path = folder / "generous" / f"{case.name}.nii.gz"
        if not path.exists():
            union = np.any([label.array > 0, *masks], axis=0)
            write_volume(Volume(union.astype(np.uint8), label.grid), path)
        cases.append(replace(case, label=path))
    return replace(task, data=replace(task.data, cases=tuple(cases)))


if __name__ == "__main__":
    main()

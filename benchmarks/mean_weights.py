"""What the background weighs on average in the patches that a row trains on: what the controls without distance match.

    python benchmarks/mean_weights.py

For the exponential with each k that was tried over all folds, the mean weight of a background voxel in the patches with
a lesion of the row of fold 0 and seed 0, per data set. Nothing is trained. FOCALIS_DATA names the folder of the data
sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_data import NODULES, inner_of, task_of
from evidence_plan import EXPONENTIAL, FASTER, RESULTS, Row
from evidence_rows import plan_of, prepared_folder

from focalis.losses.distance import background_weight
from focalis.training import prepare_cases
from focalis.training.batches import batches
from focalis.workflows.record import data_hash, provenance, write_json

DATA = (NODULES, "oasis_inferior_ventricle", "phantoms")
LOSSES = (EXPONENTIAL, FASTER)
FILE = Path("choices") / "mean_weights.json"
"""Where the result lies below benchmarks/results."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where prepared cases lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    options = parser.parse_args(arguments)
    made = provenance()  # before the work: when it began
    sets = {name: of_row(Row(name), options.runs) for name in DATA}
    write_json(options.results / FILE, {**made, "sets": sets})
    for name, found in sets.items():
        print(name, found)


def of_row(row: Row, runs: Path) -> dict[str, Any]:
    """The mean background weights over the row's patches with a lesion, by k in 1/mm."""
    task = task_of(row, runs)
    plan = plan_of(row, task)
    cases = prepare_cases(task.data.select(inner_of(task, row.seed).train), plan, prepared_folder(row, runs))
    means: dict[float, list[float]] = {loss.k_per_mm: [] for loss in LOSSES}
    for batch in batches(cases, plan, row.seed, range(row.steps)):
        for label, distance_mm in zip(batch.label, batch.distance_mm, strict=True):
            if not (label > 0).any():
                continue
            for loss in LOSSES:
                weight = background_weight(
                    distance_mm[label == 0], loss.weight, loss.k_per_mm, loss.floor, loss.cap_mm
                )
                means[loss.k_per_mm].append(float(weight.mean()))
    return {
        "data_sha256": data_hash(task.data.cases),
        "patches": row.steps * plan.batch,
        "patches_with_lesion": len(means[EXPONENTIAL.k_per_mm]),
        "mean_weight": {f"k {k:g}/mm": round(float(np.mean(values)), 4) for k, values in means.items()},
    }


if __name__ == "__main__":
    main()

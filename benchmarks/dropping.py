"""What dropping small and unsure lesions is worth when few cases choose it.

    python benchmarks/dropping.py lidc_nodules --keep runs/dropping

Four networks (two folds, two seeds) are trained on ten cases from shapes and applied to the other training cases of
their fold; no held-out case is touched. Again and again a few of those choose the operating point (`choose`), and the
others are judged by it, beside the same threshold with nothing dropped. `--keep` keeps what the networks found, so that
another rule is judged on the same lesions without a training.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_plan import RESULTS, Row
from few_cases import CASES, DATA, FOLDS, SEEDS, STEPS, Trial

from focalis.evaluation import bootstrap_interval, choose, cut
from focalis.evaluation.point_choice import THRESHOLDS
from focalis.lesions import Candidates
from focalis.model import Model
from focalis.planning import SHAPES
from focalis.prediction import Settings, segment
from focalis.workflows.record import provenance, write_json

CHOOSING, DRAWS = (3, 6, 12, 20), 40
Found = list[tuple[Candidates, ...]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, help="instead of the result that the documentation quotes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.keep.mkdir(parents=True, exist_ok=True)
    began = provenance()
    networks = [
        found(options.data, fold, seed, options.steps, options.keep) for seed in SEEDS for fold in FOLDS
    ]
    rows = {str(count): [judged(network, count) for network in networks] for count in CHOOSING}
    for count, row in rows.items():
        print(count, "cases choose:", *("{dice:+.3f} ({low:+.3f})".format(**each) for each in row))
    content = {
        **began,
        "data": options.data,
        "steps": options.steps,
        "draws": DRAWS,
        "by_choosing_cases": rows,
    }
    write_json(options.out or RESULTS / "thresholds" / f"dropping-{options.data}.json", content)


def found(data: str, fold: int, seed: int, steps: int, keep: Path) -> Found:
    """What a network finds in the cases that it was not trained on, at every threshold."""
    path = keep / f"{data}-{fold}-{seed}-{steps}.pkl"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(
                Row(data, cases=CASES, fold=fold, seed=seed, steps=steps, start=SHAPES), Path(folder)
            )
            cases = trial.task.data.select(trial.inner.train)
            network = trial.network(cases, trial.plan, trial.start, seed, steps)
            model, rows = Model(trial.plan, (network,)), []
            for case in trial.task.data.select(trial.unlabelled):
                seen = segment(model, case.read_images(), Settings(runtime="torch"))
                truth = case.read_label()
                rows.append(cut(case.name, truth.array > 0, seen.probability, truth.grid.voxel_volume_mm3))
        path.write_bytes(pickle.dumps(rows))
    kept: Found = pickle.loads(path.read_bytes())
    return [tuple(replace(each, features=None) for each in row) for row in kept]


def judged(rows: Found, count: int) -> dict[str, Any]:
    """Means over draws of so many choosing cases, on the others: Dice gained, sensitivity and false lesions per case.

    `low` and `high` are the interval of the gain over cases; a case's gains in all draws are averaged first. `worst` is
    the tenth of the draws that lose most.
    """
    rng = np.random.default_rng(count)
    gains: list[list[float]] = [[] for _ in rows]
    draws, sensitivity, false = [], [], []
    for _ in range(DRAWS):
        order = rng.permutation(len(rows))
        point = choose([rows[i] for i in order[:count]])
        level = THRESHOLDS.index(point.threshold)
        drawn, hits, lesions, wrong = [], 0, 0, 0
        for i in order[count:]:
            one = rows[i][level]
            keep = one.kept(point.minimum_mm3, point.minimum_confidence)
            drawn.append(one.dice(keep) - one.dice(one.kept(0, 0)))
            gains[i].append(drawn[-1])
            match = one.overlaps.match(keep)
            hits, wrong = hits + len(match.pairs), wrong + len(match.unmatched_predicted)
            lesions += one.truth_mm3.size
        draws.append(float(np.mean(drawn)))
        sensitivity.append(hits / lesions)
        false.append(wrong / len(drawn))
    by_case = np.array([np.mean(each) for each in gains if each])
    low, high = bootstrap_interval(by_case)
    figures = {
        "dice": by_case.mean(),
        "low": low,
        "high": high,
        "worst": np.quantile(draws, 0.1),
        "sensitivity": np.mean(sensitivity),
        "false_per_case": np.mean(false),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()

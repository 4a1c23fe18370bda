"""Is a chosen threshold worth more than one half? Nested draws of few cases, judged on the others.

    python benchmarks/thresholds.py DATASET MODEL.safetensors [MODEL.safetensors ...]

Each model is applied to cases that it was not trained on (those that `shapes_trial.py` judges; no held-out case of a
fold). Again and again a few of them choose the operating point, and the others are judged by it, beside one half with
nothing dropped, and beside one half with what the point drops. A result per data set, all models pooled.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evidence_data import data_folder
from shapes_trial import DATA, draw

from focalis.dataset import open_dataset
from focalis.evaluation import bootstrap_interval, choose, cut
from focalis.evaluation.point_choice import THRESHOLDS
from focalis.lesions import Candidates, temper
from focalis.model import Model, load_model
from focalis.prediction import segment
from focalis.workflows.record import provenance, write_json

RESULTS = Path(__file__).parent / "results" / "thresholds"
CHOOSING, DRAWS = (3, 6, 12), 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, draw, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=list(DATA))
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    began = provenance()
    rows = {path.stem: candidates(options.dataset, load_model(path)) for path in options.models}
    found = {str(count): {name: judged(cases, count) for name, cases in rows.items()} for count in CHOOSING}
    write_json(RESULTS / f"{options.dataset}.json", {**began, "draws": DRAWS, "by_choosing_cases": found})
    print(json.dumps(found, indent=1))


def candidates(name: str, model: Model) -> list[tuple[Candidates, ...]]:
    """The lesions of each judged case at every threshold, on the case's own grid."""
    data = open_dataset(data_folder() / name)
    rows = []
    for case in data.select(draw(data, 10, 0).val):
        found = segment(model, case.read_images())
        probability = temper(found.probability, 1 / found.point.temperature)
        truth = case.read_label()
        rows.append(cut(case.name, truth.array > 0, probability, truth.grid.voxel_volume_mm3))
    return rows


def judged(rows: Sequence[tuple[Candidates, ...]], count: int) -> dict[str, object]:
    """Mean thresholds and paired differences to one half over draws of so many choosing cases.

    Intervals are those of the cases: a case's differences in all draws that judge it are averaged first.
    """
    rng, half = np.random.default_rng(count), THRESHOLDS.index(0.5)
    thresholds: list[float] = []
    threshold_alone: list[list[float]] = [[] for _ in rows]
    point: list[list[float]] = [[] for _ in rows]
    for _ in range(DRAWS):
        order = rng.permutation(len(rows))
        chosen = choose([rows[i] for i in order[:count]])
        at = THRESHOLDS.index(min(THRESHOLDS, key=lambda level: abs(level - chosen.threshold)))
        thresholds.append(chosen.threshold)
        for i in order[count:]:
            dropped = rows[i][at].kept(chosen.minimum_mm3, chosen.minimum_confidence)
            plain = rows[i][half].dice(rows[i][half].kept(0, 0))
            threshold_alone[i].append(rows[i][at].dice(rows[i][at].kept(0, 0)) - plain)
            point[i].append(rows[i][at].dice(dropped) - plain)
    return {
        "thresholds": sorted({round(level, 4): thresholds.count(level) for level in thresholds}.items()),
        "threshold_less_half": _difference(threshold_alone),
        "point_less_half": _difference(point),
    }


def _difference(by_case: Sequence[Sequence[float]]) -> list[float]:
    means = np.array([np.mean(each) for each in by_case if each])
    return [round(float(value), 4) for value in (means.mean(), *bootstrap_interval(means))]


if __name__ == "__main__":
    main()

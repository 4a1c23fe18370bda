"""An operating point chosen out of fold, as that of an ensemble of folds is, judged on a fold that it does not know.

    python benchmarks/evidence.py accuracy-start --results again    five folds, in runs/
    python benchmarks/out_of_fold.py runs                           trains nothing

Each fold's model predicts the whole crops that the fold held out. The crops of four folds choose a point together, and
it is applied to those of the fifth, in turn. Beside it: one half with nothing dropped, and each model's own point,
which its own inner split chose. FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from evidence_data import NODULES, data_folder
from evidence_plan import FOLDS, RESULTS, FitRow
from numpy.typing import NDArray

from focalis.dataset import open_dataset, read_splits
from focalis.evaluation import choose, cut, paired_difference_interval
from focalis.evaluation.point_choice import ONE_HALF, THRESHOLDS
from focalis.lesions import Candidates, OperatingPoint, lesion_chance, temper
from focalis.model import Model, load_model
from focalis.planning import SHAPES
from focalis.prediction import Settings, segment
from focalis.workflows.record import data_hash, provenance, write_json

HALF, OWN, OTHERS = "one half, nothing dropped", "each model's own", "of the other folds' cases"
Row = tuple[Candidates, ...]


@dataclass
class Tally:
    """What comes of a way to choose, over all folds."""

    dice: list[float] = field(default_factory=list)
    found: int = 0
    false: int = 0

    def add(self, rows: Sequence[Row], point: OperatingPoint) -> None:
        """Count the cases of a fold, by the probabilities as the network gives them."""
        for row in rows:
            one = row[nearest(point.threshold)]
            keep = one.kept(point.minimum_mm3, point.minimum_confidence)
            if point.second_look and one.features is not None:
                keep = lesion_chance(point.second_look, one.features) >= 0.5
            match = one.overlaps.match(keep)
            self.dice.append(one.dice(keep))
            self.found, self.false = (
                self.found + len(match.pairs),
                self.false + len(match.unmatched_predicted),
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, choose, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="where the rows of accuracy-start were trained")
    parser.add_argument("--out", type=Path, default=RESULTS / "thresholds" / "out_of_fold.json")
    options = parser.parse_args(arguments)
    began = provenance()
    data = open_dataset(data_folder() / NODULES)
    models = [
        load_model(options.runs / FitRow(NODULES, fold, start=SHAPES).name / "model.safetensors")
        for fold in FOLDS
    ]
    splits = read_splits(data.root / "splits_5fold.json")
    folds = [list(rows_of(model, data.root, split.val)) for model, split in zip(models, splits, strict=True)]
    tallies = {HALF: Tally(), OWN: Tally(), OTHERS: Tally()}
    for fold, (model, rows) in enumerate(zip(models, folds, strict=True)):
        tallies[HALF].add(rows, OperatingPoint(ONE_HALF))
        others = [row for number, each in enumerate(folds) if number != fold for row in each]
        for name, point in ((OWN, model.operating_point), (OTHERS, choose(others))):
            tallies[name].add(rows, untempered(point))
            print(fold, name, point.how)
    plain = tallies[HALF].dice
    found = {
        name: {
            "dice": round(float(np.mean(each.dice)), 4),
            "found": each.found,
            "false": each.false,
            "less_one_half": [
                round(float(value), 4)
                for value in (
                    np.mean(np.subtract(each.dice, plain)),
                    *paired_difference_interval(each.dice, plain),
                )
            ],
        }
        for name, each in tallies.items()
    }
    models_sha256 = [model.identity.weights_sha256 for model in models]
    write_json(
        options.out,
        {
            **began,
            "dataset": NODULES,
            "data_sha256": data_hash(data.cases),
            "models_sha256": models_sha256,
            "lesions": sum(row[0].overlaps.truth_voxels.size for rows in folds for row in rows),
            "points": found,
        },
    )
    for name, each in found.items():
        print(name, each)


def rows_of(model: Model, root: Path, names: Sequence[str]) -> Iterator[Row]:
    """What a model finds in each case at every threshold, by the probabilities as the network gives them."""
    plain = replace(model, operating_point=replace(model.operating_point, second_look=()))
    for case in open_dataset(root).select(names):
        found, truth = segment(plain, case.read_images(), Settings(runtime="torch")), case.read_label()
        raw: NDArray[np.float32] = temper(found.probability, 1 / found.point.temperature)
        yield cut(
            case.name,
            truth.array > 0,
            raw,
            truth.grid.voxel_volume_mm3,
            spacing_zyx_mm=truth.grid.spacing_zyx_mm,
        )


def untempered(point: OperatingPoint) -> OperatingPoint:
    """The point in probabilities as the network gives them."""

    def raw(probability: float) -> float:
        return float(temper(np.asarray(probability, dtype=np.float64), 1 / point.temperature))

    return replace(
        point,
        threshold=raw(point.threshold),
        minimum_confidence=raw(point.minimum_confidence) if point.minimum_confidence else 0.0,
    )


def nearest(threshold: float) -> int:
    """The place among `THRESHOLDS`, from which the point was chosen."""
    return int(np.argmin(np.abs(np.subtract(THRESHOLDS, threshold))))


if __name__ == "__main__":
    main()

"""What partly drawn cases cost: each training case shows one of two labels, judged on cases that have both.

    python benchmarks/partly_drawn.py /data/msd_hippocampus -o runs/partly --steps 2000 --fold 0

Three trainings on one split: `whole` sees both labels in every case, `drawn` one label in each and `dataset.json` says
which, `taken_for_whole` the same label maps without that statement. A row that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import options_of, print_rows, published_split

import focalis
from focalis.dataset import Split, open_dataset, write_splits
from focalis.dataset.case import Dataset
from focalis.volume import Volume, write_volume
from focalis.workflows.record import provenance, read_json

ARMS = ("whole", "drawn", "taken_for_whole")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the three arms and print their mean Dice by label."""
    parser = options_of(__doc__)
    parser.add_argument("--cases", type=int, help="train and validate on the first so many of each side")
    options = parser.parse_args(arguments)
    data = open_dataset(options.dataset)
    split = published_split(data, options.fold)
    split = Split(split.train[: options.cases], split.val[: options.cases])
    print_rows(ARMS, options, lambda arm, run: trained(arm, run, data, split, options))


def trained(arm: str, run: Path, data: Dataset, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """The row of an arm: each held-out case's Dice by label."""
    folder = options.out / f"data_{arm}_fold{options.fold}"
    shutil.rmtree(folder, ignore_errors=True)
    write_data(arm, data, split, folder)
    made_from = provenance()
    result = focalis.fit(folder, run, fold=0, steps=options.steps, seed=options.seed, eight_bit=False)
    dice: dict[str, dict[str, float]] = {}
    for score in read_json(result.model.parent / "evaluation.json")["cases"]:
        dice.setdefault(score["name"], {})[score["case"]] = score["dice"]
    return {**made_from, "dice": dice}


def write_data(arm: str, data: Dataset, split: Split, folder: Path) -> None:
    """A copy of the cases of a split; but for `whole`, every other training case keeps the one or the other label."""
    labels = dict(data.labels) or {1: "anterior", 2: "posterior"}
    drawn = {}
    for number, name in enumerate((*split.train, *split.val)):
        (case,) = data.select((name,))
        label = case.read_label()
        kept = sorted(labels)[number % 2]
        if arm != "whole" and name in split.train:
            label = Volume(np.where(label.array == kept, label.array, 0), label.grid)
            drawn[name] = [labels[kept]]
        write_volume(case.read_images()[0], folder / "images" / f"{name}.nii.gz")
        write_volume(label, folder / "labels" / f"{name}.nii.gz")
    said = {"labels": {"background": 0, **{name: value for value, name in labels.items()}}}
    (folder / "dataset.json").write_text(json.dumps(said | ({"drawn": drawn} if arm == "drawn" else {})))
    write_splits([split], folder / "splits.json")


if __name__ == "__main__":
    main()

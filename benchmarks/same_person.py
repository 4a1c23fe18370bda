"""Which cases of msd_hippocampus show one person's two sides, and what that does to held-out figures.

    python benchmarks/same_person.py

The archive names no persons. Every image was scaled by its scan: the smallest step between two of its intensities is a
mark of the scan. Neighbours in number are compared by it, an odd number with the even one after it, and as a control
an even one with the odd one after it. Images in whole numbers have no such mark and are left out.

FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from evidence_data import data_folder
from evidence_figures import mean_of
from evidence_plan import RESULTS

from focalis.dataset import open_dataset, read_splits
from focalis.volume import read_volume
from focalis.workflows.record import provenance, read_json, write_json

ALIKE = 1e-4
"""Steps that differ by less, relatively, are one scan's: they are float32 differences of large numbers."""
FIGURES = ("dice label 1", "dice label 2")


def main() -> None:
    """Find the pairs, and compare the held-out cases of the rows of accuracy.py that are there."""
    root = data_folder() / "msd_hippocampus"
    steps = {number(case.name): smallest_step(case.images[0]) for case in open_dataset(root).cases}
    fold_of = {
        number(case): fold
        for fold, split in enumerate(read_splits(root / "splits_5fold.json"))
        for case in split.val
    }
    pairs, controls = neighbours(steps, first=1), neighbours(steps, first=2)
    alike = [pair for pair in pairs if same(steps, pair)]
    other = {a: b for pair in alike for a, b in (pair, pair[::-1])}
    content = {
        **provenance(),
        "odd_and_next": {"pairs": len(pairs), "same_scan": len(alike)},
        "even_and_next": {
            "pairs": len(controls),
            "same_scan": sum(same(steps, pair) for pair in controls),
        },
        "same_scan_in_different_folds": sum(fold_of[a] != fold_of[b] for a, b in alike),
        "held_out": held_out(
            {
                "other side trained on": {a for a, b in other.items() if fold_of[a] != fold_of[b]},
                "not": {
                    a for a in steps if steps[a] != 1 and (a not in other or fold_of[a] == fold_of[other[a]])
                },
                "not known, in whole numbers": {a for a in steps if steps[a] == 1},
            }
        ),
    }
    write_json(RESULTS / "same_person.json", content)
    print(RESULTS / "same_person.json")


def smallest_step(path: Path) -> float:
    """The smallest difference between two intensities of an image."""
    return float(np.diff(np.unique(read_volume(path).array)).min())


def neighbours(steps: Mapping[int, float], first: int) -> list[tuple[int, int]]:
    """Numbers of the same parity as `first` with the next one, where both are there and not both in whole numbers."""
    numbers = [one for one in sorted(steps) if one % 2 == first % 2 and one + 1 in steps]
    return [(one, one + 1) for one in numbers if {steps[one], steps[one + 1]} != {1.0}]


def same(steps: Mapping[int, float], pair: tuple[int, int]) -> bool:
    """Whether both have the same smallest step."""
    a, b = (steps[one] for one in pair)
    return abs(a / b - 1) < ALIKE


def held_out(groups: Mapping[str, set[int]]) -> dict[str, Any]:
    """Mean Dice of the held-out cases of each group, by figure."""
    files = sorted((RESULTS / "accuracy").glob("msd_hippocampus-40min-fold*-seed0.json"))
    rows = [read_json(path)["scores"] for path in files]
    found: dict[str, Any] = {"folds": len(files)}
    for figure in FIGURES:
        scores = {case: value for row in rows for case, value in row[figure].items()}
        found[figure] = {
            name: asdict(mean_of({case: scores[case] for case in sorted(scores) if number(case) in cases}))
            for name, cases in groups.items()
        }
    return found


def number(case: str) -> int:
    """The number in a case's name."""
    return int(case.split("_")[-1])


if __name__ == "__main__":
    main()

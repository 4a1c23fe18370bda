"""What the augmentation `shift` costs and saves: Dice on channels that match and on channels that do not.

    python benchmarks/misaligned_channels.py /data/ms_brain -o runs/misaligned --steps 2000 --fold 0

Two trainings on one split, without and with `shift`. The held-out cases are predicted as they are, and with every
channel but the first one shifted by one and by two voxels along y and x. A row that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from arms import options_of, print_rows
from scipy import ndimage

import focalis
from focalis.dataset import open_dataset
from focalis.model import load_model
from focalis.planning import read_plan, write_plan
from focalis.planning.plan import AugmentationSettings
from focalis.prediction import Settings, segment
from focalis.workflows.record import provenance, read_json

ARMS = ("plain", "shift")
VOXELS = (0, 1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the two arms and print their rows."""
    options = options_of(__doc__).parse_args(arguments)
    print_rows(ARMS, options, lambda arm, run: trained(arm, run, options))


def trained(arm: str, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The row of an arm: mean Dice of the foreground by the shift in voxels, and that of each case."""
    made_from = provenance()
    how: dict[str, Any] = {"fold": options.fold, "seed": options.seed}
    plan = read_plan(focalis.fit(options.dataset, run, plan_only=True, **how).plan)
    if arm == "shift":
        entries = (*plan.augmentation, AugmentationSettings(name="shift"))
        write_plan(plan.model_copy(update={"augmentation": entries}), run / "plan.yaml")
    result = focalis.fit(options.dataset, run, steps=options.steps, eight_bit=False, **how)
    model = load_model(result.model)
    held_out = set(read_json(run / "record.json")["cases"]["held_out"])
    dice: dict[str, dict[str, float]] = {str(voxels): {} for voxels in VOXELS}
    for case in open_dataset(options.dataset).cases:
        if case.name not in held_out:
            continue
        first, *others = case.read_images()
        truth = case.read_label().array > 0
        for voxels in VOXELS:
            moved = [
                replace(each, array=ndimage.shift(each.array, (0, voxels, voxels), order=0, mode="nearest"))
                for each in others
            ]
            found = segment(model, [first, *moved], Settings(runtime="torch")).mask > 0
            both = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
            dice[str(voxels)][case.name] = 2 * int(np.count_nonzero(found & truth)) / both if both else 1.0
    means = {voxels: float(np.mean(list(cases.values()))) for voxels, cases in dice.items()}
    return {
        **made_from,
        "arm": arm,
        "steps": options.steps,
        "seed": options.seed,
        "dice": means,
        "cases": dice,
    }


if __name__ == "__main__":
    main()

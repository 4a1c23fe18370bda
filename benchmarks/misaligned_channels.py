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

from arms import dice_on, held_out, options_of, print_rows
from scipy import ndimage

import focalis
from focalis.planning import read_plan, write_plan
from focalis.planning.plan import AugmentationSettings
from focalis.workflows.record import provenance

ARMS = ("plain", "shift")
VOXELS = (0, 1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the two arms and print their rows."""
    options = options_of(__doc__).parse_args(arguments)
    print_rows(ARMS, options, lambda arm, run: trained(arm, run, options))


def trained(arm: str, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The row of an arm: each held-out case's Dice by the shift in voxels."""
    made_from = provenance()
    how: dict[str, Any] = {"fold": options.fold, "seed": options.seed}
    plan = read_plan(focalis.fit(options.dataset, run, plan_only=True, **how).plan)
    if arm == "shift":
        entries = (*plan.augmentation, AugmentationSettings(name="shift"))
        write_plan(plan.model_copy(update={"augmentation": entries}), run / "plan.yaml")
    result = focalis.fit(options.dataset, run, steps=options.steps, eight_bit=False, **how)
    dice: dict[str, dict[str, float]] = {_name(voxels): {} for voxels in VOXELS}
    for model, case in held_out(result.model, options.dataset):
        first, *others = case.read_images()
        for voxels in VOXELS:
            moved = [
                replace(each, array=ndimage.shift(each.array, (0, voxels, voxels), order=0, mode="nearest"))
                for each in others
            ]
            dice[_name(voxels)][case.name] = dice_on(model, case, [first, *moved])
    return {**made_from, "dice": dice}


def _name(voxels: int) -> str:
    return f"{voxels} voxels"


if __name__ == "__main__":
    main()

"""What run times cost in Dice: a model trained without fold 0, calibrated on its training cases, by every run time.

    python benchmarks/eight_bit.py lidc_nodules runs/lidc_nodules-12min-fold0-seed0/model.safetensors

Eight training cases of fold 0 calibrate; its held-out cases judge (FOCALIS_DATA names the folder of the data sets).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from speed_common import write

from focalis.dataset import open_dataset, read_splits
from focalis.model import load_model
from focalis.prediction import Runtime, runtime_for
from focalis.training import calibrate, prepare_cases
from focalis.training.calibration import reported
from focalis.training.validation import CASES_WATCHED, mean_dice


def main() -> None:
    """Calibrate, predict by every run time, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    root = Path(os.environ["FOCALIS_DATA"]) / options.dataset
    plain = load_model(options.model)
    fold = read_splits(root / "splits_5fold.json")[0]
    with tempfile.TemporaryDirectory() as folder:
        watched, cases = (
            prepare_cases(open_dataset(root).select(names), plain.plan, Path(folder) / "prepared")
            for names in (fold.train[:CASES_WATCHED], fold.val)
        )
        calibration = calibrate(plain, watched)
        model = replace(plain, eight_bit=calibration)
        cache = Path(folder) / "networks"
        ways = {
            "torch float32": Runtime(),
            "torch bfloat16": Runtime(dtype=torch.bfloat16),
            "openvino float32": runtime_for(model, "openvino", precision="float32", cache=cache),
            "openvino bfloat16": runtime_for(model, "openvino", precision="bfloat16", cache=cache),
            "openvino-int8": runtime_for(model, "openvino-int8", cache=cache),
        }
        dice: dict[str, list[float]] = {name: [] for name in ways}
        same: dict[str, list[float]] = {name: [] for name in ways}
        for case in cases:
            masks = {name: reported(model, case, way) for name, way in ways.items()}
            for name, mask in masks.items():
                dice[name].append(mean_dice(case.label, mask, plain.plan.outputs))
                same[name].append(float((mask == masks["torch float32"]).mean()))
    rows = [
        {
            "what": name,
            "mean Dice": float(np.mean(dice[name])),
            "largest difference of a case": float(
                np.abs(np.subtract(dice[name], dice["torch float32"])).max()
            ),
            "voxels as torch float32": float(np.mean(same[name])),
        }
        for name in ways
    ]
    assert calibration is not None
    write(f"eight_bit-{options.dataset}", rows, cases=len(dice["torch float32"]), calibration=calibration.how)


if __name__ == "__main__":
    main()

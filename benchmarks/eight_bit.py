"""What 8-bit integers cost in Dice: a trained model, calibrated on some cases and judged on others, by every run time.

    python benchmarks/eight_bit.py lidc_nodules runs/NAME/model.safetensors

Cases are training cases of fold 0 (FOCALIS_DATA names the folder of the data sets): the first eight calibrate, the
others judge. Absolute Dice flatters, since the model was trained on them; what counts is the difference between rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    parser.add_argument("--cases", type=int, default=40)
    options = parser.parse_args()
    root = Path(os.environ["FOCALIS_DATA"]) / options.dataset
    plain = load_model(options.model)
    names = read_splits(root / "splits_5fold.json")[0].train[: options.cases]
    with tempfile.TemporaryDirectory() as folder:
        cases = prepare_cases(open_dataset(root).select(names), plain.plan, Path(folder) / "prepared")
        calibration = calibrate(plain, cases[:CASES_WATCHED])
        model = replace(plain, eight_bit=calibration)
        cache = Path(folder) / "networks"
        ways = {
            "torch float32": Runtime(),
            "openvino float32": runtime_for(model, "openvino", precision="float32", cache=cache),
            "openvino-int8": runtime_for(model, "openvino-int8", cache=cache),
        }
        dice: dict[str, list[float]] = {name: [] for name in ways}
        same: dict[str, list[float]] = {name: [] for name in ways}
        for case in cases[CASES_WATCHED:]:
            masks = {name: reported(model, case, way) for name, way in ways.items()}
            for name, mask in masks.items():
                dice[name].append(mean_dice(case.label, mask, plain.plan.outputs))
                same[name].append(float((mask == masks["torch float32"]).mean()))
    rows = [
        {"what": name, "mean Dice": float(np.mean(dice[name])), "voxels as torch": float(np.mean(same[name]))}
        for name in ways
    ]
    assert calibration is not None
    write(f"eight_bit-{options.dataset}", rows, cases=len(dice["torch float32"]), calibration=calibration.how)


if __name__ == "__main__":
    main()

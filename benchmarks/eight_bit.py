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
from speed_common import write

from focalis.dataset import IGNORED, open_dataset, read_splits
from focalis.model import load_model
from focalis.prediction import Settings, reported_by
from focalis.training import calibrate, prepare_cases
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
        ways = {
            f"{runtime} {precision}".removesuffix(" auto"): Settings(
                runtime=runtime, device="cpu", precision=precision, minimum_mm3=0.0, minimum_confidence=0.0
            )
            for runtime in ("torch", "openvino", "openvino-int8")
            for precision in (("auto",) if runtime == "openvino-int8" else ("float32", "bfloat16"))
        }
        dice: dict[str, list[float]] = {name: [] for name in ways}
        same: dict[str, list[float]] = {name: [] for name in ways}
        for case in cases:
            masks = {
                name: np.where(case.label == IGNORED, 0, reported_by(model, case.image, way))
                for name, way in ways.items()
            }
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

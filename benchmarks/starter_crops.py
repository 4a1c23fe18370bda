"""False lesions of the lung-nodule model on the crops that it was trained on.

    python benchmarks/starter_crops.py

Each crop of lidc_nodules is predicted whole, by PyTorch in float32, at the model's own operating point, and its lesions
are held against the radiologist's. The model has seen every one of these cases: on others it is likely worse. Nothing
is trained; the card of starter_model.py takes its figures from the result. FOCALIS_DATA names the folder of the data
sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import dice
from evidence_data import NODULES, data_folder
from evidence_plan import RESULTS

from focalis.dataset import Dataset, open_dataset
from focalis.lesions import MATCHING_RULE, label_components, match_lesions
from focalis.model import Model, load_model, weights_sha256
from focalis.models import FOLDER
from focalis.prediction import predict_case
from focalis.workflows.record import data_hash, provenance, write_json

NAME = "lidc-nodule"
FILE = Path("starter") / f"{NAME}-crops.json"
"""Where the result lies below benchmarks/results."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=FOLDER, help="where the model lies")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    options = parser.parse_args(arguments)
    data = open_dataset(data_folder() / NODULES)
    found = on_crops(load_model(options.models / f"{NAME}.safetensors"), data)
    write_json(options.results / FILE, found)
    print({name: value for name, value in found.items() if name.startswith(("crops", "lesions", "dice"))})


def on_crops(model: Model, data: Dataset) -> dict[str, Any]:
    """What the model leaves in every crop.

    Dice is given a second time as it would be without the false lesions: how much of what is missing is theirs.
    """
    by_case: dict[str, dict[str, float]] = {}
    for case in data.cases:
        truth = case.read_label().array > 0
        predicted = predict_case(model, case.read_images()).label.array > 0
        matching = match_lesions(truth, predicted)
        true_ones = ~np.isin(label_components(predicted)[0], matching.unmatched_predicted)
        by_case[case.name] = {
            "lesions": matching.truth_count,
            "detected": len(matching.pairs),
            "false": len(matching.unmatched_predicted),
            "dice": round(dice(truth, predicted), 4),
            "dice_without_false": round(dice(truth, predicted & true_ones), 4),
        }
    rows = by_case.values()
    return {
        **(made := provenance()),
        "command": f"python {made['command']}",
        "dataset": NODULES,
        "data_sha256": data_hash(data.cases),
        "model_sha256": weights_sha256(model),
        "runtime": "cpu, float32",
        "matching": MATCHING_RULE,
        "crops": len(by_case),
        "crops_with_false": sum(row["false"] > 0 for row in rows),
        "lesions": sum(row["lesions"] for row in rows),
        "lesions_detected": sum(row["detected"] for row in rows),
        "lesions_false": sum(row["false"] for row in rows),
        "dice": round(float(np.mean([row["dice"] for row in rows])), 4),
        "dice_without_false": round(float(np.mean([row["dice_without_false"] for row in rows])), 4),
        "cases": by_case,
    }


if __name__ == "__main__":
    main()

"""False lesions of the lung-nodule model and of its recipe on whole crops.

    python benchmarks/starter_crops.py                    the model, on the crops that it was trained on
    python benchmarks/starter_crops.py --held-out runs    the models of the accuracy rows, each on its held-out crops

Each crop of lidc_nodules is predicted whole, by PyTorch in float32, at the model's own operating point, and its lesions
are held against the radiologist's. The model has seen all cases: what others of its recipe leave on crops that they
have not seen says more. `runs` is the folder in which `benchmarks/accuracy.py lidc_nodules` trained the five folds.
Nothing is trained; the card of starter_model.py takes its figures from both results. FOCALIS_DATA names the folder of
the data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import dice
from evidence_data import NODULES, data_folder
from evidence_plan import FOLDS, RESULTS, FitRow

from focalis.dataset import Case, Dataset, open_dataset
from focalis.lesions import MATCHING_RULE, OperatingPoint, label_components, match_lesions
from focalis.model import Model, load_model
from focalis.models import FOLDER
from focalis.planning import SCRATCH, SHAPES
from focalis.prediction import Settings, segment
from focalis.workflows.record import data_hash, provenance, read_json, write_json

NAME = "lidc-nodule"
TRAINED_ON = Path("starter") / f"{NAME}-crops.json"
"""Where the result of the model lies below benchmarks/results."""
HELD_OUT = Path("starter") / f"{NAME}-crops-held-out.json"
"""Where that of the models of the accuracy rows lies."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=FOLDER, help="where the model lies")
    parser.add_argument("--held-out", type=Path, metavar="RUNS", help="where the accuracy rows were trained")
    parser.add_argument("--start", choices=(SCRATCH, SHAPES), default=SHAPES, help="of the accuracy rows")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    options = parser.parse_args(arguments)
    data = open_dataset(data_folder() / NODULES)
    model = load_model(options.models / f"{NAME}.safetensors")
    if options.held_out:
        found, file = of_the_recipe(model, options, data), HELD_OUT
    else:
        found, file = of_the_model(model, data), TRAINED_ON
    write_json(options.results / file, found)
    for part in (found, found.get("at_the_shipped_point", {})):
        print({name: value for name, value in part.items() if name.startswith(("crops", "lesions", "dice"))})


def of_the_model(model: Model, data: Dataset) -> dict[str, Any]:
    """What the model leaves in every crop that it was trained on."""
    return {
        **_made(data),
        "model_sha256": model.identity.weights_sha256,
        **_totals(on_crops(model, data.cases)),
    }


def of_the_recipe(shipped: Model, options: argparse.Namespace, data: Dataset) -> dict[str, Any]:
    """What the model of each accuracy row leaves in the crops that the row held out.

    At its own operating point, of which these cases know nothing; and at the shipped model's, the mean of all rows',
    four of which were chosen on inner splits that hold some of these cases.
    """
    made = _made(data)
    by_name = {case.name: case for case in data.cases}
    own: dict[str, dict[str, float]] = {}
    mean: dict[str, dict[str, float]] = {}
    models = []
    for row in (FitRow(NODULES, fold, start=options.start) for fold in FOLDS):
        run, path = options.held_out / row.name, row.path(options.results)
        content = read_json(path)
        record = read_json(run / "record.json") if (run / "record.json").exists() else {}
        if any(record.get(name) != content[name] for name in ("started", "finished", "data_sha256")):
            sys.exit(
                f"{run}: does not hold the training of {path}; train the rows again beside those that are there, "
                "with --results again, and give --results again here too"
            )
        if content["data_sha256"] != made["data_sha256"]:
            sys.exit(
                f"{path}: is of another copy of {NODULES} than {data.root}; name that copy by FOCALIS_DATA"
            )
        model = load_model(run / "model.safetensors")
        models.append(model.identity.weights_sha256)
        held_out = [by_name[name] for name in content["scores"]["dice labels"]]
        own |= on_crops(model, held_out)
        mean |= on_crops(model, held_out, shipped.operating_point)
    return {
        **made,
        "models_sha256": models,
        "operating_point": "of each row's model, chosen on its own inner split",
        **_totals(own),
        "at_the_shipped_point": {"model_sha256": shipped.identity.weights_sha256, **_totals(mean)},
    }


def on_crops(
    model: Model, cases: Sequence[Case], point: OperatingPoint | None = None
) -> dict[str, dict[str, float]]:
    """What a model leaves in every crop, by case, at an operating point; its own by default.

    Dice is given a second time as it would be without the false lesions: how much of what is missing is theirs.
    """
    by_case: dict[str, dict[str, float]] = {}
    model = replace(model, operating_point=point or model.operating_point)
    exact = Settings(runtime="torch", precision="float32")
    for case in cases:
        truth = case.read_label().array > 0
        predicted = segment(model, case.read_images(), exact).mask > 0
        matching = match_lesions(truth, predicted)
        true_ones = ~np.isin(label_components(predicted)[0], matching.unmatched_predicted)
        by_case[case.name] = {
            "lesions": matching.truth_count,
            "detected": len(matching.pairs),
            "false": len(matching.unmatched_predicted),
            "dice": round(dice(truth, predicted), 4),
            "dice_without_false": round(dice(truth, predicted & true_ones), 4),
        }
    return by_case


def _made(data: Dataset) -> dict[str, Any]:
    return {
        **provenance(),
        "dataset": NODULES,
        "data_sha256": data_hash(data.cases),
        "runtime": "cpu, float32",
        "matching": MATCHING_RULE,
    }


def _totals(by_case: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    rows = by_case.values()
    return {
        "crops": len(by_case),
        "crops_with_false": sum(row["false"] > 0 for row in rows),
        "lesions": sum(row["lesions"] for row in rows),
        "lesions_detected": sum(row["detected"] for row in rows),
        "lesions_false": sum(row["false"] for row in rows),
        "dice": round(float(np.mean([row["dice"] for row in rows])), 4),
        "dice_without_false": round(float(np.mean([row["dice_without_false"] for row in rows])), 4),
        "cases": dict(by_case),
    }


if __name__ == "__main__":
    main()

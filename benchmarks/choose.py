"""Compare settings on an inner split of the training cases of lidc_nodules, fold 0: what defaults are chosen by.

    python benchmarks/choose.py --steps 700 --set loss.name=dice_cross_entropy
    python benchmarks/choose.py --steps 700 --set loss.name=distance_focal_dice --set loss.r=0.5
    python benchmarks/choose.py --steps 700 --network nnunet --set training.learning_rate=0.003

A quarter of the fold's training cases are set aside and scored by the windows protocol at several thresholds; the
fold's validation cases are not touched. FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accuracy import HERE, cut, dice, windows_of
from rivals import add_rivals, with_network

from focalis.dataset import Split, inner_split, open_dataset, read_splits
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import Plan, fingerprint, make_plan
from focalis.prediction import Settings, choose_runtime, segment
from focalis.training import prepare_cases, train
from focalis.volume import read_volume
from focalis.workflows.record import provenance

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
SHARE = 0.25


def main() -> None:
    """Train once with the given settings and print and keep the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the plan"
    )
    parser.add_argument(
        "--network", help="a network of Focalis, or monai-unet; the default one's patch and batch"
    )
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    add_rivals()
    parts = [options.network, *(item.replace("=", "-") for item in options.set), f"{options.steps}steps"]
    name = "_".join([*(part for part in parts if part), f"seed{options.seed}"])
    target = HERE / "results" / "choices" / f"{name}.json"
    if target.exists():
        print(f"{target}: is there, nothing to do")
        return
    data = open_dataset(Path(os.environ["FOCALIS_DATA"]) / "lidc_nodules")
    fold = read_splits(data.root / "splits_5fold.json")[0]
    inner = inner_split(data.select(fold.train), SHARE, 3, 0)
    figures = fingerprint(data.select(fold.train))
    plan = changed(make_plan(figures, data.channels, {1: "nodule"}), options.set)
    if options.network:
        plan = with_network(plan, figures, options.network)
    runtime = choose_runtime()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        training, watched = (
            prepare_cases(data.select(names), plan, home / "prepared") for names in (inner.train, inner.val)
        )
        network = train(
            plan, training, watched, home, steps=options.steps, seed=options.seed, runtime=runtime
        )
    scores = window_scores(Model(plan, (network,), OperatingPoint()), data.root, inner)
    target.parent.mkdir(parents=True, exist_ok=True)
    row = {**provenance(), "threads": torch.get_num_threads(), "dice": scores}
    target.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {scores}")


def changed(plan: Plan, changes: list[str]) -> Plan:
    """The plan with fields such as loss.r set to new values."""
    content: dict[str, Any] = plan.model_dump()
    for change in changes:
        path, value = change.split("=", 1)
        *parents, last = path.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = yaml.safe_load(value)
    return Plan.model_validate(content)


def window_scores(model: Model, root: Path, inner: Split) -> dict[str, float]:
    """Mean Dice over the windows of the inner cases, by threshold, plain and mirrored."""
    windows = windows_of(root)
    found: dict[str, list[float]] = {}
    for case in inner.val:
        image, label = (read_volume(root / part / f"{case}.nii.gz") for part in ("images", "labels"))
        for mirror in (False, True):
            for origin in windows[case]:
                prediction = segment(model, [cut(image, origin)], Settings(mirror=mirror))
                truth = cut(label, origin).array > 0
                for threshold in THRESHOLDS:
                    mask = prediction.probability >= threshold
                    found.setdefault(f"{threshold}{' mirrored' if mirror else ''}", []).append(
                        dice(truth, mask)
                    )
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}


if __name__ == "__main__":
    main()

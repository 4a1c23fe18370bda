"""The lung-nodule model that comes with Focalis: trained on every case of lidc_nodules, and its card.

    python benchmarks/evidence.py accuracy-start    five held-out folds of the same recipe, in runs/
    python benchmarks/starter_model.py --threads 1    train on all cases as those folds did; write model and hash
    python benchmarks/starter_model.py --calibrate    calibrate the model that is there for 8-bit integers, and the card
    python benchmarks/starter_crops.py                false lesions on the crops of the training cases; trains nothing
    python benchmarks/starter_crops.py --held-out runs    false lesions of those folds' models on held-out crops
    python benchmarks/starter_model.py --card         write the card anew, from the results and the model that are there

The first line skips folds whose results are there, as they are in the repository; to have the five models as well, give
`--results again` to it and to all others.

The card needs the false lesions on whole crops as well. Those of the training cases are counted here when the model is
new; those of held-out ones by `starter_crops.py --held-out runs`, after which `--card` writes the card of a new model.

From random weights the first line is `evidence.py accuracy --rows lidc_nodules-12min`, and all others but
`--calibrate` get `--start scratch`.

The recipe is that of the default's accuracy rows on lidc_nodules: what those five held-out folds say of it is all that
is known about a model which holds nothing out. So steps and operating point come from them (the mean of what each fold
chose on its own inner split), and the card's figures too. A training that was stopped goes on. FOCALIS_DATA names the
folder of the data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import cut, dice, windows_of
from evidence_accuracy import contents_of
from evidence_data import NODULES, data_folder, read_nodules, write_nodules
from evidence_plan import FOLDS, RESULTS, FitRow
from starter_card import card
from starter_crops import HELD_OUT, NAME, TRAINED_ON, of_the_model

from focalis.dataset import open_dataset
from focalis.files import sha256_of, write_text
from focalis.lesions import OperatingPoint
from focalis.model import Model, load_model, save_model
from focalis.models import FOLDER
from focalis.planning import SCRATCH, SHAPES, fingerprint, learn_scope, make_plan
from focalis.prediction import Settings, choose_runtime, segment
from focalis.training import prepare_cases, train
from focalis.training.eight_bit_calibration import calibrate
from focalis.training.start import read_start
from focalis.volume import read_volume
from focalis.workflows.record import data_hash, now, provenance, read_json, write_json
from focalis.workflows.training_cases import TRAINED

LABELS = {1: "nodule"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure what storing in half precision costs, write model, hash, record and card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--card", action="store_true", help="only write the card, from the results")
    parser.add_argument("--calibrate", action="store_true", help="train nothing, calibrate what is there")
    parser.add_argument(
        "--steps", type=int, help="another number of steps than the accuracy rows', for a trial"
    )
    parser.add_argument("--cases", type=int, help="so many cases instead of all, for a trial")
    parser.add_argument(
        "--start",
        choices=(SCRATCH, SHAPES),
        default=SHAPES,
        help="the weights that folds and model start from",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="processor threads; all if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the unfinished training lies")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where model, hash and card go")
    options = parser.parse_args(arguments)
    if (options.steps or options.cases) and options.out.resolve() == FOLDER.resolve():
        parser.error("a trial does not go into the package: give --out as well")
    rows = next(
        iter(
            contents_of(
                [FitRow(NODULES, fold, start=options.start) for fold in FOLDS], options.results
            ).values()
        )
    )
    if not rows:
        sys.exit(
            f"no accuracy row of {NODULES} from {options.start} is there; run: python benchmarks/evidence.py accuracy "
            f"{'accuracy-start ' if options.start == SHAPES else ''}--rows {NODULES}-12min"
        )
    record_path = options.results / "starter" / f"{NAME}.json"
    if options.calibrate:
        write_json(record_path, calibrated(options, read_json(record_path)))
    elif not options.card:
        write_nodules(options.results)
        write_json(record_path, made(options, rows))
    model = load_model(options.out / f"{NAME}.safetensors")
    digest = model.identity.weights_sha256
    crops_path, held_out_path = options.results / TRAINED_ON, options.results / HELD_OUT
    if not crops_path.exists() or read_json(crops_path)["model_sha256"] != digest:
        if options.card:
            sys.exit(f"{crops_path}: is missing or of another model; run benchmarks/starter_crops.py")
        write_json(crops_path, of_the_model(model, open_dataset(data_folder() / NODULES)))
    if (
        not held_out_path.exists()
        or read_json(held_out_path)["at_the_shipped_point"]["model_sha256"] != digest
    ):
        sys.exit(
            f"{held_out_path}: is missing or of another model, so no card was written, and one that lies beside the "
            "model may be an older one's; run benchmarks/starter_crops.py --held-out runs, then this with --card"
        )
    written = card(
        read_json(record_path),
        rows,
        read_nodules(options.results),
        len(FOLDS),
        read_json(crops_path),
        read_json(held_out_path),
    )
    write_text(options.out / f"{NAME}.md", written)
    print(f"{options.out / NAME}.md")


EXACT = Settings(runtime="torch", precision="float32")


def made(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Train and store the model; what is to be known about it."""
    steps = options.steps or rows[0]["steps"]
    if different := {row["steps"] for row in rows} - {rows[0]["steps"]}:
        sys.exit(f"the accuracy rows of {NODULES} have other numbers of steps ({different}); make them alike")
    if options.threads:
        torch.set_num_threads(options.threads)
    data, runtime = open_dataset(data_folder() / NODULES), choose_runtime()
    cases = data.cases[: options.cases]
    plan = make_plan(fingerprint(cases), data.channels, LABELS).model_copy(update={"start": options.start})
    began = provenance()  # before training: of a resumed one, the revision that ends it
    run = options.runs / f"{NAME}-{steps}steps-{len(cases)}cases-from-{options.start}-seed{options.seed}"
    run.mkdir(parents=True, exist_ok=True)
    prepared = prepare_cases(cases, plan, run / "prepared")
    start = read_start(options.start)
    network = train(
        plan, prepared, [], run, steps=steps, seed=options.seed, runtime=runtime, resume=True, start=start
    )
    network.to("cpu")
    record = {
        **began,
        "dataset": NODULES,
        "data_sha256": data_hash(cases),
        "cases": len(cases),
        "steps": steps,
        "seed": options.seed,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "plan": plan.model_dump(mode="json", exclude={"reasons"}),
        "finished": now(),
    }
    point = mean_point(rows)
    whole = Model(
        plan,
        (network,),
        point,
        {name: value for name, value in record.items() if name != "plan"}
        | {"images": {TRAINED: prepared.digests()}},
        learn_scope(prepared.descriptions()),
    )
    file = options.out / f"{NAME}.safetensors"
    save_model(whole, file, half=True)
    return calibrated(options, record) | {
        "threshold": point.threshold,
        "minimum_mm3": point.minimum_mm3,
        "minimum_confidence": point.minimum_confidence,
        "temperature": point.temperature,
        "how": point.how,
        "half": cost_of_half(whole, load_model(file), data.root, [case.name for case in cases]),
    }


def calibrated(options: argparse.Namespace, record: Mapping[str, Any]) -> dict[str, Any]:
    """Calibrate the stored model for 8-bit integers on cases that it was trained on, as it holds none out."""
    file = options.out / f"{NAME}.safetensors"
    model, data = load_model(file), open_dataset(data_folder() / NODULES)
    cases = prepare_cases(data.cases[: options.cases], model.plan, options.runs / f"{NAME}-calibration")
    began = provenance()
    eight_bit = calibrate(model, cases, "the training set")
    assert eight_bit is not None
    save_model(replace(model, eight_bit=eight_bit), file, half=True)
    digest = sha256_of(file)
    write_text(options.out / f"{NAME}.sha256", f"{digest}  {file.name}\n")
    return {
        **record,
        "sha256": digest,
        "bytes": file.stat().st_size,
        "eight_bit": {
            "dice_loss": round(eight_bit.dice_loss, 5),
            "how": eight_bit.how,
            "command": began["command"],
            "revision": began["revision"],
        },
    }


def mean_point(rows: Sequence[dict[str, Any]]) -> OperatingPoint:
    """The operating point of the folds' models, averaged as those of an ensemble are."""
    threshold, size, confidence = (
        float(np.mean([row.get(name, 0.0) for row in rows]))
        for name in ("threshold", "minimum_mm3", "minimum_confidence")
    )
    how = (
        f"mean of {len(rows)} models of the same recipe, each chosen for the best Dice on its own inner split"
    )
    temperature = float(np.exp(np.mean([np.log(row.get("temperature", 1.0)) for row in rows])))
    return OperatingPoint(threshold, how, (), size, confidence, temperature=temperature)


def cost_of_half(whole: Model, half: Model, root: Path, cases: Sequence[str]) -> dict[str, float]:
    """What rounding the kernels to float16 changes in the masks of the windows of all cases."""
    windows, changed, voxels = windows_of(root), 0, 0
    scores: list[tuple[float, float]] = []
    for case in cases:
        image, label = (read_volume(root / part / f"{case}.nii.gz") for part in ("images", "labels"))
        for origin in windows[case]:
            truth = cut(label, origin).array > 0
            exact, rounded = (segment(model, [cut(image, origin)], EXACT).mask > 0 for model in (whole, half))
            changed += int(np.count_nonzero(exact != rounded))
            voxels += int(np.count_nonzero(exact | rounded))
            scores.append((dice(truth, exact), dice(truth, rounded)))
    first, second = np.mean(scores, axis=0)
    return {
        "windows": len(scores),
        "dice_float32": round(float(first), 5),
        "dice_stored": round(float(second), 5),
        "largest_difference": round(float(np.abs(np.diff(scores, axis=1)).max()), 5),
        "voxels_changed": changed,
        "foreground_voxels": voxels,
    }


if __name__ == "__main__":
    main()

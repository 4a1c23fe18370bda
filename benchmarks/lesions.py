"""What lesion tables, operating points, temperature and uncertainty are worth on held-out cases.

    python benchmarks/lesions.py DATA --minutes 12 --folds 5              a data set, every fold held out once
    python benchmarks/lesions.py --phantoms 40 --minutes 12 --folds 4     generated scans with many lesions
    python benchmarks/lesions.py DATA --steps 2000 --folds 2 --aim fp-per-scan=0.5

Each fold trains as `focalis fit` does. Its held-out cases are predicted twice: at the chosen operating point,
which says whether the aim is met, and with a low threshold and nothing dropped, over mirror images, for FROC,
calibration and the ranking of errors. The folds are pooled. The result is one file below
benchmarks/results/lesions; one that is there is not made again, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import focalis
from focalis.dataset import Dataset, PhantomSettings, open_dataset, write_phantoms
from focalis.evaluation import Evaluation
from focalis.files import write_text
from focalis.volume import write_volume
from focalis.workflows.record import provenance

RESULTS = Path(__file__).parent / "results" / "lesions"
MANY = PhantomSettings(
    shape_zyx=(48, 80, 80),
    spacing_zyx_mm=(2.0, 1.0, 1.0),
    lesions=15,
    foreground_share=0.01,
    empty_share=0.15,
)
LOW = 0.1
"""The threshold of the second prediction: its lesions are the candidates of the FROC curve."""


def main() -> None:
    """Train, predict, evaluate, and write the result, unless it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data set")
    parser.add_argument("--phantoms", type=int, help="make so many phantoms instead")
    parser.add_argument("--minutes", type=float, help="training time per fold")
    parser.add_argument("--steps", type=int, help="steps per fold instead")
    parser.add_argument("--folds", type=int, required=True)
    parser.add_argument("--aim", default="dice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    options = parser.parse_args()
    if (options.data is None) == (options.phantoms is None) or (options.minutes is None) == (
        options.steps is None
    ):
        parser.error("give a data set or --phantoms, and --minutes or --steps")
    what = options.data.resolve().name if options.data else f"phantoms{options.phantoms}"
    time = f"{options.steps}steps" if options.steps else f"{options.minutes:g}min"
    name = f"{what}-{options.aim.replace('=', '')}-{time}-{options.folds}folds-seed{options.seed}"
    path = RESULTS / f"{name}.json"
    if path.exists():
        print(f"{path}: is there, nothing to do")
        return
    home = options.runs / name
    data = open_dataset(options.data) if options.data else phantoms(home / "data", options.phantoms)
    run = home / "run"
    limits = {"steps": options.steps, "minutes": options.minutes}
    result = focalis.fit(
        data.root, run, folds=options.folds, seed=options.seed, aim=options.aim, resume=run.exists(), **limits
    )
    chosen, loose = held_out(run, data, options.folds, home)
    row = {
        **provenance(),
        "command": " ".join(["python", "benchmarks/lesions.py", *sys.argv[1:]]),
        "seed": options.seed,
        "aim": options.aim,
        "folds": [record(run / f"fold_{fold}") for fold in range(options.folds)],
        "judged_on": result.judged_on,
        "chosen": short(chosen),
        "loose": short(loose),
    }
    write_text(path, json.dumps(row, indent=1) + "\n")
    print(f"{path}\nreports: {home / 'chosen' / 'report.html'}, {home / 'loose' / 'report.html'}")


def phantoms(root: Path, count: int) -> Dataset:
    """Generated scans with many lesions, some without any."""
    return open_dataset(root) if root.exists() else write_phantoms(root, count, MANY, seed=0)


def held_out(run: Path, data: Dataset, folds: int, home: Path) -> tuple[Evaluation, Evaluation]:
    """The held-out cases of all folds: at the chosen point, and loosely."""
    for fold in range(folds):
        names = record(run / f"fold_{fold}")["cases"]["held_out"]
        model = run / f"fold_{fold}" / "model.safetensors"
        for case in data.select(names):
            write_volume(case.read_label(), home / "truth" / f"{case.name}.nii.gz")
        files = [file for case in data.select(names) for file in dict.fromkeys(case.images)]
        focalis.predict(model, files, home / "masks_chosen", probabilities=True)
        focalis.predict(
            model,
            files,
            home / "masks_loose",
            threshold=LOW,
            min_size_mm3=0,
            min_confidence=0,
            mirror=True,
            uncertainty=True,
            probabilities=True,
        )
    patients = {case.name: case.patient for case in data.cases}
    chosen, loose = (
        focalis.evaluate(
            home / f"masks_{name}",
            home / "truth",
            home / name,
            label_names=data.labels or None,
            ignore=data.ignore,
            patients=patients,
        )
        for name in ("chosen", "loose")
    )
    return chosen, loose


def record(folder: Path) -> dict[str, Any]:
    """A fold's record."""
    found: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return found


def short(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation without the rows of single cases."""
    content = evaluation.to_json()
    if "detection" in content:
        for curve in content["detection"]["risk"]:
            del curve["curve"]
        if content["detection"]["froc"]:
            del content["detection"]["froc"]["points"]
    return {key: value for key, value in content.items() if key not in ("cases", "version", "focalis")}


if __name__ == "__main__":
    main()

"""What lesion tables, operating points, temperature and uncertainty are worth on held-out cases.

    python benchmarks/lesions.py DATA --minutes 12 --folds 5              a data set, every fold held out once
    python benchmarks/lesions.py --phantoms 40 --minutes 12 --folds 4     generated scans with many lesions
    python benchmarks/lesions.py DATA --steps 2000 --folds 2 --aim fp-per-scan=0.5
    python benchmarks/lesions.py ms_brain --pieces --minutes 12           two scans: train on pieces of the other
    python benchmarks/lesions.py --page                                   what is there, into docs/evidence-tables.md

Each fold trains as `focalis fit` does. Its held-out cases are predicted twice: at the chosen operating point,
which says whether the aim is met, and with a low threshold and nothing dropped, over mirror images, for FROC,
calibration and the ranking of errors. The folds are pooled. The result is one file below
benchmarks/results/lesions, with the FROC curve as a picture; one that is there is not made again, and a run that was
stopped goes on.

A set of two scans cannot be divided into training, inner split and held-out cases. With `--pieces` each scan is held
out and predicted whole; the others are cut into eight pieces each, which train as cases of their own, an inner split of
them set aside. Pieces of one scan are not independent cases, so choices made on them are weak; what is held out is.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from accuracy import cut
from tables import PAGE, put

import focalis
from focalis.dataset import Dataset, PhantomSettings, open_dataset, write_phantoms
from focalis.errors import FocalisError
from focalis.evaluation import Evaluation
from focalis.files import write_bytes, write_text
from focalis.volume import write_volume
from focalis.workflows.record import provenance, read_json

RESULTS = Path(__file__).parent / "results" / "lesions"
BEGIN, END = "<!-- lesions: made by benchmarks/lesions.py -->", "<!-- /lesions -->"
MANY = PhantomSettings(
    shape_zyx=(48, 80, 80),
    spacing_zyx_mm=(2.0, 1.0, 1.0),
    lesions=15,
    foreground_share=0.01,
    empty_share=0.15,
)
LOW = 0.1
"""The threshold of the second prediction: its lesions are the candidates of the FROC curve."""
RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which the page gives the sensitivity."""
FEW = 5
"""With fewer scans the page says that its intervals say little."""
LISTED = 6
"""Lesions of each kind in the table that the page shows."""


def main() -> None:
    """Train, predict, evaluate, and write the result, unless it is there; or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data set")
    parser.add_argument("--phantoms", type=int, help="make so many phantoms instead")
    parser.add_argument("--minutes", type=float, help="training time per fold")
    parser.add_argument("--steps", type=int, help="steps per fold instead")
    parser.add_argument("--folds", type=int)
    parser.add_argument(
        "--pieces", action="store_true", help="hold out each scan, train on pieces of the others"
    )
    parser.add_argument("--aim", default="dice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    parser.add_argument("--page", action="store_true", help="write the page and stop")
    options = parser.parse_args()
    if options.page:
        write_page()
        return
    if (
        (options.data is None) == (options.phantoms is None)
        or (options.minutes is None) == (options.steps is None)
        or (options.folds is None) == (not options.pieces)
    ):
        parser.error("give a data set or --phantoms, --minutes or --steps, --folds or --pieces")
    what = options.data.resolve().name if options.data else f"phantoms{options.phantoms}"
    time = f"{options.steps}steps" if options.steps else f"{options.minutes:g}min"
    division = "pieces" if options.pieces else f"{options.folds}folds"
    name = f"{what}-{options.aim.replace('=', '')}-{time}-{division}-seed{options.seed}"
    path = RESULTS / f"{name}.json"
    if path.exists():
        print(f"{path}: is there, nothing to do")
        return
    home = options.runs / name
    data = open_dataset(options.data) if options.data else phantoms(home / "data", options.phantoms)
    limits = {"steps": options.steps, "minutes": options.minutes, "seed": options.seed, "aim": options.aim}
    began = provenance()
    held_out = (
        train_on_pieces(data, home, limits)
        if options.pieces
        else train_folds(data, home / "run", options.folds, limits)
    )
    chosen, loose = predicted(held_out, data, home)
    row = {
        **began,
        "data": what,
        "seed": options.seed,
        "aim": options.aim,
        "folds": [read_json(run / "record.json") for run in held_out],
        "held_out": {run.name: list(names) for run, names in held_out.items()},
        "chosen": short(chosen),
        "loose": short(loose),
        "lesions": listed(home / "chosen" / "lesions.csv"),
    }
    if (figure := home / "loose" / "froc.png").exists():
        write_bytes(path.with_suffix(".png"), figure.read_bytes())
    write_text(path, json.dumps(row, indent=1) + "\n")
    print(f"{path}\nreports: {home / 'chosen' / 'report.html'}, {home / 'loose' / 'report.html'}")


def phantoms(root: Path, count: int) -> Dataset:
    """Generated scans with many lesions, some without any."""
    try:
        found = open_dataset(root)
    except FocalisError:
        return write_phantoms(root, count, MANY, seed=0)
    return found if len(found.cases) == count else write_phantoms(root, count, MANY, seed=0)


def train_folds(data: Dataset, run: Path, folds: int, limits: Mapping[str, Any]) -> dict[Path, Sequence[str]]:
    """Train every fold; the folder of each, and the cases that it held out."""
    focalis.fit(data.root, run, folds=folds, resume=run.exists(), **{"start": "scratch", **limits})
    homes = [run / f"fold_{fold}" for fold in range(folds)]
    return {home: read_json(home / "record.json")["cases"]["held_out"] for home in homes}


def train_on_pieces(data: Dataset, home: Path, limits: Mapping[str, Any]) -> dict[Path, Sequence[str]]:
    """For every scan, train on pieces of the others; the folder of each, and the scan that it held out."""
    found: dict[Path, Sequence[str]] = {}
    for held_out in data.cases:
        run, pieces = home / "run" / held_out.name, home / "pieces" / held_out.name
        if not (pieces / "dataset.json").exists():
            write_pieces(data, [case.name for case in data.cases if case is not held_out], pieces)
        focalis.fit(pieces, run, resume=run.exists(), **{"start": "scratch", **limits})
        found[run] = [held_out.name]
    return found


def write_pieces(data: Dataset, names: Sequence[str], root: Path) -> None:
    """A data set of the eight corners of each of these scans; dataset.json is written last: then all are there."""
    for case in data.select(names):
        volumes = dict(zip(data.channels, case.read_images(), strict=True))
        label = case.read_label()
        half = [-(-size // 2) for size in label.array.shape]
        for number, corner in enumerate(product((0, 1), repeat=3)):
            origin = [side * place for side, place in zip(half, corner, strict=True)]
            piece = f"{case.name}p{number}"
            for channel, volume in volumes.items():
                write_volume(cut(volume, origin, half), root / "images" / f"{piece}_{channel}.nii.gz")
            write_volume(cut(label, origin, half), root / "labels" / f"{piece}.nii.gz")
    labels = {"background": 0} | {name: value for value, name in (data.labels or {1: "lesion"}).items()}
    write_text(root / "dataset.json", json.dumps({"labels": labels}, indent=1) + "\n")


def predicted(
    held_out: Mapping[Path, Sequence[str]], data: Dataset, home: Path, mirror: bool = True
) -> tuple[Evaluation, Evaluation]:
    """The held-out cases of all folds: at the chosen point, and loosely, over mirror images if `mirror`."""
    for run, names in held_out.items():
        model = run / "model.safetensors"
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
            mirror=mirror,
            uncertainty=mirror,
            probabilities=True,
        )
    patients = data.patients
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


def short(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation without the rows of single cases."""
    content = evaluation.to_json()
    if "detection" in content:
        for curve in content["detection"]["risk"]:
            del curve["curve"]
        if content["detection"]["froc"]:
            del content["detection"]["froc"]["points"]
    return {key: value for key, value in content.items() if key not in ("cases", "version", "focalis")}


def listed(table: Path) -> list[dict[str, str]]:
    """The largest lesions of each kind, as lesions.csv has them."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["volume_mm3"]))
    return [
        row
        for status in ("right", "missed", "false positive")
        for row in [each for each in rows if each["status"] == status][:LISTED]
    ]


def write_page() -> None:
    """Replace the measured part of the page by what is there."""
    paths = sorted(RESULTS.glob("*.json"))
    lines = [line for path in paths for line in section(path, read_json(path))]
    put(BEGIN, END, ["", *(lines or ["Nothing has been measured yet.", ""])])
    print(f"{PAGE}: {len(paths)} results")


def section(path: Path, row: Mapping[str, Any]) -> list[str]:
    """One result: what was held out, the figures at the chosen point, FROC, calibration, ranking, lesions."""
    overall = row["chosen"]["summary"]["overall"]
    dice, lesions = overall["statistics"][0], overall["lesions"]
    cases = sum(len(names) for names in row["held_out"].values())
    lines = [
        f"### {row['data']}, aim {row['aim']}",
        "",
        f"    {row['command']}",
        "",
        f"{cases} held-out scans of {len(row['folds'])} trainings of {row['folds'][0]['steps']:,} steps; revision "
        f"`{(row['revision'] or 'unknown')[:12]}`. At the chosen operating point: Dice {interval(dice, 'mean')}, "
        f"lesion sensitivity {interval(lesions['sensitivity'])}, false positives per scan "
        f"{interval(lesions['false_positives_per_scan'], digits=2)}."
        + (f" Intervals over {cases} scans say little." if cases < FEW else ""),
        "",
    ]
    detection = row["loose"].get("detection")
    if detection is None:
        return lines
    if detection["froc"]:
        lines += froc_lines(path, detection["froc"])
    lines += calibration_lines(row["chosen"].get("detection") or detection)
    lines += [
        "",
        "| lesions ranked by | AURC | of a perfect ranking | by chance | predicted lesions |",
        "|---|---|---|---|---|",
        *(
            f"| {one['by']} | {one['aurc']:.3f} | {one['perfect']:.3f} | {one['chance']:.3f} | {one['lesions']} |"
            for one in detection["risk"]
        ),
        "",
        *lesion_lines(row["lesions"]),
    ]
    return lines


def froc_lines(path: Path, froc: Mapping[str, Any]) -> list[str]:
    """Sensitivity at a few rates, and the picture."""
    rates = {rate["fp_per_scan"]: rate for rate in froc["rates"]}
    there = [rate for rate in RATES if rate in rates]
    lines = [
        f"FROC, {froc['lesions']} true lesions in {froc['scans']} scans, {froc['empty_scans']} of them empty:",
        "",
        f"| false positives per scan | {' | '.join(f'{rate:g}' for rate in there)} |",
        "|---" * (len(there) + 1) + "|",
        f"| sensitivity | {' | '.join(interval(rates[rate], 'sensitivity') for rate in there)} |",
        "",
    ]
    if (picture := path.with_suffix(".png")).exists():
        target = PAGE.parent / "images" / f"froc-{path.stem}.png"
        write_bytes(target, picture.read_bytes())
        lines += [f"![Sensitivity over false positives per scan](images/{target.name})", ""]
    return lines


def calibration_lines(detection: Mapping[str, Any]) -> list[str]:
    """Expected calibration errors before and after the temperature."""
    found = detection["calibration"]
    lines = [
        f"| expected calibration error (temperature {', '.join(f'{t:.2f}' for t in found['temperatures'])}) "
        "| before | after | number |",
        "|---|---|---|---|",
    ]
    for name, what in (("voxels", "voxels near the boundary"), ("lesions", "lesions that are reported")):
        before, after = found[f"{name}_before"], found[f"{name}_after"]
        if before and after and before["ece"] is not None:
            lines.append(f"| {what} | {before['ece']:.3f} | {after['ece']:.3f} | {after['count']:,} |")
    return lines


def lesion_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The table of lesions, shortened."""
    if not rows:
        return []
    return [
        f"The largest {LISTED} lesions of each kind, from `lesions.csv`:",
        "",
        "| case | what became of it | volume, mm3 | axial diameters, mm | longest, mm | slice | IoU | confidence |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['case']} | {row['status']} | {float(row['volume_mm3']):.0f} | {row['longest_axial_mm']} x "
            f"{row['perpendicular_mm']} | {row['longest_3d_mm']} | {row['slice_axis']} {row['slice_index']} | "
            f"{row['iou']} | {row['confidence']} |"
            for row in rows
        ),
        "",
    ]


def interval(figure: Mapping[str, Any], key: str = "value", digits: int = 3) -> str:
    """A figure with its interval in brackets."""
    value, low, high = figure[key], figure["low"], figure["high"]
    if value is None:
        return "undefined"
    return f"{value:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


if __name__ == "__main__":
    main()

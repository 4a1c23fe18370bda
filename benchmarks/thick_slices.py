"""A stand-in for cardiac scans of thick slices: does the plain command learn on data that nobody tuned for?

    python benchmarks/thick_slices.py make data/thick                     60 scans, a third without a lesion
    python benchmarks/thick_slices.py fit data/thick --steps 300 --seed 0 the plain command on fold 0; a row of results
    python benchmarks/thick_slices.py fit data/thick --steps 300 --name shapes --with "--start shapes"
    python benchmarks/thick_slices.py table                               the rows that are there

    python benchmarks/thickened.py sts_pet data/sarcomas                  real scans made as hard
    python benchmarks/thick_slices.py fit data/sarcomas --name sarcomas

Each scan that `make` writes is a heart in a chest: 4 to 10 slices of 10 mm with pixels of 1.5 mm. The lesion is an arc
of the wall of the left ventricle in neighbouring slices, about 0.15 % of the volume, and as bright as the blood beside
it. Scanners differ in brightness, and half of each image is air. Nothing in these is patient data. A row that is there
is not made again.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from focalis.evaluation import bootstrap_interval
from focalis.volume import Grid, Volume, write_volume
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "thick_slices"
SPACING_ZYX_MM = (10.0, 1.5, 1.5)
SIDE, SLICES = 256, (4, 10)
CASES, EMPTY = 60, 1 / 3
BLOOD, WALL, FAT, MUSCLE, LUNG = 1.0, 0.25, 0.9, 0.4, 0.12
SCAR = (0.9, 1.1)
NOISE = (0.04, 0.08)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the data, train, or print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--cases", type=int, default=CASES)
    making.add_argument("--seed", type=int, default=0)
    fitting = commands.add_parser("fit")
    fitting.add_argument("folder", type=Path)
    fitting.add_argument("--steps", type=int, default=300)
    fitting.add_argument("--seed", type=int, default=0)
    fitting.add_argument("--threads", type=int, default=1)
    fitting.add_argument("--name", default="default", help="of the row")
    fitting.add_argument("--with", dest="options", default="", help="further options of `focalis fit`")
    commands.add_parser("table")
    options = parser.parse_args(arguments)
    if options.command == "make":
        for number in range(options.cases):
            image, label = make_case(options.seed, number)
            write_volume(image, options.folder / "images" / f"case_{number:03}.nii.gz")
            write_volume(label, options.folder / "labels" / f"case_{number:03}.nii.gz")
    elif options.command == "fit":
        target = RESULTS / f"{options.name}-{options.steps}steps-seed{options.seed}.json"
        if target.exists():
            print(f"{target}: is there, nothing to do")
        else:
            write_json(target, fitted(options))
            print(f"{target}: {read_json(target)['dice_with_lesion']}")
    else:
        print(table())


def make_case(seed: int, number: int) -> tuple[Volume, Volume]:
    """Image (float32) and label (uint8, 1 is the scar) of a case, a pure function of (seed, number)."""
    rng = np.random.default_rng((seed, number))
    slices = int(rng.integers(SLICES[0], SLICES[1] + 1))
    values, wall, angle = _anatomy(rng, slices)
    label = np.zeros(values.shape, dtype=np.uint8)
    if rng.random() >= EMPTY:
        first, count, width = rng.integers(0, max(1, slices - 2)), rng.integers(2, 5), rng.uniform(0.6, 1.3)
        turn, drift, depth = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.15), rng.uniform(0.5, 1.0)
        for z in range(first, min(first + count, slices)):
            away = np.abs((angle[z] - turn - drift * (z - first) + np.pi) % (2 * np.pi) - np.pi)
            label[z] = (away < width * rng.uniform(0.8, 1.1)) & (wall[z] > 0) & (wall[z] <= depth)
        values[label == 1] = rng.uniform(*SCAR) * BLOOD
    values = ndimage.gaussian_filter(values, (0.25, 0.7, 0.7))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in values.shape), indexing="ij")
    values *= np.exp(rng.normal(0, 0.15) * x + rng.normal(0, 0.15) * y + rng.normal(0, 0.05) * z)
    level = rng.uniform(*NOISE)
    real, imaginary = (rng.normal(0, level, values.shape) for _ in range(2))
    image = np.hypot(values + real, imaginary) * 300 * np.exp(rng.normal(0, 0.6))
    grid = Grid(values.shape[::-1], SPACING_ZYX_MM[::-1])
    return Volume(image.astype(np.float32), grid), Volume(label, grid)


def _anatomy(
    rng: np.random.Generator, slices: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Brightness; how deep a voxel lies in the left ventricle's wall, from 0 at the blood to 1, else 0; its angle."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    high, wide = rng.uniform(65, 80), rng.uniform(95, 110)
    ring = np.hypot(y / high, x / wide)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (slices, SIDE, SIDE)), (0, 3, 3)) * 0.5
    values, wall, angle = (np.zeros((slices, SIDE, SIDE)) for _ in range(3))
    at_y, at_x = rng.uniform(-20, 10), rng.uniform(5, 30)
    radius, thickness = rng.uniform(15, 22), rng.uniform(6, 9)
    for z in range(slices):
        body = np.where(ring < 1, np.where(ring > 0.88, FAT, MUSCLE), 0.0)
        lung = (np.hypot((y + 5) / (0.7 * high), (np.abs(x) - 45) / 30) < 1) & (ring < 0.85)
        slice_ = np.where(lung, LUNG, body)
        taper = 1 - 0.45 * z / max(slices - 1, 1)
        dy, dx = y - at_y, x - at_x
        far, inner, outer = np.hypot(dy, dx * 1.05), radius * taper, radius * taper + thickness
        right = np.hypot((dy - 6) / (1.3 * outer), (dx + 1.1 * outer) / (1.1 * outer)) < 0.8
        slice_ = np.where(right, BLOOD, slice_)
        slice_ = np.where(far < outer, WALL, slice_)
        slice_ = np.where(far < inner, BLOOD, slice_)
        values[z] = np.where(slice_ > 0, slice_ * (1 + 0.15 * texture[z]), 0)
        wall[z] = np.where((far >= inner) & (far < outer), (far - inner + 0.5) / thickness, 0)
        angle[z] = np.arctan2(dy, dx)
        at_y, at_x = at_y + rng.normal(0, 1), at_x + rng.normal(0, 1)
    return values, wall, angle


def fitted(options: argparse.Namespace) -> dict[str, Any]:
    """Train by the plain command on fold 0 and keep the figures on its held-out cases."""
    began = provenance()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = (
            f"{sys.executable} -m focalis fit {options.folder} -o {run} --fold 0 --steps {options.steps} "
            f"--seed {options.seed} --threads {options.threads} {options.options}"
        )
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
        if not (run / "evaluation.json").exists():
            raise SystemExit(f"{command}\n{done.stdout}\n{done.stderr}")
        record, evaluation = read_json(run / "record.json"), read_json(run / "evaluation.json")
    rows = evaluation["cases"]
    filled = [row for row in rows if row["truth_voxels"]]
    return {
        **began,
        "options": options.options,
        "training_seconds": record["training_seconds"],
        "seed": options.seed,
        "threads": options.threads,
        "steps": record["steps"],
        "patch_zyx": record["plan"]["patch_zyx"],
        "batch": record["plan"]["batch"],
        "start": record.get("start"),
        "restarted": record.get("restarted"),
        "loss": record["plan"]["loss"]["name"],
        "foreground_share": record["plan"]["training"]["foreground_share"],
        "threshold": record["threshold"],
        "minimum_confidence": record["minimum_confidence"],
        "collapse": record["collapse"],
        "dice_with_lesion": round(float(np.mean([row["dice"] for row in filled])), 4),
        "lesions": sum(row["truth_lesions"] for row in filled),
        "lesions_found": sum(row["detected_lesions"] for row in filled),
        "empty_left_empty": sum(not row["predicted_voxels"] for row in rows if not row["truth_voxels"]),
        "empty": len(rows) - len(filled),
        "cases": {row["case"]: round(row["dice"], 4) for row in rows},
        "with_lesion": [row["case"] for row in filled],
    }


def table(results: Path = RESULTS) -> str:
    """The rows as Markdown, and what the rows called `after` gained over those called `before`."""
    rows = {path.stem: read_json(path) for path in sorted(results.glob("*.json"))}
    lines = [
        "| row | steps | training, s | patch | start | Dice with a lesion | lesions found "
        "| empty scans left empty | called a failure |",
        "|---" * 9 + "|",
    ]
    for name, row in rows.items():
        patch = f"{row['batch']} of {' x '.join(map(str, row['patch_zyx']))}"
        start = (row["start"] or {}).get("name", "scratch")
        found = f"{row['lesions_found']} of {row['lesions']}" if "lesions" in row else ""
        lines.append(
            f"| {name} | {row['steps']} | {row.get('training_seconds', '')} | {patch} | {start} | "
            f"{row['dice_with_lesion']:.3f} | {found} | {row['empty_left_empty']} of {row['empty']} | "
            f"{'yes' if row.get('collapse') else ''} |"
        )
    gains: dict[str, list[float]] = {}
    for name, row in rows.items():
        other = next((each for title, each in rows.items() if _pairs(title, name)), None)
        if other is not None:
            for case in set(row["with_lesion"]):
                gains.setdefault(case, []).append(row["cases"][case] - other["cases"][case])
    return "\n".join([*lines, *_gain(gains), *_of_all(rows)])


def _of_all(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    """The measure over all stand-ins: their trainings of 1,000 steps, and the worst of them."""
    known = {name: row for name, row in rows.items() if re.fullmatch(r"[a-z]+-1000steps-seed\d", name)}
    if not known:
        return []
    most = [name for name, row in known.items() if 2 * row["lesions_found"] > row["lesions"]]
    worst = min(known, key=lambda name: known[name]["dice_with_lesion"])
    return [
        "",
        f"Of {len(known)} trainings of 1,000 steps {len(most)} find most of their lesions; the worst Dice is "
        f"{known[worst]['dice_with_lesion']:.3f} ({worst}).",
    ]


def _pairs(before: str, after: str) -> bool:
    """Whether two rows are the same seed before and after a change of the plan."""
    return before.startswith("before-") and after.startswith("after-") and before[-6:] == after[-6:]


def _gain(gains: dict[str, list[float]]) -> list[str]:
    if not gains:
        return []
    means = [float(np.mean(values)) for _, values in sorted(gains.items())]
    low, high = bootstrap_interval(means)
    seeds = max(map(len, gains.values()))
    return [
        "",
        f"After less before, paired, {len(means)} cases with a lesion, {seeds} seeds: {np.mean(means):+.3f} "
        f"({low:+.3f} to {high:+.3f}).",
    ]


if __name__ == "__main__":
    main()

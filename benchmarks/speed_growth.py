"""Time and memory as the work grows, with the fitted exponent, T = a * n^e, over all sizes and over the last two.

    python benchmarks/speed_growth.py volume     # prediction and the steps around it, 64^3 to 512 x 512 x 600
    python benchmarks/speed_growth.py cases      # a training batch, 10 to 10,000 prepared phantoms
    python benchmarks/speed_growth.py lesions    # components, matching, distances, table: 1 to 2,000 lesions

The steps of a volume are timed in a process of its own; "predict" is the whole program from start to files, under its
default budget of 4 GB, and "resident GB" its peak memory.
--most leaves out the larger sizes for a quick trial, which is printed, not written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from speed import calibrated
from speed_common import default_model, interleaved, shipped_like, write
from speed_process import FOCALIS, run

from focalis.lesions import label_components, match_lesions, measure_lesions
from focalis.losses import distance_to_foreground
from focalis.model import save_model
from focalis.prediction import drop_lesions, predict_probabilities, runtime_for
from focalis.training import TrainingCase
from focalis.training.batches import make_batch
from focalis.volume import Grid, Volume, grid_with_spacing, read_volume, resample_image, write_volume

VOLUMES = ((64, 64, 64), (128, 128, 128), (128, 256, 256), (300, 512, 512), (600, 512, 512))
CASES = (10, 100, 1000, 10_000)
LESIONS = (1, 10, 100, 500, 2000)
BUDGET_BYTES = 4 * 10**9
SPACING_XYZ_MM = (0.8, 0.8, 1.0)
NEAR_PLAN_XYZ_MM = (1.02, 1.02, 1.0)
"""Spacing of what is predicted: it is resampled to the 1 mm of the plan, and the network sees as many voxels."""


def main() -> None:
    """Measure one kind of growth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["volume", "cases", "lesions", "one"])
    parser.add_argument("--most", type=float, default=float("inf"), help="voxels, cases or lesions")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--shape", type=int, nargs=3)
    options = parser.parse_args()
    if options.part == "one":
        print(json.dumps(one_volume(tuple(options.shape), options.runtime)))
        return
    rows = {"volume": volumes, "cases": cases, "lesions": lesions}[options.part](options)
    fitted, last = exponents(rows), exponents(rows[-2:])
    if options.most < float("inf"):
        print(json.dumps([rows, fitted, last], indent=1))
    else:
        write(f"growth-{options.part}", rows, exponents=fitted, last_exponents=last, runtime=options.runtime)


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The exponent of every column."""
    sizes = [row["n"] for row in rows]
    return {
        name: exponent(sizes, [row[name] for row in rows]) for name in rows[0] if name not in ("n", "shape")
    }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log cost over log size, by least squares; None for a single size."""
    if len(sizes) < 2:
        return None
    return round(float(np.polyfit(np.log(sizes), np.log(np.maximum(costs, 1e-9)), 1)[0]), 3)


def volumes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per size."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        save_model(shipped_like(calibrated(default_model())), home / "model.safetensors")
        whole_program(VOLUMES[0], options.runtime, home)  # converts the network
        for shape in (shape for shape in VOLUMES if np.prod(shape) <= options.most):
            words = [sys.executable, __file__, "one", "--runtime", options.runtime]
            words += ["--shape", *map(str, shape)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            row = {"n": int(np.prod(shape)), "shape": shape, **json.loads(done.stdout)}
            rows.append(row | whole_program(shape, options.runtime, home))
            print(rows[-1], file=sys.stderr)
    return rows


def whole_program(shape: tuple[int, int, int], runtime: str, home: Path) -> dict[str, float]:
    """Wall seconds and peak resident memory of `focalis predict` on a volume of int16."""
    path = home / "image.nii.gz"
    array = np.random.default_rng(0).integers(-1000, 1000, shape, dtype=np.int16)
    write_volume(Volume(array, Grid(shape[::-1], NEAR_PLAN_XYZ_MM)), path)
    words = ["predict", str(home / "model.safetensors"), str(path), "--runtime", runtime]
    environment = os.environ | {"XDG_CACHE_HOME": str(home / "cache")}
    found = []
    for _ in range(rounds_of(array.size)):
        with tempfile.TemporaryDirectory() as masks:
            command = [sys.executable, "-c", FOCALIS, *words, "-o", f"{masks}/predicted"]
            found.append(run(command, environment))
    seconds, memory = np.median(found, axis=0)
    return {"predict": float(seconds), "resident GB": float(memory)}


def rounds_of(voxels: int) -> int:
    """How often a volume is measured."""
    return 5 if voxels < 10**7 else 3 if voxels < 10**8 else 1


def one_volume(shape: tuple[int, int, int], runtime: str) -> dict[str, float]:
    """Seconds of each step on one volume (int16 in, uint8 out)."""
    rng = np.random.default_rng(0)
    seconds: dict[str, float] = {}
    model = calibrated(default_model())
    grid = Grid(shape[::-1], SPACING_XYZ_MM)
    array = rng.integers(-1000, 1000, shape, dtype=np.int16)
    label = np.zeros(shape, dtype=np.uint8)
    for place in (rng.random((40, 3)) * (np.asarray(shape) - 8)).astype(int):
        label[tuple(slice(p, p + 6) for p in place)] = 1
    rounds = rounds_of(array.size)

    def timed(name: str, run: Callable[[], Any]) -> Any:
        values = []
        for _ in range(rounds):
            started = time.perf_counter()
            result = run()
            values.append(time.perf_counter() - started)
        seconds[name] = float(np.median(values))
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_volume(Volume(array, grid), path)
        image = timed("read", lambda: read_volume(path))
        finer = grid_with_spacing(grid, (1.1, 0.8, 0.8))
        timed("resample", lambda: resample_image(image, finer))
        timed("components", lambda: label_components(label > 0))
        timed("distance map", lambda: distance_to_foreground(label, grid.spacing_zyx_mm))
        timed("write", lambda: write_volume(Volume(label, grid), Path(folder) / "mask.nii.gz"))
        way = runtime_for(model, runtime, cache=Path(folder) / "networks")
        values = (image.array[None] / np.float32(500)).astype(np.float32)
        timed(
            "network",
            lambda: predict_probabilities(model, values, runtime=way, budget_bytes=BUDGET_BYTES),
        )
    return seconds


def cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A batch out of so many cases, each a file of its own that is opened when it is drawn."""
    plan = default_model(patch=40).plan
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (count for count in CASES if count <= options.most):
            known = _Cases(Path(folder), count, rng)
            work = {"batch": lambda known=known: make_batch(known, plan, 0, int(rng.integers(10**6)))}
            rows.append({"n": count, **interleaved(work, rounds=20)})
    return rows


class _Cases:
    """Prepared cases on disk, of 48^3 voxels, opened as they are asked for."""

    def __init__(self, folder: Path, count: int, rng: np.random.Generator) -> None:
        self.folder, self.count = folder, count
        for number in range(count):
            path = folder / f"{number}.npy"
            if not path.exists():
                np.save(path, rng.normal(size=(48,) * 3).astype(np.float32))
        self.label = np.zeros((48,) * 3, dtype=np.uint8)
        self.label[20:28, 20:28, 20:28] = 1
        self.distance = distance_to_foreground(self.label, (1, 1, 1)).astype(np.float16)
        self.lesions = (np.argwhere(self.label).astype(np.int32),)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> TrainingCase:
        image = np.load(self.folder / f"{number}.npy", mmap_mode="r")[None]
        return TrainingCase(str(number), image, self.label, self.distance, self.lesions)


def lesions(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Steps of evaluation and of a prediction's table: 256^3 voxels, lesions of 5^3, predicted a voxel beside."""
    rows = []
    for count in (count for count in LESIONS if count <= options.most):
        places = np.random.default_rng(0).permutation(24**3)[:count]
        truth = np.zeros((256,) * 3, dtype=bool)
        for place in np.stack(np.unravel_index(places, (24,) * 3), axis=1) * 10 + 4:
            truth[tuple(slice(p, p + 5) for p in place)] = True
        predicted = np.roll(truth, 1, axis=2)
        probability = predicted.astype(np.float32)
        label, grid = predicted.astype(np.uint8), Grid((256,) * 3, (1.0, 1.0, 1.0))
        work = {
            "components": partial(label_components, truth),
            "matching": partial(match_lesions, truth, predicted),
            "distance map": partial(distance_to_foreground, truth.astype(np.uint8), (1, 1, 1)),
            "drop": partial(
                drop_lesions, label, probability, voxel_mm3=1.0, minimum_mm3=27.0, minimum_confidence=0.7
            ),
            "table": partial(measure_lesions, label, grid, {1: "lesion"}, probability),
        }
        rows.append({"n": count, **interleaved(work)})
    return rows


if __name__ == "__main__":
    main()

"""Time and memory as the work grows, with the fitted exponent, T = a * n^e, over all sizes and over the last two.

    python benchmarks/speed_growth.py volume     # prediction and the steps around it, 64^3 to 512 x 512 x 600
    python benchmarks/speed_growth.py cases      # what comes before training, and a batch: 10 to 10,000 phantoms
    python benchmarks/speed_growth.py lesions    # components, matching, distances, table: 1 to 2,000 lesions

Every row is measured in a process of its own. Of a volume, "predict" is the whole program from start to files, under
its default budget of 4 GB, and "resident GB" its peak memory; the network has what that leaves of the budget. Of cases
and lesions "resident GB" is the peak of the row's process. "start again" is check and preparation once more, from what
is known of the files; the files a case are the prepared cases and that store.
--most leaves out the larger sizes for a quick trial, which is printed, not written.
"""

from __future__ import annotations

import argparse
import json
import math
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
from speed_process import FOCALIS, medians, run

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.files import KnownFiles
from focalis.lesions import OperatingPoint, label_components, match_lesions, measure_lesions, report_lesions
from focalis.losses import distance_to_foreground
from focalis.model import save_model
from focalis.planning import describe, fingerprint, make_plan
from focalis.prediction import run_passes, runtime_for
from focalis.prediction.predictor import budget_beside
from focalis.prediction.restore import restore
from focalis.training import KNOWN, prepare_cases
from focalis.training.batches import batches
from focalis.volume import Grid, Volume, grid_with_spacing, read_volume, resample_image, write_volume
from focalis.workflows.record import peak_memory_gb
from focalis.workflows.setup import checked

RUNTIME = "openvino"
VOLUMES = ((64, 64, 64), (128, 128, 128), (128, 256, 256), (300, 512, 512), (600, 512, 512))
CASES = (10, 100, 1000, 10_000)
LESIONS = (1, 10, 100, 500, 2000)
BUDGET_BYTES = 4 * 10**9
PHANTOM = PhantomSettings(shape_zyx=(24, 24, 24), lesions=1)
SPACING_XYZ_MM = (0.8, 0.8, 1.0)
NEAR_PLAN_XYZ_MM = (1.02, 1.02, 1.0)
"""Spacing of what is predicted: it is resampled to the 1 mm of the plan, and the network sees as many voxels."""


def main() -> None:
    """Measure one kind of growth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*PARTS, *(f"one-{part}" for part in PARTS)])
    parser.add_argument("--most", type=float, default=float("inf"), help="voxels, cases or lesions")
    parser.add_argument(
        "--row", type=int, nargs="+", help="one-...: a shape, or a number of cases or lesions"
    )
    options = parser.parse_args()
    one = options.part.removeprefix("one-")
    if one != options.part:
        print(json.dumps(PARTS[one](*options.row)))
        return
    rows = {
        "volume": volumes,
        "cases": partial(counted, "cases", CASES),
        "lesions": partial(counted, "lesions", LESIONS),
    }
    found = rows[options.part](options.most)
    fitted, last = exponents(found), exponents(found[-2:])
    if options.most < float("inf"):
        print(json.dumps([found, fitted, last], indent=1))
    else:
        write(f"growth-{options.part}", found, exponents=fitted, last_exponents=last)


def in_a_process(part: str, *row: int) -> dict[str, float]:
    """A row, measured in a process of its own."""
    words = [sys.executable, __file__, f"one-{part}", "--row", *map(str, row)]
    found: dict[str, float] = json.loads(
        subprocess.run(words, capture_output=True, text=True, check=True).stdout
    )
    print(part, row, found, file=sys.stderr)
    return found


def counted(part: str, counts: Sequence[int], most: float) -> list[dict[str, Any]]:
    """One row per number of cases or lesions."""
    return [{"n": count, **in_a_process(part, count)} for count in counts if count <= most]


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


def volumes(most: float) -> list[dict[str, Any]]:
    """One row per size."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        save_model(shipped_like(calibrated(default_model())), home / "model.safetensors")
        whole_program(VOLUMES[0], home)  # converts the network
        for shape in (shape for shape in VOLUMES if np.prod(shape) <= most):
            row = {"n": int(np.prod(shape)), "shape": shape, **in_a_process("volume", *shape)}
            rows.append(row | whole_program(shape, home))
    return rows


def whole_program(shape: tuple[int, int, int], home: Path) -> dict[str, float]:
    """Wall seconds and peak resident memory of `focalis predict` on a volume of int16."""
    path = home / "image.nii.gz"
    array = np.random.default_rng(0).integers(-1000, 1000, shape, dtype=np.int16)
    write_volume(Volume(array, Grid(shape[::-1], NEAR_PLAN_XYZ_MM)), path)
    words = ["predict", str(home / "model.safetensors"), str(path), "--runtime", RUNTIME]
    environment = os.environ | {"XDG_CACHE_HOME": str(home / "cache")}
    found = []
    for _ in range(rounds_of(array.size)):
        with tempfile.TemporaryDirectory() as masks:
            command = [sys.executable, "-c", FOCALIS, *words, "-o", f"{masks}/predicted"]
            found.append(run(command, environment))
    seconds, memory = medians(found)
    return {"predict": seconds, "resident GB": memory}


def rounds_of(voxels: int) -> int:
    """How often a program is measured on a volume."""
    return 5 if voxels < 10**7 else 3 if voxels < 10**8 else 1


def one_volume(*shape: int) -> dict[str, float]:
    """Seconds of each step on one volume (int16 in, uint8 out)."""
    rng = np.random.default_rng(0)
    seconds: dict[str, float] = {}
    model = calibrated(default_model())
    grid = Grid(shape[::-1], SPACING_XYZ_MM)
    array = rng.integers(-1000, 1000, shape, dtype=np.int16)
    label = np.zeros(shape, dtype=np.uint8)
    for place in (rng.random((40, 3)) * (np.asarray(shape) - 8)).astype(int):
        label[tuple(slice(p, p + 6) for p in place)] = 1
    rounds = max(3, rounds_of(array.size))

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
        timed("scope", lambda: describe([image], model.plan.normalisation))
        timed("resample", lambda: resample_image(image, finer))
        timed("components", lambda: label_components(label > 0))
        timed("distance map", lambda: distance_to_foreground(label, grid.spacing_zyx_mm))
        timed("write", lambda: write_volume(Volume(label, grid), Path(folder) / "mask.nii.gz"))
        way = runtime_for(model, RUNTIME, cache=Path(folder) / "networks")
        values = (image.array[None] / np.float32(500)).astype(np.float32)
        same = Volume(image.array, Grid(shape[::-1], (1.0, 1.0, 1.0)))
        left = budget_beside(BUDGET_BYTES, [same], model.plan)
        found = timed(
            "network", lambda: run_passes(model, values, runtime=way, budget_bytes=left).probabilities
        )
        near = Grid(shape[::-1], NEAR_PLAN_XYZ_MM)
        timed("restore", lambda: [slab.argmax(axis=0) for _, slab in restore(found, same.grid, near)])
    return seconds


def one_cases(count: int) -> dict[str, float]:
    """What `focalis fit` does with so many cases before it trains, a batch out of them, and the peak memory."""
    seconds: dict[str, float] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = run()
        seconds[name] = time.perf_counter() - started
        return result

    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "data", count, PHANTOM, seed=0)
        prepared_in = Path(folder) / "prepared"
        known = KnownFiles(prepared_in / KNOWN)
        data = timed("open", lambda: open_dataset(Path(folder) / "data"))
        timed("check", lambda: checked(data, known))
        figures = timed("fingerprint", lambda: fingerprint(data.cases))
        plan = make_plan(figures, data.channels, {1: "lesion"})
        known.save()
        prepared = timed("prepare", lambda: prepare_cases(data.cases, plan, prepared_in))

        def start_again() -> None:
            checked(open_dataset(Path(folder) / "data"), KnownFiles(prepared_in / KNOWN))
            prepare_cases(data.cases, plan, prepared_in)

        timed("start again", start_again)
        files = [path for path in prepared_in.iterdir() if path.is_file()]
        seconds |= {
            "files a case": len(files) / count,
            "MB a case": sum(path.stat().st_size for path in files) / count / 1e6,
        }
        steps = np.random.default_rng(0).integers(10**6, size=10**6)
        coming = batches(prepared, plan, 0, map(int, steps))
        seconds |= interleaved({"batch": lambda: next(coming)}, rounds=10)
    return seconds | {"resident GB": peak_memory_gb() or math.nan}


def one_lesions(count: int) -> dict[str, float]:
    """Steps of evaluation and of a prediction's table: 256^3 voxels, lesions of 5^3, predicted a voxel beside."""
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
            report_lesions,
            [(slice(None), np.stack([1 - probability, probability]))],
            label.shape,
            OperatingPoint(0.5, minimum_mm3=27.0, minimum_confidence=0.7),
            1.0,
        ),
        "table": partial(measure_lesions, label, grid, {1: "lesion"}, probability),
    }
    return interleaved(work) | {"resident GB": peak_memory_gb() or math.nan}


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "volume": one_volume,
    "cases": one_cases,
    "lesions": one_lesions,
}

if __name__ == "__main__":
    main()

"""Training on whole scans: the memory that it takes, and a training to its end on generated whole CTs.

    python benchmarks/whole_scans.py memory                     one case and four of 512 x 512 x 400 voxels
    python benchmarks/whole_scans.py fit PASTED RUN --steps 200 --ct DATA/lidc_whole
    python benchmarks/whole_scans.py table                      what is there, into docs/evidence-tables.md

`memory` trains on prepared cases of noise with small balls and reads the process's memory after every step: its own
(RssAnon), and with the pages of mapped files (VmRSS), which the system takes back when others need room. `fit` trains
as `focalis fit` does, without options but the steps, on what `pasted_nodules.py` wrote, and predicts the real CT.
PASTED is GENERATED, and from that very CT: the figures show that it works, no more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tables import put

import focalis
from focalis.dataset import Case
from focalis.lesions import label_components, match_lesions
from focalis.planning import Normalisation, Plan
from focalis.prediction import choose_runtime
from focalis.training import prepare_cases, train
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "whole_scans"
BEGIN, END = "<!-- whole scans: made by benchmarks/whole_scans.py -->", "<!-- /whole scans -->"
SHAPE_ZYX, BALLS, RADIUS = (400, 512, 512), 12, 4
CASES, STEPS = (1, 4), 40
PLAN = Plan(
    channels=("image",),
    labels={1: "ball"},
    spacing_zyx_mm=(1.0, 0.8, 0.8),
    normalisation=(Normalisation(),),
    patch_zyx=(40, 40, 40),
    batch=2,
)


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["memory", "memory-of", "fit", "table"])
    parser.add_argument("paths", nargs="*", help="PASTED and RUN; of memory-of the number of cases")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--ct", type=Path, help="folder with images/ and labels/ of real CTs")
    options = parser.parse_args()
    if options.what == "memory-of":
        print(json.dumps(memory_of(int(options.paths[0]))))
        return
    if options.what == "table":
        put(BEGIN, END, ["", *memory_table(), "", *fit_table(), ""])
        return
    began = provenance()
    if options.what == "memory":
        call = [sys.executable, __file__, "memory-of"]
        runs = {
            count: json.loads(subprocess.run([*call, str(count)], check=True, stdout=subprocess.PIPE).stdout)
            for count in CASES
        }
        result: dict[str, Any] = {"shape_zyx": SHAPE_ZYX, "steps": STEPS, "cases": runs}
    else:
        result = fit(Path(options.paths[0]), Path(options.paths[1]), options.steps, options.ct)
    write_json(RESULTS / f"{options.what}.json", {**began, **result})
    print(result)


def memory_of(count: int) -> dict[str, list[float]]:
    """GB of this process before the first step and after each."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cases = prepare_cases([made(home, number) for number in range(count)], PLAN, home / "prepared")
        memory: dict[str, list[float]] = {"RssAnon": [], "VmRSS": []}

        def note(_progress: object = None) -> None:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            for line in lines:
                if (name := line.split(":")[0]) in memory:
                    memory[name].append(round(int(line.split()[1]) * 1024 / 1e9, 3))

        note()
        train(
            PLAN,
            cases,
            [],
            home,
            steps=STEPS,
            seed=0,
            runtime=choose_runtime(),
            progress=note,
        )
        return memory


def made(folder: Path, number: int) -> Case:
    """A case of noise with bright balls."""
    rng = np.random.default_rng(number)
    noise = rng.normal(scale=100, size=SHAPE_ZYX[1:]).astype(np.int16)
    image = np.stack([np.roll(noise, 97 * z) for z in range(SHAPE_ZYX[0])])
    label = np.zeros(SHAPE_ZYX, np.uint8)
    offsets = np.indices((2 * RADIUS + 1,) * 3) - RADIUS
    ball = np.argwhere((offsets**2).sum(0) <= RADIUS**2) - RADIUS
    for _ in range(BALLS):
        centre = rng.integers(RADIUS, np.array(SHAPE_ZYX) - RADIUS)
        label[tuple((ball + centre).T)] = 1
    image[label > 0] += 300
    (depth, height, width), (z_mm, y_mm, x_mm) = SHAPE_ZYX, PLAN.spacing_zyx_mm
    grid = Grid((width, height, depth), (x_mm, y_mm, z_mm))
    paths = []
    for kind, array in (("images", image), ("labels", label)):
        paths.append(folder / kind / f"case{number}.nii.gz")
        write_volume(Volume(array, grid), paths[-1])
    return Case(f"case{number}", (paths[0],), paths[1])


def fit(pasted: Path, run: Path, steps: int, real: Path | None) -> dict[str, Any]:
    """Train, and predict the real CTs."""
    focalis.fit(pasted, run, steps=steps, resume=run.exists())
    record = read_json(run / "record.json")
    result: dict[str, Any] = {
        "data": read_json(pasted / "dataset.json")["description"],
        "cases": {name: len(record["cases"][name]) for name in ("train", "inner")},
        **{name: record[name] for name in ("steps", "training_seconds", "peak_memory_gb", "threshold")},
        **{name: record[name] for name in ("minimum_mm3", "minimum_confidence")},
        "foreground_percent": [
            round(100 * float((read_volume(path).array > 0).mean()), 5)
            for path in sorted((pasted / "labels").glob("*.nii.gz"))
        ],
        "inner": read_json(run / "evaluation.json")["summary"]["overall"],
    }
    for image in sorted((real / "images").glob("*.nii.gz")) if real else ():
        focalis.predict(run / "model.safetensors", [image], run / "real")
        mask = read_volume(next((run / "real").rglob(image.name))).array > 0
        truth = read_volume(image.parents[1] / "labels" / image.name).array > 0
        matching = match_lesions(truth, mask)
        result[f"real {image.name.split('.')[0]}"] = {
            "found": len(matching.pairs),
            "missed": len(matching.unmatched_truth),
            "false_positives": len(matching.unmatched_predicted),
            "marked": label_components(mask)[1],
            "dice": round(float(2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1)), 3),
        }
    return result


def memory_table() -> list[str]:
    """Memory of its own and with mapped files, after the first steps and at the end, by the number of cases."""
    if not (path := RESULTS / "memory.json").exists():
        return []
    result = read_json(path)
    lines = [
        f"Training on scans of {' x '.join(map(str, result['shape_zyx']))} voxels, {result['steps']} steps; in GB. "
        "Mapped pages are cache: the system takes them back.",
        "",
        "| scans | before | own, after step 10 | own, at the end | with mapped pages, at the end |",
        "|---" * 5 + "|",
    ]
    for count, memory in result["cases"].items():
        own, whole = memory["RssAnon"], memory["VmRSS"]
        lines.append(f"| {count} | {own[0]:.2f} | {own[10]:.2f} | {own[-1]:.2f} | {whole[-1]:.2f} |")
    return lines


def fit_table() -> list[str]:
    """What the training on generated scans took and found."""
    if not (path := RESULTS / "fit.json").exists():
        return []
    result = read_json(path)
    shares = result["foreground_percent"]
    lesions = result["inner"]["lesions"]
    real = {name[5:]: found for name, found in result.items() if name.startswith("real ")}
    return [
        f"{result['data']} {result['cases']['train']} trained, {result['cases']['inner']} chose the point; "
        f"foreground {min(shares):.4f} to {max(shares):.4f} %, "
        f"{result['steps']} steps, no other option; peak of memory {result['peak_memory_gb']:.1f} GB.",
        "",
        f"On the inner split (generated): Dice {result['inner']['statistics'][0]['mean']:.3f}, "
        f"lesion sensitivity {lesions['sensitivity']['value']:.2f}, "
        f"false positives per scan {lesions['false_positives_per_scan']['value']}.",
        "",
        "| real CT | lesions found | missed | false positives | Dice |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {found['found']} | {found['missed']} | {found['false_positives']} | {found['dice']:.3f} |"
            for name, found in real.items()
        ),
    ]


if __name__ == "__main__":
    main()

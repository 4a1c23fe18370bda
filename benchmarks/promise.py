"""Does a promise hold as often as it says? Repeated draws of the cases that it rests on.

    python benchmarks/promise.py phantoms
    python benchmarks/promise.py lidc_nodules --runs runs     with the runs of `evidence.py accuracy-start`

Phantoms: a detector of bright blobs that learns nothing marks generated scans with many lesions and empty ones.
Nodules: each of the five models marks the whole crops of its held-out patients. These scans are the population: from
them cases are drawn with replacement, a promise is made on each draw, and it is compared with what its operating point
does on all scans. Of the promises that are given one out of ten may be broken at most.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evidence_data import held_out_nodules
from scipy.ndimage import gaussian_filter
from tables import put

from focalis.dataset import PhantomSettings, make_phantom
from focalis.evaluation import Promise, cut, keep_promise
from focalis.evaluation.promise import CAP, TRIED
from focalis.files import write_text
from focalis.lesions import Candidates, OperatingPoint
from focalis.prediction import Settings, segment
from focalis.workflows.record import provenance, read_json

RESULTS = Path(__file__).parent / "results" / "small_lesions"
BEGIN, END = "<!-- promises: made by benchmarks/promise.py -->", "<!-- /promises -->"
SCANS, EMPTY, DRAWS = 200, 40, 200
SETTINGS = PhantomSettings(shape_zyx=(24, 40, 40), lesions=4, foreground_share=0.01, contrast=110.0)
PROMISES = {
    "phantoms": ("miss<=40%", "fp-per-scan<=4"),
    "lidc_nodules": ("miss<=10%", "miss<=20%", "fp-per-scan<=1", "fp-per-scan<=2"),
}
RESTING_ON = (40, 100)


def main() -> None:
    """Mark all scans, draw, promise, compare, and write the result and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=PROMISES)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the nodules' models lie")
    options = parser.parse_args()
    nodules = options.data == "lidc_nodules"
    rows = marked_nodules(options.runs) if nodules else [scan(number) for number in range(SCANS)]
    content = {
        **provenance(),
        "command": f"python benchmarks/promise.py {options.data}",
        "scans": len(rows),
        "draws": DRAWS,
        "trials": [trial(rows, text, count) for text in PROMISES[options.data] for count in RESTING_ON],
    }
    write_text(RESULTS / f"promise-{options.data}.json", json.dumps(content) + "\n")
    put(BEGIN, END, table())


def table() -> list[str]:
    """The lines of the page, from what is there."""
    lines = [
        "",
        f"{DRAWS} draws each, with replacement, from {SCANS} generated scans ({EMPTY} of them empty) that a detector "
        "of bright blobs marked, and from 104 whole crops of nodules, each marked by a model that has not seen it.",
        "",
        "| scans | promise, 90 % confidence | scans it rests on | given in | of those, broken | median of what holds |",
        "|---|---|---|---|---|---|",
    ]
    for data in PROMISES:
        path = RESULTS / f"promise-{data}.json"
        lines += [
            f"| {data} | `{one['promise']}` | {one['count']} | {one['given']} of {DRAWS} | {one['broken']} "
            f"| {one['holds']} |"
            for one in (read_json(path)["trials"] if path.exists() else ())
        ]
    return [*lines, ""]


def marked_nodules(runs: Path) -> list[tuple[Candidates, ...]]:
    """Each case of `lidc_nodules` as the model that held it out marks it, at the thresholds that promises try."""
    rows = []
    for model, case in held_out_nodules(runs):
        label = case.read_label()
        found = segment(model, case.read_images(), Settings(runtime="torch"))
        rows.append(cut(case.name, label.array > 0, found.probability, label.grid.voxel_volume_mm3, TRIED))
    return rows


def scan(number: int) -> tuple[Candidates, ...]:
    """A generated scan as the detector marks it, at the thresholds that promises try."""
    lesions = 0 if number < EMPTY else SETTINGS.lesions
    phantom = make_phantom(
        PhantomSettings(**{**vars(SETTINGS), "lesions": lesions}), np.random.SeedSequence((7, number))
    )
    image = phantom.image.array.astype(np.float32)
    bright = gaussian_filter(image, 1.0) - gaussian_filter(image, 6.0)
    probability = (1 / (1 + np.exp(-(bright - 60) / 6))).astype(np.float32)
    return cut(f"s{number}", phantom.truth.array > 0, probability, 1.0, TRIED)


def trial(rows: Sequence[tuple[Candidates, ...]], text: str, count: int) -> dict[str, object]:
    """How often a promise is given on draws of so many scans, and how often it is broken then."""
    promise, rng = Promise.parse(text), np.random.default_rng(0)
    holds, known = [], dict[tuple[float, float], float]()
    for _ in range(DRAWS):
        drawn = [rows[i] for i in rng.integers(len(rows), size=count)]
        promised = keep_promise(OperatingPoint(), drawn, promise, thresholds=TRIED)
        if not promised.promise.startswith("none"):
            point = promised.threshold, promised.minimum_confidence
            if point not in known:
                known[point] = rate(rows, promise, *point)
            holds.append(known[point])
    broken = sum(value > promise.most for value in holds)
    middle = f"{np.median(holds):.3g}" if holds else "none"
    return {"promise": text, "count": count, "given": len(holds), "broken": broken, "holds": middle}


def rate(
    rows: Sequence[tuple[Candidates, ...]], promise: Promise, threshold: float, confidence: float
) -> float:
    """What the point does on all scans."""
    values = []
    for each in (row[TRIED.index(threshold)] for row in rows):
        matching = each.overlaps.match(each.kept(0, confidence))
        if promise.of == "fp-per-scan":
            values.append(min(len(matching.unmatched_predicted), CAP * promise.most))
        elif matching.truth_count:
            values.append(len(matching.unmatched_truth) / matching.truth_count)
    return float(np.mean(values))


if __name__ == "__main__":
    main()

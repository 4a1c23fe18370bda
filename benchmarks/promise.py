"""Does a promise hold as often as it says? Repeated draws of the cases that it rests on, on phantoms.

    python benchmarks/promise.py

A detector of bright blobs that learns nothing marks generated scans with many lesions and empty ones. From them cases
are drawn again and again, a promise is made on each draw, and it is compared with what its operating point does on all
scans. Of the promises that are given one out of ten may fail at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tables import replaced

from focalis.dataset import PhantomSettings, make_phantom
from focalis.evaluation import Promise, cut, keep_promise
from focalis.evaluation.promise import CAP, TRIED
from focalis.files import write_text
from focalis.lesions import Candidates, OperatingPoint
from focalis.workflows.record import provenance

RESULT = Path(__file__).parent / "results" / "small_lesions" / "promise.json"
PAGE = Path(__file__).parents[1] / "docs" / "evidence-tables.md"
BEGIN, END = "<!-- promises: made by benchmarks/promise.py -->", "<!-- /promises -->"
SCANS, EMPTY, DRAWS = 200, 40, 100
SETTINGS = PhantomSettings(shape_zyx=(24, 40, 40), lesions=4, foreground_share=0.01, contrast=110.0)
PROMISES = ("miss<=40%", "fp-per-scan<=4")
RESTING_ON = (40, 100)


def main() -> None:
    """Mark all scans, draw, promise, compare, and write the result and its table."""
    rows = [scan(number) for number in range(SCANS)]
    found = [trial(rows, text, count) for text in PROMISES for count in RESTING_ON]
    content = {**provenance(), "command": "python benchmarks/promise.py", "scans": SCANS, "trials": found}
    write_text(RESULT, json.dumps(content) + "\n")
    lines = [
        "",
        f"{SCANS} generated scans, {EMPTY} of them empty, marked by a detector of bright blobs; {DRAWS} draws each. "
        "Made by `python benchmarks/promise.py`.",
        "",
        "| promise, 90 % confidence | scans it rests on | given in | of those, broken | median of what holds |",
        "|---|---|---|---|---|",
        *(
            f"| `{one['promise']}` | {one['count']} | {one['given']} of {DRAWS} | {one['broken']} | {one['holds']} |"
            for one in found
        ),
        "",
    ]
    write_text(PAGE, replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, lines))


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
        drawn = [rows[i] for i in rng.choice(len(rows), count, replace=False)]
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

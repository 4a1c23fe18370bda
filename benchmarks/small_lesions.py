"""Losses that count lesions, and patches at false lesions, against the default: sets with many lesions, and controls.

    python benchmarks/small_lesions.py list                      the plan: each row, and whether its result is there
    python benchmarks/small_lesions.py run [--only TEXT]         make the rows that are missing, one after the other
    python benchmarks/small_lesions.py table                     what is there, into docs/evidence-tables.md

A row is a set, a loss (or another way to train) and a seed: every fold is trained as `focalis fit` does, its held-out
cases are predicted once at the chosen operating point and once loosely, for FROC, and the folds are pooled. A row that
is there is not made again, and one that was stopped goes on. FOCALIS_DATA names the folder of the real sets.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lesions import MANY, predicted, short, train_folds, train_on_pieces
from tables import put

import focalis
from focalis.dataset import Dataset, PhantomSettings, open_dataset, write_phantoms
from focalis.files import write_text
from focalis.lesions import find_candidates
from focalis.planning import read_plan, write_plan
from focalis.volume import read_volume
from focalis.workflows.record import provenance, read_json

RESULTS = Path(__file__).parent / "results" / "small_lesions"
BEGIN, END = "<!-- rows: made by benchmarks/small_lesions.py -->", "<!-- /rows -->"
DEFAULT = "dice_cross_entropy"
LOSSES = (
    DEFAULT,
    "two_way_dice_cross_entropy",
    "cc_dice_cross_entropy",
    "blob_dice_cross_entropy",
    "component_tversky",
    "l1_dice_focal",
)
HARD = "hard_negatives"
"""The default loss, and `HARD_SHARE` of the patches without a lesion drawn at false lesions."""
HARD_SHARE = 0.5
BORDERS_VOXELS = (30, 100)
"""Lesions are small below the first, large from the second on."""
CLASSES = ("small", "medium", "large")
RATES = (1.0, 4.0)
DRAWS = 2000


@dataclass(frozen=True)
class Set:
    """Generated scans (`settings`) or a real set by its name; how long each fold trains, and the seeds of the plan.

    Of a set with `pieces` each scan is held out and predicted whole, and pieces of the others train. `rival` is another
    network that is trained beside the default one, with `RIVAL_LOSSES`.
    """

    steps: int
    seeds: tuple[int, ...] = (0, 1)
    folds: int = 2
    scans: int = 0
    settings: PhantomSettings | None = None
    pieces: bool = False
    start: str = "scratch"
    rival: str | None = None


SETS = {
    "phantoms-tiny": Set(
        250,
        (0,),
        scans=16,
        settings=PhantomSettings(
            shape_zyx=(32, 48, 48), lesions=10, foreground_share=0.008, empty_share=0.25
        ),
    ),
    "phantoms-many": Set(200, scans=24, settings=MANY),
    "phantoms-look": Set(200, scans=24, settings=MANY, rival="nnunet"),
    "phantoms-one": Set(
        200, scans=24, settings=PhantomSettings(shape_zyx=(48, 80, 80), lesions=1, empty_share=0.15)
    ),
    "oasis_inferior_ventricle": Set(200),
    "ms_brain": Set(200, pieces=True, start="shapes"),
    "sts_pet": Set(200),
}
"""A tiny set that shows the way, the sets of the question, and controls with one lesion per scan. `phantoms-look` is
`phantoms-many` again, since `fit` gives its operating points a second look. `ms_brain` starts from shapes: from random
weights nothing is found after so few steps."""
RIVAL_LOSSES = (DEFAULT, "cc_dice_cross_entropy")


@dataclass(frozen=True)
class Row:
    """One line of the plan."""

    data: str
    loss: str
    seed: int
    network: str | None = None

    @property
    def title(self) -> str:
        """The line of the table that it belongs to."""
        return self.loss if self.network is None else f"{self.network}: {self.loss}"

    @property
    def name(self) -> str:
        """What its files are called."""
        what = self.loss if self.network is None else f"{self.network}-{self.loss}"
        return f"{self.data}-{what}-{SETS[self.data].steps}steps-seed{self.seed}"

    @property
    def path(self) -> Path:
        """Where its result lies."""
        return RESULTS / f"{self.name}.json"


def plan() -> Iterator[Row]:
    """Every row, the cheap sets first."""
    for data, of in SETS.items():
        for seed in of.seeds:
            for loss in LOSSES if of.pieces else (*LOSSES, HARD):
                yield Row(data, loss, seed)
            for loss in RIVAL_LOSSES if of.rival else ():
                yield Row(data, loss, seed, of.rival)


def main() -> None:
    """List, run or tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["list", "run", "table"])
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    options = parser.parse_args()
    rows = [row for row in plan() if options.only in row.name]
    if options.what == "table":
        write_page()
    for row in rows if options.what != "table" else ():
        if options.what == "run" and not row.path.exists():
            make(row, options.runs)
        print(f"{'there  ' if row.path.exists() else 'missing'} {row.name}", flush=True)


def make(row: Row, runs: Path) -> None:
    """Train, predict, count, and write the result."""
    of, home = SETS[row.data], runs / row.name
    data = dataset(row.data, runs)
    began = provenance()
    limits: dict[str, Any] = {"steps": of.steps, "seed": row.seed, "eight_bit": False, "start": of.start}
    limits |= {"plan": hard_plan(data, home, of, row.seed)} if row.loss == HARD else {"loss": row.loss}
    limits |= {"network": row.network} if row.network else {}
    held_out = (
        train_on_pieces(data, home, limits)
        if of.pieces
        else train_folds(data, home / "run", of.folds, limits)
    )
    chosen, loose = predicted(held_out, data, home, mirror=False)
    records = [read_json(folder / "record.json") for folder in held_out]
    content = {
        **began,
        "command": f"python benchmarks/small_lesions.py run --only {row.name}",
        "data": row.data,
        "loss": row.loss,
        "network": row.network,
        "seed": row.seed,
        "steps": of.steps,
        "training_seconds": [record["training_seconds"] for record in records],
        "cases": {name: counted(home, name) for names in held_out.values() for name in names},
        "chosen": short(chosen)["summary"],
        "loose": short(loose)["detection"]["froc"],
    }
    write_text(row.path, json.dumps(content) + "\n")


def hard_plan(data: Dataset, home: Path, of: Set, seed: int) -> Path:
    """The plan of the default, except the patches at false lesions."""
    written = focalis.fit(data.root, home / "plan", plan_only=True, folds=of.folds, seed=seed, start=of.start)
    plan = read_plan(written.plan)
    training = plan.training.model_copy(update={"hard_negative_share": HARD_SHARE})
    write_plan(plan.model_copy(update={"training": training}), home / "plan.yaml")
    return home / "plan.yaml"


def dataset(name: str, runs: Path) -> Dataset:
    """A set of the plan; generated ones are made once."""
    of = SETS[name]
    if of.settings is None:
        return open_dataset(Path(os.environ["FOCALIS_DATA"]) / name)
    root = runs / "data" / name
    if (root / "dataset.json").exists():
        return open_dataset(root)
    return write_phantoms(root, of.scans, of.settings, seed=0)


def counted(home: Path, case: str) -> dict[str, Any]:
    """Found, missed and false lesions of a case by size class, and its Dice; a found one has its true size."""
    truth, mask = (
        read_volume(home / folder / f"{case}.nii.gz").array > 0 for folder in ("truth", "masks_chosen")
    )
    candidates = find_candidates(truth, mask, mask.astype(np.float32), case=case, voxel_mm3=1.0)
    kinds = np.digitize(candidates.truth_mm3, BORDERS_VOXELS)
    found = np.zeros(kinds.size, dtype=bool)
    found[[pair[0] - 1 for pair in candidates.overlaps.match().pairs]] = True
    wrong = np.digitize(candidates.predicted_mm3[~candidates.matched()], BORDERS_VOXELS)

    def by_class(kind: np.ndarray) -> list[int]:
        return np.bincount(kind, minlength=len(CLASSES)).tolist()

    return {
        "found": by_class(kinds[found]),
        "missed": by_class(kinds[~found]),
        "false": by_class(wrong),
        "dice": candidates.dice(np.ones(candidates.confidence.size, dtype=bool)),
    }


def write_page() -> None:
    """Replace the measured part of the page by what is there."""
    there = {row: read_json(row.path) for row in plan() if row.path.exists()}
    lines = [line for data in SETS for line in section(data, there)]
    put(BEGIN, END, ["", *(lines or ["Nothing has been measured yet.", ""])])


def section(data: str, there: Mapping[Row, Mapping[str, Any]]) -> list[str]:
    """The table of one set: every line, its seeds pooled, and its difference from `usual_of` it if both are there."""
    of = SETS[data]
    titles = dict.fromkeys(row.title for row in plan() if row.data == data)
    found = {
        title: [content for row, content in there.items() if (row.data, row.title) == (data, title)]
        for title in titles
    }
    if not any(found.values()):
        return []
    rows = next(rows for rows in found.values() if rows)
    empty = sum(not sum(case["found"]) + sum(case["missed"]) for case in rows[0]["cases"].values())
    lines = [
        f"### {data}",
        "",
        f"{len(rows[0]['cases'])} scans, {empty} of them empty; "
        f"{'each held out once, pieces of the other' if of.pieces else f'{of.folds} folds'}, {of.steps} steps each"
        f"{'' if of.start == 'scratch' else f', from {of.start}'}. "
        f"Made by `python benchmarks/small_lesions.py run --only {data}`.",
        "",
        f"| {'network and loss' if of.rival else 'loss'} | seeds | scans | lesion F1 "
        f"| {' | '.join(f'F1 {name}' for name in CLASSES)} "
        f"| {' | '.join(f'sensitivity at {rate:g} FP' for rate in RATES)} "
        "| FP per scan | Dice | F1 less that of the default loss |",
        "|---" * (8 + len(CLASSES) + len(RATES)) + "|",
    ]
    for loss, results in found.items():
        if not results:
            continue
        cases = [case for result in results for case in result["cases"].values()]
        sensitivity = [
            np.mean([at(result["loose"], rate) for result in results]) if results else None for rate in RATES
        ]
        cells = [
            f"`{loss}`",
            str(len(results)),
            str(len(results[0]["cases"])),
            f"{f1(cases):.3f}",
            *(f"{f1(cases, kind):.3f}" for kind in range(len(CLASSES))),
            *(f"{value:.3f}" for value in sensitivity),
            f"{np.mean([sum(case['false']) for case in cases]):.2f}",
            f"{np.mean([case['dice'] for case in cases]):.3f}",
            difference(found[usual_of(loss)], results) if loss != DEFAULT else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def usual_of(title: str) -> str:
    """The line that a line is compared with: the default loss of its network, or else the default network's."""
    network, _, loss = title.rpartition(": ")
    return DEFAULT if loss == DEFAULT or not network else f"{network}: {DEFAULT}"


def f1(cases: Sequence[Mapping[str, Any]], kind: int | None = None) -> float:
    """2 found / (2 found + missed + false), of one size class or of all."""
    found, missed, false = (
        sum(sum(case[name]) if kind is None else case[name][kind] for case in cases)
        for name in ("found", "missed", "false")
    )
    return 2 * found / max(2 * found + missed + false, 1)


def at(froc: Mapping[str, Any] | None, rate: float) -> float:
    """The sensitivity at a rate of false positives; the curve's end where it ends before."""
    known = [one["sensitivity"] for one in froc["rates"] if one["fp_per_scan"] <= rate] if froc else []
    known = [value for value in known if value is not None]
    return known[-1] if known else 0.0


def difference(default: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """The paired difference of F1 over the seeds that both have, with its 95 % bootstrap interval over scans."""
    pairs = [(a, b) for a in default for b in other if a["seed"] == b["seed"]]
    if not pairs:
        return ""
    names = [name for name in pairs[0][0]["cases"] if name in pairs[0][1]["cases"]]
    rng = np.random.default_rng(0)

    def of(drawn: Sequence[str]) -> float:
        mine, theirs = (
            f1([pair[side]["cases"][name] for pair in pairs for name in drawn]) for side in (1, 0)
        )
        return mine - theirs

    draws = [of(rng.choice(names, len(names)).tolist()) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{of(names):+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()

"""The size of a training patch, with as many voxels per step: halves of the training cases judge each other.

    python benchmarks/patch_sizes.py run oasis_inferior_ventricle --sides 32 40 48
    python benchmarks/patch_sizes.py table                       what is there, into docs/evidence-tables.md

The training cases of fold 0 are halved. On each half the usual plan trains, except the patch, and every case of the
other half is predicted once; the fold's held-out cases are not touched. Dice is that at one half, since no operating
point is chosen. FOCALIS_DATA names the folder of the data sets; `phantoms-many` is generated.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from small_lesions import dataset
from tables import put

from focalis.dataset import make_splits
from focalis.evaluation import bootstrap_interval
from focalis.lesions import decide, match_lesions
from focalis.planning import fingerprint, make_plan
from focalis.prediction import choose_runtime
from focalis.training import prepare_cases, read_metrics, train
from focalis.training.start import start_of
from focalis.training.validation import dice, probabilities
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "patch_sizes"
BEGIN, END = "<!-- patches: made by benchmarks/patch_sizes.py -->", "<!-- /patches -->"


def main() -> None:
    """Run or tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("data", nargs="?", default="oasis_inferior_ventricle")
    parser.add_argument("--sides", type=int, nargs="+", default=[40])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    if options.what == "table":
        lines = [*same_time(), "", *(table() if any(RESULTS.glob("*.json")) else [])]
        put(BEGIN, END, ["", *lines, ""])
        return
    for side in options.sides:
        path = RESULTS / f"{options.data}-{side}-{options.steps}steps-seed{options.seed}.json"
        if not path.exists():
            write_json(path, row(options.data, side, options.steps, options.seed, options.runs))
            print(path)


def row(name: str, side: int, steps: int, seed: int, runs: Path) -> dict[str, Any]:
    """Both halves of a size."""
    began = provenance()
    data = dataset(name, runs)
    cases = data.select(make_splits(data.cases, 5, seed=0)[0].train)
    halves = [cases[::2], cases[1::2]]
    runtime = choose_runtime()
    scores: dict[str, dict[str, Any]] = {}
    seconds = []
    usual = make_plan(fingerprint(cases, data.ignore), data.channels, data.labels or {1: "lesion"})
    batch = max(1, round(usual.batch * np.prod(usual.patch_zyx) / side**3))
    plan = usual.model_copy(update={"patch_zyx": (side,) * 3, "batch": batch})
    for mine, others in (halves, halves[::-1]):
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare_cases(mine, plan, runs / "prepared")
            network = train(
                plan,
                prepared,
                [],
                Path(folder),
                steps=steps,
                seed=seed,
                runtime=runtime,
                start=start_of(plan),
            )
            seconds.append(read_metrics(Path(folder))[-1]["seconds"])
        for case in prepare_cases(others, plan, runs / "prepared"):
            mask = decide(probabilities(plan, network, case, runtime), 0.5) > 0
            truth = np.asarray(case.label) > 0
            matching = match_lesions(truth, mask)
            scores[case.name] = {
                "dice": round(dice(truth, mask), 4),
                "found": len(matching.pairs),
                "missed": len(matching.unmatched_truth),
                "false": len(matching.unmatched_predicted),
            }
    return {
        **began,
        "data": name,
        "side": side,
        "batch": batch,
        "steps": steps,
        "seed": seed,
        "training_seconds": seconds,
        "cases": scores,
    }


def same_time() -> list[str]:
    """Patches of 64^3 against twice as many steps with 48^3, from rows of accuracy.py and evidence.py: all five folds,
    held-out heads, two patches a step, the default loss."""
    large = [read_json(path) for path in (RESULTS.parent / "accuracy").glob("oasis*-8min-fold*-seed0.json")]
    name = "oasis_inferior_ventricle-dense-dice_cross_entropy-all-1000steps-fold*-seed0.json"
    small = [read_json(path) for path in (RESULTS.parent / "evidence").glob(name)]
    was = {case: dice for row in large for case, dice in row["scores"]["dice label 1"].items()}
    now = {each["case"]: each["dice"] for row in small for each in row["scores"]["held_out"]}
    gain = np.array([now[case] - was[case] for case in was])
    low, high = bootstrap_interval(gain)
    before, after = (sum(row["training_seconds"] for row in rows) for rows in (large, small))
    return [
        f"`oasis_inferior_ventricle`, {len(gain)} heads, each held out once. The two rows are two hours of development "
        "apart.",
        "",
        "| patch, batch | steps per fold | s, all folds | Dice | less 64 |",
        "|---|---|---|---|---|",
        f"| 64, 2 | 500 | {before:,.0f} | {np.mean([*was.values()]):.3f} |  |",
        f"| 48, 2 | 1,000 | {after:,.0f} | {np.mean([*now.values()]):.3f} "
        f"| {gain.mean():+.3f} ({low:+.3f} to {high:+.3f}) |",
    ]


def table() -> list[str]:
    """A line per set and size; the difference from the usual patch, 40, is paired over scans."""
    rows = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    usual = {
        (each["data"], each["steps"], each["seed"]): each["cases"] for each in rows if each["side"] == 40
    }
    lines = [
        "| data | patch, batch | steps, seed | s | scans | Dice | less 40 | lesion F1 |",
        "|---" * 8 + "|",
    ]
    for each in rows:
        cases = each["cases"]
        other = usual.get((each["data"], each["steps"], each["seed"]), {})
        values = np.array([case["dice"] for case in cases.values()])
        gain = np.array([cases[name]["dice"] - other[name]["dice"] for name in cases if name in other])
        less = ""
        if each["side"] != 40 and len(gain):
            low, high = bootstrap_interval(gain)
            less = f"{gain.mean():+.3f} ({low:+.3f} to {high:+.3f})"
        found, missed, false = (
            sum(case[key] for case in cases.values()) for key in ("found", "missed", "false")
        )
        f1 = 2 * found / max(2 * found + missed + false, 1)
        lines.append(
            f"| {each['data']} | {each['side']}, {each['batch']} | {each['steps']}, {each['seed']} "
            f"| {sum(each['training_seconds']):.0f} | {len(cases)} "
            f"| {values.mean():.3f} | {less} | {f1:.3f} |"
        )
    return lines


if __name__ == "__main__":
    main()

"""How far the forecast of more cases holds: from the learning curves of the rows of evidence that are there.

    python benchmarks/forecast.py       trains nothing; writes the table of docs/evidence-tables.md

A curve is the rows of nodules from one start with one fold, seed and number of steps. The forecast is that of
`fit --learning-curve`, for as many more cases as a larger row of the same curve has; the truth is what that row
reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from evidence_data import NODULES
from evidence_plan import FEW_FOLDS, FEW_SEEDS, FEW_STEPS_IN_TIME, STEPS, Row
from evidence_tables import table
from few_cases import by_case
from tables import put

from focalis.evaluation.gain_forecast import Forecast, forecast
from focalis.planning import SCRATCH, SHAPES
from focalis.workflows.record import read_json

CURVES = (
    *((SHAPES, STEPS[NODULES], FEW_SEEDS), (SCRATCH, STEPS[NODULES], FEW_SEEDS)),
    *((SCRATCH, STEPS[NODULES], (0,)), (SCRATCH, FEW_STEPS_IN_TIME, (0,))),
)
"""Start, steps and seeds; seed 0 has rows of an earlier rule of the operating point."""
CHECKS = (
    ((5, 10), 20),
    ((10, 20), 40),
    ((5, 10, 20), 40),
    ((10, 20), None),
    ((20, 40), None),
    ((10, 20, 40), None),
)
"""Numbers of cases that are known, and the one that is forecast."""
BEGIN, END = "<!-- forecast: made by benchmarks/forecast.py -->", "<!-- /forecast -->"
HEAD = (
    "start, steps, seeds | from | to | curves | forecast gain, mean | true gain, mean | 95 % interval holds"
)


def main() -> None:
    """Check what can be checked, write the tables."""
    rows, holds, tried, spreads = [], 0, 0, dict[int, list[float]]()
    for start, steps, seeds in CURVES:
        title = f"{start}, {steps}, {' and '.join(map(str, seeds))}"
        for cases, apart in spreads_of_seeds(start, steps, seeds).items():
            spreads.setdefault(cases, []).extend(apart)
        for known, to in CHECKS:
            found = [
                each
                for seed in seeds
                for fold in FEW_FOLDS
                if (each := checked(start, steps, fold, seed, known, to)) is not None
            ]
            if not found:
                continue
            held = sum(said.low <= true <= said.high for said, true in found)
            holds, tried = holds + held, tried + len(found)
            gain, true = np.mean([(said.gain, true) for said, true in found], axis=0)
            from_ = ", ".join(map(str, known))
            rows.append(
                [
                    title,
                    from_,
                    str(to or "all"),
                    str(len(found)),
                    f"{gain:.3f}",
                    f"{true:+.3f}",
                    f"{held} of {len(found)}",
                ]
            )
    by_size = ", ".join(f"{root_mean_square(each):.3f} with {cases}" for cases, each in spreads.items())
    scaled = [cases**0.5 * each for cases, of_size in spreads.items() for each in of_size]
    said = (
        f"The interval holds in {holds} of {tried} checks, which share curves. The mean Dice of trainings that differ "
        f"in their seed alone has a standard deviation of {by_size} cases; times the root of the number of cases it "
        f"is {root_mean_square(scaled):.3f} ({len(scaled)} pairs)."
    )
    print(said)
    put(BEGIN, END, [*table(HEAD, rows), "", said])


def checked(
    start: str, steps: int, fold: int, seed: int, known: Sequence[int], to: int | None
) -> tuple[Forecast, float] | None:
    """The forecast from a curve, and the gain that its larger row had; None where a row is missing."""
    there = [content(start, steps, fold, seed, cases) for cases in (*known, to)]
    if any(each is None for each in there):
        return None
    *before, after = (each for each in there if each is not None)
    dice = [by_case(each["scores"]["held_out"], "dice") for each in (*before, after)]
    trained = [each["cases"]["train"] for each in before]
    more = sum(after["cases"][part] for part in ("train", "inner")) - known[-1]
    said = forecast(known, dice[:-1], None, trained, more)
    return said, mean(dice[-1]) - mean(dice[-2])


def spreads_of_seeds(start: str, steps: int, seeds: Sequence[int]) -> dict[int, list[float]]:
    """Of rows that differ in their seed alone, the difference of their means over the square root of two, by the number
    of cases."""
    found: dict[int, list[float]] = {}
    for cases in (5, 10, 20, 40, None):
        for fold in FEW_FOLDS:
            rows = [row for seed in seeds if (row := content(start, steps, fold, seed, cases)) is not None]
            means = [mean(by_case(row["scores"]["held_out"], "dice")) for row in rows]
            if len(means) == 2:
                count = cases or round(
                    np.mean([row["cases"]["train"] + row["cases"]["inner"] for row in rows])
                )
                found.setdefault(int(count), []).append((means[0] - means[1]) / 2**0.5)
    return found


def root_mean_square(values: Sequence[float]) -> float:
    """A standard deviation around zero."""
    return float(np.sqrt(np.mean(np.square(values))))


def content(start: str, steps: int, fold: int, seed: int, cases: int | None) -> dict[str, Any] | None:
    """A row that is there and finished."""
    path = Row(NODULES, cases=cases, fold=fold, seed=seed, steps=steps, start=start).path()
    found: dict[str, Any] | None = read_json(path) if path.exists() else None
    return found if found is not None and found["outcome"] == "finished" else None


def mean(dice: Mapping[str, float]) -> float:
    """Over the cases."""
    return float(np.mean(list(dice.values())))


if __name__ == "__main__":
    main()

"""What the tables of the evidence are made of: figures with intervals from the rows that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from evidence_plan import Row

from focalis.evaluation import Figure, bootstrap_interval, figures_of, paired_differences
from focalis.workflows.record import read_json

FAR_MM = 20.0
"""A false positive is far from this distance on, or where its scan holds no lesion."""


@dataclass(frozen=True)
class Judged:
    """A held-out case, or one of its windows; the names are those that `focalis.evaluation.figures_of` asks for."""

    case: str
    part: int
    dice: float
    dice_at_half: float
    hd95_mm: float | None
    truth_voxels: int
    truth_lesions: int
    predicted_lesions: int
    detected_lesions: int
    false_positives_mm: tuple[float | None, ...]
    predicted_voxels: int
    predicted_voxels_at_half: int
    far_voxels: int
    far_voxels_at_half: int

    @property
    def far(self) -> int:
        """False positives far from every lesion."""
        return sum(distance is None or distance >= FAR_MM for distance in self.false_positives_mm)

    @property
    def overlapping(self) -> int:
        """False positives that overlap a lesion, though not enough to detect it."""
        return self.false_positives_mm.count(0.0)


@dataclass(frozen=True)
class Line:
    """The rows of one setting: one line of a table.

    Attributes:
        title: what the line is called.
        wanted: how many rows it should have.
        found: fold and seed to a row's content, of those that are there.
        note: what a table says once behind the title.
    """

    title: str
    wanted: int
    found: Mapping[tuple[int, int], Mapping[str, Any]]
    note: str = ""

    def finished(self) -> dict[tuple[int, int], Mapping[str, Any]]:
        """Those that did not diverge."""
        return {key: content for key, content in self.found.items() if content["outcome"] == "finished"}

    @cached_property
    def judged(self) -> dict[tuple[int, int], list[Judged]]:
        """Per row the scores of its held-out cases and their windows."""
        return {
            key: [
                Judged(**{**entry, "false_positives_mm": tuple(entry["false_positives_mm"])})
                for entry in content["scores"]["held_out"]
            ]
            for key, content in self.finished().items()
        }

    def runs(self) -> dict[tuple[int, int], list[list[Judged]]]:
        """The same with a list per part: windows of a case are repeats of it."""
        found = {}
        for key, entries in self.judged.items():
            parts: dict[int, list[Judged]] = {}
            for judged in entries:
                parts.setdefault(judged.part, []).append(judged)
            found[key] = list(parts.values())
        return found

    def dice_by_case(self, of: str) -> dict[str, float]:
        """The mean Dice of each case of the inner split (`dice_inner`) or trained on (`dice_train`), over the rows."""
        found: dict[str, list[float]] = {}
        for content in self.finished().values():
            for case, value in content["scores"][of].items():
                found.setdefault(case, []).append(value)
        return {case: float(np.mean(values)) for case, values in sorted(found.items())}


def dice_of(judged: Judged) -> float:
    """Its Dice."""
    return judged.dice


def dice_at_half_of(judged: Judged) -> float:
    """Its Dice at the threshold one half."""
    return judged.dice_at_half


def sensitivity_of(judged: Judged) -> float | None:
    """The share of its lesions that are detected; None where there are none."""
    return judged.detected_lesions / judged.truth_lesions if judged.truth_lesions else None


def line_of(title: str, rows: Iterable[Row], results: Path) -> Line:
    """The line of these rows, from the files that are there."""
    listed = list(rows)
    paths = {(row.fold, row.seed): row.path(results) for row in listed}
    found = {key: read_json(path) for key, path in paths.items() if path.exists()}
    return Line(title, len(paths), found)


def flat(runs: Mapping[Any, Sequence[Sequence[Judged]]]) -> list[Sequence[Judged]]:
    """All runs of a line, for pooling."""
    return [part for parts in runs.values() for part in parts]


def usual(line: Line, name: str) -> Figure:
    """One of the `FIGURES` of a line."""
    return figures_of(flat(line.runs()))[name]  # type: ignore[arg-type]


def usual_difference(line: Line, other: Line, name: str) -> Figure | None:
    """A figure of a line less that of another, on the folds and seeds that both have; None without any."""
    mine, theirs = line.runs(), other.runs()
    both = [key for key in mine if key in theirs]
    if not both:
        return None
    return paired_differences(  # type: ignore[arg-type]
        flat({key: mine[key] for key in both}), flat({key: theirs[key] for key in both})
    )[name]


def to_the_first(lines: Sequence[Line], name: str) -> list[Figure | None]:
    """`usual_difference` of every line to the first one; None for the first itself."""
    return [None if line is lines[0] else usual_difference(line, lines[0], name) for line in lines]


def per_case(runs: Iterable[Sequence[Judged]], value: Callable[[Judged], float | None]) -> dict[str, float]:
    """The mean of a value over the runs of each case, where it is defined."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for judged in run:
            one = value(judged)
            if one is not None:
                found.setdefault(judged.case, []).append(one)
    return {case: float(np.mean(values)) for case, values in sorted(found.items())}


def mean_of(values: Mapping[str, float]) -> Figure:
    """The mean over cases with its interval over patients, of whom each has one case."""
    numbers = list(values.values())
    if not numbers:
        return Figure(None, None, None, 0)
    low, high = bootstrap_interval(numbers) if len(numbers) > 1 else (None, None)
    return Figure(float(np.mean(numbers)), low, high, len(numbers))


def common(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The differences of the cases that both have."""
    return {case: first[case] - second[case] for case in first if case in second}


def difference_of(first: Mapping[str, float], second: Mapping[str, float]) -> Figure:
    """The mean of the paired differences on the cases that both have."""
    return mean_of(common(first, second))


def gap_of(trained: Mapping[str, float], held_out: Mapping[str, float], draws: int = 2000) -> Figure:
    """The mean over cases trained on less that over held-out ones; a patient is drawn with all of both."""
    patients = sorted({*trained, *held_out})
    if not trained or not held_out:
        return Figure(None, None, None, len(patients))
    sides = np.array([[side.get(case, np.nan) for case in patients] for side in (trained, held_out)])
    picks = np.random.default_rng(0).integers(0, len(patients), size=(draws, len(patients)))
    there = np.isfinite(sides)[:, picks]
    sums, counts = np.where(there, sides[:, picks], 0.0).sum(axis=2), there.sum(axis=2)
    whole = (counts > 0).all(axis=0)
    means = sums[:, whole] / counts[:, whole]
    first, second = np.nanmean(sides, axis=1)
    found = [first - second, *np.quantile(means[0] - means[1], (0.025, 0.975))]
    value, low, high = (round(float(number), 9) + 0.0 for number in found)  # equal ones differ by nothing
    return Figure(value, low, high, len(patients))


def own(line: Line, value: Callable[[Judged], float | None]) -> Figure:
    """The mean over cases of a value of each."""
    return mean_of(per_case(flat(line.runs()), value))


def own_difference(line: Line, other: Line, value: Callable[[Judged], float | None]) -> Figure | None:
    """As `usual_difference`, of a value of a case."""
    mine, theirs = line.runs(), other.runs()
    both = [key for key in mine if key in theirs]
    if not both:
        return None
    return difference_of(
        per_case(flat({key: mine[key] for key in both}), value),
        per_case(flat({key: theirs[key] for key in both}), value),
    )


def rows_above(line: Line, other: Line, figure: Callable[[Sequence[Sequence[Judged]]], float | None]) -> str:
    """In how many rows of both a figure is above the other line's, and in how many equal: what others might do."""
    mine, theirs = ({key: figure(parts) for key, parts in each.runs().items()} for each in (line, other))
    pairs = [(value, theirs.get(key)) for key, value in mine.items()]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return ""
    equal = sum(a == b for a, b in both)
    return f"{sum(a > b for a, b in both)} of {len(both)}" + (f", {equal} equal" if equal else "")


def mean_over_cases(
    value: Callable[[Judged], float | None],
) -> Callable[[Sequence[Sequence[Judged]]], float | None]:
    """A row's figure for `rows_above`: the mean of a value over its cases."""

    def figure(parts: Sequence[Sequence[Judged]]) -> float | None:
        values = list(per_case(parts, value).values())
        return float(np.mean(values)) if values else None

    return figure


def usual_of(name: str) -> Callable[[Sequence[Sequence[Judged]]], float | None]:
    """A row's figure for `rows_above`: one of the `FIGURES`."""
    return lambda parts: figures_of(parts)[name].value  # type: ignore[arg-type]


def fold_differences(line: Line, other: Line, value: Callable[[Judged], float | None]) -> str:
    """`own_difference` of each row that both have, without intervals."""
    both = sorted(set(line.judged) & set(other.judged))
    figures = [
        own_difference(Line("", 1, {key: line.found[key]}), Line("", 1, {key: other.found[key]}), value)
        for key in both
    ]
    return ", ".join(
        format(figure.value, "+.3f") for figure in figures if figure and figure.value is not None
    )


def sign_test(plus: int, minus: int) -> float:
    """The two-sided exact p of paired outcomes that differ in one direction `plus` times, in the other `minus` times.

    McNemar's exact test: 1 where none differ. A bootstrap of ten pairs would call far too much credible.
    """
    differ = plus + minus
    tail = sum(comb(differ, k) for k in range(min(plus, minus) + 1)) / 2**differ
    return min(1.0, 2 * tail)


def share(successes: int, of: int) -> Figure:
    """A share with its 95 % interval by Wilson's score, which holds for few trials and for 0 and 1."""
    if not of:
        return Figure(None, None, None, 0)
    z, p = 1.959964, successes / of
    centre, half = p + z * z / (2 * of), z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return Figure(p, float(max(0.0, (centre - half) / scale)), float(min(1.0, (centre + half) / scale)), of)

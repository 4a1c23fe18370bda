"""Bootstrap intervals: how much a figure would vary with other patients.

Percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Cases are
drawn with replacement, or groups of cases where `groups` names them (the scans of one patient, say).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from focalis.errors import UsageError

DRAWS = 2000
LEVEL = 0.95


def interval_rule(seed: int) -> str:
    """How intervals were made with this seed and the default draws, in one line for records."""
    return f"percentile bootstrap over patients: {LEVEL}, {DRAWS} draws, seed {seed}"


@dataclass(frozen=True)
class Pooled:
    """A figure over all cases, with its 95 % bootstrap interval over patients; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


def pooled(
    cases: Sequence[str],
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    patients: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Pooled:
    """The sum of the numerators over that of the denominators, or their mean if there are no denominators.

    There is no value if the denominators sum to zero, and no interval with fewer than two patients.

    Args:
        numerators, denominators: what each case adds.
        patients: case name to patient; a case that it does not name is a patient of its own.
        seed, draws: of the bootstrap, see `ratio_interval`.
    """
    bottoms = np.ones(len(cases)) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if not bottoms.sum() > 0:
        return Pooled(None, None, None)
    value = float(np.sum(numerators) / bottoms.sum())
    groups = patients_of(cases, patients)
    if len(set(groups)) < 2:
        return Pooled(value, None, None)
    return Pooled(value, *ratio_interval(numerators, bottoms, seed, draws, groups=groups))


def patients_of(cases: Sequence[str], patients: Mapping[str, str] | None) -> list[str]:
    """The patient of each case: its own name if `patients` does not name one."""
    return [(patients or {}).get(case, case) for case in cases]


def bootstrap_interval(
    values: ArrayLike,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """The interval of the mean of `values`, one value per case.

    Args:
        values: one finite number per case, shape (cases,).
        seed: same seed, same interval.
        level: the share of samples inside the interval.
        groups: the patient of each case; patients are then drawn, each with all of its cases.

    Returns:
        Lower and upper end. One case alone (or one group) gives its own value twice: no interval can be had
        from it.

    Raises:
        UsageError: if `values` is empty.
    """
    numerators = np.asarray(values, dtype=np.float64)
    return ratio_interval(numerators, np.ones_like(numerators), seed, draws, level, groups)


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """The interval of sum(numerators) / sum(denominators): a pooled figure such as lesions found of lesions
    there.

    Arguments, result and errors as in `bootstrap_interval`; samples whose denominators sum to zero are left
    out.
    """
    tops, bottoms = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if tops.ndim != 1 or tops.size == 0 or tops.shape != bottoms.shape:
        raise UsageError(
            "a bootstrap interval needs a list of numbers, one per case, and at least one of them"
        )
    if not bottoms.sum() > 0:
        raise UsageError("a bootstrap interval of a ratio needs a denominator above zero")
    drawn_tops, drawn_bottoms = _drawn_sums((tops, bottoms), seed, draws, groups)
    usable = drawn_bottoms > 0
    return _ends(drawn_tops[usable] / drawn_bottoms[usable], level)


def paired_difference_interval(
    first: ArrayLike,
    second: ArrayLike,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """The interval of the mean of `first - second`, two systems on the same cases in the same order.

    Arguments, result and errors as in `bootstrap_interval`. The systems differ credibly if 0 lies outside.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise UsageError(f"paired differences need the same cases twice, not {a.size} and {b.size} values")
    return bootstrap_interval(a - b, seed, draws, level, groups)


def ratio_difference_interval(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """The interval of the difference `first - second` of two pooled figures on the same cases in the same order.

    Args:
        first, second: numerators and denominators of each system, see `ratio_interval`; every draw takes the same
            patients for both.
        seed, draws, level, groups: as in `bootstrap_interval`.

    Raises:
        UsageError: lists of different lengths, empty ones, or a sum of denominators that is not above zero.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (*first, *second)]
    if columns[0].size == 0 or any(
        column.ndim != 1 or column.shape != columns[0].shape for column in columns
    ):
        raise UsageError(f"paired differences need the same cases twice, not {[c.size for c in columns]}")
    if not min(columns[1].sum(), columns[3].sum()) > 0:
        raise UsageError("a bootstrap interval of a ratio needs a denominator above zero")
    a, b, c, d = _drawn_sums(columns, seed, draws, groups)
    usable = (b > 0) & (d > 0)
    return _ends(a[usable] / b[usable] - c[usable] / d[usable], level)


def _drawn_sums(
    columns: Sequence[NDArray[np.float64]], seed: int, draws: int, groups: Sequence[Hashable] | None
) -> list[NDArray[np.float64]]:
    """Each column's sum over the cases of every bootstrap sample; all columns get the same samples."""
    if groups is not None:
        columns = [_per_group(column, groups) for column in columns]
    cases = columns[0].size
    picks = np.random.default_rng(seed).integers(0, cases, size=(draws, cases))
    return [column[picks].sum(axis=1) for column in columns]


def _ends(samples: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The ends of the interval that holds the middle share `level` of the samples."""
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _per_group(values: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """The sum of the values of each group, groups in the order of their first case."""
    if len(groups) != values.size:
        raise UsageError(f"{values.size} values need as many groups, not {len(groups)}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sums = np.bincount([numbers[group] for group in groups], weights=values)
    return np.asarray(sums, dtype=np.float64)

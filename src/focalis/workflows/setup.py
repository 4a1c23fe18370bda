"""What every training starts from: a data set that passed the check, and its division into folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from focalis.dataset import Dataset, Split, empty_side, find_splits, lost_labels, make_splits, read_splits
from focalis.errors import DataError, UsageError
from focalis.quality import KINDS, Finding, Measured, measure, survey
from focalis.settings import Folds

DEFAULT_FOLDS = 5
LINES_PER_KIND = 3


def checked(data: Dataset) -> tuple[Dataset, Measured]:
    """The data set with its labels named and its cases knowing what they hold, and what was measured.

    A label that no case holds is left out: its output would never be trained.

    Raises:
        DataError: the data set has faults, one per line.
    """
    measured = measure(data, find_readers=False)
    result = measured.result
    if result.problems:
        raise DataError("\n".join(str(problem) for problem in result.problems))
    held = sorted(set().union(*result.holds.values()))
    labels = {value: data.labels.get(value, f"label {value}") for value in held}
    return replace(data, labels=labels).holding(result.holds), measured


def ready(
    opened: Dataset, folds: Folds, seed: int, doubt: Callable[[str], None] | None = None
) -> tuple[Dataset, list[tuple[int | None, Split]], list[Finding]]:
    """A data set that passed the check, its splits, and the grave findings of `focalis check` on them.

    Args:
        opened: the data set as it was opened.
        folds: which cases to hold out.
        seed: seed of splits that are made.
        doubt: called with each line that a person should know of the data before training on it.

    Raises:
        DataError, UsageError: see `checked` and `divide`.
    """
    data, measured = checked(opened)
    divisions = divide(data, folds, seed)
    found = survey(opened, measured, None, [split for _, split in divisions if split.val]).findings
    grave = [finding for finding in found if KINDS[finding.kind].grave]
    if doubt is not None:
        for line in lines_of(grave):
            doubt(line)
    return data, divisions, grave


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Findings as lines: of each kind the first three, and how many more there are."""
    lines: list[str] = []
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        several = [str(finding) for finding in group]
        lines += several[:LINES_PER_KIND]
        if len(several) > LINES_PER_KIND:
            more = len(several) - LINES_PER_KIND
            lines.append(f"{KINDS[kind].title.lower()}: {more} more; `focalis check` lists them")
    return lines


def divide(data: Dataset, folds: Folds, seed: int) -> list[tuple[int | None, Split]]:
    """The splits to train, with their numbers; one without a number where nothing is held out.

    Args:
        data: the data set.
        folds: which cases to hold out.
        seed: seed of splits that are made.

    Raises:
        UsageError: there is no such fold.
        DataError: a split has an empty side, or trains on no case with a label that it holds out, or a case validates
            in two folds.
    """
    names = tuple(case.name for case in data.cases)
    if folds.fold is None and folds.folds is None:
        return [(None, Split(names, ()))]
    path = find_splits(data.root, folds.splits)
    all_splits = (
        read_splits(path, names) if path else make_splits(data.cases, folds.folds or DEFAULT_FOLDS, seed)
    )
    wanted = list(range(folds.folds)) if folds.folds is not None else [folds.fold or 0]
    if max(wanted) >= len(all_splits):
        raise UsageError(
            f"there are {len(all_splits)} folds, from 0 to {len(all_splits) - 1}; fold {max(wanted)} is not one"
        )
    chosen: list[tuple[int | None, Split]] = [(number, all_splits[number]) for number in wanted]
    validated: set[str] = set()
    for number, split in chosen:
        if empty := empty_side(path, number, split):
            raise DataError(empty)
        if lost := lost_labels(path, number, split, data):
            raise DataError(lost)
        if twice := validated & set(split.val):
            raise DataError(f"{path}: {min(twice)} validates in two folds; keep it in one")
        validated |= set(split.val)
    return chosen

"""What every training starts from: a data set that passed the check, and its division into folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from focalis.dataset import Dataset, Split, empty_side, find_splits, make_splits, read_splits
from focalis.errors import DataError, UsageError
from focalis.quality import check_dataset

DEFAULT_FOLDS = 5


def require_resources(threads: int | None = None, memory_gb: float | None = None) -> None:
    """UsageError for numbers of threads or 10^9 bytes that no machine has."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; give 1 or more")
    if memory_gb is not None and not 0 < memory_gb < float("inf"):
        raise UsageError(f"a memory budget of {memory_gb} GB is not possible; give a number above 0")


def checked(data: Dataset) -> Dataset:
    """The data set with its labels named; DataError with one line per fault."""
    result = check_dataset(data)
    if result.problems:
        raise DataError("\n".join(str(problem) for problem in result.problems))
    labels = dict(data.labels) or {value: f"label {value}" for value in result.label_values}
    return replace(data, labels=labels)


def divide(
    data: Dataset, fold: int | None, folds: int | None, path: Path | None, seed: int
) -> list[tuple[int | None, Split]]:
    """The splits to train, with their numbers; one without a number where nothing is held out.

    Args:
        data: the data set.
        fold: the one fold to hold out, from 0.
        folds: or the number of folds to train.
        path: JSON file of splits; otherwise the one in the data set, otherwise made by patient.
        seed: seed of splits that are made.

    Raises:
        UsageError: there is no such fold.
        DataError: a split has an empty side, or a case validates in two folds.
    """
    names = tuple(case.name for case in data.cases)
    if fold is None and folds is None:
        return [(None, Split(names, ()))]
    path = find_splits(data.root, path)
    all_splits = read_splits(path, names) if path else make_splits(data.cases, folds or DEFAULT_FOLDS, seed)
    wanted = list(range(folds)) if folds is not None else [fold or 0]
    if max(wanted) >= len(all_splits):
        raise UsageError(
            f"there are {len(all_splits)} folds, from 0 to {len(all_splits) - 1}; fold {max(wanted)} is not one"
        )
    chosen: list[tuple[int | None, Split]] = [(number, all_splits[number]) for number in wanted]
    validated: set[str] = set()
    for number, split in chosen:
        if empty := empty_side(path, number, split):
            raise DataError(empty)
        if twice := validated & set(split.val):
            raise DataError(f"{path}: {min(twice)} validates in two folds; keep it in one")
        validated |= set(split.val)
    return chosen

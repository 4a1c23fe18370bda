"""Look for everything in a data set that would spoil a training, before the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import Case, Dataset
from focalis.errors import DataError
from focalis.volume import Grid, Volume, read_volume

_LISTED_VALUES = 5


@dataclass(frozen=True)
class Problem:
    """Something that must be mended before training.

    Attributes:
        case: the case's name; empty if the whole data set is meant.
        message: one line, "path: what is wrong; what to do".
    """

    case: str
    message: str

    def __str__(self) -> str:
        return f"{self.case}: {self.message}" if self.case else self.message


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        problems: in the order of the cases; empty if the data set can be used.
        label_values: the label values that occur, ascending, without the background 0 and without any
            value that is reported as a problem.
    """

    problems: tuple[Problem, ...]
    label_values: tuple[int, ...]


def check_dataset(dataset: Dataset) -> CheckResult:
    """Read every file of a data set, one case at a time, and list all problems.

    Per case: no label, no image, an unreadable file, channels or label on different grids, NaN or infinite
    values, a constant image, label values that are negative, fractional or not among the data set's labels.
    For the whole: no foreground anywhere.
    """
    problems: list[Problem] = []
    values: set[int] = set()
    for case in dataset.cases:
        found, messages = _check_case(case, dataset.labels)
        values |= found
        problems += [Problem(case.name, message) for message in messages]
    if not values and not problems:
        message = f"{dataset.root / 'labels'}: no label holds any foreground; add cases with contours"
        problems.append(Problem("", message))
    return CheckResult(tuple(problems), tuple(sorted(values)))


def _check_case(case: Case, labels: Mapping[int, str]) -> tuple[set[int], list[str]]:
    """The label values of a case and what is wrong with it; only one array is held at a time."""
    messages: list[str] = []
    grids: list[tuple[Path, Grid]] = []
    values: set[int] = set()
    for path in case.images:
        volume = _read(path, messages)
        if volume is not None:
            grids.append((path, volume.grid))
            messages += _image_problems(path, volume.array)
        del volume
    if not case.images:
        messages.append(f"{case.label}: has no image; add it to images/ or remove the label")
    if case.label is None:
        listed = ", ".join(str(path) for path in case.images)
        messages.append(f"{listed}: has no label; add it to labels/ or remove the image")
    else:
        volume = _read(case.label, messages)
        if volume is not None:
            grids.append((case.label, volume.grid))
            values, wrong = _label_values(case.label, volume.array, labels)
            messages += wrong
    messages += _grid_problems(grids)
    return values, messages


def _read(path: Path, messages: list[str]) -> Volume | None:
    try:
        return read_volume(path)
    except DataError as error:
        messages.append(str(error))
        return None


def _image_problems(path: Path, array: NDArray[Any]) -> Iterator[str]:
    if np.issubdtype(array.dtype, np.floating):
        invalid = array.size - int(np.count_nonzero(np.isfinite(array)))
        if invalid:
            yield f"{path}: {invalid} of {array.size} values are NaN or infinite; replace them"
            return
    if array.size == 0 or array.min() == array.max():
        yield f"{path}: every voxel has the same value; export the image again or remove the case"


def _label_values(path: Path, array: NDArray[Any], labels: Mapping[int, str]) -> tuple[set[int], list[str]]:
    """The usable label values other than 0, and the complaints about the rest."""
    present = np.unique(array)
    whole = np.isfinite(present) & (present == np.floor(present))
    usable: set[int] = set()
    messages = []
    if not whole.all():
        messages.append(
            f"{path}: label values must be whole numbers, not {_listed(present[~whole])}; "
            "export the label without interpolation or scaling"
        )
    integers = [int(value) for value in present[whole]]
    if negative := [value for value in integers if value < 0]:
        messages.append(
            f"{path}: label values must not be negative ({_listed(negative)}); renumber the labels"
        )
    positive = {value for value in integers if value > 0}
    unknown = positive - set(labels) if labels else set()
    if unknown:
        known = ", ".join(str(value) for value in sorted(labels))
        messages.append(
            f"{path}: unknown label value {_listed(sorted(unknown))}; dataset.json names 0, {known}: "
            "correct the label or the names"
        )
    usable = positive - unknown
    return usable, messages


def _grid_problems(grids: list[tuple[Path, Grid]]) -> Iterator[str]:
    """Each file against the case's first image."""
    for path, grid in grids[1:]:
        first_path, first = grids[0]
        if different := first.differences(grid):
            yield (
                f"{path}: is not on the grid of {first_path.name}: {', '.join(different)}; "
                "resample it or export it again"
            )


def _listed(values: Any) -> str:
    listed = [f"{value:g}" for value in values[:_LISTED_VALUES]]
    return ", ".join(listed) + (
        f" and {len(values) - _LISTED_VALUES} more" if len(values) > _LISTED_VALUES else ""
    )

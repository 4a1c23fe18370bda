"""The values of a label map: which are labels, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import GREATEST_LABEL, MOST_LABELS, Dataset
from focalis.display import listed
from focalis.quality.finding import FILLED, RESTLESS, SENTINELS, SMOOTH, Finding

_FEW_VALUES, _MANY_VALUES = 5, 16


def judge_label_values(path: Path, array: NDArray[Any], dataset: Dataset) -> tuple[set[int], list[str]]:
    """The usable label values other than 0 and the ignored one, and the complaints about the rest."""
    present = np.unique(array)
    whole = is_whole(present)
    if looks_like_an_image(array, {0, dataset.ignore, *dataset.labels}):
        return set(), [
            f"{path}: holds {len(present)} different values, {_text(present[0])} to {_text(present[-1])}, as an image "
            "or a map of probabilities does; put the label map there"
        ]
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
    if too_great := [value for value in integers if value > GREATEST_LABEL and value != dataset.ignore]:
        messages.append(
            f"{path}: label values must not exceed {GREATEST_LABEL} ({_listed(too_great)}); renumber the labels"
        )
    positive = {value for value in integers if 0 < value <= GREATEST_LABEL} - {dataset.ignore}
    unknown = positive - set(dataset.labels) if dataset.labels else set()
    if unknown:
        known = ", ".join(str(value) for value in sorted(dataset.labels))
        messages.append(
            f"{path}: unknown label value {_listed(sorted(unknown))}; dataset.json names 0, {known}: "
            "correct the label or the names"
        )
    return positive - unknown, messages


def too_many_labels(dataset: Dataset, values: set[int]) -> str:
    """Why the labels of a data set cannot be trained, one line; empty if they can."""
    count = len(values | set(dataset.labels))
    if count <= MOST_LABELS:
        return ""
    return (
        f"{dataset.root}: has {count} labels, and {MOST_LABELS} are the most that can be trained; give a value to each "
        "kind of structure, not to each single lesion"
    )


def find_unnamed_sentinels(dataset: Dataset, holds: Mapping[str, Collection[int]]) -> Iterator[Finding]:
    """Values that mean "ignore" or "no data" elsewhere, where nothing names the labels; `holds`: case to its values."""
    if dataset.labels:
        return
    values = {value for held in holds.values() for value in held}
    for value in sorted(values & SENTINELS):
        if len(values) > 1 and value - 1 not in values:
            concerned = [case for case, held in holds.items() if value in held]
            if all(len(holds[case]) == 1 for case in concerned):
                yield Finding(
                    "sentinel",
                    tuple(concerned),
                    f"the only value is {value}, as in a mask saved as 0 and {value}: it is trained as another label "
                    f"than {min(values)}; if both mean the same, write {min(values)}",
                )
                continue
            yield Finding(
                "sentinel",
                (),
                f"the value {value}, in {len(concerned)} of {len(holds)} cases, is trained as a label like "
                f"{min(values)}; nothing says whether it means voxels to be ignored",
            )


def may_be_an_image(array: NDArray[Any]) -> bool:
    """Whether a label map (z, y, x) that passes `looks_like_an_image` may be an image all the same.

    An image of two to four values changes from voxel to voxel along every axis; a smooth one of many values changes in
    small steps.
    """
    present, counts = np.unique(array, return_counts=True)
    background = present[counts.argmax()]
    filled = 1 - int(counts.max()) / array.size
    steps = [np.abs(np.diff(array.astype(np.int64), axis=axis)) for axis in range(3)]
    if 2 <= len(present) < _FEW_VALUES and filled > FILLED[0]:
        shares = []
        for axis, step in enumerate(steps):
            foreground = np.moveaxis(array != background, axis, 0)
            inside = int(np.count_nonzero(foreground[:-1] | foreground[1:]))
            shares.append(int(np.count_nonzero(step)) / max(1, inside))
        return min(shares) > RESTLESS
    if len(present) > _MANY_VALUES and filled > FILLED[1]:
        small = max(1, 0.1 * float(present[-1] - present[0]))
        changes = [int(np.count_nonzero(step)) for step in steps]
        in_small_steps = sum(int(np.count_nonzero((step > 0) & (step <= small))) for step in steps)
        everywhere = all(count > 0.02 * step.size for count, step in zip(changes, steps, strict=True))
        return everywhere and in_small_steps > SMOOTH * sum(changes)
    return False


def looks_like_an_image(array: NDArray[Any], known: Collection[int | None] = ()) -> bool:
    """Whether a supposed label map holds values that are not all known, and that change from voxel to voxel.

    A map of many structures holds many values too, but next to a voxel of a structure mostly lies another one of it;
    and of a map that was interpolated only the borders are restless. The most frequent value counts as background.

    Args:
        array: its values (z, y, x).
        known: the values that the data set names.
    """
    present, counts = np.unique(array, return_counts=True)
    if len(present) < _FEW_VALUES or set(present.tolist()) <= set(known):
        return False
    many = len(present) > _MANY_VALUES
    filled = array.size - int(counts.max())
    return filled > (0.05 if many else 0.3) * array.size and unrest(array) > (0.3 if many else 0.5)


def unrest(array: NDArray[Any]) -> float:
    """The share of neighbours along x that differ, 0 to 1, where neither holds the most frequent value."""
    present, counts = np.unique(array, return_counts=True)
    background = present[counts.argmax()]
    left, right = array[..., :-1], array[..., 1:]
    both = (left != background) & (right != background)
    return int(np.count_nonzero(both & (left != right))) / max(1, int(np.count_nonzero(both)))


def is_whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values are whole numbers."""
    if values.dtype.kind in "iub":
        return np.ones(values.shape, dtype=np.bool_)
    whole: NDArray[np.bool_] = np.isfinite(values) & (values == np.floor(values))
    return whole


def _listed(values: Sequence[Any] | NDArray[Any]) -> str:
    return listed(list(map(_text, values)), 5)


def _text(value: Any) -> str:
    """A number as people write it; whole ones with all their digits."""
    number = float(value)
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.9g}"

"""Which cases train and which validate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layouts.overlooked import SPLITS
from focalis.display import listed
from focalis.errors import DataError, UsageError
from focalis.files import write_text


@dataclass(frozen=True)
class Split:
    """A division of cases into those that train and those that validate.

    Attributes:
        train: names of the training cases, sorted.
        val: names of the validation cases, sorted.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


def read_splits(path: Path | str, names: Iterable[str] | None = None) -> tuple[Split, ...]:
    """Read splits in the form of nnU-Net's splits_final.json: [{"train": [...], "val": [...]}, ...].

    Args:
        path: the JSON file.
        names: the names of the cases that exist; without it names are not checked.

    Raises:
        DataError: the file is malformed, a split names an unknown case, or a case both trains and validates.
    """
    path = Path(path)
    try:
        with DataError.of_system(path, "give a splits file"):
            content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError.at(path, f"is not valid JSON ({error})", "mend it") from error
    if not isinstance(content, list) or not content:
        raise DataError.at(path, 'must be a list of splits, [{"train": [...], "val": [...]}, ...]')
    known = None if names is None else set(names)
    return tuple(_split(path, fold, entry, known) for fold, entry in enumerate(content))


def find_splits(root: Path, given: Path | None = None) -> Path | None:
    """The splits file that counts: the given one, else the one splits*.json in the data set's folder, if there is one.

    Raises:
        UsageError: there are several, and none was given.
    """
    beside = sorted(path for path in root.iterdir() if SPLITS.fullmatch(path.name))
    if given is None and len(beside) > 1:
        raise UsageError.at(root, f"has {len(beside)} files splits*.json", "say which with --splits")
    return given or next(iter(beside), None)


def empty_side(place: Path, number: int | None, split: Split) -> DataError | None:
    """Why a split cannot be trained or judged, about its file; None if it can."""
    if split.train and split.val:
        return None
    return DataError.at(place, f"split {number} has no {'val' if split.train else 'train'} cases", "add some")


def lost_labels(place: Path, number: int | None, split: Split, dataset: Dataset) -> DataError | None:
    """Why a split cannot be trained for what its cases hold, about its file; None if it can.

    A label that only held-out cases hold would be judged though nothing of it was learned. Where nobody has looked what
    the cases hold, nothing is said.
    """
    train, val = dataset.select(split.train), dataset.select(split.val)
    if any(case.holds is None for case in (*train, *val)):
        return None
    known = frozenset[int]().union(*(case.holds or () for case in train))
    lost: dict[int, list[str]] = {}
    for case in val:
        for label in (case.holds or frozenset()) - known:
            lost.setdefault(label, []).append(case.name)
    if not known:
        return DataError.at(place, f"split {number} has no training case with a lesion", "move some there")
    if lost:
        label, names = min(lost.items())
        name = dataset.labels.get(label, "")
        return DataError.at(
            place,
            f"split {number} trains on no case with label {label}{f' ({name})' if name else ''}, which "
            f"{listed(names, 5)} {'holds' if len(names) == 1 else 'hold'}",
            "move some to train, or take the label out",
        )
    return None


def write_splits(splits: Sequence[Split], path: Path | str) -> None:
    """Write splits in the form that `read_splits` reads."""
    content = [{"train": list(split.train), "val": list(split.val)} for split in splits]
    write_text(Path(path), json.dumps(content, indent=1) + "\n")


def make_splits(cases: Sequence[Case], folds: int, seed: int) -> tuple[Split, ...]:
    """Divide cases into folds by patient, at random: each case validates once, patients are never parted.

    Where it is known what the cases hold (`Case.holds`), every label, and scans without any, are spread evenly over the
    folds; and patients of whom one alone holds a label train in every fold and validate in none, because a fold that
    held them out could not learn that label.

    Args:
        cases: all cases; their order does not matter.
        folds: number of folds, 2 or more.
        seed: the same seed and cases give the same splits.

    Raises:
        UsageError: fewer than two folds.
        DataError: fewer patients than folds, those that validate in none not counted.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds: cross-validation needs 2 or more")
    held = _held(cases)
    always = sole_holders(held)
    patients = [
        patient for patient in _by_content(_shuffled_patients(cases, seed), held) if patient not in always
    ]
    if len(patients) < folds:
        besides = f", besides {len(always)} who must always train," if always else ""
        raise DataError(f"{len(patients)} patients{besides} cannot make {folds} folds; take fewer folds")
    return tuple(_divide(cases, set(patients[fold::folds])) for fold in range(folds))


def inner_split(cases: Sequence[Case], share: float, minimum: int, seed: int) -> Split:
    """Set training cases aside, by patient, at random, to make choices on.

    Where it is known what the cases hold (`Case.holds`), the part set aside resembles the rest: it has a patient with
    a lesion if there are two, and about as many of each label, and without any, as their share is. A patient without
    whom nobody in training would hold a label is not set aside, as long as there is another.

    Args:
        cases: the training cases; their order does not matter.
        share: the share of cases to set aside, above 0 and below 1.
        minimum: the least number of cases to set aside.
        seed: the same seed and cases give the same split.

    Returns:
        The split; `val` holds whole patients, `train` at least one patient.

    Raises:
        DataError: there are fewer than two patients.
    """
    held = _held(cases)
    patients = _interleaved(_shuffled_patients(cases, seed), held)
    if len(patients) < 2:
        raise DataError("a single patient cannot be divided into training and validation; add cases")
    wanted = max(minimum, round(share * len(cases)))
    chosen: set[str] = set()
    for patient in patients:
        left = [held[other] for other in held if other not in chosen | {patient}]
        if sum(case.patient in chosen for case in cases) >= wanted or not left:
            break
        if held[patient] <= frozenset().union(*left):
            chosen.add(patient)
    return _divide(cases, chosen or {patients[0]})


def sole_holders(held: Mapping[str, frozenset[int]]) -> frozenset[str]:
    """The patients without whom a label would be gone; `held` maps each patient to the labels of all their cases."""
    counts = Counter(label for labels in held.values() for label in labels)
    return frozenset(
        patient for patient, labels in held.items() if any(counts[label] == 1 for label in labels)
    )


def _split(path: Path, fold: int, entry: object, known: set[str] | None) -> Split:
    where = f"{path}: split {fold}"
    train, val = _names(where, entry, "train"), _names(where, entry, "val")
    for names in (train, val):
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError.at(where, f"names {listed(twice, 5)} more than once", "remove the repetition")
    if shared := sorted(set(train) & set(val)):
        raise DataError.at(where, f"{listed(shared, 5)} both trains and validates", "keep a case on one side")
    if known is not None and (strangers := sorted((set(train) | set(val)) - known)):
        raise DataError.at(where, f"names {listed(strangers, 5)}, not in the data set", "correct the names")
    return Split(train, val)


def _names(where: str, entry: object, side: str) -> tuple[str, ...]:
    names = entry.get(side) if isinstance(entry, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError.at(where, 'must be {"train": [...], "val": [...]} with lists of case names')
    return tuple(sorted(names))


def _shuffled_patients(cases: Sequence[Case], seed: int) -> list[str]:
    patients = sorted({case.patient for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    return [patients[i] for i in order]


def _held(cases: Sequence[Case]) -> dict[str, frozenset[int]]:
    """Patient to the labels that their cases hold; none where nobody has looked."""
    held: dict[str, frozenset[int]] = {}
    for case in cases:
        held[case.patient] = held.get(case.patient, frozenset()) | (case.holds or frozenset())
    return held


def _content(labels: frozenset[int], held: Mapping[str, frozenset[int]]) -> tuple[tuple[int, int], ...]:
    """What patients are sorted by: their labels, the rarest first; nothing where there is none."""
    counts = Counter(label for other in held.values() for label in other)
    return tuple(sorted((counts[label], label) for label in labels))


def _by_content(patients: Sequence[str], held: Mapping[str, frozenset[int]]) -> list[str]:
    """The patients, those who hold the same next to each other; their order otherwise stays."""
    return sorted(patients, key=lambda patient: _content(held[patient], held))


def _interleaved(patients: Sequence[str], held: Mapping[str, frozenset[int]]) -> list[str]:
    """The patients so that every first part resembles the whole, a patient with a lesion first.

    Where all hold the same their order stays.
    """
    groups: dict[frozenset[int], list[str]] = {}
    for patient in patients:
        groups.setdefault(held[patient], []).append(patient)
    place = {
        patient: (number + 0.5) / len(group)
        for group in groups.values()
        for number, patient in enumerate(group)
    }
    ordered = sorted(patients, key=lambda patient: place[patient])
    always = sole_holders(held)
    first = [patient for patient in ordered if held[patient] and patient not in always][:1]
    return first + [patient for patient in ordered if patient not in first]


def _divide(cases: Sequence[Case], val_patients: set[str]) -> Split:
    train = sorted(case.name for case in cases if case.patient not in val_patients)
    val = sorted(case.name for case in cases if case.patient in val_patients)
    return Split(tuple(train), tuple(val))

"""A CSV manifest: a row per case that names its files, wherever they lie."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layouts.description import drawn_values
from focalis.dataset.layouts.names import UNNAMED_CHANNEL
from focalis.dataset.layouts.tables import (
    NO_PATIENTS,
    Table,
    case_column,
    doubt_about,
    patient_column,
    patient_name,
    read_table,
)
from focalis.errors import DataError
from focalis.volume import image_stem

_SPELLINGS = {"image": "images?|imgs?", "label": "labels?"}
_SYNONYMS = {"image": "scans?|volumes?", "label": "masks?|segs?|segmentations?|annotations?|contours?"}
"""What counts only where no column has the word itself: beside `label`, a column `mask` is something else."""


def open_manifest(path: Path, may_miss: Collection[str] = ()) -> Dataset:
    """List the cases of a CSV manifest.

    Columns: `case`; `patient` (optional; an empty cell stands for a patient of its own); `image`, or
    `image_CHANNEL` once per channel; `label`, or `label_STRUCTURE` once per structure. Usual spellings of these (Case,
    patient_id, Image FLAIR, mask) mean the same. Other columns are passed over. Paths are relative to the manifest. A
    4D image is named in the column of each of its channels. Masks of separate structures become one label map, numbered
    from 1 in the order of the columns. The column `drawn`, if there is one, lists the labels that were drawn in a case,
    by name (or, with a column `label`, by value), separated by commas or semicolons; an empty cell stands for all.

    A case may lack its label: then all of its label cells are empty. The cells of channels in `may_miss` may be empty.

    Returns:
        The data set; its root is the manifest's folder.

    Raises:
        DataError: the manifest cannot be read, lacks a column or a value, names a case twice or a file that is not
            there.
    """
    table = read_table(path)
    channels = _columns(path, table, "image")
    structures = _columns(path, table, "label")
    named_in, patient_in = case_column(table), patient_column(path, table)
    if named_in is None:
        raise DataError.at(path, "has no column case", "name each row's case there")
    if not table.rows:
        raise DataError.at(path, "has no row", "add one per case")
    labels = {value: name for value, name in enumerate(structures, start=1) if name}
    drawn_in = next((column for column in table.columns if column.casefold() == "drawn"), None)
    cases: dict[str, Case] = {}
    for row in table.rows:
        name = row[named_in]
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise DataError.at(
                path, f"{name!r} cannot be a case's name", "files are named by it: choose another"
            )
        if name in cases:
            raise DataError.at(path, f"names case {name} twice", "keep one row per case")
        lacks = {
            place
            for place, channel in enumerate(channels)
            if channel in may_miss and not row[channels[channel]]
        }
        images = [
            _file(path, row[column], f"{column} of case {name}")
            for place, column in enumerate(channels.values())
            if place not in lacks
        ]
        words = re.split(r"\s*[,;]\s*", row[drawn_in]) if drawn_in and row[drawn_in] else None
        drawn = None if words is None else drawn_values(f"{path}: {drawn_in} of case {name}", words, labels)
        columns = [
            column
            for value, column in enumerate(structures.values(), start=1)
            if not labels or drawn is None or value in drawn
        ]
        if surplus := [column for column in structures.values() if row[column] and column not in columns]:
            raise DataError.at(
                path,
                f"{surplus[0]} of case {name} names a mask, and {drawn_in} says that it was not drawn",
                "correct one of them",
            )
        given = any(row[column] for column in columns)
        masks = [_file(path, row[column], f"{column} of case {name}") for column in columns if given]
        label = masks[0] if "" in structures and masks else tuple(masks) or None
        patient = patient_name(row[patient_in]) if patient_in is not None else ""
        cases[name] = Case(name, tuple(images), label, patient, drawn=drawn, lacks=frozenset(lacks))
    named = tuple(channel or UNNAMED_CHANNEL for channel in channels)
    notes = [
        f"{path.name}: the column {column} names image files and is passed over; rename it to image_{column} or "
        f"label_{column} to use it"
        for column in table.columns
        if column not in (*channels.values(), *structures.values(), named_in) and _names_files(table, column)
    ]
    if patient_in is None:
        notes.append(
            f"{path.name} has no column patient ({', '.join(filter(None, table.columns))}): {NO_PATIENTS}"
        )
    elif doubt := doubt_about(path.name, patient_in, [patient_name(row[patient_in]) for row in table.rows]):
        notes.append(doubt)
    first, *others = [*channels.values(), *structures.values()]
    notes += [note for column in others if (note := _crossed(path.name, table, named_in, first, column))]
    ordered = tuple(cases[name] for name in sorted(cases))
    return Dataset(path.parent, ordered, named, labels, notes=tuple(notes))


def _crossed(name: str, table: Table, named_in: str, first: str, other: str) -> str:
    """The doubt about rows in which a column names the file of another row's case, by its name; empty without."""
    rows = [row for row in table.rows if row[first] and row[other]]
    if not rows:
        return ""
    ids, others = (_distinct_parts([row[column] for row in rows]) for column in (first, other))
    known = set(ids)
    crossed = [row for row, own, named in zip(rows, ids, others, strict=True) if named in known - {own}]
    if not crossed or 2 * sum(named in known for named in others) < len(rows):
        return ""
    row = crossed[0]
    return (
        f"{name}: {len(crossed)} of {len(rows)} rows name files of different cases ({row[named_in]}: {first} is "
        f"{row[first]}, {other} is {row[other]}); was a column moved up or down, or are the files numbered separately?"
    )


def _distinct_parts(names: Sequence[str]) -> list[str]:
    """What remains of names without their common beginning and end, and without leading zeros."""
    plain = [name.casefold() for name in names]
    start = _shared(plain)
    end = _shared([name[start:][::-1] for name in plain])
    return [re.sub(r"(?<!\d)0+(?=\d)", "", name[start : len(name) - end]) for name in plain]


def _shared(names: Sequence[str]) -> int:
    """How many characters all names have in common at their beginning."""
    least, greatest = min(names), max(names)
    pairs = enumerate(zip(least, greatest, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(least))


def _columns(path: Path, table: Table, kind: str) -> dict[str, str]:
    """Name to column, in their order: `label_core` is core; `label` alone has the empty name."""
    found: dict[str, str] = {}
    for column in _meaning_files(table, kind):
        name = _named(column, f"{_SPELLINGS[kind]}|{_SYNONYMS[kind]}") or ""
        if name in found or (found and "" in (name, *found)):
            raise DataError.at(
                path, f"has columns {next(iter(found.values()))} and {column}", "keep one kind"
            )
        found[name] = column
    if not found or f"{kind}_" in found.values():
        raise DataError.at(path, f"has no column {kind}", f"add it, or {kind}_NAME for each")
    return found


def _meaning_files(table: Table, kind: str) -> list[str]:
    """The columns of a kind: those called so, and those of a usual spelling whose cells name image files."""
    found = [
        column
        for column in table.columns
        if column == kind
        or column.startswith(f"{kind}_")
        or (_named(column, _SPELLINGS[kind]) is not None and _names_files(table, column))
    ]
    return found or [
        column
        for column in table.columns
        if _named(column, _SYNONYMS[kind]) is not None and _names_files(table, column)
    ]


def _named(column: str, spellings: str) -> str | None:
    """What stands behind one of the spellings in a column's name, perhaps nothing; None without one."""
    match = re.fullmatch(rf"(?:{spellings})(?:[\s_.-]+(.*))?", column, re.IGNORECASE)
    return None if match is None else match[1] or ""


def _names_files(table: Table, column: str) -> bool:
    """Whether a column holds names of image files and nothing else."""
    values = [row[column] for row in table.rows if column and row[column]]
    return bool(values) and all(image_stem(Path(value)) is not None for value in values)


def _file(path: Path, value: str, what: str) -> Path:
    file = path.parent / value
    if not value:
        raise DataError.at(
            path,
            f"{what} is empty",
            "fill it in (an absent structure is an empty mask; one that nobody drew is left out of the column drawn)",
        )
    if image_stem(file) is None:
        raise DataError.at(path, f"{what} is {value}, no image file by its name", "correct it")
    if not file.is_file():
        raise DataError.at(path, f"{what} is {value}, which is not there", "correct the path")
    return file

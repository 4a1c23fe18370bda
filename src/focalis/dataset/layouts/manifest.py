"""A CSV manifest: a row per case that names its files, wherever they lie."""

from __future__ import annotations

from pathlib import Path

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layouts.names import UNNAMED_CHANNEL
from focalis.dataset.layouts.tables import read_table
from focalis.errors import DataError
from focalis.volume import image_stem


def open_manifest(path: Path) -> Dataset:
    """List the cases of a CSV manifest.

    Columns: `case`; `patient` (optional; an empty cell stands for a patient of its own); `image`, or
    `image_CHANNEL` once per channel; `label`, or `label_STRUCTURE` once per structure. Other columns are passed
    over. Paths are relative to the manifest. A 4D image is named in the column of each of its channels. Masks of
    separate structures become one label map, numbered from 1 in the order of the columns.

    A case may lack its label: then all of its label cells are empty.

    Returns:
        The data set; its root is the manifest's folder.

    Raises:
        DataError: the manifest cannot be read, lacks a column or a value, names a case twice or a file that is not
            there.
    """
    table = read_table(path)
    channels = _columns(path, table.columns, "image")
    structures = _columns(path, table.columns, "label")
    if "case" not in table.columns:
        raise DataError(f"{path}: has no column case; name each row's case there")
    if not table.rows:
        raise DataError(f"{path}: has no row; add one per case")
    cases: dict[str, Case] = {}
    for row in table.rows:
        name = row["case"]
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise DataError(
                f"{path}: {name!r} cannot be a case's name; files are named by it: choose another"
            )
        if name in cases:
            raise DataError(f"{path}: names case {name} twice; keep one row per case")
        images = [_file(path, row[column], f"{column} of case {name}") for column in channels.values()]
        given = [column for column in structures.values() if row[column]]
        masks = [
            _file(path, row[column], f"{column} of case {name}") for column in structures.values() if given
        ]
        label = masks[0] if "" in structures and masks else tuple(masks) or None
        cases[name] = Case(name, tuple(images), label, row.get("patient", ""))
    labels = {value: name for value, name in enumerate(structures, start=1) if name}
    named = tuple(channel or UNNAMED_CHANNEL for channel in channels)
    return Dataset(path.parent, tuple(cases[name] for name in sorted(cases)), named, labels)


def _columns(path: Path, columns: tuple[str, ...], kind: str) -> dict[str, str]:
    """Name to column, in their order: `label_core` is core; `label` alone has the empty name."""
    found = {name.removeprefix(f"{kind}_"): name for name in columns if name.startswith(f"{kind}_")}
    if kind in columns:
        if found:
            raise DataError(f"{path}: has columns {kind} and {next(iter(found.values()))}; keep one kind")
        return {"": kind}
    if not found or "" in found:
        raise DataError(f"{path}: has no column {kind}; add it, or {kind}_NAME for each")
    return found


def _file(path: Path, value: str, what: str) -> Path:
    file = path.parent / value
    if not value:
        raise DataError(f"{path}: {what} is empty; fill it in (an absent structure is an empty mask)")
    if image_stem(file) is None:
        raise DataError(f"{path}: {what} is {value}, no image file by its name; correct it")
    if not file.is_file():
        raise DataError(f"{path}: {what} is {value}, which is not there; correct the path")
    return file

"""Files in a data set's folder that are not read, though their names or contents suggest that they should be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from focalis.dataset.layouts.tables import case_column, patient_column, read_table
from focalis.display import listed
from focalis.errors import DataError
from focalis.volume import IMAGE_SUFFIXES, image_stem

SPLITS = re.compile(r"splits.*\.json|split\.json", re.IGNORECASE)
"""The names of splits files."""

_IMAGES_OF_OTHERS = (
    ".dcm",
    ".gipl",
    ".h5",
    ".hdr",
    ".ima",
    ".img",
    ".jpg",
    ".mgh",
    ".mgz",
    ".nii.zip",
    ".npy",
    ".npz",
    ".png",
    ".tif",
    ".tiff",
)
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_LARGEST_JSON = 10_000_000


def overlooked(
    root: Path, folders: Iterable[Path], cases: set[str], ending: str | None = None
) -> tuple[str, ...]:
    """One line per file, or kind of file, that is passed over and perhaps should not be."""
    return (*_images(folders, ending), *_splits(root), *_patients(root, cases))


def _images(folders: Iterable[Path], ending: str | None) -> Iterator[str]:
    for folder in folders:
        names = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        unknown = [name for name in names if name.lower().endswith(_IMAGES_OF_OTHERS)]
        if unknown:
            yield (
                f"{folder.name}/ holds files that are passed over, {listed(unknown)}: Focalis reads "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
        if ending is not None:
            others = [
                name for name in names if image_stem(Path(name)) is not None and not name.endswith(ending)
            ]
            if others:
                yield f"{folder.name}/ holds files that are passed over, {listed(others)}: dataset.json says {ending}"


def _splits(root: Path) -> Iterator[str]:
    files = sorted(root.iterdir())
    if any(SPLITS.fullmatch(path.name) for path in files):
        return
    for path in files:
        if re.fullmatch(r"splits?.*\.(pkl|pickle|ya?ml|csv|txt)", path.name, re.IGNORECASE):
            yield f"{path.name} is passed over; splits are read from splits.json"
        elif path.suffix.lower() == ".json" and _holds_splits(path):
            yield f"{path.name} holds splits and is passed over; rename it to splits.json, or give it as --splits"


def _holds_splits(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size < _LARGEST_JSON else None
    except (OSError, ValueError):
        return False
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"train", "val"} <= {str(key).casefold() for key in first}


def _patients(root: Path, cases: set[str]) -> Iterator[str]:
    """Tables that name patients of the cases, of another name than cases.csv."""
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in _SPREADSHEETS and not path.name.startswith(("~", ".")):
            yield f"{path.name} is a spreadsheet and is passed over; save it as cases.csv if it names the patients"
        if path.suffix.lower() not in (".csv", ".tsv") or path.stem.casefold() in ("cases", "manifest"):
            continue
        try:
            table = read_table(path)
            named_in, patient_in = case_column(table, cases), patient_column(path, table)
        except DataError:
            continue
        if patient_in and any(case.startswith(f"{row[patient_in]}_") for row in table.rows for case in cases):
            yield (
                f"{path.name} names patients and is passed over; the cases are called after them, so write cases.csv "
                "with the columns case and patient to keep their scans together"
            )
        elif named_in and patient_in and cases & {row[named_in] for row in table.rows}:
            yield f"{path.name} names patients and is passed over; rename it to cases.csv to keep their scans together"

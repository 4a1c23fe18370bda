"""The readers' contours in `raters/`: CASE_READER files, as many or as few as there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from focalis.dataset.case import Dataset
from focalis.dataset.layouts import UNNAMED_CHANNEL, group_channels

FOLDER = "raters"


@dataclass(frozen=True)
class ReaderFiles:
    """Who contoured which case.

    Attributes:
        of: case to reader to file, both sorted; only cases with a reader.
        strangers: files whose names say no case, or no reader.
    """

    of: dict[str, dict[str, Path]]
    strangers: tuple[Path, ...]


def find_readers(folder: Path, cases: set[str]) -> ReaderFiles:
    """Who contoured which case, by the files' names; no file is read, and no folder is no reader.

    Raises:
        DataError: two files claim one place.
    """
    if not folder.is_dir():
        return ReaderFiles({}, ())
    of: dict[str, dict[str, Path]] = {}
    strangers: list[Path] = []
    for case, files in sorted(group_channels(sorted(folder.iterdir()), cases).items()):
        for reader, path in sorted(files.items()):
            if case in cases and reader != UNNAMED_CHANNEL:
                of.setdefault(case, {})[reader] = path
            else:
                strangers.append(path)
    return ReaderFiles(of, tuple(sorted(strangers)))


def with_readers(dataset: Dataset) -> Dataset:
    """The data set, its cases knowing the masks of their readers in `raters/`.

    A case may have any number of readers, none among them.

    Raises:
        DataError: two files claim one place.
    """
    found = find_readers(dataset.root / FOLDER, {case.name for case in dataset.cases}).of
    cases = tuple(replace(case, readers=found.get(case.name, {})) for case in dataset.cases)
    return replace(dataset, cases=cases)

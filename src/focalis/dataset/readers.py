"""The readers' contours in `raters/`: CASE_READER files, as many or as few as there are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from focalis.dataset.case import Dataset
from focalis.dataset.layouts import UNNAMED_CHANNEL, entry, group_channels
from focalis.errors import FileWarning

FOLDER = "raters"
_SPELLINGS = (FOLDER, "rater", "readers", "reader")


class ReaderWarning(FileWarning):
    """Files among the readers' masks are nobody's, and left out."""


@dataclass(frozen=True)
class ReaderFiles:
    """Who contoured which case.

    Attributes:
        of: case to reader to file, both sorted; only cases with a reader.
        strangers: files whose names say no case, or no reader.
    """

    of: dict[str, dict[str, Path]]
    strangers: tuple[Path, ...]

    def given_to(self, dataset: Dataset) -> Dataset:
        """The data set, its cases knowing their readers."""
        cases = tuple(replace(case, readers=self.of.get(case.name, {})) for case in dataset.cases)
        return replace(dataset, cases=cases)

    def warn(self) -> None:
        """Say which files are left out, with a `ReaderWarning`: a misspelt name would silently be a missing reader."""
        if self.strangers:
            first, *rest = self.strangers
            more = f" and {len(rest)} more" if rest else ""
            warnings.warn(
                ReaderWarning(
                    f"{first}{more}", "no reader's mask of any case, left out", "names are CASE_READER.nii.gz"
                ),
                stacklevel=2,
            )


def readers_folder(root: Path) -> Path:
    """The folder of the readers' masks in a data set: `raters`, in any case, or readers; it need not be there."""
    return entry(root, *_SPELLINGS) or root / FOLDER


def find_readers(folder: Path, cases: set[str]) -> ReaderFiles:
    """Who contoured which case, by the files' names; no file is read. Without the folder there is no reader.

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

    A case may have any number of readers, none among them. Files that are nobody's mask are named in a warning.

    Raises:
        DataError: two files claim one place.
    """
    found = find_readers(readers_folder(dataset.root), {case.name for case in dataset.cases})
    found.warn()
    return found.given_to(dataset)

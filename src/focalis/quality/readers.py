"""The readers' contours in `raters/`: CASE_READER files, as many or as few as there are."""

from __future__ import annotations

from focalis.dataset import Dataset, group_channels
from focalis.errors import DataError
from focalis.quality.finding import Finding

FOLDER = "raters"


def find_readers(dataset: Dataset) -> tuple[dict[str, tuple[str, ...]], list[Finding]]:
    """Who contoured which case, by file names; no file is read.

    Returns:
        Case name to its readers, sorted, for cases with any; and the files that cannot be assigned.
    """
    folder = dataset.root / FOLDER
    if not folder.is_dir():
        return {}, []
    names = {case.name for case in dataset.cases}
    try:
        grouped = group_channels(sorted(folder.iterdir()), names)
    except DataError as error:
        return {}, [Finding("reader", (), str(error))]
    readers = {name: tuple(sorted(files)) for name, files in grouped.items() if name in names}
    strangers = [path.name for name, files in grouped.items() if name not in names for path in files.values()]
    return readers, [
        Finding("reader", (), f"{FOLDER}/{name} belongs to no case") for name in sorted(strangers)
    ]

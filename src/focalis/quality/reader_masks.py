"""The readers' contours in `raters/`: who contoured which case, and what is wrong with a mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from focalis.dataset import Dataset, find_readers, readers_folder
from focalis.errors import DataError
from focalis.quality.finding import Finding
from focalis.volume import image_stem


def attach_readers(dataset: Dataset) -> tuple[Dataset, list[Finding]]:
    """The data set with its readers, by file names, and the files that cannot be assigned; no file is read."""
    names = {case.name for case in dataset.cases}
    try:
        folder = readers_folder(dataset.root)
        found = find_readers(folder, names)
    except DataError as error:
        return dataset, [Finding("reader", (), str(error))]
    return found.given_to(dataset), [
        Finding(
            "reader", (), f"{folder.name}/{path.name} {'names no reader' if named else 'belongs to no case'}"
        )
        for path in found.strangers
        for named in [image_stem(path) in names]
    ]


@dataclass
class ReaderValues:
    """The label values that readers' masks hold, for a judgement when the labels' own are known.

    Attributes:
        found: (case, reader, file, its values above 0 that are no fault by themselves).
    """

    found: list[tuple[str, str, Path, set[int]]] = field(default_factory=list)

    def problems(self, known: set[int]) -> list[tuple[str, str]]:
        """Masks with values that no label map holds, as (case, message); such a mask cannot stand for a label."""
        listed = ", ".join(str(value) for value in sorted(known))
        return [
            (
                case,
                f"{path}: the mask of reader {reader} holds the value {min(values - known)}, the labels hold {listed}; "
                "give both the same values",
            )
            for case, reader, path, values in self.found
            if values - known
        ]

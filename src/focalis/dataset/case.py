"""One examined person's images and contours, as paths; nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A case of a data set.

    Attributes:
        name: the case's name, unique in its data set.
        images: one file per channel, in the data set's channel order.
        label: the label map, or None where there is none.
        patient: the patient's identifier; cases of one patient never part in a split.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes:
        root: its folder.
        cases: its cases, sorted by name.
        channels: the channels' names, e.g. ("FLAIR", "T1"); ("image",) if there is one without a name.
        labels: label value to name, without the background 0; empty when the data set does not say.
    """

    root: Path
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: Mapping[int, str] = field(default_factory=dict)

    def select(self, names: list[str] | tuple[str, ...]) -> tuple[Case, ...]:
        """The named cases, in the given order; KeyError for a name that is not there."""
        by_name = {case.name: case for case in self.cases}
        return tuple(by_name[name] for name in names)

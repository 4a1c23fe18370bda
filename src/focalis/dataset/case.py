"""One examination's images and contours, as paths, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from focalis.dataset.masks import read_masks
from focalis.display import Shown
from focalis.errors import DataError
from focalis.volume import Volume, data_files, read_channels, read_volume, with_absent

IGNORED = 255
"""In arrays of class indices: a voxel that nobody has judged, which takes part in no loss and no figure."""

MOST_LABELS = IGNORED - 1
"""How many labels a data set may have: class indices are 1 to 254, below `IGNORED`."""

GREATEST_LABEL = 2**32 - 1
"""The greatest label value: masks are written as uint8, uint16 or uint32."""


@dataclass(frozen=True)
class Case:
    """A case of a data set.

    Attributes:
        name: the case's name, unique in its data set.
        images: one entry per channel that it has, in the data set's channel order. A 4D file that holds n channels is
            named by n entries, in the order of its volumes.
        label: the label map; or one mask per structure, of which the first becomes label 1, and so on; or None
            where there is no label.
        patient: the patient's identifier, the case's name if not given; cases of one patient never part in a
            split.
        readers: the readers' own label maps by reader, for data sets that were opened `with_readers`; a case may have
            any number of them.
        holds: the labels that its label map holds; None if nobody has looked.
        drawn: the labels that somebody looked for in it, found or not; None for all. What lies in the background may
            be any of the others. Of masks, there is one for each of these, in ascending order.
        lacks: the places of the channels that it lacks.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | tuple[Path, ...] | None
    patient: str = ""
    readers: Mapping[str, Path] = field(default_factory=dict, hash=False)
    holds: frozenset[int] | None = None
    drawn: frozenset[int] | None = None
    lacks: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or self.name)

    @property
    def channels(self) -> tuple[int, ...]:
        """The place in the data set's channels of each of its images."""
        places = range(len(self.images) + len(self.lacks))
        return tuple(place for place in places if place not in self.lacks)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The label map, or the masks; empty without a label."""
        if self.label is None:
            return ()
        return self.label if isinstance(self.label, tuple) else (self.label,)

    def drawn_of(self, labels: Mapping[int, str]) -> dict[int, str]:
        """Those of the labels that were drawn in it: figures of the others cannot come from it."""
        return {value: name for value, name in labels.items() if self.drawn is None or value in self.drawn}

    def files(self) -> tuple[Path, ...]:
        """Every file that the case is read from, once each, data files named by headers included; its readers' too.

        Raises:
            DataError: the header of a NRRD or MetaImage file cannot be read.
        """
        named = dict.fromkeys((*self.images, *self.label_files, *self.readers.values()))
        return tuple(dict.fromkeys(file for path in named for file in data_files(path)))

    def read_images(self) -> list[Volume]:
        """The channels, one volume each, on the first one's grid; `Absent` where it lacks one. See `read_channels`.

        Raises:
            DataError: there is no image, a file cannot be read, or a channel does not fit the first one.
        """
        if not self.images:
            raise DataError.at(self.name, "has no image", "add one, or leave the case out")
        return with_absent(read_channels(self.images), self.lacks)

    def read_first_image(self) -> Volume:
        """The first channel that it has, as pictures show it. Raises as `read_images`."""
        return self.read_images()[self.channels[0]]

    def read_label(self) -> Volume:
        """The label map, dtype as stored; of masks, uint8 (uint16 beyond 255 structures).

        Raises:
            DataError: there is no label, a file cannot be read or is not 3D, or masks overlap, lie on different
                grids or hold several values.
        """
        if self.label is None:
            raise DataError.at(self.name, "has no label", "add one, or leave the case out")
        if not isinstance(self.label, tuple):
            return read_volume(self.label)
        return read_masks(self.label, sorted(self.drawn) if self.drawn else None)


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """A data set on disk.

    Attributes:
        cases: its cases, sorted by name.
        channels: the channels' names, e.g. ("FLAIR", "T1"); ("image",) if there is one without a name.
        labels: label value to name, without the background 0 and the ignored value; empty when the data set
            does not say.
        ignore: the label value of voxels that nobody has judged; None if there is none.
        regions: name to label values of nested regions, from the outermost to the innermost; none where each label is
            trained and judged by itself.
        notes: what was passed over when the data set was opened, a line each: tables without patients, files that are
            nearly called as those that are read.
    """

    root: Path
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None
    notes: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def patients(self) -> dict[str, str]:
        """Case name to patient."""
        return {case.name: case.patient for case in self.cases}

    def select(self, names: list[str] | tuple[str, ...]) -> tuple[Case, ...]:
        """The named cases, in the given order; KeyError for a name that is not there."""
        by_name = {case.name: case for case in self.cases}
        return tuple(by_name[name] for name in names)

    def holding(self, holds: Mapping[str, Iterable[int]]) -> Dataset:
        """The data set, its cases knowing the labels in their label maps; `holds` maps case names to label values."""
        cases = tuple(
            replace(case, holds=frozenset(holds[case.name])) if case.name in holds else case
            for case in self.cases
        )
        return replace(self, cases=cases)

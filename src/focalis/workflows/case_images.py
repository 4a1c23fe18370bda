"""A case's images as they were given, and read: image files, or DICOM series.

The DICOM libraries take longer to import than a small image to read, so they are imported where a series is met.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focalis.errors import UsageError
from focalis.volume import Outline, Volume, onto_first_grid, read_channels, read_outlines, with_absent

if TYPE_CHECKING:
    from focalis.dicom import Series, SeriesFiles


@dataclass(frozen=True)
class CaseInput:
    """One case to predict.

    Attributes:
        files: its image files, one entry per channel that it has; or, of DICOM, the first file of each series.
        problem: why it cannot be predicted, one line; empty if it can.
        series: its DICOM series, one per channel that it has; empty for image files.
        lacks: the places of the channels that it lacks.
    """

    name: str
    files: tuple[Path, ...]
    problem: str = ""
    series: tuple[SeriesFiles, ...] = ()
    lacks: frozenset[int] = frozenset()

    @property
    def all_files(self) -> tuple[Path, ...]:
        """Every file that the case is read from."""
        return (*self.files, *(file for series in self.series for file in series.files))

    @property
    def origins(self) -> list[str | None]:
        """Per channel what tells its image from that of another case of this name, hashed; None where it lacks.

        A DICOM series is told by its UID, an image file by its place.
        """
        told = iter([each.uid for each in self.series] or map(os.path.realpath, self.files))
        return [
            None if place in self.lacks else hashlib.sha256(next(told).encode()).hexdigest()
            for place in range(len(self.files) + len(self.lacks))
        ]


@dataclass(frozen=True)
class CaseImages:
    """A case's images, read.

    Attributes:
        volumes: one per channel, all on the first one's grid, `Absent` for one that it lacks.
        source: the DICOM series of the first channel that it has; None for image files.
        modalities: of each channel's DICOM series, empty for one that it lacks; none of image files, which do not tell.
        doubts: what may be wrong with the series, a line each.
    """

    volumes: list[Volume]
    source: Series | None = None
    modalities: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


Admit = Callable[[Sequence[Outline], Sequence[str]], None]
"""Called with what a case's headers tell before any value is read: an outline per channel (none if a header cannot be
used), and the modality of each channel's DICOM series (none of image files). What it raises stops the reading."""


def codec_given(charset: str | None) -> str | None:
    """The Python codec that `--charset` names; None without it.

    Raises:
        UsageError: no such character set is known.
    """
    if charset is None:
        return None
    from focalis.charsets import codec_of

    try:
        return codec_of(charset)
    except ValueError as error:
        raise UsageError(f"--charset: {error}") from error


def read_images(case: CaseInput, admit: Admit | None = None, charset: str | None = None) -> CaseImages:
    """Read a case's channels; DataError if a file cannot be read."""
    if not case.series:
        if admit is not None:
            admit(read_outlines(case.files), ())
        return CaseImages(with_absent(read_channels(case.files), case.lacks))
    from focalis.charsets import DEFAULT_CHARSET
    from focalis.dicom import read_series

    def per_channel(modalities: Sequence[str]) -> tuple[str, ...]:
        there, places = iter(modalities), range(len(case.series) + len(case.lacks))
        return tuple("" if place in case.lacks else next(there) for place in places)

    def admit_all(outline: Outline, modality: str) -> None:
        if admit is not None:
            # a single file's modality is known now that it is read
            known = [series.modality or modality for series in case.series]
            admit([outline] * len(case.series), per_channel(known))

    read = [read_series(series, admit_all, charset or DEFAULT_CHARSET) for series in case.series]
    volumes = onto_first_grid([series.volume for series in read], [series.files[0] for series in read])
    modalities = per_channel([series.modality for series in read])
    doubts = tuple(f"{series.folder}: {doubt}" for series in read for doubt in series.doubts)
    return CaseImages(with_absent(volumes, case.lacks), read[0], modalities, doubts)

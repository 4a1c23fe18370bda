"""What `predict` was given, sorted into cases: image files by their names, DICOM series by their headers.

The DICOM libraries take longer to import than a small image to read, so they are imported where a series is met.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from focalis.dataset import UNNAMED_CHANNEL, group_channels
from focalis.errors import DataError, UsageError, near, refusal
from focalis.volume import (
    IMAGE_SUFFIXES,
    Outline,
    Volume,
    image_stem,
    is_segmentation,
    onto_first_grid,
    read_channels,
    read_outlines,
    with_absent,
)

if TYPE_CHECKING:
    from focalis.dicom import Series, SeriesFiles

IMAGE_FOLDERS = ("images", "imagesTs", "imagesTr")
"""Of a data set's folder, the first of these is meant."""


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


def find_cases(
    inputs: Sequence[Path], channels: tuple[str, ...], may_miss: Collection[str] = ()
) -> list[CaseInput]:
    """The cases among files and folders, in the order given.

    Of a folder that holds image files these are meant; of a data set's folder, its images; of any other, every
    DICOM series below it. As many inputs as channels, none of which names its channel, are one case. The folder of a
    DICOM series names its channel as CHANNEL or CASE_CHANNEL, in any capitals.

    Args:
        inputs: paths; one that is not there becomes a case with a problem.
        channels: the model's channels.
        may_miss: those that a case may lack.

    Raises:
        UsageError: nothing was given, or a folder holds no image.
    """
    if not inputs:
        raise UsageError("no image given; name files or folders")
    if len(inputs) == len(channels) > 1 and (single := _single_case(inputs, channels)):
        return [single]
    files: list[Path] = []
    series: list[SeriesFiles] = []
    damaged: dict[Path, str] = {}
    for path in inputs:
        try:
            found, dicom = _opened(path, damaged)
        except UsageError:
            raise
        except Exception as error:
            damaged[path] = refusal(error, path)
            continue
        files += found
        series += dicom
    named = _by_name(list(dict.fromkeys(files)), channels, may_miss)
    return _unique([*named, *_by_series(series, channels, may_miss, damaged)])


def _opened(path: Path, damaged: dict[Path, str]) -> tuple[list[Path], list[SeriesFiles]]:
    """The image files and the DICOM series that a path stands for; DICOM files that cannot be used go to `damaged`."""
    if not path.is_dir():
        if image_stem(path) is not None:
            return [path], []
        from focalis.dicom import is_dicom

        return ([], [_series_of(path)]) if is_dicom(path) else ([path], [])
    folder = next((path / name for name in IMAGE_FOLDERS if (path / name).is_dir()), path)
    images = sorted(
        file for file in folder.iterdir() if image_stem(file) is not None and not is_segmentation(file)
    )
    if images:
        return images, []
    from focalis.dicom import find_series

    before = len(damaged)
    series = find_series(folder, damaged)
    if not series and len(damaged) == before:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UsageError(
            f"{folder}: holds no image; give a folder with files {suffixes}, or with a DICOM series"
        )
    return [], list(series)


def _series_of(path: Path) -> SeriesFiles:
    """The series of a single DICOM file: a multi-frame image."""
    from focalis.dicom import SeriesFiles

    return SeriesFiles(
        uid=str(path), modality="", description="", study_uid="", study_date="", patient_id="", files=(path,)
    )


def _single_case(inputs: Sequence[Path], channels: tuple[str, ...]) -> CaseInput | None:
    """One case, if every input is one channel of it: an image file without a channel's name, or a DICOM series."""
    if len({os.path.realpath(path) for path in inputs}) < len(inputs):
        raise UsageError(
            f"{inputs[0]}: is given twice, for different channels; give each channel's own images"
        )
    stems = [image_stem(path) for path in inputs]
    if all(stems):
        named = tuple(f"_{channel}".casefold() for channel in channels)
        if any(
            (stem or "").casefold().endswith(named) or re.search(r"_\d{4}$", stem or "") for stem in stems
        ):
            return None
        return CaseInput(stems[0] or "", tuple(inputs))
    if any(stems) or not all(path.exists() for path in inputs):
        return None
    damaged: dict[Path, str] = {}
    found = [_opened(path, damaged) for path in inputs]
    if damaged or any(files or len(series) != 1 for files, series in found):
        return None
    series = tuple(each[0] for _, each in found)
    if any(_named_channel(each.files, channels)[1] for each in series):
        return None
    return CaseInput(_series_name(series[0]), tuple(each.files[0] for each in series), "", series)


def _by_series(
    found: Sequence[SeriesFiles],
    channels: tuple[str, ...],
    may_miss: Collection[str],
    damaged: Mapping[Path, str],
) -> list[CaseInput]:
    """One case per series, named after its folder; after folder and series where several lie in one.

    Of several channels, one case per name that goes before the channel's. A damaged file refuses the series of its
    folder, to one of which it may belong; alone in a folder it is a case.
    """
    found = sorted(found, key=lambda each: (_series_name(each), each.uid))
    folders = {file.parent for each in found for file in each.files}
    alone = [
        CaseInput(path.name, (path,), why) for path, why in damaged.items() if path.parent not in folders
    ]
    if len(channels) > 1:
        return alone + _channel_series(found, channels, may_miss, damaged)
    names = [_series_name(each) for each in found]
    broken = {path.parent: reason for path, reason in damaged.items()}
    return alone + [
        CaseInput(
            name if names.count(name) == 1 else f"{name}_{each.uid.rsplit('.', 1)[-1]}",
            each.files[:1],
            next((broken[file.parent] for file in each.files if file.parent in broken), ""),
            (each,),
        )
        for name, each in zip(names, found, strict=True)
    ]


def _channel_series(
    found: Sequence[SeriesFiles],
    channels: tuple[str, ...],
    may_miss: Collection[str],
    damaged: Mapping[Path, str],
) -> list[CaseInput]:
    """The cases of a model of several channels, by the names of the series' folders."""
    broken = {path.parent: reason for path, reason in damaged.items()}
    wanted = ", ".join(channels)
    lack = f"is one series, the model wants {len(channels)} ({wanted}); give one folder per channel, in that order"
    cases: list[CaseInput] = []
    grouped: dict[tuple[Path, str], dict[str, SeriesFiles]] = {}
    problems = {_named_channel([path], channels)[0]: reason for path, reason in damaged.items()}
    for each in found:
        folder = each.files[0].parent
        case, channel = _named_channel(each.files, channels)
        if not channel:
            why = broken.get(folder) or f"{folder}: {lack}, or name each CASE_CHANNEL"
            cases.append(CaseInput(_series_name(each), each.files[:1], why))
            continue
        there = grouped.setdefault(case, {})
        if channel in there:
            problems[case] = f"{folder}: is a second series of channel {channel} of {case[1]}; keep one"
        there[channel] = each
    for case, there in grouped.items():
        series = tuple(there[channel] for channel in channels if channel in there)
        missing = [channel for channel in channels if channel not in there]
        why = problems.get(case, "")
        if not why and not set(missing) <= set(may_miss):
            why = f"{series[0].files[0].parent}: case {case[1]} lacks channel {', '.join(missing)}; give its folder too"
        lacks = frozenset(map(channels.index, missing))
        cases.append(CaseInput(case[1], tuple(each.files[0] for each in series), why, series, lacks))
    return cases


def _named_channel(files: Sequence[Path], channels: Sequence[str]) -> tuple[tuple[Path, str], str]:
    """The case of a series' files, by the folder around it and a name, and its channel; "" if no name says the channel.

    The folder is called CHANNEL or CASE_CHANNEL, in any capitals, or so is the one file in it.
    """
    first = files[0].absolute()
    for path in (first.with_suffix(""), first.parent) if len(files) == 1 else (first.parent,):
        endings = [each for each in channels if f"_{path.name}".casefold().endswith(f"_{each}".casefold())]
        if channel := max(endings, key=len, default=""):
            case = path.name[: len(path.name) - len(channel)].removesuffix("_")
            return (path.parent, case or path.parent.name), channel
    return (first.parent, first.parent.name), ""


def _series_name(series: SeriesFiles) -> str:
    first = Path(os.path.realpath(series.files[0]))  # unlike `resolve` it takes a link to itself as it is
    return first.stem if len(series.files) == 1 else first.parent.name


def _by_name(files: Sequence[Path], channels: tuple[str, ...], may_miss: Collection[str]) -> list[CaseInput]:
    """Image files by the names of cases and channels, folder by folder."""
    cases: list[CaseInput] = []
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if image_stem(file) is None:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            problem = (
                f"{file}: is no image file that is known here; give {suffixes}, or a DICOM series"
                if file.exists()
                else f"{file}: does not exist; check the path{near(file)}"
            )
            cases.append(CaseInput(file.name, (file,), problem))
        elif file.exists() and not file.is_file():
            cases.append(CaseInput(file.name, (file,), f"{file}: is no regular file; give an image file"))
        else:
            folders.setdefault(file.parent, []).append(file)
    for group in folders.values():
        try:
            cases += _group(group, channels, may_miss)
        except DataError as error:  # two files that are the same case and channel
            cases += [CaseInput(image_stem(file) or file.name, (file,), str(error)) for file in group]
    return cases


def _group(files: list[Path], channels: tuple[str, ...], may_miss: Collection[str]) -> list[CaseInput]:
    """The cases among the files of one folder; with a single channel, a name without it is a case too.

    Where every name ends in _0000, nnU-Net's number of the first channel, it is no part of the case either.
    """
    if len(channels) == 1:
        stems = {file: image_stem(file) or file.name for file in files}
        numbered = all(stem.endswith("_0000") for stem in stems.values())
        ending = "_0000" if numbered else f"_{channels[0]}"
        return [CaseInput(stem.removesuffix(ending) or stem, (file,)) for file, stem in stems.items()]
    cases: list[CaseInput] = []
    for name, found in sorted(group_channels(files, channels=channels).items()):
        missing = [channel for channel in channels if channel not in found]
        if set(missing) <= set(may_miss):
            there = tuple(found[channel] for channel in channels if channel in found)
            cases.append(CaseInput(name, there, lacks=frozenset(map(channels.index, missing))))
        elif set(found) == {UNNAMED_CHANNEL}:  # one file for all channels: a 4D file
            cases.append(CaseInput(name, (found[UNNAMED_CHANNEL],) * len(channels)))
        else:
            first = next(iter(found.values()))
            wanted = f"{name}_{missing[0]} (or {name}_{channels.index(missing[0]):04d})"
            lack = f"{first}: case {name} lacks channel {', '.join(missing)}; give {wanted} too, or the folder of both"
            cases.append(CaseInput(name, tuple(found.values()), lack))
    return cases


def _unique(cases: Sequence[CaseInput]) -> list[CaseInput]:
    """The cases, those whose name was taken before refused."""
    seen: set[str] = set()
    result = []
    for case in cases:
        clash = f"{case.files[0]}: a second case named {case.name}; give one folder at a time"
        taken = case.name in seen and not case.problem
        result.append(replace(case, problem=clash) if taken else case)
        seen.add(case.name)
    return result

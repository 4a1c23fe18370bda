"""What `predict` was given, sorted into cases: image files by their names, DICOM series by their headers.

The DICOM libraries take longer to import than a small image to read, so they are imported where a series is met.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    DICOM series names its channel as CHANNEL or CASE_CHANNEL, in any capitals. As many series as channels, each naming
    another one, are one case, whatever CASE is; so are series of one study that name each channel once.

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
        raise UsageError.at(
            folder, "holds no image", f"give a folder with files {suffixes}, or with a DICOM series"
        )
    return [], list(series)


def _series_of(path: Path) -> SeriesFiles:
    """The series of a single DICOM file: a multi-frame image."""
    from focalis.dicom import SeriesFiles
    from focalis.dicom.headers import read_header, text

    study = patient = ""
    with suppress(DataError):  # a damaged file is refused when it is read
        header = read_header(path, ("StudyInstanceUID", "PatientID"))
        study, patient = text(header, "StudyInstanceUID"), text(header, "PatientID")
    return SeriesFiles(
        uid=str(path),
        modality="",
        description="",
        study_uid=study,
        study_date="",
        patient_id=patient,
        files=(path,),
    )


def _single_case(inputs: Sequence[Path], channels: tuple[str, ...]) -> CaseInput | None:
    """One case, if every input is one channel of it: an image file without a channel's name, or a DICOM series.

    The series name no channel, and are in order; or each names another, and they are of one patient.
    """
    if len({os.path.realpath(path) for path in inputs}) < len(inputs):
        raise UsageError.at(
            inputs[0], "is given twice, for different channels", "give each channel's own images"
        )
    stems = [image_stem(path) for path in inputs]
    if all(stems):
        endings = tuple(f"_{channel}".casefold() for channel in channels)
        if any(
            (stem or "").casefold().endswith(endings) or re.search(r"_\d{4}$", stem or "") for stem in stems
        ):
            return None
        return CaseInput(stems[0] or "", tuple(inputs))
    if any(stems) or not all(path.exists() for path in inputs):
        return None
    damaged: dict[Path, str] = {}
    found = [_opened(path, damaged) for path in inputs]
    if any(files or len(series) != 1 for files, series in found):
        return None
    series = tuple(each[0] for _, each in found)
    name = _series_name(series[0])
    named = [each for each in (_named(_places(each.files), channels) for each in series) if each]
    if damaged and not named:
        return None
    if named:
        if sorted(each.channel for each in named) != sorted(channels):
            return None
        if len({each.patient_id for each in series} - {""}) > 1:
            return None
        of = dict(zip((each.channel for each in named), series, strict=True))
        series, name = tuple(of[channel] for channel in channels), _shared_name(named)
    return CaseInput(name, tuple(each.files[0] for each in series), next(iter(damaged.values()), ""), series)


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


class _Name(NamedTuple):
    """What a folder's or file's name CASE_CHANNEL says: the folder around it, the case and the channel."""

    around: Path
    case: str
    channel: str


@dataclass
class _Group:
    """The series of one case: one per channel that it has."""

    name: _Name
    series: dict[str, SeriesFiles] = field(default_factory=dict)
    problem: str = ""

    @property
    def studies(self) -> set[tuple[str, str]]:
        """Patient and study of each series that tells its study."""
        return {(each.patient_id, each.study_uid) for each in self.series.values() if each.study_uid}


def _channel_series(
    found: Sequence[SeriesFiles],
    channels: tuple[str, ...],
    may_miss: Collection[str],
    damaged: Mapping[Path, str],
) -> list[CaseInput]:
    """The cases of a model of several channels, by the names of the series' folders and by their studies."""
    broken = {path.parent: reason for path, reason in damaged.items()}
    wanted = ", ".join(channels)
    lack = f"is one series, the model wants {len(channels)} ({wanted}); give one folder per channel, in that order"
    cases: list[CaseInput] = []
    grouped: dict[tuple[Path, str], _Group] = {}
    for each in found:
        folder = each.files[0].parent
        name = _named(_places(each.files), channels)
        if name is None:
            why = broken.get(folder) or f"{folder}: {lack}, or name each CASE_CHANNEL"
            cases.append(CaseInput(_series_name(each), each.files[:1], why))
            continue
        group = grouped.setdefault((name.around, name.case.casefold()), _Group(name))
        if name.channel in group.series:
            group.problem = f"{folder}: is a second series of channel {name.channel} of {name.case}; keep one"
        group.series[name.channel] = each
    _blame(grouped, channels, damaged)
    groups = _joined(list(grouped.values()))
    of_study: dict[tuple[str, str], list[_Group]] = {}
    for group in groups:
        for study in group.studies:
            of_study.setdefault(study, []).append(group)
    for group in groups:
        series = tuple(group.series[channel] for channel in channels if channel in group.series)
        missing = [channel for channel in channels if channel not in group.series]
        beside = {
            other.series[channel].files[0].parent.name
            for study in group.studies
            for other in of_study[study]
            for channel in missing
            if channel in other.series
        }
        why = group.problem
        if not why and (beside or not set(missing) <= set(may_miss)):
            why = f"{series[0].files[0].parent}: case {group.name.case} lacks channel {', '.join(missing)}; give its "
            why += "folder too"
            if beside:
                why += (
                    f", or call it {group.name.case}_{missing[0]} if it is among {', '.join(sorted(beside))}"
                )
        lacks = frozenset(map(channels.index, missing))
        cases.append(CaseInput(group.name.case, tuple(each.files[0] for each in series), why, series, lacks))
    return cases


def _blame(
    grouped: Mapping[tuple[Path, str], _Group], channels: Sequence[str], damaged: Mapping[Path, str]
) -> None:
    """Refuse the cases to which a damaged file may belong.

    That is the case that its folder or its own name says; if its own says none, those in its folder; and if there is no
    such case, those beside it that lack its channel.
    """
    lost: dict[tuple[Path, str], str] = {}
    stray: dict[Path, str] = {}
    for path, reason in damaged.items():
        file = path.absolute()
        names = [name for place in (file.parent, file.with_suffix("")) if (name := _named([place], channels))]
        theirs = [grouped[key] for each in names if (key := (each.around, each.case.casefold())) in grouped]
        for group in theirs:
            group.problem = group.problem or reason
        if not theirs:
            lost |= {(each.around, each.channel): reason for each in names}
        if _named([file.with_suffix("")], channels) is None:
            stray[path.parent] = reason
    for group in grouped.values():
        missing = [channel for channel in channels if channel not in group.series]
        reasons = [lost.get((group.name.around, channel), "") for channel in missing]
        reasons += [stray.get(file.parent, "") for each in group.series.values() for file in each.files]
        group.problem = group.problem or next(filter(None, reasons), "")


def _joined(groups: Sequence[_Group]) -> list[_Group]:
    """The groups, those of one study made one where no channel is among them twice, as in 301_T1 and 302_FLAIR."""
    of_study: dict[tuple[str, str], list[_Group]] = {}
    for number, group in enumerate(groups):
        studies = group.studies
        key = studies.pop() if len(studies) == 1 else (str(number), "")
        of_study.setdefault(key, []).append(group)
    result: list[_Group] = []
    for alike in of_study.values():
        series = {channel: each for group in alike for channel, each in group.series.items()}
        if len(alike) == 1 or len(series) < sum(len(group.series) for group in alike):
            result += alike
            continue
        first = alike[0].name
        name = first._replace(case=_shared_name([group.name for group in alike]))
        result.append(_Group(name, series, next((group.problem for group in alike if group.problem), "")))
    return result


def _shared_name(names: Sequence[_Name]) -> str:
    """The words with which all names of a case begin, in any capitals; if there are none, the folder around them."""
    words = zip(*(each.case.casefold().split("_") for each in names), strict=False)
    shared = list(takewhile(lambda each: len(set(each)) == 1, words))
    first = names[0]
    return "_".join(first.case.split("_")[: len(shared)]) or first.around.name or first.case


def _places(files: Sequence[Path]) -> tuple[Path, ...]:
    """What may name the channel of a series: its folder; of a single file the file itself before it."""
    first = files[0].absolute()
    return (first.with_suffix(""), first.parent) if len(files) == 1 else (first.parent,)


def _named(places: Sequence[Path], channels: Sequence[str]) -> _Name | None:
    """What the first of these that is called CHANNEL or CASE_CHANNEL, in any capitals, says; None if none is."""
    for path in places:
        endings = [each for each in channels if f"_{path.name}".casefold().endswith(f"_{each}".casefold())]
        if channel := max(endings, key=len, default=""):
            case = path.name[: len(path.name) - len(channel)].removesuffix("_")
            return _Name(path.parent, case or path.parent.name, channel)
    return None


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

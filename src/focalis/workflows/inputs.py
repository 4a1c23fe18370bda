"""What `predict` was given, sorted into cases: image files by their names, DICOM series by their headers.

The DICOM libraries take longer to import than a small image to read, so they are imported where a series is met.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from focalis.dataset import UNNAMED_CHANNEL, group_channels
from focalis.errors import DataError, UsageError, near, refusal
from focalis.volume import IMAGE_SUFFIXES, image_stem, is_segmentation
from focalis.workflows.case_images import CaseInput
from focalis.workflows.channel_series import (
    cases_of_channels,
    channel_name,
    places_of,
    series_name,
    shared_name,
)

if TYPE_CHECKING:
    from focalis.dicom import SeriesFiles

IMAGE_FOLDERS = ("images", "imagesTs", "imagesTr")
"""Where a data set's folder keeps its images; the first of these that is there counts."""


def find_cases(
    inputs: Sequence[Path], channels: tuple[str, ...], may_miss: Collection[str] = ()
) -> list[CaseInput]:
    """The cases among files and folders, in the order given.

    A folder stands for its image files, a data set's folder for its images, and any other folder for every DICOM
    series below it. As many inputs as channels are one case if no name says a channel. The folder of a DICOM series
    names its channel as CHANNEL or CASE_CHANNEL, in any capitals. As many series as channels, each of another channel,
    are one case, whatever CASE is; so are series of one study that name each channel once.

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
    name = series_name(series[0])
    named = [each for each in (channel_name(places_of(each.files), channels) for each in series) if each]
    if damaged and not named:
        return None
    if named:
        if sorted(each.channel for each in named) != sorted(channels):
            return None
        if len({each.patient_id for each in series} - {""}) > 1:
            return None
        of = dict(zip((each.channel for each in named), series, strict=True))
        series, name = tuple(of[channel] for channel in channels), shared_name(named)
    return CaseInput(name, tuple(each.files[0] for each in series), next(iter(damaged.values()), ""), series)


def _by_series(
    found: Sequence[SeriesFiles],
    channels: tuple[str, ...],
    may_miss: Collection[str],
    damaged: Mapping[Path, str],
) -> list[CaseInput]:
    """One case per series, named after its folder; after folder and series where several lie in one.

    With several channels, one case per name before the channel's. A damaged file refuses the series of its
    folder, to one of which it may belong; alone in a folder it is a case.
    """
    found = sorted(found, key=lambda each: (series_name(each), each.uid))
    folders = {file.parent for each in found for file in each.files}
    alone = [
        CaseInput(path.name, (path,), why) for path, why in damaged.items() if path.parent not in folders
    ]
    if len(channels) > 1:
        return alone + cases_of_channels(found, channels, may_miss, damaged)
    names = [series_name(each) for each in found]
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


def _by_name(files: Sequence[Path], channels: tuple[str, ...], may_miss: Collection[str]) -> list[CaseInput]:
    """Image files by the names of cases and channels, folder by folder."""
    cases: list[CaseInput] = []
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if image_stem(file) is None:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            problem = (
                f"{file}: is not an image file that is known here; give {suffixes}, or a DICOM series"
                if file.exists()
                else f"{file}: does not exist; check the path{near(file)}"
            )
            cases.append(CaseInput(file.name, (file,), problem))
        elif file.exists() and not file.is_file():
            cases.append(CaseInput(file.name, (file,), f"{file}: is not a regular file; give an image file"))
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

"""DICOM series of several channels, sorted into cases by the names of their folders and by their studies."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from focalis.workflows.case_images import CaseInput

if TYPE_CHECKING:
    from focalis.dicom import SeriesFiles


class ChannelName(NamedTuple):
    """What a folder's or file's name CASE_CHANNEL says: the folder around it, the case and the channel."""

    around: Path
    case: str
    channel: str


@dataclass
class _Group:
    """The series of one case: one per channel that it has."""

    name: ChannelName
    series: dict[str, SeriesFiles] = field(default_factory=dict)
    problem: str = ""

    @property
    def studies(self) -> set[tuple[str, str]]:
        """Patient and study of each series that tells its study."""
        return {(each.patient_id, each.study_uid) for each in self.series.values() if each.study_uid}


def cases_of_channels(
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
        name = channel_name(places_of(each.files), channels)
        if name is None:
            why = broken.get(folder) or f"{folder}: {lack}, or name each CASE_CHANNEL"
            cases.append(CaseInput(series_name(each), each.files[:1], why))
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
        names = [
            name for place in (file.parent, file.with_suffix("")) if (name := channel_name([place], channels))
        ]
        theirs = [grouped[key] for each in names if (key := (each.around, each.case.casefold())) in grouped]
        for group in theirs:
            group.problem = group.problem or reason
        if not theirs:
            lost |= {(each.around, each.channel): reason for each in names}
        if channel_name([file.with_suffix("")], channels) is None:
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
        name = first._replace(case=shared_name([group.name for group in alike]))
        result.append(_Group(name, series, next((group.problem for group in alike if group.problem), "")))
    return result


def shared_name(names: Sequence[ChannelName]) -> str:
    """The words with which all names of a case begin, in any capitals; if there are none, the folder around them."""
    words = zip(*(each.case.casefold().split("_") for each in names), strict=False)
    shared = list(takewhile(lambda each: len(set(each)) == 1, words))
    first = names[0]
    return "_".join(first.case.split("_")[: len(shared)]) or first.around.name or first.case


def places_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """What may name the channel of a series: its folder; of a single file the file itself before it."""
    first = files[0].absolute()
    return (first.with_suffix(""), first.parent) if len(files) == 1 else (first.parent,)


def channel_name(places: Sequence[Path], channels: Sequence[str]) -> ChannelName | None:
    """What the first of these that is called CHANNEL or CASE_CHANNEL, in any capitals, says; None if none is."""
    for path in places:
        endings = [each for each in channels if f"_{path.name}".casefold().endswith(f"_{each}".casefold())]
        if channel := max(endings, key=len, default=""):
            case = path.name[: len(path.name) - len(channel)].removesuffix("_")
            return ChannelName(path.parent, case or path.parent.name, channel)
    return None


def series_name(series: SeriesFiles) -> str:
    first = Path(os.path.realpath(series.files[0]))  # unlike `resolve` it takes a link to itself as it is
    return first.stem if len(series.files) == 1 else first.parent.name

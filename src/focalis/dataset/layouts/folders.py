"""The plain layout: `images/` and `labels/`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layouts.description import note_without_labels, read_labels
from focalis.dataset.layouts.names import by_stem, entry, group_channels, no_pair, require_in_place
from focalis.dataset.layouts.overlooked import overlooked
from focalis.dataset.layouts.tables import patients_of
from focalis.display import listed
from focalis.errors import DataError


def open_folders(root: Path, may_miss: Collection[str] = ()) -> Dataset:
    """List the cases of a folder with `images/` and `labels/`.

    `labels/CASE.nii.gz` names a case; its images are `images/CASE.nii.gz` or one file per channel,
    `images/CASE_CHANNEL.nii.gz`. An image named exactly like a label belongs to that case, otherwise the
    longest fitting case name counts. Channels are sorted by name. `dataset.json`, if there is one, may name the
    labels, {"labels": {"background": 0, "lesion": 1}}, and say which of them were drawn in a case, {"drawn": {"CASE":
    ["lesion"]}}; `cases.csv` may name the patients (see `patients_of`), without it each case is a patient of its own.

    A case may lack its label (`label` is None), its images (`images` is empty), and the channels in `may_miss`.

    Raises:
        DataError: a folder is missing or empty, no case has both image and label, two files claim one place, or cases
            differ in their channels.
    """
    for folder in (root / "images", root / "labels"):
        if not folder.is_dir():
            raise DataError.at(folder, "is not a folder", "a data set holds the folders images/ and labels/")
    labels = by_stem(root / "labels")
    images = by_stem(root / "images")
    require_in_place(root / "images", root / "labels", (images, labels))
    grouped = group_channels(images.values(), labels)
    if not images:
        raise DataError.at(root / "images", "holds no image", "put CASE.nii.gz files there")
    if not grouped.keys() & labels.keys():
        raise no_pair(root / "images", root / "labels", (images, labels))
    channels = _common_channels(root, grouped, may_miss)
    names = grouped.keys() | labels.keys()
    patients = patients_of(root, set(names))
    description = entry(root, "dataset.json") or root / "dataset.json"
    described = read_labels(description)
    drawn = described.drawn_in(description, names)
    cases = tuple(
        Case(
            name=name,
            images=tuple(grouped[name][channel] for channel in channels if channel in grouped.get(name, {})),
            label=labels.get(name),
            patient=patients.of.get(name, ""),
            drawn=drawn.get(name),
            lacks=frozenset(
                place
                for place, channel in enumerate(channels)
                if name in grouped and channel not in grouped[name]
            ),
        )
        for name in sorted(names)
    )
    notes = (
        *([patients.note] if patients.note else ()),
        *note_without_labels(description, described),
        *overlooked(root, (root / "images", root / "labels"), set(names)),
    )
    return Dataset(root, cases, channels, described.names, described.ignore, notes, described.regions)


def _common_channels(
    root: Path, grouped: dict[str, dict[str, Path]], may_miss: Collection[str]
) -> tuple[str, ...]:
    channels = sorted({channel for images in grouped.values() for channel in images})
    lacking = [
        f"case {name} has no channel {channel}"
        for name, images in sorted(grouped.items())
        for channel in channels
        if channel not in images and channel not in may_miss
    ]
    if lacking:
        raise DataError.at(
            root / "images",
            f"{listed(lacking)}; every case needs the same channels, here {', '.join(channels)}",
            "add what is missing, or name a channel that cases may lack: --channels-may-miss",
        )
    return tuple(channels)

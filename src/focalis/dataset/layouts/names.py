"""Cases and channels from file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from focalis.display import listed
from focalis.errors import DataError
from focalis.volume import image_stem

UNNAMED_CHANNEL = "image"


def entry(folder: Path, *names: str) -> Path | None:
    """The file or folder of one of these names; None if it is not there.

    Upper and lower case do not count where no name is there as it is written.

    Raises:
        DataError: several are there that differ in case only.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    alike = {name.casefold() for name in names}
    found = (
        sorted(path for path in folder.iterdir() if path.name.casefold() in alike) if folder.is_dir() else []
    )
    if len(found) > 1:
        raise DataError.at(found[0], f"is there as {found[1].name} too", "keep one of the two")
    return found[0] if found else None


def by_stem(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """The image files of a folder by their stems; with an ending, only those that end so.

    Raises:
        DataError: two files have one stem.
    """
    files = sorted(folder.iterdir())
    return _unique_stems(path for path in files if ending is None or path.name.endswith(ending))


def group_channels(
    images: Iterable[Path], names: Iterable[str] = (), channels: Iterable[str] = ()
) -> dict[str, dict[str, Path]]:
    """Sort image files into cases and channels by their names.

    An image named exactly like a case is that case's only image. Otherwise the longest case name that fits
    before `_CHANNEL` counts. An image of no known case is CASE_CHANNEL if its ending is, in any capitals, a known
    channel (one of `channels`, one seen at a known case, or, where no case is known, four digits as in _0000),
    else a case of its own. Where no known case and no known channel fits, nnU-Net's numbers stand for `channels`
    in their order: _0000 is the first.

    Args:
        images: image files; hidden files and other suffixes are passed over.
        names: the names of known cases (from their labels).
        channels: channels that are known to exist, in their order.

    Returns:
        Case name to channel to file; an image without a channel's name is the channel "image".

    Raises:
        DataError: two files claim one place.
    """
    ordered = tuple(channels)
    known = set(names)
    stems = _unique_stems(images)
    grouped: dict[str, dict[str, Path]] = {s: {UNNAMED_CHANNEL: p} for s, p in stems.items() if s in known}
    strangers: dict[str, Path] = {}
    seen = set(ordered) - {UNNAMED_CHANNEL}

    def put(case: str, channel: str, path: Path) -> None:
        before = grouped.setdefault(case, {}).setdefault(channel, path)
        if before != path:
            raise DataError.at(
                path, f"is channel {channel} of case {case}, and so is {before.name}", "keep one"
            )

    for stem, path in stems.items():
        if stem in known:
            continue
        case = _longest_prefix(stem, known - {s for s in known if s in stems})
        if case is None:
            strangers[stem] = path
        else:
            channel = stem[len(case) + 1 :]
            put(case, channel, path)
            seen.add(channel)
    for stem, path in strangers.items():
        endings = [channel for channel in seen if stem.casefold().endswith(f"_{channel}".casefold())]
        channel = max(endings, key=lambda each: (len(each), stem.endswith(each)), default="")
        if channel and len(stem) > len(channel) + 1:
            put(stem[: -len(channel) - 1], channel, path)
        elif not known and (match := re.fullmatch(r"(.+)_(\d{4})", stem)) is not None:
            number = int(match[2])
            put(match[1], ordered[number] if number < len(ordered) else match[2], path)
        else:
            put(stem, UNNAMED_CHANNEL, path)
    return grouped


def require_in_place(images: Path, labels: Path, named: tuple[Iterable[str], Iterable[str]]) -> None:
    """DataError if the folders of images and labels stand in each other's place by the stems of their files.

    That is so if every label is called CASE_0000, with the number of a channel, after an image that is called CASE.
    """
    cases, stems = set(named[0]), set(named[1])
    if stems and not stems & cases and {re.sub(r"_\d{4}$", "", stem) for stem in stems} <= cases:
        raise DataError.at(
            images.parent,
            f"{images.name}/ and {labels.name}/ stand in each other's place, by the names of their files",
            "swap them",
        )


def no_pair(images: Path, labels: Path, stems: tuple[Mapping[str, Path], Mapping[str, Path]]) -> DataError:
    """What to say of folders in which no label map bears the name of an image."""
    if not stems[1]:
        return DataError.at(
            labels, "holds no label map", f"put CASE.nii.gz there for {images.name}/CASE.nii.gz"
        )
    image_names, label_names = ([path.name for path in files.values()] for files in stems)
    return DataError.at(
        labels,
        f"no label map is named like an image: {labels.name}/ holds {listed(label_names, 2)}, {images.name}/ holds "
        f"{listed(image_names, 2)}",
        "give each label map its image's name (CASE.nii.gz, also for the image CASE_CHANNEL.nii.gz), or list the "
        "files in manifest.csv, with the columns case, image, label",
    )


def _unique_stems(images: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images:
        stem = image_stem(path)
        if stem is None:
            continue
        if stem in found:
            raise DataError.at(path, f"stands beside {found[stem].name}", "keep one of the two")
        found[stem] = path
    return found


def _longest_prefix(stem: str, names: set[str]) -> str | None:
    fitting = [stem[: mark.start()] for mark in re.finditer("_", stem[:-1]) if stem[: mark.start()] in names]
    return fitting[-1] if fitting else None

"""The folder layout of a data set: `images/` and `labels/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from focalis.dataset.case import Case, Dataset
from focalis.errors import DataError
from focalis.volume import image_stem

UNNAMED_CHANNEL = "image"


def open_dataset(root: Path | str) -> Dataset:
    """List the cases of a data set; no image is read.

    `labels/CASE.nii.gz` names a case; its images are `images/CASE.nii.gz` or one file per channel,
    `images/CASE_CHANNEL.nii.gz`. An image named exactly like a label belongs to that case, otherwise the
    longest fitting case name counts. Channels are sorted by name. Each case is a patient of its own.
    `dataset.json`, if there is one, may name the labels: {"labels": {"background": 0, "lesion": 1}}.

    A case may lack its label (`label` is None) or its images (`images` is empty): `check_dataset` reports
    both.

    Args:
        root: the data set's folder.

    Returns:
        The data set, cases sorted by name.

    Raises:
        DataError: a folder is missing or empty, two files claim one place, or cases differ in their channels.
    """
    root = Path(root)
    for folder in (root, root / "images", root / "labels"):
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; a data set holds the folders images/ and labels/")
    labels = _by_stem(root / "labels")
    images = _by_stem(root / "images")
    grouped = group_channels(images.values(), labels)
    if not images:
        raise DataError(f"{root / 'images'}: holds no NIfTI image; put CASE.nii.gz files there")
    channels = _common_channels(root, grouped)
    cases = tuple(
        Case(
            name=name,
            images=tuple(grouped[name][channel] for channel in channels) if name in grouped else (),
            label=labels.get(name),
            patient=name,
        )
        for name in sorted(grouped.keys() | labels.keys())
    )
    return Dataset(root, cases, channels, _label_names(root / "dataset.json"))


def group_channels(
    images: Iterable[Path], names: Iterable[str] = (), channels: Iterable[str] = ()
) -> dict[str, dict[str, Path]]:
    """Sort image files into cases and channels by their names.

    An image named exactly like a case is that case's only image. Otherwise the longest case name that fits
    before `_CHANNEL` counts. An image of no known case is CASE_CHANNEL if its ending is a known channel (one
    of `channels`, one seen at a known case, or, where no case is known, four digits as in _0000), else a
    case of its own.

    Args:
        images: image files; hidden files and other suffixes are passed over.
        names: the names of known cases (from their labels).
        channels: channels that are known to exist.

    Returns:
        Case name to channel to file; an image without a channel's name is the channel "image".
    """
    stems = {stem: path for path in images if (stem := image_stem(path)) is not None}
    known = set(names)
    grouped: dict[str, dict[str, Path]] = {s: {UNNAMED_CHANNEL: p} for s, p in stems.items() if s in known}
    strangers: dict[str, Path] = {}
    seen = set(channels) - {UNNAMED_CHANNEL}
    for stem, path in stems.items():
        if stem in known:
            continue
        case = _longest_prefix(stem, known - {s for s in known if s in stems})
        if case is None:
            strangers[stem] = path
        else:
            channel = stem[len(case) + 1 :]
            grouped.setdefault(case, {})[channel] = path
            seen.add(channel)
    for stem, path in strangers.items():
        endings = [channel for channel in seen if stem.endswith(f"_{channel}")]
        channel = max(endings, key=len, default="")
        if channel and len(stem) > len(channel) + 1:
            grouped.setdefault(stem[: -len(channel) - 1], {})[channel] = path
        elif not known and (match := re.fullmatch(r"(.+)_(\d{4})", stem)) is not None:
            grouped.setdefault(match[1], {})[match[2]] = path
        else:
            grouped.setdefault(stem, {})[UNNAMED_CHANNEL] = path
    return grouped


def _longest_prefix(stem: str, names: set[str]) -> str | None:
    fitting = [stem[: mark.start()] for mark in re.finditer("_", stem[:-1]) if stem[: mark.start()] in names]
    return fitting[-1] if fitting else None


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = image_stem(path)
        if stem is None:
            continue
        if stem in found:
            raise DataError(f"{path}: stands beside {found[stem].name}; keep one of the two")
        found[stem] = path
    return found


def _common_channels(root: Path, grouped: dict[str, dict[str, Path]]) -> tuple[str, ...]:
    channels = sorted({channel for images in grouped.values() for channel in images})
    lacking = [
        f"case {name} has no channel {channel}"
        for name, images in sorted(grouped.items())
        for channel in channels
        if channel not in images
    ]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise DataError(
            f"{root / 'images'}: {', '.join(lacking[:3])}{more}; "
            f"every case needs the same channels, here {', '.join(channels)}"
        )
    return tuple(channels)


def _label_names(path: Path) -> dict[int, str]:
    """Label values to names from a dataset.json of nnU-Net's form; empty without the file or its labels."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not readable JSON ({error}); mend it or remove it") from error
    names = content.get("labels", {}) if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(type(value) is int and value >= 0 for value in names.values()):
        raise DataError(f'{path}: "labels" must map names to whole numbers, {{"background": 0, "lesion": 1}}')
    if len(set(names.values())) != len(names):
        raise DataError(f"{path}: two labels share a value; give each label its own")
    return {value: str(name) for name, value in sorted(names.items(), key=lambda item: item[1]) if value != 0}

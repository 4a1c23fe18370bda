"""The layout of nnU-Net's raw data and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layouts.description import (
    Description,
    channel_names,
    note_without_labels,
    read_description,
)
from focalis.dataset.layouts.names import by_stem, entry, no_pair, require_in_place
from focalis.dataset.layouts.overlooked import overlooked
from focalis.dataset.layouts.tables import patients_of
from focalis.display import listed
from focalis.errors import DataError
from focalis.volume import IMAGE_SUFFIXES, image_stem

DESCRIPTION, IMAGES, LABELS = "dataset.json", "imagesTr", "labelsTr"

Files = dict[str, tuple[tuple[Path, ...], Path | None, frozenset[int]]]
"""Case name to its images, one entry per channel that it has, its label, and the channels that it lacks."""


def open_nnunet(root: Path, may_miss: Collection[str] = ()) -> Dataset:
    """List the training cases of a folder with `imagesTr/`, `labelsTr/` and `dataset.json`.

    Channels, labels, the ignored value and the file ending come from `dataset.json`, version 1 or 2. If it lists
    the training cases, these are the cases; otherwise the files in the folders are. A case's images are
    `CASE_0000`, `CASE_0001` and so on, or a single file `CASE` that holds all channels (4D if there are several).
    Hidden files, macOS's `._` ones among them, are passed over. `cases.csv` may name the patients.

    A case of unlisted files may lack its label (`label` is None) or its images (`images` is empty).

    Raises:
        DataError: a folder or `dataset.json` is missing or malformed, a file that it lists is not there, a case
            lacks a channel, no case has both image and label, or there is no case.
    """
    path = entry(root, DESCRIPTION) or root / DESCRIPTION
    if not path.is_file():
        raise DataError.at(path, "is not there", f"beside {IMAGES}/ it names channels and labels")
    for folder in (root / IMAGES, root / LABELS):
        if not folder.is_dir():
            raise DataError.at(folder, "is not a folder", f"training data stand in {IMAGES}/ and {LABELS}/")
    description, labels = read_description(path)
    channels = channel_names(path, description)
    if description.dataset is not None or description.training is not None:
        found = _listed(path, description, len(channels))
    else:
        optional = {number for number, name in enumerate(channels) if name in may_miss}
        found = _scanned(path, description, len(channels), optional)
    if not found:
        raise DataError.at(
            root, "holds no training case", f"put images into {IMAGES}/ and labels into {LABELS}/"
        )
    patients = patients_of(root, set(found))
    drawn = labels.drawn_in(path, found)
    cases = tuple(
        Case(name, images, label, patients.of.get(name, ""), drawn=drawn.get(name), lacks=lacks)
        for name, (images, label, lacks) in sorted(found.items())
    )
    notes = (
        *([patients.note] if patients.note else ()),
        *note_without_labels(path, labels),
        *overlooked(root, (root / IMAGES, root / LABELS), set(found), description.file_ending),
    )
    return Dataset(root, cases, channels, labels.names, labels.ignore, notes, labels.regions)


def _listed(path: Path, description: Description, channels: int) -> Files:
    """The cases that dataset.json lists."""
    root = path.parent
    found: Files = {}
    missing: dict[Path, None] = {}
    entries = [(name, files.images, files.label) for name, files in (description.dataset or {}).items()]
    if description.dataset is None:
        pairs = [pair for pair in description.training or [] if not Path(pair.image).name.startswith(".")]
        entries = [(image_stem(Path(pair.label)) or "", [pair.image], pair.label) for pair in pairs]
    for name, images, label in entries:
        if not name or name in found:
            wrong = "names a case twice" if name else "lists a label that is not an image file"
            raise DataError.at(path, f"{wrong} ({label})", "correct the list")
        files = _whole_or_numbered(root / images[0], channels) if len(images) == 1 else ()
        files = files or tuple(root / image for image in images)
        if len(files) != channels:
            raise DataError.at(path, f"lists {len(files)} images of case {name}, for {channels} channels")
        missing |= dict.fromkeys(file for file in (*files, root / label) if not file.is_file())
        found[name] = (files, root / label, frozenset())
    if missing:
        names = listed([str(file).removeprefix(f"{root}/") for file in missing])
        raise DataError.at(path, f"lists files that are not there, {names}", "complete the copy or the list")
    return found


def _whole_or_numbered(image: Path, channels: int) -> tuple[Path, ...]:
    """The files behind one listed name: nnU-Net 1 lists CASE.nii.gz where CASE_0000.nii.gz and on lie."""
    if image.is_file():
        return (image,) * channels
    stem = image_stem(image) or image.name
    suffix = image.name[len(stem) :]
    numbered = [image.with_name(f"{stem}_{number:04d}{suffix}") for number in range(channels)]
    return tuple(numbered) if any(file.is_file() for file in numbered) else (image,) * channels


def _scanned(path: Path, description: Description, channels: int, may_miss: Collection[int]) -> Files:
    """The cases that the folders hold."""
    root = path.parent
    ending = description.file_ending
    if ending is not None and ending.lower() not in IMAGE_SUFFIXES:
        raise DataError.at(
            path, f"files end in {ending}", f"Focalis reads {', '.join(IMAGE_SUFFIXES)}: convert them"
        )
    labels = by_stem(root / LABELS, ending)
    images: dict[str, dict[int, Path]] = {}
    whole: dict[str, Path] = {}
    files_of = by_stem(root / IMAGES, ending)
    require_in_place(root / IMAGES, root / LABELS, (files_of, labels))
    for stem, file in files_of.items():
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        if numbered is None or stem in labels:
            whole[stem] = file
        elif int(numbered[2]) >= channels:
            raise DataError.at(
                file, f"is channel {numbered[2]}, but {DESCRIPTION} names {channels} from 0000 on"
            )
        else:
            images.setdefault(numbered[1], {})[int(numbered[2])] = file
    for case, files in images.items():
        if lacking := [number for number in range(channels) if number not in {*files, *may_miss}]:
            first = next(iter(files.values()))
            raise DataError.at(
                first,
                f"case {case} has no channel {lacking[0]:04d}; every case needs {channels}",
                "add it, or name a channel that cases may lack: --channels-may-miss",
            )
        if case in whole:
            raise DataError.at(whole[case], f"stands beside {files[0].name}", "keep one of the two")
    found: Files = {case: ((file,) * channels, labels.get(case), frozenset()) for case, file in whole.items()}
    for case, files in images.items():
        there = tuple(files[number] for number in sorted(files))
        found[case] = (there, labels.get(case), frozenset(range(channels)) - files.keys())
    if found and not found.keys() & labels.keys():
        raise no_pair(root / IMAGES, root / LABELS, (files_of, labels))
    for case in labels.keys() - found.keys():
        found[case] = ((), labels[case], frozenset())
    if description.training_count is not None and description.training_count != len(found):
        raise DataError.at(
            path,
            f'"numTraining" is {description.training_count}, but {len(found)} cases are there',
            "complete the copy or correct the number",
        )
    return found

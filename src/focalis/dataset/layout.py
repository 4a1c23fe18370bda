"""Open a data set of any known layout."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from focalis.dataset.case import Dataset
from focalis.dataset.layouts import entry, open_folders, open_manifest, open_nnunet
from focalis.errors import DataError, UsageError, did_you_mean, near, some_of
from focalis.volume import image_stem

MANIFEST = "manifest.csv"
MOST_FOLDERS = 100
"""So many folders beside what is not a data set are looked into for one."""


def open_dataset(path: Path | str, may_miss: Collection[str] = ()) -> Dataset:
    """List the cases of a data set; no image is read.

    What lies there decides, in this order: a CSV file, or `manifest.csv` in the folder (`open_manifest`);
    `imagesTr/` or `labelsTr/` (`open_nnunet`); `images/` or `labels/` (`open_folders`).

    Args:
        path: the data set's folder, or its manifest.
        may_miss: channels that cases may lack, by name.

    Returns:
        The data set, cases sorted by name.

    Raises:
        DataError: nothing of this is there, or what is there is malformed or incomplete.
        UsageError: `may_miss` names no channel, or all of them.
    """
    data = _opened(Path(path), may_miss)
    if unknown := [name for name in may_miss if name not in data.channels]:
        known = ", ".join(data.channels)
        raise UsageError.at(
            path,
            f"has no channel {unknown[0]!r} that may miss",
            f"its channels are {known}{did_you_mean(unknown[0], data.channels)}",
        )
    if set(data.channels) <= set(may_miss):
        raise UsageError.at(path, "all channels may miss", "leave one out that is always there")
    return data


def _near(*places: Path) -> str:
    """`; did you mean demo/data?` where one of these folders is a data set, or holds one; the end of a message."""
    for folder in (each for place in places for each in (place, *some_of(place, MOST_FOLDERS))):
        with suppress(OSError):
            if (folder / "images").is_dir() or (folder / "imagesTr").is_dir():
                return f"; did you mean {folder}?"
    return ""


def _holds_images(folder: Path) -> bool:
    """Whether image files lie in a folder or in one of its own."""
    inside = some_of(folder, MOST_FOLDERS)
    return any(
        image_stem(path) for path in (*inside, *(file for each in inside for file in some_of(each, 1)))
    )


def _opened(path: Path, may_miss: Collection[str]) -> Dataset:
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return open_manifest(path, may_miss)
    if not path.is_dir():
        raise DataError.at(
            path, "is not a folder, nor a CSV manifest", f"give the path of a data set{near(path)}"
        )
    if (manifest := entry(path, MANIFEST)) is not None:
        return open_manifest(manifest, may_miss)
    if (path / "imagesTr").is_dir() or (path / "labelsTr").is_dir():
        return open_nnunet(path, may_miss)
    if (path / "images").is_dir() or (path / "labels").is_dir():
        return open_folders(path, may_miss)
    raise DataError.at(
        path,
        "holds no data set",
        "put images into images/ and label maps into labels/ under the same names, or list the files in "
        f"{MANIFEST}, with the columns case, image, label (nnU-Net's and the Decathlon's imagesTr/, labelsTr/ and "
        f"dataset.json are read too){_near(path) if _holds_images(path) else _near(path, path.parent)}",
    )

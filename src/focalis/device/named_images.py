"""The device's files under names that mean something to a person, so that messages speak of slices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from focalis.errors import FocalisError


def link_slices(files: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Link the files of a series into a folder, named by their Instance Numbers: `slice 12`.

    Returns:
        Link to file, in the order of the files.
    """
    links: dict[Path, Path] = {}
    folder.mkdir()
    for file in files:
        number = _instance_number(file)
        link = name = folder / (f"slice {number}" if number else "a slice")
        copies = 1
        while link in links:
            copies += 1
            link = name.with_name(f"{name.name} ({copies})")
        link.symlink_to(file.absolute())
        links[link] = file
    return links


def told_without(folder: Path, error: FocalisError) -> str:
    """An error's line that names files in this folder by their names alone, and the folder itself not at all."""
    place = Path(str(error.path))
    if not place.is_relative_to(folder):
        return str(error)
    name = "" if place == folder else f"{place.name}: "
    return name + "; ".join(filter(None, (error.fault, error.advice)))


def _instance_number(path: Path) -> str:
    """The Instance Number of a file; empty if it has none or cannot be read."""
    from focalis.dicom.headers import read_header

    try:
        return str(int(read_header(path, ("InstanceNumber",)).InstanceNumber))
    except Exception:  # reading the series says what is wrong
        return ""

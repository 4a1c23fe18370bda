"""The device's files under names that mean something to a person, so that messages speak of slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from focalis.device.records import Instance
from focalis.errors import FocalisError


def numbers_of(files: Iterable[Path], instances: Iterable[Instance]) -> dict[str, int | None]:
    """File to Instance Number, as it was read when the instance came; None without one."""
    return {str(file): each.number for file, each in zip(files, instances, strict=True)}


def link_slices(numbers: Mapping[str, int | None], folder: Path) -> dict[Path, Path]:
    """Link the files of a series into a folder, named by their Instance Numbers: `slice 12`.

    Returns:
        Link to file, in the order of the files.
    """
    links: dict[Path, Path] = {}
    folder.mkdir()
    for file, number in numbers.items():
        link = name = folder / ("a slice" if number is None else f"slice {number}")
        copies = 1
        while link in links:
            copies += 1
            link = name.with_name(f"{name.name} ({copies})")
        link.symlink_to(Path(file).absolute())
        links[link] = Path(file)
    return links


def told_without(folder: Path, error: FocalisError) -> str:
    """An error's line that names files in this folder by their names alone, and the folder itself not at all."""
    place = Path(str(error.path))
    if not place.is_relative_to(folder):
        return str(error)
    name = "" if place == folder else f"{place.name}: "
    return name + "; ".join(filter(None, (error.fault, error.advice)))

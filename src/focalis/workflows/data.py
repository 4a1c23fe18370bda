"""Public data sets: which there are, and how one comes onto this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from focalis.dataset.public import PUBLIC_SETS, PublicSet, default_folder, fetch, find_copy, public_set
from focalis.display import Shown
from focalis.errors import UsageError

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, the bytes that are done, and their total (None if it is not known)."""

Agree = Callable[[PublicSet, Path], None]
"""Called before a download with the set and the folder it will stand in; whatever it raises stops the download."""


@dataclass(frozen=True)
class DataRow:
    """A public set, and its copy on this machine (None if there is none)."""

    public: PublicSet
    path: Path | None


@dataclass(frozen=True, repr=False)
class DataCopy(Shown):
    """A public set on this machine.

    Attributes:
        public: the set: its licence, labels, citation.
        path: its folder, which `open_dataset` and `fit` take.
        downloaded: whether this call brought it; False if it was there.
    """

    shows = ("path", "downloaded")

    public: PublicSet
    path: Path
    downloaded: bool


def list_data(copies: Path | str | None = None) -> tuple[DataRow, ...]:
    """The public sets, each with its copy in `copies` or in the user's cache folder.

    Args:
        copies: a folder of data sets; FOCALIS_DATA on the command line.
    """
    folders = _folders(None, copies)
    return tuple(DataRow(known, _found(known, folders)) for known in PUBLIC_SETS)


def get_data(
    name: str | PublicSet,
    folder: Path | str | None = None,
    *,
    copies: Path | str | None = None,
    agree: Agree | None = None,
    progress: Progress | None = None,
) -> DataCopy:
    """Find a public data set on this machine, or download, verify and unpack it.

    A copy in `folder` or in `copies` is taken as it lies there, whatever of the set it holds. Otherwise the set
    goes to `folder`, without one to `copies`, without either to the user's cache folder. To call this without
    `agree` is to accept the set's licence.

    Args:
        name: the set's name or alias, or a set of your own.
        folder: the folder of data sets to put it into, as FOLDER/NAME.
        copies: a folder that holds copies of data sets; FOCALIS_DATA on the command line.
        agree: see `Agree`; not called if a copy is there.
        progress: see `Progress`; the stages are "download", "check" and "unpack".

    Raises:
        UsageError: the set is not known, or `folder` or `copies` is not a folder.
        DataError: it cannot be downloaded, verified or unpacked; see `focalis.dataset.public.fetch`.
    """
    public = name if isinstance(name, PublicSet) else public_set(name)
    folders = _folders(folder, copies)
    found = _found(public, folders)
    if found is not None:
        return DataCopy(public, found, downloaded=False)
    if agree is not None:
        agree(public, folders[0] / public.name)
    return DataCopy(public, fetch(public, folders[0], progress), downloaded=True)


def _folders(folder: Path | str | None, copies: Path | str | None) -> list[Path]:
    """Where a set may lie; it would be put into the first."""
    if copies is not None and not Path(copies).is_dir():
        raise UsageError.at(copies, "is not a folder", "name the folder that holds copies of data sets")
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise UsageError.at(folder, "is a file", "name a folder for data sets")
    given = [Path(place) for place in (folder, copies) if place is not None]
    return given if folder is not None else [*given, default_folder()]


def _found(public: PublicSet, folders: list[Path]) -> Path | None:
    return next((copy for folder in folders if (copy := find_copy(public, folder)) is not None), None)

"""Bring a public data set onto this machine: find it, or download, verify and unpack it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pooch
from filelock import FileLock, Timeout

from focalis.dataset.public.registry import PublicSet
from focalis.dataset.public.transfer import Progress, download
from focalis.dataset.public.unpack import unpack
from focalis.errors import DataError

LOCK = "lock"


def default_folder() -> Path:
    """Where data sets go if nobody says where: below the user's cache folder, on Linux ~/.cache/focalis/data."""
    return Path(pooch.os_cache("focalis")) / "data"


def find_copy(wanted: PublicSet, folder: Path) -> Path | None:
    """The set's copy in a folder of data sets, under its name or an alias; None if there is none."""
    for name in (wanted.name, *wanted.aliases):
        if _is_dataset(folder / name):
            return folder / name
    return None


def fetch(wanted: PublicSet, folder: Path, progress: Progress | None = None) -> Path:
    """Make FOLDER/NAME, the unpacked set; if it is there already, do nothing.

    The archive is downloaded into the hidden folder FOLDER/.NAME.part, verified and unpacked there, and the
    finished set is moved to its name in one step. An interrupted download stays in the hidden folder, and the next
    call goes on with it. Calling this takes the set's licence as accepted.

    Args:
        folder: the folder of data sets; made if it is not there.
        progress: called with a stage ("download", "check", "unpack"), the bytes that are done, and their total
            (None if it is not known).

    Returns:
        The set's folder.

    Raises:
        DataError: something else stands in the set's place, another process is fetching it, the disk is full or
            too small, the download fails, the checksum is wrong, or the archive cannot be used.
    """
    tell = progress or (lambda _stage, _done, _total: None)
    target = folder / wanted.name
    if _is_dataset(target):
        return target
    if target.exists():
        raise DataError.at(target, "is in the way and is not a data set", "move it away")
    with _workshop(wanted, folder) as work:
        if not _is_dataset(target):  # another process may have finished in between
            archive = _verified_archive(wanted, work, tell)
            _unpacked_set(wanted, archive, work, tell).rename(target)
            shutil.rmtree(work / "unpacked", ignore_errors=True)
            archive.unlink()
    return target


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() or (folder / "images").is_dir()


@contextmanager
def _workshop(wanted: PublicSet, folder: Path) -> Iterator[Path]:
    """The hidden folder to work in, for one process at a time; it stays only while it holds a download."""
    work = folder / f".{wanted.name}.part"
    lock = work / LOCK
    try:
        work.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                try:
                    yield work
                finally:
                    files = (path for path in work.iterdir() if path != lock and path.is_file())
                    if not any(path.stat().st_size for path in files):
                        shutil.rmtree(work, ignore_errors=True)
        finally:
            # On Windows the lock goes on its release only. An empty folder is taken, another's work is not.
            with suppress(OSError):
                work.rmdir()
    except Timeout as error:
        raise DataError.at(work, f"another process is at work on {wanted.name}", "wait for it") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError.at(
            folder, f"cannot be written ({reason})", "name another folder, or mend it"
        ) from error


def _verified_archive(wanted: PublicSet, work: Path, tell: Progress) -> Path:
    """Download the archive; it gets its name only when its checksum is right."""
    archive, part = work / Path(wanted.url).name, work / "download"
    if archive.is_file():
        return archive
    # The files in an archive take at least its own size again.
    download(wanted.url, part, lambda missing, whole: _require_space(work, missing + whole), tell)
    size = part.stat().st_size
    tell("check", size, size)
    algorithm, _, expected = wanted.checksum.partition(":")
    found = pooch.file_hash(str(part), alg=algorithm)
    if found != expected.lower():
        part.unlink()
        raise DataError.at(
            wanted.url,
            f"the {algorithm} checksum is wrong, expected {expected}, found {found}",
            "nothing of it is kept, run it again",
        )
    return part.rename(archive)


def _unpacked_set(wanted: PublicSet, archive: Path, work: Path, tell: Progress) -> Path:
    """Unpack; the folder of the set. An archive that cannot be used is removed."""
    target = work / "unpacked"
    try:
        unpack(archive, target, lambda size: _require_space(work, size), tell)
        if not _is_dataset(target / wanted.name):
            shutil.rmtree(target, ignore_errors=True)
            raise DataError.at(archive, f"holds no data set in a folder {wanted.name}", "report it")
    except DataError:
        archive.unlink()
        raise
    return target / wanted.name


def _require_space(folder: Path, needed_bytes: int) -> None:
    """Raise the error of a full disk before it is full."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        needed, free = (f"{count / 1e6:,.0f} MB" for count in (needed_bytes, free_bytes))
        raise OSError(errno.ENOSPC, f"{needed} are needed, {free} are free")

"""Unpack an archive that is not trusted: plain files below one folder, and nothing else."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from focalis.dataset.public.transfer import Progress
from focalis.errors import DataError

CHUNK_BYTES = 1 << 20
LITTER = ("__MACOSX", ".DS_Store")
ENCRYPTED, NO_UNIX_MODE = 1, 0  # of a zip member: a flag bit; the mode of one made elsewhere
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
)


class _Member(NamedTuple):
    """A file in an archive: where it goes below the target, its size in bytes, and how to read it."""

    path: Path
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, target: Path, reserve: Callable[[int], None], progress: Progress) -> None:
    """Unpack a tar archive (also compressed) or a zip archive into a new folder.

    Every member is looked at before the first is written. Only files are taken, with their content: no owner, mode
    or time. What macOS adds (`._*`, `.DS_Store`, `__MACOSX`) is passed over. If anything goes wrong the folder is
    removed again.

    Args:
        archive: the archive; one named .zip is a zip archive, any other a tar archive.
        target: the folder to make; what stands there is removed first.
        reserve: called before the first byte is written with the size of all files; may raise to stop.

    Raises:
        DataError: the archive is damaged or no archive; or a member has an absolute path, leads out of the folder,
            is a link or a device, is encrypted, or stands there twice.
        OSError: a file cannot be written.
    """
    with _readable(archive), closing(_members(archive)) as members:
        total = sum(member.size for member in members)
    reserve(total)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    done = 0
    try:
        with _readable(archive), closing(_members(archive)) as members:
            for member in members:
                for count in _copy(archive, member, target / member.path):
                    done += count
                    progress("unpack", done, total)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _copy(archive: Path, member: _Member, path: Path) -> Iterator[int]:
    """Write a member to its new file; the bytes written, piece by piece."""
    source = member.open()
    if source is None:
        raise DataError.at(archive, f"{member.path} cannot be read", "fetch the archive again")
    with source:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError.at(
                archive, f"holds {member.path} more than once", "it is not unpacked"
            ) from error
        with file:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
                yield len(chunk)
            file.flush()
            os.fsync(file.fileno())


def _members(archive: Path) -> Generator[_Member, None, None]:
    """The files in the archive, each checked."""
    return _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive)


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    with tarfile.open(archive) as tar:
        for info in tar:
            path = _inside(archive, info.name)
            if path is None or info.isdir():
                continue
            if not info.isfile():
                kind = "a link" if info.issym() or info.islnk() else "a device or pipe"
                raise DataError.at(archive, f"holds {kind}, {info.name!r}", "it is not unpacked")
            yield _Member(path, info.size, partial(tar.extractfile, info))


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            path = _inside(archive, info.filename)
            if path is None or info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (NO_UNIX_MODE, stat.S_IFREG):
                raise DataError.at(
                    archive, f"holds a link or device, {info.filename!r}", "it is not unpacked"
                )
            if info.flag_bits & ENCRYPTED:
                raise DataError.at(archive, f"{info.filename!r} is encrypted", "it is not unpacked")
            yield _Member(path, info.file_size, partial(packed.open, info))


def _inside(archive: Path, name: str) -> Path | None:
    """Where a member goes below the target; None for what is not wanted.

    Names are read as Windows reads them too, because there a backslash parts folders and `C:` leads elsewhere.
    """
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or windows.drive or windows.root
    if absolute or ".." in windows.parts or "\0" in name:
        raise DataError.at(archive, f"holds {name!r}, which leads out of its folder", "it is not unpacked")
    if not windows.parts or any(part.startswith("._") or part in LITTER for part in windows.parts):
        return None
    return Path(*windows.parts)


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turn what the readers of archives raise into one line."""
    try:
        yield
    except BROKEN as error:
        reason = str(error).strip().partition("\n")[0].rstrip(":") or type(error).__name__
        raise DataError.at(archive, f"cannot be unpacked ({reason})", "fetch the archive again") from error

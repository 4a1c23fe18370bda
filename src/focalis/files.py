"""Files that appear whole or not at all, and folders that one process at a time works in."""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from focalis.errors import DataError, UsageError

LOCK = ".lock"
"""The file that `only_process_in` locks; it says nothing by lying there."""


class PermissionsWarning(UserWarning):
    """A file or folder keeps the permissions that it has, because its file system refuses others."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what the block wrote there takes its place once it is on disk.

    If the block fails, an older file stays as it was and the temporary one is removed. Missing folders are made. The
    temporary name ends as `path` does, for libraries that go by the suffix. The file's mode follows the umask.

    Raises:
        DataError: the file cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
        os.close(
            os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        )  # the umask is the kernel's to apply
        temporary = place
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be written ({reason}); check folder and disk") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as it is, whole or not at all; DataError if it cannot be written."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all; DataError if they cannot be written."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def restrict(path: Path, mode: int) -> None:
    """Set permissions; a `PermissionsWarning` where the file system refuses, as some shares do."""
    try:
        path.chmod(mode)
    except OSError as error:
        if not path.exists():
            raise
        reason = error.strerror or str(error)
        warnings.warn(
            f"{path}: its permissions cannot be set to {mode:o} ({reason}); make sure that nobody else can "
            "reach its disk or share",
            PermissionsWarning,
            stacklevel=2,
        )


@contextmanager
def only_process_in(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; the folder is made if it is missing.

    The system frees the lock when the process ends, however it ends.

    Raises:
        UsageError: another process is at work in it.
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"{folder}: another {work} is running in it; wait for it, or give another folder"
        ) from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); check folder and disk") from error
    try:
        yield
    finally:
        lock.release()


def is_unused(folder: Path) -> bool:
    """Whether a folder is missing, or holds nothing but the lock of a process that wrote nothing."""
    return not folder.exists() or all(path.name == LOCK for path in folder.iterdir())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, without holding them in memory.

    Raises:
        OSError: it cannot be read; what that means is the caller's to say.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

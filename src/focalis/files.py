"""Files that appear whole or not at all, and folders that one process at a time works in."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from focalis.errors import DataError, FileWarning, UsageError

LOCK = ".lock"
"""The file that `only_process_in` locks; it says nothing by lying there."""
UNFINISHED = ".unfinished-"
"""How the name of a folder begins that `whole_folder` is filling."""
ABANDONED_AFTER_S = 24 * 3600.0
"""An unfinished folder of this age belongs to no living process: no work on one takes a day."""


class PermissionsWarning(FileWarning):
    """A file or folder keeps the permissions that it has, because its file system refuses others."""


@contextmanager
def whole_file(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`; what the block wrote there takes its place once it is on disk.

    If the block fails, an older file stays as it was and the temporary one is removed. Missing folders are made. The
    temporary name ends as `path` does, for libraries that go by the suffix. The file's mode follows the umask.

    Args:
        path: the file to write, or to replace.
        keep: whether a file that lies at `path` in the end stays, because somebody may be reading it.

    Raises:
        DataError: the file cannot be written.
    """
    temporary: Path | None = None
    try:
        with DataError.of_system(path, "check folder and disk", "cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
            # the umask is the kernel's to apply
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            temporary = place
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if keep:
                with suppress(OSError):  # it is there, or the file system has no hard links
                    os.link(temporary, path)
            if not (keep and path.exists()):
                temporary.replace(path)
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


@contextmanager
def whole_folder(
    path: Path, *, keep: Callable[[Path], bool] | None = None, within: Path | None = None
) -> Iterator[Path]:
    """A new folder for the block to fill; once its files are on the disk, it takes the place of `path`.

    If the block fails, `path` stays as it was and the new folder is removed. Missing parents are made. A folder that is
    there and empty stays the same folder, which may be somebody's working directory, and receives the content.

    Args:
        path: the folder to make, or to replace.
        keep: whether what lies at `path` in the end stays, because another process has made the same meanwhile.
        within: where the unfinished folder lies, on the same disk; beside `path` by default.

    Raises:
        DataError: the folder cannot be written.
    """
    workshop = within or path.parent
    unfinished, displaced = (
        workshop / f"{UNFINISHED}{secrets.token_hex(8)}.{path.name}{suffix}" for suffix in ("", ".old")
    )
    try:
        for earlier in workshop.glob(f"{UNFINISHED}*.{path.name}"):
            if age_s(earlier) > ABANDONED_AFTER_S:
                shutil.rmtree(earlier, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                flush(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        _take_place(unfinished, path, displaced, keep)
    except DataError as error:
        if not isinstance(error.path, Path) or not error.path.is_relative_to(unfinished):
            raise
        place = path / error.path.relative_to(unfinished)
        raise DataError.at(place, str(error.fault), str(error.advice)) from error.__cause__
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError.at(path, f"cannot be written ({reason})", "check folder and disk") from error
    finally:
        for folder in (unfinished, displaced):
            shutil.rmtree(folder, ignore_errors=True)


def _take_place(made: Path, path: Path, displaced: Path, keep: Callable[[Path], bool] | None) -> None:
    if path.is_dir() and not any(path.iterdir()):
        for part in sorted(made.iterdir(), reverse=True):
            part.rename(path / part.name)
        return
    try:
        made.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        if keep is not None and keep(path):
            return
        with suppress(FileNotFoundError):  # another process may be replacing it as well
            path.rename(displaced)
        made.rename(path)


def flush(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk when this returns; OSError if it fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def age_s(path: Path) -> float:
    """Seconds since a file or folder was last written to; 0 if another process has removed it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def restrict(path: Path, mode: int) -> None:
    """Set permissions; a `PermissionsWarning` where the file system refuses, as some shares do."""
    try:
        path.chmod(mode)
    except OSError as error:
        if not path.exists():
            raise
        reason = error.strerror or str(error)
        fault = f"its permissions cannot be set to {mode:o} ({reason})"
        advice = "make sure that nobody else can reach its disk or share"
        warnings.warn(PermissionsWarning(path, fault, advice), stacklevel=2)


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
        lock = FileLock(folder / LOCK, is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError.at(
            folder, f"another {work} is running in it", "wait for it, or give another folder"
        ) from error
    except OSError as error:
        raise DataError.at(
            folder, f"cannot be written ({error.strerror})", "check folder and disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_regular(path: Path) -> None:
    """DataError if a folder, a pipe or a device has a file's name; reading from a pipe would wait forever."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise DataError.at(path, f"is {kind}", "give the path of an image file")


def is_free(path: Path) -> bool:
    """Whether something new may be made at a path: nothing is there, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, without holding them in memory.

    Raises:
        OSError: it cannot be read; what that means is the caller's to say.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class KnownFiles:
    """What files hold, read again only if they may have changed; kept in an SQLite file from run to run.

    A file is taken for the same if its path, device, inode, size and both times (of content and of inode, which a
    program cannot set back) are. One that was touched within the last two seconds is read every time: it could change
    once more without its times showing it. What is damaged in the store, or was edited, counts for nothing. Several
    processes may share one: each adds what it found.

    Args:
        store: the file, which need not exist; see `save`.
        verify: read every file again, whatever is known of it.
    """

    def __init__(self, store: Path, *, verify: bool = False) -> None:
        self._store = store
        self._known = {} if verify else _read_known(store)
        self._new: set[str] = set()

    def sha256_of(self, path: Path) -> str:
        """See the function `sha256_of`."""
        return str(self.value(str(path.absolute()), [path], lambda: sha256_of(path)))

    def value(self, key: str, paths: Sequence[Path], make: Callable[[], Any]) -> Any:
        """What `make` returned for these files when it was last called for them, or else returns now.

        Args:
            key: what is known of the files.
            paths: the files that it depends on.
            make: finds it out, as JSON has it; None is not kept.
        """
        began = time.time_ns()
        states = _states_and_ctimes(paths)
        if states and (known := self._known.get(key)) and known[:-1] == states:
            return known[-1]
        found = make()
        if (
            found is not None
            and states
            and _states_and_ctimes(paths) == states
            and _newest(states) < began - SETTLED_NS
        ):
            self._known[key] = [*states, found]
            self._new.add(key)
        return found

    def save(self) -> None:
        """Add what is new to the store; a store that cannot be written costs time only."""
        if not self._new:
            return
        rows = [(key, json.dumps(self._known[key])) for key in sorted(self._new)]
        with suppress(OSError, sqlite3.Error):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            try:
                _add_known(self._store, rows)
            except sqlite3.OperationalError:  # it is locked, or its disk is full: nothing is wrong with it
                raise
            except sqlite3.DatabaseError:
                self._store.unlink()
                _add_known(self._store, rows)
        self._new.clear()


STORE_SECONDS = 30.0
"""So long one process waits until another has written to the store."""
SETTLED_NS = 2 * 10**9
"""So long after its last change a file's times tell every further change, on any file system."""


def states_of(paths: Sequence[Path]) -> list[int]:
    """What changes with a file's content, four numbers per file; none if one of them is not there.

    The time of the inode is left out: other permissions, or a backup's hard link, change no content.
    """
    states = _states_and_ctimes(paths)
    return [number for place, number in enumerate(states) if place % 5 < 4]


def _states_and_ctimes(paths: Sequence[Path]) -> list[int]:
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return []
    return [
        number
        for each in found
        for number in (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
    ]


def _newest(states: Sequence[int]) -> int:
    return max(*states[3::5], *states[4::5])


def _checksum(key: str, content: str) -> str:
    return hashlib.sha256(f"{key} {content}".encode()).hexdigest()


def _add_known(store: Path, rows: Sequence[tuple[str, str]]) -> None:
    with closing(sqlite3.connect(store, timeout=STORE_SECONDS)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS known (key TEXT PRIMARY KEY, content TEXT, checksum TEXT)"
        )
        database.executemany(
            "INSERT OR REPLACE INTO known VALUES (?, ?, ?)",
            [(key, content, _checksum(key, content)) for key, content in rows],
        )


def _read_known(store: Path) -> dict[str, list[Any]]:
    known: dict[str, list[Any]] = {}
    if store.is_file():
        with suppress(sqlite3.Error, ValueError, TypeError, AttributeError):
            uri = f"{store.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=STORE_SECONDS)) as database:
                for key, content, checksum in database.execute("SELECT key, content, checksum FROM known"):
                    if checksum == _checksum(key, content):
                        known[key] = json.loads(content)
    return known

"""The store's files in a bucket: an object first, then its row; the folder holds copies, and what is in the making."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from focalis.device.bucket import Bucket, LostObjectError
from focalis.device.object_files import ObjectFiles
from focalis.device.records import Held, Staged
from focalis.object_store import UnreachableError

_KEPT = ("objects", "quarantine", "results")
_IN_THE_MAKING = ("incoming", "making", "deidentified")
_AT_ONCE = 8
_DAY_SECONDS = 86_400.0
"""A copy that nobody used for so long goes, and so does what a killed process was making."""
_log = logging.getLogger(__name__)


class BucketFiles(ObjectFiles):
    """The files of a store whose objects are in a bucket, named as the files below `folder`, which hold copies.

    Each name holds the SHA-256 of the content, so that nothing is read that is not what the row names. A copy's time of
    access says when somebody last asked for it; else a copy does not change while others read it.
    """

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        super().__init__(folder)
        self.bucket = bucket

    def place(self, staged: Staged, path: Path) -> None:
        """First the object, then the copy.

        Raises:
            DataError: the bucket cannot be used now, or the disk is full or fails.
        """
        self.bucket.keep(self._key(path), staged.path, staged.sha256)
        super().place(staged, path)

    def place_again(self, staged: Staged, path: Path) -> None:
        """See `place`: an object that was lost or changed is put back; its copy is fetched when it is asked for."""
        self.bucket.keep(self._key(path), staged.path, staged.sha256)

    def keep_result(self, task_id: str, path: Path, sha256: str) -> str:
        """Have a file of a task as an object; returns its name."""
        key = f"results/{task_id}/{sha256}/{path.name}"
        self.bucket.keep(key, path, sha256)
        return key

    def at_hand_or_lost(self, held: Iterable[Held]) -> list[Path | LostObjectError]:
        """Copies of objects; what is not on the disk is fetched, and must have its hash."""

        def copy(each: Held) -> Path | LostObjectError:
            try:
                _note_use(each.path)
            except FileNotFoundError:
                try:
                    self.bucket.fetch(self._key(each.path), each.path, each.sha256)
                except LostObjectError as error:
                    return error
            return each.path

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(copy, held))

    def remove(self, paths: Iterable[Path], tasks: Iterable[str] = ()) -> None:
        """Remove objects and their copies here; what cannot be removed now is `old` later."""
        paths, tasks = list(paths), list(tasks)
        super().remove(paths, tasks)
        try:
            keys = [self._key(path) for path in paths]
            keys += [key for task_id in tasks for key, _ in self.bucket.listed(f"results/{task_id}")]
            self.bucket.remove(keys)
        except UnreachableError as error:
            _log.warning("what was removed from the store stays in the bucket for now: %s", error)

    def problem(self) -> str:
        """See `Bucket.problem`."""
        return self.bucket.problem()

    def old(self, days: float) -> list[str]:
        """The names of objects that were written before so many days."""
        before = datetime.now(UTC) - timedelta(days=days)
        return [key for part in _KEPT for key, at in self.bucket.listed(part) if at < before]

    def tidy(self, most_bytes: float, least_free_bytes: float, spared_seconds: float) -> None:
        """Remove copies that nobody used for a day, and those not used for longest beyond a size.

        Args:
            most_bytes: what all copies may take together.
            least_free_bytes: of the disk; copies go until so much is free.
            spared_seconds: what was used so short a time ago stays, because somebody may be reading it.
        """
        now, copies = time.time(), []
        for top in (self.folder / part for part in _KEPT):
            for name, _, files in os.walk(top, topdown=False):
                with suppress(OSError):  # another process of the same folder may remove it, too
                    if Path(name) != top and Path(name).stat().st_mtime < now - _DAY_SECONDS:
                        Path(name).rmdir()
                for path in (Path(name) / file for file in files):
                    with suppress(OSError):
                        status = path.stat()
                        copies.append((_used_at(status), status.st_size, path))
        excess = max(sum(size for _, size, _ in copies) - most_bytes, least_free_bytes - self.free_bytes())
        for used, size, path in sorted(copies):
            if used < now - _DAY_SECONDS or (excess > 0 and used < now - spared_seconds):
                with suppress(FileNotFoundError):
                    if _used_at(path.stat()) == used:  # else somebody asked for it meanwhile
                        path.unlink()
                        excess -= size
        for path in (each for part in _IN_THE_MAKING for each in (self.folder / part).glob("*")):
            with suppress(OSError):
                if path.stat().st_mtime < now - _DAY_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _note_use(path: Path) -> None:
    """Set a copy's time of access, and leave the time of its last change, by which readers tell that it changed.

    Raises:
        FileNotFoundError: it is not there, or was removed meanwhile.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        os.utime(file.fileno(), ns=(time.time_ns(), status.st_mtime_ns))
    if path.stat().st_ino != status.st_ino:
        raise FileNotFoundError(path)


def _used_at(status: os.stat_result) -> float:
    """When somebody last asked for a copy; a file system may keep times of access by the day, or not at all."""
    return max(status.st_atime, status.st_mtime)

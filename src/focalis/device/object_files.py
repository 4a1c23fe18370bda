"""The store's files: staged, then kept or quarantined under their hash, and flushed before they are acknowledged."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from focalis.device.bucket import LostObjectError
from focalis.device.records import Held, Staged
from focalis.errors import DataError
from focalis.files import flush, restrict

_CHUNK_BYTES = 1 << 20


class ObjectFiles:
    """The files of a store below `folder`; names are SHA-256 sums, never what a sender wrote."""

    def __init__(self, folder: Path) -> None:
        """Make the folders, closed to other users because they hold patients' images.

        Raises:
            DataError: they cannot be made.
        """
        self.folder = folder
        self._incoming = folder / "incoming"
        with _writing(folder):
            for each in (
                folder,
                self._incoming,
                folder / "objects",
                folder / "quarantine",
                folder / "results",
            ):
                each.mkdir(parents=True, exist_ok=True)
                restrict(each, 0o700)
            # also what a stop left between making a folder and flushing it
            for each in (folder, folder / "objects"):
                flush(each)
            with suppress(OSError):  # the folder around it may be another user's
                flush(folder.absolute().parent)

    def object_path(self, sha256: str) -> Path:
        """Where a kept object lies."""
        return self.folder / "objects" / sha256[:2] / f"{sha256}.dcm"

    def quarantine_path(self, sha256: str) -> Path:
        """Where a quarantined object lies."""
        return self.folder / "quarantine" / f"{sha256}.dcm"

    def stage(self, chunks: Iterable[bytes]) -> Staged:
        """Write bytes to a temporary file and flush it.

        Raises:
            DataError: the disk is full or fails; nothing stays.
        """
        digest, count = hashlib.sha256(), 0
        with _writing(self._incoming):
            handle, name = tempfile.mkstemp(dir=self._incoming, suffix=".dcm")
            path = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                        digest.update(chunk)
                        count += len(chunk)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return Staged(path, digest.hexdigest(), count)

    def place(self, staged: Staged, path: Path) -> None:
        """Move a staged file to `path`, durably.

        Raises:
            DataError: the disk is full or fails.
        """
        with _writing(path):
            if not path.parent.is_dir():
                path.parent.mkdir(exist_ok=True)
                flush(path.parent.parent)
            staged.path.replace(path)
            flush(path.parent)

    def place_again(self, staged: Staged, path: Path) -> None:
        """See `place`: a file that was lost is put back."""
        if not path.is_file():
            self.place(staged, path)

    def flush_name(self, path: Path) -> None:
        """Make sure that a file that was written keeps its name, whatever happens.

        Raises:
            DataError: it is not there, or the disk fails.
        """
        with _writing(path):
            path.lstat()
            flush(path.parent)

    def at_hand(self, held: Iterable[Held]) -> list[Path]:
        """The files of what is kept, in its order, to be read now; LostObjectError if one is lost."""
        paths = []
        for found in self.at_hand_or_lost(held):
            if isinstance(found, LostObjectError):
                raise found
            paths.append(found)
        return paths

    def at_hand_or_lost(self, held: Iterable[Held]) -> list[Path | LostObjectError]:
        """As `at_hand`, with the error in place of a file that is lost."""
        return [each.path for each in held]

    def problem(self) -> str:
        """Why what is kept cannot be reached now; empty if it can."""
        return ""

    def tidy(self, most_bytes: float, least_free_bytes: float, spared_seconds: float) -> None:
        """Remove copies of what is kept elsewhere; there are none here."""

    def remove(self, paths: Iterable[Path], tasks: Iterable[str] = ()) -> None:
        """Remove files, and the results of tasks; what is not there is gone already."""
        for path in paths:
            path.unlink(missing_ok=True)
        for task_id in tasks:
            shutil.rmtree(self.folder / "results" / task_id, ignore_errors=True)

    def free_bytes(self) -> int:
        """Free space on the disk of the store."""
        return shutil.disk_usage(self.folder).free

    def remove_strangers(self, known: set[str], tasks: set[str], spared_seconds: float = 0) -> int:
        """Remove what a stop between file and row left: temporary files, objects and results without a row.

        Args:
            spared_seconds: what changed so short a time ago stays: another process may be at work on it.

        Returns:
            How many objects and results folders went.
        """
        strays = list(self._incoming.iterdir())
        strays += [path for path in self.folder.glob("objects/*/*") if path.stem not in known]
        strays += [path for path in self.folder.glob("quarantine/*") if path.stem not in known]
        strays += [path for path in self.folder.glob("results/*") if path.name not in tasks]
        strays += [path for path in self.folder.glob("making/*") if path.name.split()[0] not in tasks]
        strays += self.folder.glob("deidentified/*")
        with _writing(self.folder):
            if spared_seconds:
                before = time.time() - spared_seconds
                strays = [path for path in strays if path.lstat().st_mtime < before]
            for path in strays:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return len(strays)


def file_chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, in pieces.

    Raises:
        DataError: it cannot be read.
    """
    with DataError.of_system(path, "check its permissions"), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _writing(path: Path) -> AbstractContextManager[None]:
    return DataError.of_system(path, "check the disk and its free space", "cannot be written")

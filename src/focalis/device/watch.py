"""A watched folder: DICOM files that appear in it are taken in; they stay where they are."""

from __future__ import annotations

import contextlib
import stat
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from focalis.device.config import WatchSettings
from focalis.device.intake import Intake
from focalis.errors import DataError, UsageError

_CHUNK_BYTES = 1 << 20
_Seen = tuple[int, int]


class Watcher:
    """Looks into a folder, and the folders in it, every few seconds.

    A file is taken when it has not changed since the look before. What was taken is remembered across restarts by
    path, size and time of change, so that a file may stay for as long as its owner likes. Links are passed over.
    """

    def __init__(self, settings: WatchSettings, intake: Intake) -> None:
        """Does not look yet.

        Raises:
            DataError: the settings name no folder, or it is not there.
            UsageError: it lies in the store, or the store in it.
        """
        if settings.folder is None or not settings.folder.is_dir():
            raise DataError.at(settings.folder, "is not a folder to watch", "make it or correct watch.folder")
        watched, store = settings.folder.resolve(), intake.store.folder.resolve()
        if watched.is_relative_to(store) or store.is_relative_to(watched):
            raise UsageError.at(
                settings.folder, f"would take in the device's own files in {store}", "watch another folder"
            )
        self._folder = settings.folder
        self._seconds = settings.seconds
        self._intake = intake
        self._before: dict[Path, _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watched folder", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current file."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> int:
        """Look once and take in the files that no longer change.

        Returns:
            How many files were taken, whatever became of them.

        Raises:
            DataError: the store fails; what was not taken is taken at a later look.
        """
        store = self._intake.store
        found = dict(_regular_files(self._folder))
        resting = [path for path, seen in found.items() if self._before.get(path) == seen]
        self._before = found
        store.forget_taken(set(found))
        taken = 0
        with self._intake.sender("watched folder") as sender:
            for path in sorted(resting):
                if self._stop.is_set() or store.was_taken(path, *found[path]):
                    continue
                try:
                    with path.open("rb") as file:
                        outcome = sender.take(iter(partial(file.read, _CHUNK_BYTES), b"")).outcome
                except FileNotFoundError:  # its owner took it away
                    continue
                except OSError as error:
                    store.event(
                        "warning", f"{path}: cannot be read ({error.strerror}); check its permissions"
                    )
                else:
                    if outcome == "no room":
                        break
                store.mark_taken(path, *found[path])
                taken += 1
        return taken

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.look()
            except DataError as error:
                self._tell(f"watched folder: {error}")
            except OSError as error:
                self._tell(f"{self._folder}: cannot be read ({error.strerror})")
            self._stop.wait(max(0.1, self._seconds - (time.monotonic() - started)))

    def _tell(self, what: str) -> None:
        with contextlib.suppress(DataError):  # a full disk cannot take the line that says so
            self._intake.store.event("error", what)


def _regular_files(folder: Path) -> Iterator[tuple[Path, _Seen]]:
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, (status.st_size, status.st_mtime_ns)

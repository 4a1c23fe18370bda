"""Images that viewers upload to have them segmented, kept for as long as a working day in FOLDER/uploads."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from focalis.errors import UsageError
from focalis.files import whole_file
from focalis.volume import image_stem

KEPT_SECONDS = 10 * 3600
"""After its last use."""
KEPT_BYTES = 8_000_000_000
"""For all together; the one not used for longest goes first."""


class Uploads:
    """Image files by the names that viewers gave them, which may be patients' and stand nowhere on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, filename: str, content: BinaryIO) -> None:
        """Keep a file; it replaces the one of the same name.

        Args:
            name: how the viewer asks for it.
            filename: as it was called where it comes from; only its suffix counts.
            content: its bytes.

        Raises:
            UsageError: the suffix is that of no image in one file.
            DataError: it cannot be written.
        """
        self.prune()
        stem = image_stem(Path(filename))
        suffix = "" if stem is None else Path(filename).name[len(stem) :].lower()
        if suffix not in (".nii", ".nii.gz", ".nrrd", ".mha"):
            raise UsageError("The image is no .nii, .nii.gz, .nrrd or .mha file; save it as one of these.")
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._folder / f"{_key(name)}{suffix}") as made, made.open("wb") as file:
            shutil.copyfileobj(content, file)
        for other in self._files(name):
            if other.name != f"{_key(name)}{suffix}":
                other.unlink(missing_ok=True)

    def find(self, name: str) -> Path | None:
        """The file of a name; it is kept for longer now. None if there is none, or not any more."""
        for path in self._files(name):
            with suppress(FileNotFoundError):  # it has just been removed
                os.utime(path)
                return path
        return None

    def remove(self, name: str) -> None:
        """Remove the file of a name, if there is one."""
        for path in self._files(name):
            path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what was not used for `KEPT_SECONDS`, and the oldest beyond `KEPT_BYTES`."""
        kept, now = 0, time.time()
        found = []
        for path in self._folder.glob("*"):
            with suppress(FileNotFoundError):  # another upload has just replaced or removed it
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        for used, size, path in sorted(found, reverse=True):
            kept += size
            if kept > KEPT_BYTES or now - used > KEPT_SECONDS:
                path.unlink(missing_ok=True)

    def _files(self, name: str) -> list[Path]:
        return sorted(self._folder.glob(f"{_key(name)}.*"))


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]

"""The device's objects in an S3-compatible store, each written once and whole."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from focalis.errors import DataError, UsageError
from focalis.files import whole_file
from focalis.object_store import UnreachableError, open_object_store, store_errors

MARKER = "focalis-device"
"""The object that says which device the others belong to."""
_MARKER_SECONDS = 10
_PROBLEM_SECONDS = 5.0
"""An answer is believed for so long."""


class LostObjectError(DataError):
    """An object that a row names is not there, or not as it was written."""


class Bucket:
    """The objects below an address `s3://BUCKET/PREFIX`.

    Its errors are an `UnreachableError` if the store cannot be used now, else a `LostObjectError` that names it.
    """

    def __init__(self, address: str) -> None:
        """Ask nothing of it yet; UsageError if obstore is not installed."""
        self.address = address.rstrip("/")
        self._store = open_object_store(self.address)
        self._quick = open_object_store(self.address, _MARKER_SECONDS)
        self._asked_at, self._said = -math.inf, ""

    def claim(self, device: str, is_new: bool) -> None:
        """Make sure that the objects are of this device, and that the store writes conditionally.

        Args:
            device: what no other device has.
            is_new: whether the device has no objects yet.

        Raises:
            UsageError: they are of another device or another program, or the store overwrites what is there.
            DataError: it cannot be reached, or it has nothing of this device any more.
        """
        is_fresh = is_new and self.create(MARKER, device.encode())
        if is_fresh and (found := next((name for name, _ in self.listed() if name != MARKER), "")):
            self.remove([MARKER])
            raise UsageError.at(
                self.address, f"is not empty: it holds {found}", "give the device a prefix of its own"
            )
        self._require_marker(device)
        if self.create(MARKER, device.encode()):
            raise UsageError.at(
                self.address, "ignores If-None-Match, so that objects could be replaced", "use another store"
            )
        self._device = device

    def problem(self) -> str:
        """Why it cannot be used now, or a few seconds ago; empty if it can."""
        if time.monotonic() - self._asked_at > _PROBLEM_SECONDS:
            try:
                self._require_marker(self._device)
                self._said = ""
            except (DataError, UsageError) as error:
                self._said = str(error)
            self._asked_at = time.monotonic()
        return self._said

    def create(self, key: str, content: bytes | Path) -> bool:
        """Write an object if there is none of this name (`If-None-Match: *`); whether there was none."""
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._errors(self._place(key), "cannot be written"):
                self._store.put(key, content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def keep(self, key: str, path: Path, sha256: str) -> None:
        """Have a file's content as an object whose name holds its hash; an object that was changed is replaced."""
        if not self.create(key, path):
            digest = hashlib.sha256()
            for chunk in self._chunks(key):
                digest.update(chunk)
            if digest.hexdigest() != sha256:
                with self._errors(self._place(key), "cannot be written"):
                    self._store.put(key, path, use_multipart=False)

    def fetch(self, key: str, path: Path, sha256: str) -> None:
        """Copy an object to a file, whole or not at all; one that is there by then stays: somebody may read it."""
        chunks, digest = self._chunks(key), hashlib.sha256()
        with whole_file(path, keep=True) as temporary:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
            if digest.hexdigest() != sha256:
                raise self._fault(key, "was changed after it was written")

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; what is not there is gone already."""
        if keys:
            with self._errors(self.address, "cannot be changed"):
                self._store.delete(list(keys))

    def listed(self, below: str | None = None) -> Iterator[tuple[str, datetime]]:
        """The names of all objects, or of those below a name, and when each was written."""
        with self._errors(self.address):
            for some in self._store.list(below and f"{below}/"):
                yield from ((each["path"], each["last_modified"]) for each in some)

    def _chunks(self, key: str) -> Iterator[bytes]:
        with self._errors(self.address):
            try:
                with store_errors(self._place(key)):
                    found = self._store.get(key)
            except FileNotFoundError as error:
                self._quick.head(MARKER)  # or all is lost, and not this object
                raise self._fault(key, "is lost") from error

        def chunks() -> Iterator[bytes]:
            with self._errors(self._place(key)):
                yield from map(bytes, found.stream())

        return chunks()

    def _require_marker(self, device: str) -> None:
        with self._errors(self.address):
            found = bytes(self._quick.get(MARKER).bytes())
        if found != device.encode():
            raise UsageError.at(
                self.address, "holds the objects of another device", "give each device its own prefix"
            )

    @contextmanager
    def _errors(self, place: str, fault: str = "cannot be read") -> Iterator[None]:
        """As `store_errors`; if there is no bucket, or no marker in it, that is told."""
        try:
            with store_errors(place, fault):
                yield
        except FileNotFoundError as error:
            raise UnreachableError.at(
                self.address, "is no bucket, or has lost the objects of this device", "make or restore it"
            ) from error

    def _fault(self, key: str, fault: str) -> LostObjectError:
        again = "restore it, or send the images again and try again"
        advice = "restore it from a backup" if key.startswith("results/") else again
        return LostObjectError.at(self._place(key), fault, advice)

    def _place(self, key: str) -> str:
        return f"{self.address}/{key}"

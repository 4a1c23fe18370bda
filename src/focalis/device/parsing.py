"""Parse untrusted DICOM in child processes with limits on memory and time; a crash of the child becomes a refusal here.

The parent writes a line of JSON (a path) and reads a line of JSON (the header, or what is wrong); nothing that a child
says is executed or unpickled.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focalis.children import Child, LostError
from focalis.device.records import Header
from focalis.errors import DataError

_START_SECONDS = 120.0
_ANSWER_BYTES = 1 << 16
_CHILDREN = 2
_LOST = {
    "late": " in time",
    "ended": ": the parser stopped, perhaps for want of memory",
    "unreadable": ": the parser gave no answer that can be read",
}


class RejectedError(DataError):
    """A received object is not kept.

    Attributes:
        cause: what is wrong with it.
        numbers: what the cause leaves out; empty if nothing.
        series_uid, sop_uid: what it says it is, if it may be an image and that much could be read.
    """

    series_uid: str | None = None
    sop_uid: str | None = None

    def __init__(self, cause: str, numbers: str = "") -> None:
        super().__init__(f"{cause}: {numbers}" if numbers else cause)
        self.cause, self.numbers = cause, numbers


class ForeignError(RejectedError):
    """A received object is valid, but not an image of a kind that the device accepts."""


class UnsafeError(RejectedError):
    """A received object is damaged or malicious: it could not be parsed within the limits."""


class Parser:
    """Reads headers in child processes, which live on from file to file; safe to use from many threads."""

    def __init__(
        self,
        memory_bytes: int,
        seconds: float,
        most_pixel_bytes: int,
        charset: str,
        keywords: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        Args:
            memory_bytes: address space of a child.
            seconds: time for one file.
            most_pixel_bytes: the greatest size of a file's decoded pixels.
        """
        self._arguments = (str(memory_bytes), str(most_pixel_bytes), charset, " ".join(keywords))
        self._seconds = seconds
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(_CHILDREN):
            self._idle.put(None)
        self._closing = threading.Event()

    def read(self, path: Path) -> Header:
        """The header of a file.

        Raises:
            ForeignError: it is not a CT, MR or PET image in an accepted transfer syntax.
            UnsafeError: it is damaged, dishonest about its size, or could not be parsed within the limits.
        """
        child = self._idle.get()
        try:
            if child is None:
                child = self._start()
            answer = _ask(child, path, self._seconds)
        except LostError as error:
            if child is not None:
                child.stop()
                child = None
            raise UnsafeError(f"could not be parsed{_LOST[error.why]}") from error
        finally:
            if self._closing.is_set() and child is not None:
                child.stop()
                child = None
            self._idle.put(child)
        if answer.get("header") is not None:
            return Header(**answer["header"])
        kind = ForeignError if answer.get("foreign") else UnsafeError
        rejected = kind(str(answer.get("cause", "could not be parsed")), str(answer.get("numbers", "")))
        rejected.series_uid, rejected.sop_uid = answer.get("series_uid"), answer.get("sop_uid")
        raise rejected

    def _start(self) -> Child:
        child = Child(
            [sys.executable, "-m", "focalis.device.examine", *self._arguments],
            quiet=True,
            answer_bytes=_ANSWER_BYTES,
        )
        try:
            child.receive(_START_SECONDS)
        except LostError as error:
            child.stop()
            raise DataError("the process that parses DICOM does not start; is memory free?") from error
        return child

    def close(self) -> None:
        """Stop the children; those at work stop when their file is done."""
        self._closing.set()
        for _ in range(_CHILDREN):
            child = self._idle.get(timeout=self._seconds + _START_SECONDS)
            if child is not None:
                child.stop()
        for _ in range(_CHILDREN):
            self._idle.put(None)


def _ask(child: Child, path: Path, seconds: float) -> dict[str, Any]:
    """What the child says of a file; LostError if it says nothing, or speaks of something else."""
    child.send(str(path))
    answer = child.receive(seconds)
    if answer.get("file") != str(path):
        raise LostError("unreadable")
    return answer

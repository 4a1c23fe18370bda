"""Parse untrusted DICOM in child processes with limits on memory and time; a crash of the child becomes a refusal here.

The parent writes a line of JSON (a path) and reads a line of JSON (the header, or what is wrong); nothing that a child
says is executed or unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from focalis.device.records import Header
from focalis.errors import DataError

_START_SECONDS = 120.0
_ANSWER_BYTES = 1 << 16
_CHILDREN = 2


class ForeignError(DataError):
    """A received object is valid, but not an image of a kind that the device accepts."""


class UnsafeError(DataError):
    """A received object is damaged or malicious: it could not be parsed within the limits.

    Attributes:
        series_uid, sop_uid: what it says it is, if that much could be read.
    """

    series_uid: str | None = None
    sop_uid: str | None = None


class Parser:
    """Reads headers in child processes, which live on from file to file; safe to use from many threads."""

    def __init__(self, memory_bytes: int, seconds: float, most_pixel_bytes: int, charset: str) -> None:
        """Start nothing yet.

        Args:
            memory_bytes: address space of a child.
            seconds: time for one file.
            most_pixel_bytes: the greatest size of a file's decoded pixels.
            charset: the Python codec for text of no or a wrong character set.
        """
        self._arguments = (str(memory_bytes), str(most_pixel_bytes), charset)
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(_CHILDREN):
            self._idle.put(None)
        self._closing = threading.Event()

    def read(self, path: Path) -> Header:
        """The header of a file.

        Raises:
            ForeignError: it is no CT, MR or PET image in an accepted transfer syntax.
            UnsafeError: it is damaged, dishonest about its size, or could not be parsed within the limits.
        """
        child = self._idle.get()
        try:
            if child is None:
                child = _Child(self._arguments)
            answer = child.ask(path, self._seconds)
        except _LostError as error:
            if child is not None:
                child.stop()
                child = None
            raise UnsafeError(str(error)) from error
        finally:
            if self._closing.is_set() and child is not None:
                child.stop()
                child = None
            self._idle.put(child)
        if answer.get("header") is not None:
            return Header(**answer["header"])
        reason = str(answer.get("reason", "could not be parsed"))
        if answer.get("foreign"):
            raise ForeignError(reason)
        unsafe = UnsafeError(reason)
        unsafe.series_uid, unsafe.sop_uid = answer.get("series_uid"), answer.get("sop_uid")
        raise unsafe

    def close(self) -> None:
        """Stop the children; those at work stop when their file is done."""
        self._closing.set()
        for _ in range(_CHILDREN):
            child = self._idle.get(timeout=self._seconds + _START_SECONDS)
            if child is not None:
                child.stop()
        for _ in range(_CHILDREN):
            self._idle.put(None)


class _LostError(Exception):
    """The child did not answer."""


class _Child:
    def __init__(self, arguments: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "focalis.device.examine", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a parser's complaints may quote a patient's name
        )
        try:
            self._answer(_START_SECONDS)
        except _LostError as error:
            self.stop()
            raise DataError("the process that parses DICOM does not start; is memory free?") from error

    def ask(self, path: Path, seconds: float) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(str(path)).encode() + b"\n")
            stdin.flush()
        except OSError as error:
            raise _LostError("could not be parsed: the parser stopped") from error
        answer = self._answer(seconds)
        if answer.get("file") != str(path):
            raise _LostError("could not be parsed: the parser's answer is about something else")
        return answer

    def _answer(self, seconds: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        end, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise _LostError("could not be parsed in time")
            piece = os.read(stdout.fileno(), _ANSWER_BYTES)
            line += piece
            if not piece or len(line) > _ANSWER_BYTES:
                raise _LostError("could not be parsed: the parser stopped, perhaps for want of memory")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _LostError("could not be parsed: the parser gave no answer that can be read")
        return found

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still to be written to a dead child
                    pipe.close()

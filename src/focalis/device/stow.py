"""STOW-RS: split a multipart/related request as it arrives, take its parts in, and answer (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any, Literal

from focalis.device.intake import Intake, Outcome, Sender, Taken
from focalis.errors import UsageError

_HEADER_BYTES = 8192
_PARTS = 10_000
_PREFIX_BYTES = 132
_MEMORY_BYTES = 1 << 20
_IDLE_SECONDS = 60.0
"""A request that brings nothing for so long is over: while it is open, its series rest."""
# failure reasons of the Store Instances Response Module (PS3.18 I.2.2)
_REASONS: dict[Outcome, int] = {
    "foreign": 0x0122,
    "quarantined": 0xC000,
    "too large": 0xA700,
    "no room": 0xA700,
}


@dataclass(frozen=True)
class StowAnswer:
    """What to answer: the HTTP status and a DICOM JSON body (media type application/dicom+json)."""

    status: int
    body: dict[str, Any]


class Multipart:
    """A multipart/related body split into parts, in pieces as they come; only a part's header is held in memory."""

    def __init__(self, content_type: str) -> None:
        """Read the boundary.

        Raises:
            UsageError: the content type is not multipart/related of application/dicom with a boundary.
        """
        message = Message()
        message["content-type"] = content_type
        boundary = message.get_param("boundary")
        kind = str(message.get_param("type", "application/dicom")).lower()
        if message.get_content_type() != "multipart/related" or kind != "application/dicom":
            raise UsageError('send multipart/related; type="application/dicom"')
        if not isinstance(boundary, str) or not re.fullmatch(r"[ -~]{1,70}", boundary):
            raise UsageError("the content type names no valid boundary")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buffer = b"\r\n"  # the first boundary need not stand behind the end of a line
        self._state: Literal["before", "header", "content", "end"] = "before"
        self._parts = 0

    @property
    def ended(self) -> bool:
        """Whether the last boundary was found."""
        return self._state == "end"

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The content of parts found in the next piece of the body; None at the end of each part.

        Raises:
            UsageError: the body is malformed.
        """
        self._buffer += data
        while self._state != "end":
            if self._state == "header":
                if self._buffer.startswith(b"--"):
                    self._state = "end"
                    return
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._buffer) > _HEADER_BYTES:
                        raise UsageError("a part's header is too long")
                    return
                self._begin(self._buffer[:end])
                self._buffer = self._buffer[end + 4 :]
                continue
            place = self._buffer.find(self._delimiter)
            # the end of the buffer may be the beginning of a boundary
            safe = place if place >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
            if self._state == "content" and safe:
                yield self._buffer[:safe]
            if place < 0:
                self._buffer = self._buffer[safe:]
                return
            if self._state == "content":
                yield None
            self._buffer = self._buffer[place + len(self._delimiter) :]
            self._state = "header"

    def _begin(self, header: bytes) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise UsageError(f"more than {_PARTS} parts; send them in several requests")
        for line in header.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-type" and not value.strip().lower().startswith(
                b"application/dicom"
            ):
                raise UsageError("a part is not of the type application/dicom")
        self._state = "content"


async def receive_stow(
    content_type: str, stream: AsyncIterator[bytes], intake: Intake, source: str
) -> StowAnswer:
    """Take in all parts of a STOW-RS request; what the answer calls stored is durable.

    Args:
        content_type: of the request.

    Returns:
        200 if all parts are stored, 202 if some, 409 if none.

    Raises:
        UsageError: the request is malformed (400); parts that came before are kept.
    """
    multipart = Multipart(content_type)
    found: list[Taken] = []
    with intake.sender(source) as sender:
        part = _Part(intake)
        try:
            async for chunk in _steady(stream):
                for piece in multipart.feed(chunk):
                    if piece is not None:
                        await asyncio.to_thread(part.write, piece)
                        continue
                    found.append(await asyncio.to_thread(part.take, sender))
                    part.close()
                    part = _Part(intake)
            if not multipart.ended:
                raise UsageError("the body ended before its last boundary")
        finally:
            part.close()
    if not found:
        raise UsageError("the request holds no part")
    return _answer(found)


async def _steady(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What a stream brings, as long as it brings something in time."""
    while True:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UsageError(f"nothing came for {_IDLE_SECONDS:g} seconds") from error
        yield chunk


class _Part:
    """A part on its way from the request, which comes when it comes, to the intake, which reads it at once."""

    def __init__(self, intake: Intake) -> None:
        folder = str(intake.store.folder / "incoming")
        self._file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES, dir=folder)  # noqa: SIM115 (closed by close)
        self._most_bytes = intake.most_bytes
        self._failed = False

    def write(self, piece: bytes) -> None:
        # one piece more than the limit is enough for the intake to see that there is too much
        if not self._failed and self._file.tell() <= self._most_bytes:
            try:
                self._file.write(piece)
            except OSError:  # the disk is full
                self._failed = True

    def take(self, sender: Sender) -> Taken:
        if self._failed:
            sender.loses("an object of its sender could not be stored")
            return Taken("no room", "cannot be stored; free space on the device's disk")
        self._file.seek(0)
        if self._file.read(_PREFIX_BYTES)[-4:] != b"DICM":
            sender.loses("a part of its request was no DICOM file")
        self._file.seek(0)
        return sender.take(iter(lambda: self._file.read(_MEMORY_BYTES), b""))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written
            self._file.close()


def _answer(found: list[Taken]) -> StowAnswer:
    stored = [taken for taken in found if taken.stored]
    failed = [taken for taken in found if not taken.stored]
    body: dict[str, Any] = {}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": [_reference(taken) for taken in stored]}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": [_reference(taken) for taken in failed]}
    return StowAnswer(200 if not failed else 202 if stored else 409, body)


def _reference(taken: Taken) -> dict[str, Any]:
    """An item of the Referenced or the Failed SOP Sequence."""
    item: dict[str, Any] = {}
    if taken.header is not None:
        item["00081150"] = {"vr": "UI", "Value": [taken.header.sop_class]}
        item["00081155"] = {"vr": "UI", "Value": [taken.header.sop_uid]}
    if not taken.stored:
        item["00081197"] = {"vr": "US", "Value": [_REASONS[taken.outcome]]}
    return item

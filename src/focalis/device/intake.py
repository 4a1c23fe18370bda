"""The one way into the store: C-STORE, STOW-RS, the watched folder and the upload all bring their bytes here.

The bytes go to the disk, a child process parses them, and only then are they kept, or kept aside with the reason.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from focalis.device.config import Config
from focalis.device.parsing import ForeignError, Parser, UnsafeError
from focalis.device.records import Header, Level, Staged
from focalis.device.routing import keywords_of
from focalis.device.store import Store
from focalis.errors import DataError
from focalis.object_store import UnreachableError

_PREFIX_BYTES = 132
_QUARANTINE_IS_FULL = "; the quarantine is full, so it was not kept aside"

Outcome = Literal["kept", "known", "quarantined", "foreign", "too large", "no room"]


@dataclass(frozen=True)
class Taken:
    """What became of one received object.

    Attributes:
        outcome: "kept" and "known" are in the store, durably; "quarantined" is kept aside; "foreign" (no image of the
            kinds that the device takes) and "too large" are gone; "no room" may be sent again when the disk has some.
        reason: why it was not kept; empty otherwise. It names no patient.
        header: what it says of itself; None if it could not be parsed.
    """

    outcome: Outcome
    reason: str = ""
    header: Header | None = None

    @property
    def stored(self) -> bool:
        """Whether it is in the store."""
        return self.outcome in ("kept", "known")


class Intake:
    """Takes objects in; safe to use from many threads.

    Attributes:
        most_bytes: the greatest object that is taken.
    """

    def __init__(self, store: Store, config: Config) -> None:
        """Begin to take in; the parser's children start when they are needed."""
        limits = config.limits
        self.store = store
        self._least_free_bytes = int(config.store.least_free_gb * 1e9)
        self.most_bytes = int(limits.instance_mb * 1e6)
        self._parser = Parser(
            int(limits.parse_memory_mb * 1e6),
            limits.parse_seconds,
            int(limits.series_gb * 1e9),
            config.node.charset,
            keywords_of(config.routes),
        )

    def close(self) -> None:
        """Stop the parser's children."""
        self._parser.close()

    def room_bytes(self) -> int:
        """How large an upload may be: it is kept as a temporary file first, and then beside it in the store."""
        spool = Path(tempfile.gettempdir())
        if spool.stat().st_dev == self.store.folder.stat().st_dev:
            return self.free_bytes() // 2
        return min(self.free_bytes(), shutil.disk_usage(spool).free)

    def free_bytes(self) -> int:
        """What the store may still take."""
        return self.store.free_bytes() - self._least_free_bytes

    def sender(self, source: str) -> Sender:
        """Someone who begins to send, as a context: its series are not complete while it is open.

        Args:
            source: who it is, for people ("C-STORE CT1 10.0.0.7", "upload"); never a patient's name.
        """
        return Sender(self, source)

    def take(self, chunks: Iterable[bytes], sender: Sender) -> Taken:
        """Take one DICOM file in; what it became is durable when this returns. See `Sender.take`."""
        taken = self._take(chunks, sender)
        self.store.counters.add("received_total", outcome=taken.outcome)
        return taken

    def _take(self, chunks: Iterable[bytes], sender: Sender) -> Taken:
        try:
            if self.free_bytes() < 0:
                raise DataError("less is free than store.least_free_gb")
            staged = self.store.stage(_without_preamble(_up_to(chunks, self.most_bytes)))
            try:
                return self._judge(staged, sender)
            finally:
                self.store.discard(staged)
        except _TooLargeError as error:
            sender.loses("an object of its sender was too large")
            self.refuse(sender.source, f"an object was refused: it {error}")
            return Taken("too large", str(error))
        except DataError as error:
            sender.loses("an object of its sender could not be stored")
            self._note(
                "error", f"an object from {sender.source} was refused, because it cannot be stored: {error}"
            )
            away = isinstance(error, UnreachableError)
            advice = "send it again later" if away else "free space on the device's disk"
            return Taken("no room", f"cannot be stored; {advice}")

    def _judge(self, staged: Staged, sender: Sender) -> Taken:
        try:
            header = self._parser.read(staged.path)
        except ForeignError as error:
            self.refuse(sender.source, f"an object was refused: it {error}")
            if error.series_uid is not None:
                sender.loses(f"an image of it was refused: it {error}", error.series_uid)
            return Taken("foreign", str(error))
        except UnsafeError as error:
            return self._set_aside(staged, error, sender)
        sender.sends(header.series_uid)
        outcome = self.store.keep(staged, header, sender.source)
        if outcome != "quarantined":
            return Taken(outcome, header=header)
        reason = "another object is kept under its SOP Instance UID"
        self._note("warning", f"an object from {sender.source} was quarantined: {reason}", header.series_uid)
        return Taken(outcome, reason, header)

    def _set_aside(self, staged: Staged, error: UnsafeError, sender: Sender) -> Taken:
        reason = str(error)
        kept = self.store.quarantine(
            staged, error.cause, sender.source, error.series_uid, error.sop_uid, error.numbers
        )
        if not kept:
            reason += _QUARANTINE_IS_FULL
        if not kept or error.series_uid is None:
            sender.loses("an object of its sender could not be read")
        self._note("warning", f"an object from {sender.source} was quarantined: it {reason}")
        return Taken("quarantined", reason)

    def refuse(self, peer: str, reason: str) -> None:
        """Count something that a sender was refused, for the system page; the log has it once for each cause."""
        with contextlib.suppress(DataError):  # a full disk cannot take the line that says so
            if self.store.refuse(peer, reason):
                self.store.event("warning", f"{peer}: {reason}")

    def _note(self, level: Level, text: str, series_uid: str | None = None) -> None:
        with contextlib.suppress(DataError):  # a full disk cannot take the line that says so
            self.store.event(level, text, series_uid=series_uid)


class Sender:
    """One association, request or scan that brings objects; the series it sent rest while it is open.

    What it lost may be of any series that it sent, and so it counts for all of them, unless the series is known.
    """

    def __init__(self, intake: Intake, source: str) -> None:
        self.source = source
        self._intake = intake
        self._sendings: dict[str, int] = {}
        self._lost: dict[str, set[str]] = {}
        self._open = True
        self._fault = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("" if kind is None else f"{self.source} broke off")

    def take(self, chunks: Iterable[bytes]) -> Taken:
        """Take one DICOM file in; what it became is durable when this returns.

        Args:
            chunks: the file's bytes, in pieces. The preamble is not kept: it may hold a program.

        """
        return self._intake.take(chunks, self)

    def sends(self, series_uid: str) -> None:
        """It sends this series; called before the first instance is kept."""
        with self._lock:
            if not self._open:  # cut off while its object was being read
                store = self._intake.store
                store.sending_ended(store.sending_began(series_uid), self._fault)
            elif series_uid not in self._sendings:
                self._sendings[series_uid] = self._intake.store.sending_began(series_uid)
                self._intake.store.association_opened([series_uid])

    def loses(self, what: str, series_uid: str = "") -> None:
        """Something that it sent is not kept.

        Args:
            what: one line, such as "an object of its sender could not be read".
            series_uid: the series that it belongs to; empty if nobody knows.
        """
        with self._lock:
            self._lost.setdefault(series_uid, set()).add(what)

    def close(self, fault: str = "") -> None:
        """It is gone; a second time does nothing.

        Args:
            fault: how it broke off, one line; empty if it ended well.
        """
        with self._lock:
            was_open, self._open = self._open, False
            self._fault = self._fault or fault
        if not was_open:
            return
        store = self._intake.store
        of_all = self._lost.pop("", set()) | ({fault} - {""})
        try:
            for series_uid, number in self._sendings.items():
                lost = of_all | self._lost.pop(series_uid, set())
                store.sending_ended(number, "; ".join(sorted(lost)))
            for series_uid, lost in self._lost.items():  # of series that it brought no image of
                store.sending_ended(store.sending_began(series_uid), "; ".join(sorted(lost)))
                store.look_again(series_uid)
        finally:
            if self._sendings:
                store.association_closed(self._sendings)


class _TooLargeError(Exception):
    """An object is larger than the limit."""


def _up_to(chunks: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if count > most_bytes:
            raise _TooLargeError(f"is larger than the limit of {most_bytes} bytes")
        yield chunk


def _without_preamble(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same file with an empty preamble: those 128 bytes can make it a program or a page as well (PS3.10 7.1)."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= _PREFIX_BYTES:
            break
    if start[_PREFIX_BYTES - 4 : _PREFIX_BYTES] == b"DICM":
        start = bytes(_PREFIX_BYTES - 4) + start[_PREFIX_BYTES - 4 :]
    yield start
    yield from chunks

"""What the guard reads from DICOM's upper layer: PDU headers, AE titles, where messages end (PS3.8 9.3)."""

from __future__ import annotations

import asyncio
import struct

ASSOCIATE_REQUEST, DATA, RELEASE_REQUEST, ABORT = 0x01, 0x04, 0x05, 0x07
LENGTH_FOUR = (RELEASE_REQUEST, 0x06, ABORT)
"""Release request, release reply and abort: their length is always 4."""
HEADER_BYTES = 6

_COMMAND_BYTES = 1 << 16
_FIXED_REQUEST_BYTES = 74
_PRESENTATION_CONTEXT = 0x20
_COMMAND, _LAST = 1, 2
# tags (0000,0100) and (0000,0800) as little-endian pairs of words
_COMMAND_FIELD, _COMMAND_DATA_SET_TYPE = 0x01000000, 0x08000000
_REQUESTS = (b"\x01\x00", b"\x30\x00", b"\x00\x01")
"""C-STORE, C-ECHO and N-EVENT-REPORT."""
_NO_DATA_SET = b"\x01\x01"


class MessageError(Exception):
    """A peer's message breaks the protocol or a limit; the text completes a line that begins with its address."""


def other_protocol(header: bytes) -> str:
    """What a peer speaks if the first bytes of a PDU are not DICOM's; empty if they are."""
    if 0 < header[0] <= ABORT:
        return ""
    if header[:2] == b"\x16\x03":
        return "TLS, for which node.tls_certificate is not set"
    return "HTTP" if header[:3].isupper() else "another protocol"


def ae_titles(request: bytes) -> tuple[str, str]:
    """The called and the calling AE title of an A-ASSOCIATE-RQ PDU (PS3.8 9.3.2).

    Raises:
        MessageError: its items do not fill it, or a presentation context has an even number, which pynetdicom would
            fall over.
    """
    place = _FIXED_REQUEST_BYTES
    while place + 4 <= len(request):
        kind, length = struct.unpack_from(">BxH", request, place)
        number = request[place + 4] if length and place + 4 < len(request) else 0
        if kind == _PRESENTATION_CONTEXT and number % 2 == 0:
            break
        place += 4 + length
    if place != len(request) or place == _FIXED_REQUEST_BYTES:
        raise MessageError("its association request is malformed")
    called, calling = (request[start : start + 16].decode("latin-1").strip(" \0") for start in (10, 26))
    return called, calling


def reject_pdu(reason: int) -> bytes:
    """A-ASSOCIATE-RJ: rejected for good by the service user (PS3.8 9.3.4)."""
    return struct.pack(">BxI4B", 0x03, 4, 0, 1, 1, reason)


def abort_pdu() -> bytes:
    """A-ABORT by the service provider (PS3.8 9.3.8)."""
    return struct.pack(">BxI4B", ABORT, 4, 0, 0, 2, 0)


def abort_reason(pdu: bytes) -> str:
    """Who aborts and why, of an A-ABORT PDU (PS3.8 9.3.8)."""
    source, reason = pdu[HEADER_BYTES + 2 : HEADER_BYTES + 4]
    return f"aborted the association (source {source}, reason {reason})"


class Message:
    """Follows the messages of one association through its P-DATA PDUs (PS3.8 9.3.5, annex E).

    Attributes:
        fault: how the association has broken off if it ends now, to go on after who it is; empty once it is released.
        held: bytes of the message that the guard has passed on and that are not answered.
        answered: set while the peer may send; clear from the association request, or the end of a message, to the
            node's answer.
    """

    def __init__(self, most_bytes: int) -> None:
        """Begin with the association request, before messages whose data sets may have `most_bytes`."""
        self._most_bytes = most_bytes
        self._command = b""
        self._data_bytes = 0
        self._expects_data = False
        self.fault = "lost its connection"
        self.held = 0
        self.answered = asyncio.Event()

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._command) or self._expects_data

    def take(self, pdu: bytes) -> int:
        """Follow one P-DATA PDU; returns the bytes of message in it.

        Raises:
            MessageError: it is malformed, or the message is larger than allowed.
        """
        place, count = HEADER_BYTES, 0
        while place < len(pdu):
            if place + 6 > len(pdu):
                raise MessageError("it sent a malformed P-DATA PDU")
            length, context, control = struct.unpack_from(">IBB", pdu, place)
            end = place + 4 + length
            if length < 2 or end > len(pdu) or context % 2 == 0 or not self.answered.is_set():
                raise MessageError("it sent a malformed P-DATA PDU")
            if control & _COMMAND:
                self._take_command(pdu[place + 6 : end], bool(control & _LAST))
            else:
                self._take_data(length - 2, bool(control & _LAST))
            count += length - 2
            place = end
        return count

    def _take_command(self, fragment: bytes, last: bool) -> None:
        self._command += fragment
        if self._expects_data or len(self._command) > _COMMAND_BYTES:
            raise MessageError("it sent a malformed command")
        if last:
            self._expects_data = _has_data_set(self._command)
            self._command = b""
            if not self._expects_data:
                self.answered.clear()

    def _take_data(self, count: int, last: bool) -> None:
        if not self._expects_data:
            raise MessageError("it sent data without a command")
        self._data_bytes += count
        if self._data_bytes > self._most_bytes:
            raise MessageError(f"it sent an object larger than the limit of {self._most_bytes} bytes")
        if last:
            self._expects_data, self._data_bytes = False, 0
            self.answered.clear()

    def is_answered(self) -> bool:
        """The node answered; returns whether that ends a message."""
        ends = not self.answered.is_set()
        self.answered.set()
        return ends


def _has_data_set(command: bytes) -> bool:
    """Whether a data set follows a command set (PS3.7 E.1; implicit little endian).

    Raises:
        MessageError: it is malformed, or none of `_REQUESTS`; pynetdicom would fall over some of the others.
    """
    place, found = 0, {}
    while place + 8 <= len(command):
        tag, length = struct.unpack_from("<II", command, place)
        found[tag] = command[place + 8 : place + 8 + length]
        place += 8 + length
    kind = found.get(_COMMAND_DATA_SET_TYPE, b"")
    known = found.get(_COMMAND_FIELD) in _REQUESTS
    if place != len(command) or len(kind) != len(_NO_DATA_SET) or not known:
        raise MessageError("it sent a malformed command, or one that is not taken")
    return kind != _NO_DATA_SET

"""The DICOM node: C-ECHO and C-STORE as provider, behind the guard; an object is acknowledged when it is durable."""

from __future__ import annotations

import logging
import socket
import threading
import warnings
from collections.abc import Callable, Sequence

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationServer

from focalis import __version__
from focalis.device.commitment import PUSH_MODEL
from focalis.device.config import Config
from focalis.device.examine import TRANSFER_SYNTAXES
from focalis.device.guard import Caller, Guard
from focalis.device.intake import Intake, Outcome, Sender
from focalis.dicom.headers import IMAGE_CLASSES
from focalis.display import listed

STATUS: dict[Outcome, int] = {
    "kept": 0x0000,
    "known": 0x0000,
    "quarantined": 0xC000,
    "foreign": 0xA900,
    "too large": 0xA700,
    "no room": 0xA700,
}
"""The status of a C-STORE response (PS3.4 B.2.3)."""

_COMMENT_CHARACTERS = 64
_SYNTAXES_REFUSED = 0x04
"""The result of a presentation context whose transfer syntaxes are not supported (PS3.8 table 9-18)."""


class Node:
    """Receives what scanners and archives send."""

    def __init__(
        self, config: Config, intake: Intake, on_report: Callable[[evt.Event], tuple[int, None]] | None = None
    ) -> None:
        """Listen to nothing yet.

        Args:
            on_report: takes the reports of storage commitment; without it none are taken.

        Raises:
            UsageError: certificate, key or authorities cannot be used.
        """
        # what these would say may quote a data set; what matters is in the store's log
        for name in ("pydicom", "pynetdicom"):
            logging.getLogger(name).propagate = False
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        self._intake = intake
        self._senders: dict[tuple[str, int], tuple[Caller, Sender]] = {}
        self._lock = threading.Lock()
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_ACCEPTED, self._on_accepted),
        ]
        entity = _entity(config)
        if on_report is not None:
            entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
            handlers.append((evt.EVT_N_EVENT_REPORT, on_report))
        self._server = _Server(entity, handlers, config.node.ae_title)
        self._guard = Guard(
            config.node,
            config.peers,
            int(config.limits.instance_mb * 1e6),
            connect=self._connect,
            ended=self._end,
            note=intake.refuse,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._guard.port

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return self._guard.listening

    def start(self) -> None:
        """Listen.

        Raises:
            UsageError: address and port cannot be had.
        """
        self._guard.start()

    def stop(self) -> None:
        """Listen no longer; open associations end, and what they had not finished is not kept."""
        self._guard.stop()
        for association in self._server.active_associations:
            association.join(timeout=5)

    def callers(self) -> list[Caller]:
        """Who has an association open."""
        with self._lock:
            return [caller for caller, _ in self._senders.values()]

    def _connect(self, connection: socket.socket, caller: Caller) -> threading.Thread:
        source = f"C-STORE {caller.ae_title} {caller.address}"
        with self._lock:
            self._senders[caller.address, caller.port] = caller, self._intake.sender(source)
        return self._server.attach(connection, caller)

    def _end(self, caller: Caller, fault: str) -> None:
        with self._lock:
            _, sender = self._senders.pop((caller.address, caller.port))
        sender.close(f"{sender.source} {fault}" if fault else "")

    def _on_accepted(self, event: evt.Event) -> None:
        """Tell which of the proposed presentation contexts were refused; a sender may never say so."""
        remote = event.assoc.requestor
        with self._lock:
            entry = self._senders.get((remote.address, remote.port))
        if entry is None:
            return
        # what is proposed twice, with and without compression, is refused only if both are
        taken = {context.abstract_syntax for context in event.assoc.accepted_contexts}
        refused = [
            context
            for context in event.assoc.rejected_contexts
            if context.abstract_syntax not in taken or context.result != _SYNTAXES_REFUSED
        ]
        for line in _why_refused(refused):
            self._intake.refuse(entry[1].source, line)

    def _on_store(self, event: evt.Event) -> Dataset:
        """Take one object in; the answer is given when it is durable."""
        remote = event.assoc.requestor
        with self._lock:
            entry = self._senders.get((remote.address, remote.port))
        answer = Dataset()
        if entry is None:  # the guard has ended it; nobody waits for the answer
            answer.Status = 0xA700
            return answer
        start = bytes(128) + b"DICM" + encode_file_meta(event.file_meta)
        taken = entry[1].take([start, event.encoded_dataset(include_meta=False)])
        answer.Status = STATUS[taken.outcome]
        if not taken.stored:
            answer.ErrorComment = taken.reason[:_COMMENT_CHARACTERS]
        return answer


class _Server(AssociationServer):
    """pynetdicom's acceptor without a port of its own: the guard hands it every connection."""

    def __init__(self, entity: AE, handlers: list[evt.EventHandlerType], ae_title: str) -> None:
        super().__init__(entity, ("127.0.0.1", 0), ae_title, entity.supported_contexts, evt_handlers=handlers)
        super().server_close()

    def attach(self, connection: socket.socket, caller: Caller) -> threading.Thread:
        """Begin an association over a connection; returns its thread."""
        before = set(self.active_associations)
        self.process_request(connection, (caller.address, caller.port))
        (association,) = (
            each
            for each in self.active_associations
            if each not in before
            and (each.requestor.address, each.requestor.port) == (caller.address, caller.port)
        )
        return association

    def server_bind(self) -> None:
        """Bind to nothing."""

    def server_activate(self) -> None:
        """Listen to nothing."""


def _why_refused(contexts: Sequence[PresentationContext]) -> list[str]:
    """What was proposed and is not taken: one line of classes, and one of transfer syntaxes of classes that are."""
    classes, syntaxes = set(), set()
    for context in contexts:
        name = _named(context.abstract_syntax)
        if context.result == _SYNTAXES_REFUSED:
            syntaxes.add(
                f"{name} in the transfer syntax {listed(list(map(_named, context.transfer_syntax)))}"
            )
        else:
            classes.add(name)
    found = []
    if classes:
        noun, verb = ("SOP class", "is") if len(classes) == 1 else ("SOP classes", "are")
        found.append(
            f"presentation context refused: the {noun} {listed(sorted(classes))} {verb} not accepted"
        )
    if syntaxes:
        verb = "is" if len(syntaxes) == 1 else "are"
        found.append(f"presentation context refused: {listed(sorted(syntaxes))} {verb} not accepted")
    return found


def _named(kind: UID | None) -> str:
    """The name of a class or transfer syntax; its UID if it has none."""
    return "without a name" if kind is None else str(kind.name)


def _entity(config: Config) -> AE:
    entity = AE(ae_title=config.node.ae_title)
    entity.implementation_version_name = f"FOCALIS_{__version__}"[:16]
    entity.maximum_pdu_size = config.node.max_pdu
    entity.acse_timeout = config.node.handshake_seconds
    # the guard knows how long is too long; two clocks would only disagree
    entity.network_timeout = entity.dimse_timeout = None
    entity.maximum_associations = config.node.connections
    # not by default: pynetdicom's defaults include the deflated syntax
    entity.add_supported_context(Verification, [each for each in TRANSFER_SYNTAXES if not each.is_compressed])
    for kind in IMAGE_CLASSES:
        entity.add_supported_context(kind, list(TRANSFER_SYNTAXES))
    return entity

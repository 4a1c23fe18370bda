"""Storage commitment (PS3.4 annex J): ask a destination to keep what it was sent, and take its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from focalis.device.config import Config, Destination
from focalis.device.delivery import (
    LONGEST_WAIT_SECONDS,
    Sent,
    entity,
    is_due,
    later,
    next_attempt_at,
    open_association,
    wait_seconds,
)
from focalis.device.outgoing import Outgoing, sent_uids
from focalis.device.records import Delivery, DeliveryState, Level, now
from focalis.device.store import Store
from focalis.errors import FocalisError

PUSH_MODEL: UID = StorageCommitmentPushModel
_INSTANCE = UID("1.2.840.10008.1.20.1.1")
_REQUEST = 1
_SAME_ASSOCIATION_SECONDS = 0.5
"""A report on the association of the request comes at once; later ones come by an association of their own."""
_MOST_REPORT_BYTES = 1_000_000
_ASKED = "was asked to commit it and has not reported yet"

# Failure Reason (0008,1197), PS3.3 C.14.1.1
_REASONS = {
    0x0110: "processing failure",
    0x0112: "it has no such object",
    0x0119: "class and instance do not match",
    0x0122: "class not supported",
    0x0131: "transaction known already",
    0x0213: "out of resources",
}
_SUCCESS, _PROCESSING_FAILURE, _INVALID = 0x0000, 0x0110, 0x0115


@dataclass(frozen=True)
class Report:
    """What a destination says of the objects of one request.

    Attributes:
        committed: SOP Instance UIDs that it keeps.
        failed: SOP Instance UID to why it does not.
    """

    transaction_uid: str
    committed: frozenset[str]
    failed: dict[str, str]


def read_report(information: Dataset) -> Report:
    """The Event Information of an N-EVENT-REPORT (PS3.4 table J.3-2).

    Raises:
        AttributeError, ValueError: it lacks an attribute, or has one of a wrong kind.
    """
    failed = {
        str(item.ReferencedSOPInstanceUID): _reason(int(item.get("FailureReason") or 0x0110))
        for item in information.get("FailedSOPSequence") or ()
    }
    kept = {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()}
    return Report(str(information.TransactionUID), frozenset(kept - set(failed)), failed)


def ask(
    files: Sequence[Path],
    destination: Destination,
    calling: str,
    transaction_uid: str,
    reported: Callable[[evt.Event], tuple[int, None]],
) -> Sent:
    """Ask a destination to commit itself to objects (N-ACTION); failures of it or the network never raise.

    Args:
        reported: called if the report comes on the same association.
    """
    wanted = Dataset()
    wanted.TransactionUID = transaction_uid
    wanted.ReferencedSOPSequence = [_reference(file) for file in files]
    ae = entity(calling)
    ae.add_requested_context(PUSH_MODEL)
    ae.add_requested_context(
        Verification
    )  # or nothing might be accepted, which ends an association unexplained
    association = open_association(ae, destination, [(evt.EVT_N_EVENT_REPORT, reported)])
    if isinstance(association, str):
        return Sent("failed", association)
    if all(context.abstract_syntax != PUSH_MODEL for context in association.accepted_contexts):
        association.release()
        return Sent("rejected", "does not offer storage commitment; remove commit from focalis.toml")
    try:
        status, _ = association.send_n_action(wanted, _REQUEST, PUSH_MODEL, _INSTANCE)
    except (OSError, RuntimeError, ValueError):
        status = None
    if not status:
        association.abort()
        return Sent("failed", "did not answer, or ended the association")
    association.join(_SAME_ASSOCIATION_SECONDS)
    if association.is_established:
        association.release()
    if status.Status != _SUCCESS:
        return Sent("rejected", f"refused storage commitment with status 0x{status.Status:04X}")
    return Sent("sent")


class Commitments:
    """What destinations with `commit` were asked to keep, and what they say."""

    def __init__(self, config: Config, store: Store, settle: Callable[[str], None]) -> None:
        """Asks nothing yet.

        Args:
            settle: called with a task of which something was reported.
        """
        self._config = config
        self._store = store
        self._settle = settle

    def ask(self, task_id: str, destination: Destination, files: Outgoing) -> None:
        """One attempt to have a destination commit itself to what it has stored of a task.

        Args:
            destination: whom to ask; nothing is asked of one that need not commit itself any more.
        """
        stored = [
            each
            for each in self._store.deliveries(task_id, "stored")
            if each.destination == destination.name
            and is_due(each.next_at, now())
            and isinstance(files.get(each.sop_uid), list)
        ]
        if not stored:
            return
        if not destination.commit:
            for each in stored:
                self._set(each, "sent", each.attempts)
            return
        transaction = str(generate_uid(prefix=None))
        # written first, so that a report is known even if the device stops before the answer
        self._store.add_commitment(transaction, task_id, destination.name)
        paths = [Path(path) for each in stored for path in files[each.sop_uid]]
        asked = ask(paths, destination, self._config.node.ae_title, transaction, self.on_report)
        for each in stored:
            failed = asked.outcome != "sent"
            attempts = each.attempts + (failed or each.last_error == _ASKED)
            if next_attempt_at(asked.outcome, attempts) is None:
                self._set(each, "dead", attempts, asked.error or _ASKED)
                self._store.event(
                    "error",
                    f"{each.kind} is given up, {destination.name} {asked.error or _ASKED}",
                    each.task_id,
                )
            else:
                wait = wait_seconds(attempts) if failed else LONGEST_WAIT_SECONDS
                self._set(each, "stored", attempts, asked.error or _ASKED, later(wait))

    def on_report(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT; the status is 0 if it was noted."""
        try:
            if len(event.request.EventInformation.getvalue()) > _MOST_REPORT_BYTES:  # type: ignore[union-attr]
                return _INVALID, None
            report = read_report(event.event_information)
        except Exception:  # there is none, or it cannot be read
            return _INVALID, None
        try:
            return (_SUCCESS if self.take(report) else _INVALID), None
        except FocalisError:  # a full disk; the destination is asked again
            return _PROCESSING_FAILURE, None

    def take(self, report: Report) -> bool:
        """Note what a destination reports: committed, or sent again later; False if the device did not ask for it."""
        asked = self._store.commitment(report.transaction_uid)
        if asked is None:
            return False
        task_id, name = asked
        destination = next((each for each in self._config.destinations if each.name == name), None)
        for each in self._store.deliveries(task_id, "stored"):
            if destination is None or each.destination != name:
                continue
            uids = sent_uids(self._store, each, destination)
            if faults := [report.failed[uid] for uid in uids if uid in report.failed]:
                self._refused(each, faults[0])
            elif report.committed.issuperset(uids):
                self._set(each, "committed", each.attempts)
                self._store.audit("the device", "", f"{name} committed itself to the {each.kind}", task_id)
        self._store.forget_commitment(report.transaction_uid)
        self._settle(task_id)
        return True

    def _refused(self, each: Delivery, reason: str) -> None:
        """It is sent again, since the destination may have lost it."""
        error = f"did not commit it: {reason}"
        next_at = next_attempt_at("rejected", each.attempts)
        dead = next_at is None
        self._set(each, "dead" if dead else "waiting", each.attempts, error, next_at)
        level: Level = "error" if dead else "warning"
        self._store.event(
            level,
            f"{each.kind} {'is given up' if dead else 'is sent again'}, {each.destination} {error}",
            each.task_id,
        )

    def _set(
        self, each: Delivery, state: DeliveryState, attempts: int, error: str = "", next_at: str | None = None
    ) -> None:
        place = (each.task_id, each.sop_uid, each.destination)
        self._store.set_delivery(
            *place, state, attempts=attempts, last_error=error, next_at=next_at, only="stored"
        )


def _reference(file: Path) -> Dataset:
    meta = read_file_meta_info(file)
    item = Dataset()
    item.ReferencedSOPClassUID = meta.MediaStorageSOPClassUID
    item.ReferencedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return item


def _reason(code: int) -> str:
    return _REASONS.get(code, f"reason 0x{code:04X}")

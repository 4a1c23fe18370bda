"""Tell people and programs what happens; what fails is tried again like a delivery."""

from __future__ import annotations

import logging

from focalis.device import delivery, messages
from focalis.device.config import Config
from focalis.device.records import Notice, NoticeEvent, now
from focalis.device.store import Store
from focalis.device.web.children import run_job
from focalis.errors import FocalisError

_log = logging.getLogger(__name__)


class Notifier:
    """Notices to the recipients of focalis.toml; they wait in the store until they are given."""

    def __init__(self, config: Config, store: Store, version: str) -> None:
        """Tells nothing yet."""
        self._config = config
        self._store = store
        self._version = version
        self._recipients = {each.name: each for each in config.notify}

    def tell(
        self,
        event: NoticeEvent,
        text: str,
        key: str,
        task_id: str | None = None,
        series_uid: str | None = None,
    ) -> None:
        """Have everybody told who asked for an event.

        Args:
            text: one line, without a patient's name.
            key: what the notice is about; it is given once for each key.
        """
        try:
            for each in self._recipients.values():
                if event in each.events:
                    self._store.add_notice(each.name, f"{event} {key}", event, text, task_id, series_uid)
        except FocalisError as error:  # a full disk, above all; the work goes on
            _log.error("nobody was told that %s: %s", text, error)

    def due(self) -> list[int]:
        """The numbers of the notices to be given now."""
        moment = now()
        waiting = self._store.notices("waiting") if self._recipients else []
        return [
            each.number
            for each in waiting
            if each.recipient in self._recipients and delivery.is_due(each.next_at, moment)
        ]

    def send(self, number: int) -> None:
        """One attempt to give a notice."""
        each = next((each for each in self._store.notices("waiting") if each.number == number), None)
        recipient = self._recipients.get(each.recipient) if each else None
        if each is None or recipient is None:
            return
        patient = self._patient(each) if recipient.patients else ""
        error = messages.send(recipient, each, self._version, patient)
        attempts = each.attempts + 1
        next_at = delivery.next_attempt_at("failed", attempts)
        if not error:
            self._store.set_notice(number, "sent", attempts)
        elif next_at is None:
            self._store.set_notice(number, "dead", attempts, error)
            self._store.event("error", f"{recipient.name} could not be told: it {error}")
        else:
            self._store.set_notice(number, "waiting", attempts, error, next_at)
            if attempts == 1:
                self._store.event("warning", f"{recipient.name} is notified later: it {error}")

    def _patient(self, notice: Notice) -> str:
        """Name and ID of the patient that a notice is about; empty if it is about none, or they cannot be read."""
        task = self._store.task(notice.task_id) if notice.task_id else None
        series_uid = task.series_uid if task else notice.series_uid
        first = self._store.instances(series_uid)[:1] if series_uid else []
        if not first:
            return ""
        try:
            files = list(map(str, self._store.at_hand(first)))
            told: dict[str, object] = {"files": files, "charset": self._config.node.charset}
            (row,) = run_job("identify", told, self._config.limits)
        except FocalisError:
            return ""
        return ", ".join(filter(None, (row["name"], row["patient_id"])))

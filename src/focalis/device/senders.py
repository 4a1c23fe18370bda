"""The store's half about senders: which sendings broke off, and what senders were refused."""

from __future__ import annotations

from focalis.device.counters import Counters
from focalis.device.database import Database
from focalis.device.records import Refusal, now

_REFUSALS_KEPT = 500


class Senders:
    """Sendings of series and refusals; see `focalis.device.store.Store`.

    A sending is one association, request or scan that brings images of one series. It is written when it begins, so
    that a stop of the device in the middle is known after the next start.
    """

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self.counters = counters

    def sending_began(self, series_uid: str) -> int:
        """A sender begins to send a series; returns the number of the sending."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "INSERT INTO sendings (series_uid, began_at) VALUES (?, ?) RETURNING number",
                (series_uid, now()),
            )
            return int(found.scalar_one())

    def sending_ended(self, number: int, fault: str = "") -> None:
        """A sending ended.

        One that ended well makes up for those that broke off before it began: senders try again.

        Args:
            number: as `sending_began` returned it.
            fault: how it broke off, one line; empty if it ended well.
        """
        with self._database.transaction() as connection:
            if fault:
                # a new number stands after all that have begun by now, whatever the clock's resolution
                connection.execute(
                    "INSERT INTO sendings (series_uid, began_at, ended_at, fault)"
                    " SELECT series_uid, began_at, ?, ? FROM sendings WHERE number = ?",
                    (now(), fault, number),
                )
            else:
                connection.execute(
                    "DELETE FROM sendings WHERE fault != '' AND number < ? AND series_uid ="
                    " (SELECT series_uid FROM sendings WHERE number = ?)",
                    (number, number),
                )
            connection.execute("DELETE FROM sendings WHERE number = ?", (number,))

    def faults_of(self, series_uid: str) -> list[str]:
        """How the sendings of a series broke off that no later one made up for, each cause once."""
        rows = self._database.rows(
            "SELECT DISTINCT fault FROM sendings WHERE series_uid = ? AND fault != '' ORDER BY fault",
            series_uid,
        )
        return [row["fault"] for row in rows]

    def break_off_sendings(self) -> None:
        """No sender outlives the process: what was open when it stopped has broken off."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE sendings SET ended_at = ?, fault = 'the device stopped while it came' WHERE fault = ''",
                (now(),),
            )
            connection.execute("DELETE FROM sendings WHERE series_uid NOT IN (SELECT series_uid FROM series)")

    def refuse(self, peer: str, reason: str) -> bool:
        """Count something that a sender was refused.

        Args:
            peer: who it is, for people; never a patient's name.
            reason: what was refused and why, one line.

        Returns:
            Whether it is the first time that this peer was refused something for this reason.
        """
        self.counters.add("refusals_total")
        with self._database.transaction() as connection:
            at = now()
            times = connection.execute(
                "INSERT INTO refusals VALUES (?, ?, 1, ?, ?) ON CONFLICT (peer, reason) DO UPDATE"
                " SET times = refusals.times + 1, last_at = excluded.last_at RETURNING times",
                (peer, reason, at, at),
            ).scalar_one()
            connection.execute(
                "DELETE FROM refusals WHERE (peer, reason) NOT IN"
                " (SELECT peer, reason FROM refusals ORDER BY last_at DESC, first_at DESC LIMIT ?)",
                (_REFUSALS_KEPT,),
            )
        return bool(times == 1)

    def refusals(self) -> list[Refusal]:
        """What senders were refused, a line per sender and reason, the latest first."""
        rows = self._database.rows("SELECT * FROM refusals ORDER BY last_at DESC, peer, reason")
        return [Refusal(**row) for row in rows]

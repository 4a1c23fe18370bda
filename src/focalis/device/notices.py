"""The store's half about notices: what people and programs are to be told, until they have been."""

from __future__ import annotations

from focalis.device.database import Database
from focalis.device.records import DeliveryState, Notice, now

_KEPT = 10_000


class Notices:
    """Notices to recipients of focalis.toml; see `focalis.device.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_notice(
        self, recipient: str, key: str, event: str, text: str, task_id: str | None, series_uid: str | None
    ) -> None:
        """A recipient is to be told something; one that was added under this key before stays as it is."""
        with self._database.transaction() as connection:
            number = connection.execute(
                "INSERT INTO notices (recipient, key, event, text, at, task_id, series_uid, state, attempts,"
                " last_error, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', 0, '', ?) ON CONFLICT DO NOTHING"
                " RETURNING number",
                (recipient, key, event, text, now(), task_id, series_uid, now()),
            ).scalar()
            connection.execute(
                "DELETE FROM notices WHERE number <= ? AND state != 'waiting'",
                ((number or 0) - _KEPT,),
            )

    def notices(self, state: DeliveryState | None = None) -> list[Notice]:
        """Notices, in a state, the newest first."""
        rows = self._database.rows(
            "SELECT number, recipient, event, text, at, task_id, series_uid, state, attempts, last_error, next_at"
            " FROM notices WHERE ?1 IS NULL OR state = ?1 ORDER BY number DESC",
            state,
        )
        return [Notice(**row) for row in rows]

    def set_notice(
        self,
        number: int,
        state: DeliveryState,
        attempts: int,
        last_error: str = "",
        next_at: str | None = None,
    ) -> None:
        """What became of an attempt to tell."""
        self._database.change(
            "UPDATE notices SET state = ?, attempts = ?, last_error = ?, next_at = ? WHERE number = ?",
            (state, attempts, last_error, next_at, number),
        )

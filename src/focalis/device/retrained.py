"""The store's half about models that are trained on with the reviewers' corrections."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from focalis.device.database import Database
from focalis.device.records import Retraining, RetrainingState, now

_OPEN = "state IN ('exporting', 'training', 'judging')"


class Retrained:
    """Retrainings, one at a time; see `focalis.device.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_retraining(self, model: str, base: str, who: str) -> Retraining | None:
        """Add one in its first state; the new model is called BASE-rNUMBER. None if another one has not ended."""
        with self._database.transaction() as connection:
            if connection.execute(f"SELECT 1 FROM retrainings WHERE {_OPEN}").fetchone():
                return None
            number = connection.execute(
                "INSERT INTO retrainings (model, name, state, reason, who, at, ended_at, sha256, judged)"
                " VALUES (?, '', 'exporting', '', ?, ?, '', '', '{}')",
                (model, who, now()),
            ).lastrowid
            connection.execute(
                "UPDATE retrainings SET name = ? WHERE number = ?", (f"{base}-r{number}", number)
            )
        return self.retrainings()[0]

    def retrainings(self) -> list[Retraining]:
        """All of them, the newest first."""
        rows = self._database.rows("SELECT * FROM retrainings ORDER BY number DESC")
        return [_retraining(row) for row in rows]

    def set_retraining(
        self,
        number: int,
        state: RetrainingState,
        reason: str = "",
        sha256: str = "",
        judged: dict[str, Any] | None = None,
    ) -> bool:
        """Another state; False, and nothing changes, if it has ended, so that what was cancelled stays so."""
        ended = now() if state in ("done", "failed", "cancelled") else ""
        return bool(
            self._database.change(
                "UPDATE retrainings SET state = ?, reason = ?, ended_at = ?, sha256 = ?, judged = ?"
                f" WHERE number = ? AND {_OPEN}",
                (state, reason, ended, sha256, json.dumps(judged or {}), number),
            ).rowcount
        )


def _retraining(row: sqlite3.Row) -> Retraining:
    return Retraining(**{**dict(row), "judged": json.loads(row["judged"])})

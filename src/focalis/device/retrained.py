"""The store's half about models that are trained on with the reviewers' corrections."""

from __future__ import annotations

import json
from typing import Any

from focalis.device.database import Database, Row
from focalis.device.records import UNDER_WAY, Retraining, RetrainingState, now

_OPEN = f"state IN {UNDER_WAY}"


class Retrained:
    """Retrainings, one at a time; see `focalis.device.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_retraining(self, model: str, base: str, who: str) -> Retraining | None:
        """Add one in its first state; the new model is called BASE-rNUMBER. None if another one has not ended.

        A long base is cut: a model's name has up to 64 characters.
        """
        with self._database.transaction() as connection:
            if connection.rows(f"SELECT 1 FROM retrainings WHERE {_OPEN}"):
                return None
            number = connection.execute(
                "INSERT INTO retrainings (model, name, state, reason, who, at, ended_at, sha256, judged)"
                " VALUES (?, '', 'exporting', '', ?, ?, '', '', '{}') RETURNING number",
                (model, who, now()),
            ).scalar_one()
            ending = f"-r{number}"
            name = base[: 64 - len(ending)] + ending
            connection.execute("UPDATE retrainings SET name = ? WHERE number = ?", (name, number))
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
        did: str = "",
    ) -> bool:
        """Another state, and what the device did, for the audit trail, in one step.

        Returns:
            False, and nothing changes, if it has ended, so that what was cancelled stays so.
        """
        ended = now() if state in ("done", "failed", "cancelled") else ""
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE retrainings SET state = ?, reason = ?, ended_at = ?, sha256 = ?, judged = ?"
                f" WHERE number = ? AND {_OPEN}",
                (state, reason, ended, sha256, json.dumps(judged or {}), number),
            ).rowcount
            if changed and did:
                connection.execute(
                    "INSERT INTO audit (at, who, address, did) VALUES (?, 'the device', '', ?)", (now(), did)
                )
        return bool(changed)


def _retraining(row: Row) -> Retraining:
    return Retraining(**{**row, "judged": json.loads(row["judged"])})

"""The store's part about outlines that persons edited."""

from __future__ import annotations

from focalis.device.database import Database
from focalis.device.records import Edit, now

_KEPT = "SELECT number, task_id, lesion, operation, voxels, before, by, at FROM edits WHERE undone_by = ''"


class Edits:
    """Edits of lesions' outlines; none is removed, so that each can be undone. See `focalis.device.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def edition(self, task_id: str) -> int:
        """A number that rises with each edit of a task's lesions, and each edit undone; 0 without any."""
        (row,) = self._database.rows(
            "SELECT coalesce(max(number), 0) + count(CASE WHEN undone_by != '' THEN 1 END) AS edition"
            " FROM edits WHERE task_id = ?",
            task_id,
        )
        return int(row["edition"])

    def edits(self, task_id: str) -> list[Edit]:
        """The edits of a task's lesions that were not undone, in their order."""
        rows = self._database.rows(f"{_KEPT} AND task_id = ? ORDER BY number", task_id)
        return [Edit(**row) for row in rows]

    def edited_lesions(self, task_id: str) -> list[int]:
        """The numbers of the lesions that have an edit that was not undone."""
        rows = self._database.rows(
            "SELECT DISTINCT lesion FROM edits WHERE task_id = ? AND undone_by = '' ORDER BY lesion", task_id
        )
        return [int(row["lesion"]) for row in rows]

    def last_edit(self, task_id: str, lesion: int) -> Edit | None:
        """The newest edit of a lesion that was not undone."""
        rows = self._database.rows(
            f"{_KEPT} AND task_id = ? AND lesion = ? ORDER BY number DESC LIMIT 1", task_id, lesion
        )
        return next((Edit(**row) for row in rows), None)

    def edit(self, task_id: str, lesion: int, operation: str, voxels: str, by: str) -> None:
        """Keep an edit, and accept the lesion with it; the arguments are as in `Edit`."""
        at = now()
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO edits (task_id, lesion, operation, voxels, before, by, at) VALUES (?1, ?2, ?3, ?4,"
                " coalesce((SELECT verdict FROM reviews WHERE task_id = ?1 AND lesion = ?2), ''), ?5, ?6)",
                (task_id, lesion, operation, voxels, by, at),
            )
            given = {"task_id": task_id, "lesion": lesion, "verdict": "accepted", "by": by, "at": at}
            connection.put("reviews", ["task_id", "lesion"], given)

    def undo_edit(self, edit: Edit, by: str) -> None:
        """Take an edit back, and with it the acceptance that it gave; a rejection that came later stays."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE edits SET undone_by = ? WHERE number = ?", (by, edit.number))
            accepted = "WHERE task_id = ? AND lesion = ? AND verdict = 'accepted'"
            if edit.before:
                connection.execute(
                    f"UPDATE reviews SET verdict = ?, by = ?, at = ? {accepted}",
                    (edit.before, by, now(), edit.task_id, edit.lesion),
                )
            else:
                connection.execute(f"DELETE FROM reviews {accepted}", (edit.task_id, edit.lesion))

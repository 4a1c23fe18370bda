"""The working half of the store: tasks, results, deliveries, reviews and the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from focalis.device.bucket_files import BucketFiles
from focalis.device.counters import STAGES, Counters
from focalis.device.database import Database, Row
from focalis.device.object_files import ObjectFiles
from focalis.device.records import (
    Delivery,
    DeliveryState,
    Event,
    Level,
    ResultKind,
    ResultObject,
    Review,
    Roles,
    SentKind,
    SeriesTask,
    TaskState,
    Verdict,
    now,
)
from focalis.errors import DataError
from focalis.files import sha256_of

_TASKS = """
SELECT tasks.*, (SELECT later.task_id FROM tasks AS later WHERE later.supersedes = tasks.task_id
                 ORDER BY later.created_at LIMIT 1) AS superseded_by
FROM tasks
"""
_PERSON = "coalesce(nullif(person, ''), tasks.series_uid)"
_TASKS_AND_SERIES = "tasks JOIN series ON series.series_uid = tasks.series_uid"
_BEGUN_OF_PERSON = f"""
SELECT tasks.task_id FROM {_TASKS_AND_SERIES} WHERE tasks.state IN ('checking', 'segmenting', 'writing')
AND {_PERSON} = (SELECT {_PERSON} FROM {_TASKS_AND_SERIES} WHERE task_id = ?)
"""
_EVENTS_KEPT = 100_000
_log = logging.getLogger(__name__)


class Work:
    """Tasks and their outcomes; see `focalis.device.store.Store`.

    Steps are repeated after a stop, so adding the same thing twice adds it once.
    """

    def __init__(self, database: Database, files: ObjectFiles, counters: Counters) -> None:
        self._database = database
        self._files = files
        self.counters = counters

    def add_task(
        self,
        task_id: str,
        series_uid: str,
        model: str,
        model_sha256: str,
        input_sha256: str,
        supersedes: str | None = None,
        partial: str = "",
        urgent: bool = False,
        shadow_of: str = "",
    ) -> SeriesTask:
        """Add a task in the state "waiting"; if it is there already, it stays as it is.

        For `partial`, `urgent` and `shadow_of` see `SeriesTask`.

        Raises:
            DataError: its series is not there, or the disk is full.
        """
        at = now()
        self._database.change(
            "INSERT INTO tasks (task_id, series_uid, model, model_sha256, input_sha256, state, reason,"
            " created_at, updated_at, supersedes, partial, urgent, shadow_of)"
            " VALUES (?, ?, ?, ?, ?, 'waiting', '', ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                task_id,
                series_uid,
                model,
                model_sha256,
                input_sha256,
                at,
                at,
                supersedes,
                partial,
                urgent,
                shadow_of,
            ),
        )
        task = self.task(task_id)
        assert task is not None
        return task

    def task(self, task_id: str) -> SeriesTask | None:
        """One task; None if it is not there."""
        rows = self._database.rows(f"{_TASKS} WHERE task_id = ?", task_id)
        return _task(rows[0]) if rows else None

    def tasks(self, state: TaskState | None = None, limit: int | None = None) -> list[SeriesTask]:
        """All tasks, or those in a state, the newest first."""
        rows = self._database.rows(
            f"{_TASKS} WHERE ?1 IS NULL OR state = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2",
            state,
            sys.maxsize if limit is None else limit,
        )
        return [_task(row) for row in rows]

    def persons(self, states: Sequence[TaskState]) -> dict[str, str]:
        """Whose images the tasks in these states segment: a hash of the person, or the series if nobody is named."""
        rows = self._database.rows(
            f"SELECT task_id, {_PERSON} AS person FROM {_TASKS_AND_SERIES}"
            f" WHERE tasks.state IN ({', '.join('?' * len(states))})",
            *states,
        )
        return {row["task_id"]: row["person"] for row in rows}

    def task_of(self, series_uid: str, model: str, shadow: bool = False) -> SeriesTask | None:
        """The newest task of a series with a model, one of those that are sent or one of a model on trial."""
        tasks = [task for task in self.tasks_of(series_uid) if bool(task.shadow_of) == shadow]
        return next((task for task in tasks if task.model == model), None)

    def tasks_of(self, series_uid: str) -> list[SeriesTask]:
        """The tasks of a series, the newest first."""
        rows = self._database.rows(
            f"{_TASKS} WHERE series_uid = ? ORDER BY created_at DESC, rowid DESC", series_uid
        )
        return [_task(row) for row in rows]

    def set_task_state(
        self,
        task_id: str,
        state: TaskState,
        reason: str = "",
        seconds: float | None = None,
        alone: bool = False,
    ) -> bool:
        """Set a task's state and its reason; `seconds` of work, once it is known, stays.

        Args:
            alone: not while another task of the same person has begun, unless this one has, too, and was interrupted.

        Returns:
            False if `alone` forbids it; then nothing changes.
        """
        at = now()
        with self._database.transaction() as connection:
            before = connection.rows("SELECT state, updated_at FROM tasks WHERE task_id = ?", task_id)
            if alone:
                begun = {row["task_id"] for row in connection.rows(_BEGUN_OF_PERSON, task_id)}
                if begun and task_id not in begun:
                    return False
            connection.execute(
                "UPDATE tasks SET state = ?, reason = ?, updated_at = ?, seconds = coalesce(?, seconds)"
                " WHERE task_id = ?",
                (state, reason, at, seconds, task_id),
            )
        if before and before[0]["state"] != state:
            passed = datetime.fromisoformat(at) - datetime.fromisoformat(before[0]["updated_at"])
            self.counters.took(before[0]["state"], passed.total_seconds())
            if state not in STAGES:
                self.counters.add("tasks_ended_total", state=state)
        return True

    def set_outside(self, task_id: str, outside: str) -> None:
        """Keep how a task's series lies outside of what the model was trained on; empty if it does not."""
        self._database.change("UPDATE tasks SET outside = ? WHERE task_id = ?", (outside, task_id))

    def release_task(self, task_id: str, by: str) -> bool:
        """Have a task wait again whose series lies outside of what the model was trained on, to be segmented now.

        Returns:
            False if it is neither held nor refused for that; then nothing changes.
        """
        return bool(
            self._database.change(
                "UPDATE tasks SET state = 'waiting', reason = '', released = ?, updated_at = ?"
                " WHERE task_id = ? AND state IN ('held', 'refused') AND outside != ''",
                (by, now(), task_id),
            )
        )

    def add_result(self, task_id: str, kind: ResultKind, sop_uid: str, sha256: str, path: Path) -> None:
        """Add a result whose file was flushed, below the store's folder. Adding it again changes nothing.

        Raises:
            DataError: it is there with other content, or its file lies elsewhere, or is not there.
        """
        if not path.resolve().is_relative_to(self._files.folder.resolve()):
            raise DataError.at(path, "lies outside the store", f"write results below {self._files.folder}")
        relative = str(path.resolve().relative_to(self._files.folder.resolve()))
        self._files.flush_name(path)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO results (task_id, kind, sop_uid, sha256, path) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (task_id, kind, sop_uid, sha256, relative),
            )
            (found,) = connection.rows(
                "SELECT sha256 FROM results WHERE task_id = ? AND sop_uid = ?", task_id, sop_uid
            )
            if found["sha256"] != sha256:
                raise DataError.at(path, "was written before with other content", "results are written once")

    @property
    def in_bucket(self) -> bool:
        """Whether objects lie in a bucket, and the folder holds copies."""
        return isinstance(self._files, BucketFiles)

    def keep_results(self, task_id: str, made: Sequence[tuple[str, str, Path]]) -> bool:
        """Have files of a task in the bucket, and then name all of them in the rows, or none.

        Args:
            made: kind, SOP Instance UID and file of each; of a note "note" and its name.

        Returns:
            False if the task has one of them already: what was named first stays.

        Raises:
            DataError: the bucket or the database cannot be used now; nothing is named.
        """
        assert isinstance(self._files, BucketFiles)
        rows = []
        for kind, name, path in made:
            sha256 = sha256_of(path)
            rows.append((task_id, kind, name, sha256, self._files.keep_result(task_id, path, sha256)))
        with self._database.transaction() as connection:
            there = connection.rows("SELECT sop_uid FROM results WHERE task_id = ?", task_id)
            if {row["sop_uid"] for row in there} & {name for _, name, _ in made}:
                return False
            for row in rows:
                connection.execute(
                    "INSERT INTO results (task_id, kind, sop_uid, sha256, path) VALUES (?, ?, ?, ?, ?)", row
                )
        return True

    def results(self, task_id: str) -> list[ResultObject]:
        """The results of a task, in the order in which they were added."""
        return self._named(task_id, "kind != 'note'")

    def notes(self, task_id: str) -> dict[str, ResultObject]:
        """What stands beside the results of a task in the bucket, by name."""
        return {each.sop_uid: each for each in self._named(task_id, "kind = 'note'")}

    def _named(self, task_id: str, which: str) -> list[ResultObject]:
        query = f"SELECT * FROM results WHERE task_id = ? AND {which} ORDER BY rowid"
        rows = self._database.rows(query, task_id)
        return [ResultObject(**{**row, "path": self._files.folder / row["path"]}) for row in rows]

    def add_delivery(self, task_id: str, kind: SentKind, sop_uid: str, destination: str) -> None:
        """A result is to be sent to a destination, at once; nothing changes if that is known, or it was superseded."""
        self._database.change(
            "INSERT INTO deliveries (task_id, kind, sop_uid, destination, state, attempts, last_error, next_at)"
            " SELECT ?1, ?2, ?3, ?4, 'waiting', 0, '', ?5"
            " WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE supersedes = ?1) ON CONFLICT DO NOTHING",
            (task_id, kind, sop_uid, destination, now()),
        )

    def deliveries(self, task_id: str | None = None, state: DeliveryState | None = None) -> list[Delivery]:
        """Deliveries, of a task, in a state, the oldest first."""
        rows = self._database.rows(
            "SELECT * FROM deliveries WHERE (?1 IS NULL OR task_id = ?1) AND (?2 IS NULL OR state = ?2)"
            " ORDER BY rowid",
            task_id,
            state,
        )
        return [Delivery(**row) for row in rows]

    def withdraw(self, task_id: str) -> int:
        """Send nothing more of a task; returns how many deliveries still waited."""
        return self._database.change(
            "DELETE FROM deliveries WHERE task_id = ? AND state = 'waiting'", (task_id,)
        )

    def set_delivery(
        self,
        task_id: str,
        sop_uid: str,
        destination: str,
        state: DeliveryState,
        *,
        attempts: int,
        last_error: str = "",
        next_at: str | None = None,
        only: DeliveryState | None = None,
    ) -> None:
        """What became of an attempt to send; when it was stored is noted.

        With `only`, nothing changes unless it is in that state.
        """
        self._database.change(
            "UPDATE deliveries SET state = ?1, attempts = ?2, last_error = ?3, next_at = ?4, sent_at = CASE"
            " WHEN ?1 IN ('waiting', 'dead') THEN NULL ELSE coalesce(sent_at, ?5) END"
            " WHERE task_id = ?6 AND sop_uid = ?7 AND destination = ?8 AND (?9 IS NULL OR state = ?9)",
            (state, attempts, last_error, next_at, now(), task_id, sop_uid, destination, only),
        )

    def add_commitment(self, transaction_uid: str, task_id: str, destination: str) -> None:
        """A destination is asked to commit itself to what it has stored of a task."""
        self._database.change(
            "INSERT INTO commitments VALUES (?, ?, ?, ?)", (transaction_uid, task_id, destination, now())
        )

    def commitment(self, transaction_uid: str) -> tuple[str, str] | None:
        """The task and the destination of a request that was not answered yet; None if there is none."""
        rows = self._database.rows("SELECT * FROM commitments WHERE transaction_uid = ?", transaction_uid)
        return (rows[0]["task_id"], rows[0]["destination"]) if rows else None

    def forget_commitment(self, transaction_uid: str) -> None:
        """The destination has reported."""
        self._database.change("DELETE FROM commitments WHERE transaction_uid = ?", (transaction_uid,))

    def review(self, task_id: str, lesions: Iterable[int], verdict: Verdict | None, by: str) -> None:
        """A person's verdict on lesions; a later one replaces it, and None withdraws it."""
        with self._database.transaction() as connection:
            for lesion in lesions:
                if verdict is None:
                    connection.execute(
                        "DELETE FROM reviews WHERE task_id = ? AND lesion = ?", (task_id, lesion)
                    )
                else:
                    given = {"task_id": task_id, "lesion": lesion, "verdict": verdict, "by": by, "at": now()}
                    connection.put("reviews", ["task_id", "lesion"], given)

    def reviews(self, task_id: str) -> list[Review]:
        """The verdicts on a task's lesions, by lesion."""
        rows = self._database.rows("SELECT * FROM reviews WHERE task_id = ? ORDER BY lesion", task_id)
        return [Review(**row) for row in rows]

    def verdicts_by_month(self) -> list[tuple[str, str, int, int]]:
        """Month (2026-01), model, accepted and rejected lesions of it in studies of that month; the newest first."""
        rows = self._database.rows(
            "SELECT substr(tasks.created_at, 1, 7) AS month, tasks.model AS model,"
            " sum(CASE WHEN verdict = 'accepted' THEN 1 ELSE 0 END) AS accepted, count(*) AS judged"
            " FROM reviews JOIN tasks ON tasks.task_id = reviews.task_id"
            " GROUP BY month, tasks.model ORDER BY month DESC, tasks.model"
        )
        return [
            (row["month"], row["model"], row["accepted"], row["judged"] - row["accepted"]) for row in rows
        ]

    def roles(self) -> dict[str, Roles]:
        """The models that take the places of those that routes name, by these."""
        rows = self._database.rows("SELECT model, current, shadow, stated FROM roles")
        return {row["model"]: Roles(**row) for row in rows}

    def set_roles(self, roles: Roles, who: str) -> None:
        """Put other models in the place of one that routes name."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM roles WHERE model = ?", (roles.model,))
            connection.execute(
                "INSERT INTO roles (model, current, shadow, who, at, stated) VALUES (?, ?, ?, ?, ?, ?)",
                (roles.model, roles.current, roles.shadow, who, now(), roles.stated),
            )

    def event(
        self, level: Level, text: str, task_id: str | None = None, series_uid: str | None = None
    ) -> None:
        """Write a line to the log, and to the process's own, which a full disk does not stop; never a patient's name.

        The oldest lines go.
        """
        about = f" (study {task_id})" if task_id else f" (series {series_uid})" if series_uid else ""
        _log.log(getattr(logging, level.upper()), "%s%s", text, about)
        with self._database.transaction() as connection:
            number = connection.execute(
                "INSERT INTO events (at, level, text, task_id, series_uid) VALUES (?, ?, ?, ?, ?) RETURNING number",
                (now(), level, text, task_id, series_uid),
            ).scalar_one()
            oldest = number - _EVENTS_KEPT
            connection.execute("DELETE FROM events WHERE number <= ?", (oldest,))

    def events(
        self, limit: int = 200, level: Level | None = None, task_id: str | None = None, find: str = ""
    ) -> list[Event]:
        """The last lines of the log, of a level, a task and with a text in them, the newest first."""
        rows = self._database.rows(
            "SELECT at, level, text, task_id, series_uid FROM events WHERE (?1 IS NULL OR level = ?1)"
            " AND (?2 IS NULL OR task_id = ?2) AND instr(lower(text), lower(?3)) > 0 ORDER BY number DESC LIMIT ?4",
            level,
            task_id,
            find,
            limit,
        )
        return [Event(**row) for row in rows]


def _task(row: Row) -> SeriesTask:
    return SeriesTask(**row)

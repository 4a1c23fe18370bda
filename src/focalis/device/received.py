"""The receiving half of the store: instances, series and quarantined objects."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from focalis.device.bucket_files import BucketFiles
from focalis.device.database import Database, Row, Transaction
from focalis.device.object_files import ObjectFiles, file_chunks
from focalis.device.records import Header, Instance, Kept, Quarantined, SeriesRow, SeriesState, Staged, now
from focalis.errors import DataError

_LONGEST_PAUSE_SECONDS = 900.0
"""Whoever sends more of a series after a longer pause sends it anew; the device does not wait that long."""
_MOST_VALUES = 100
"""Values of an attribute, over all images of a series."""
_QUARANTINED_OBJECTS = 10_000
_QUARANTINED_BYTES = 4_000_000_000
# Nothing is expected of it any more: it has arrived, every task of it has ended and every result was sent, and no study
# of the person is segmented, which may be compared with it.
_SETTLED = """
series.state != 'receiving'
AND (series.state IN ('unrouted', 'incomplete')
     OR EXISTS (SELECT 1 FROM tasks WHERE tasks.series_uid = series.series_uid))
AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.series_uid = series.series_uid
                AND tasks.state NOT IN ('done', 'out of scope', 'refused'))
AND NOT EXISTS (SELECT 1 FROM deliveries JOIN tasks USING (task_id)
                WHERE tasks.series_uid = series.series_uid AND deliveries.state NOT IN ('sent', 'committed'))
AND NOT EXISTS (SELECT 1 FROM series AS other JOIN tasks ON tasks.series_uid = other.series_uid
                WHERE other.person = series.person AND series.person != ''
                AND tasks.state IN ('waiting', 'checking', 'segmenting', 'writing'))
"""
_SERIES = """
SELECT series.*, (SELECT count(*) FROM instances WHERE instances.series_uid = series.series_uid) AS instances
FROM series
"""


class Received:
    """Instances and series; see `focalis.device.store.Store`."""

    def __init__(self, database: Database, files: ObjectFiles) -> None:
        self._database = database
        self._files = files
        # associations do not outlive the process, so neither do their counts
        self._associations: Counter[str] = Counter()
        self._association_lock = threading.Lock()
        self._keeping = threading.Lock()

    def stage(self, data: bytes | Path | Iterable[bytes]) -> Staged:
        """Write bytes, whole or in pieces, or a copy of a file, to a temporary file of the store and flush it.

        Raises:
            DataError: the file cannot be read, or the disk is full or fails; nothing stays.
        """
        if isinstance(data, bytes):
            return self._files.stage([data])
        return self._files.stage(file_chunks(data) if isinstance(data, Path) else data)

    def discard(self, staged: Staged) -> None:
        """Remove a staged file; nothing happens if it was kept or quarantined."""
        staged.path.unlink(missing_ok=True)

    def keep(self, data: bytes | Path | Staged, header: Header, source: str) -> Kept:
        """Keep an instance; it is durable when this returns.

        An instance reopens its series, a known one too: who sends a study again wants it looked at again. If an
        instance of that SOP Instance UID is kept already, the same content is "known", and other content is
        quarantined: the first one stays.

        Args:
            data: the file's bytes, a file to copy, or what was staged.
            header: what the file says of itself.
            source: who sent it, for people ("C-STORE CT1", "upload").

        Raises:
            DataError: the disk is full or fails; nothing is kept and nothing stays.
        """
        staged = data if isinstance(data, Staged) else self.stage(data)
        try:
            with self._keeping:
                first = self._sha256_of(header.sop_uid)
                if first is None:
                    self._place(staged, header, source)
                    return "kept"
                if first == staged.sha256:
                    self._see_again(staged, header.series_uid)
                    return "known"
            cause = "another object is kept under its SOP Instance UID"
            if not self.quarantine(staged, cause, source, header.series_uid, numbers=header.sop_uid):
                self._note_loss(header.series_uid, f"{cause}, {header.sop_uid}, and the quarantine is full")
            return "quarantined"
        finally:
            self.discard(staged)

    def quarantine(
        self,
        data: bytes | Path | Staged,
        cause: str,
        source: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
        numbers: str = "",
    ) -> bool:
        """Quarantine an object that may not be used, for a person to look at; durable when this returns.

        Its series is looked at again, because it lacks an image, or has two versions of one.

        Args:
            data: as for `keep`.
            cause: what is wrong with it; the page groups by it.
            series_uid: its series, if it is known.
            sop_uid: of a damaged object, the instance that a whole one would be.
            numbers: what the cause leaves out.

        Returns:
            False if the quarantine is full, so that a flood cannot fill the disk; then nothing is kept.

        Raises:
            DataError: the disk is full or fails.
        """
        staged = data if isinstance(data, Staged) else self.stage(data)
        try:
            (full,) = self._database.rows(
                "SELECT count(*) AS n, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS size FROM quarantine"
            )
            if full["n"] >= _QUARANTINED_OBJECTS or full["size"] + staged.bytes > _QUARANTINED_BYTES:
                return False
            with self._keeping:
                self._files.place(staged, self._files.quarantine_path(staged.sha256))
                row = {"sha256": staged.sha256, "bytes": staged.bytes, "source": source, "cause": cause}
                row |= {"reason": f"{cause}: {numbers}" if numbers else cause}
                row |= {"at": now(), "series_uid": series_uid, "sop_uid": sop_uid}
                with self._database.transaction() as connection:
                    connection.put("quarantine", ["sha256"], row)
            if series_uid is not None:
                self.look_again(series_uid)
            return True
        finally:
            self.discard(staged)

    def quarantined(self, series_uid: str | None = None) -> list[Quarantined]:
        """Quarantined objects, all or of a series, newest first."""
        rows = self._database.rows(
            "SELECT * FROM quarantine WHERE ?1 IS NULL OR series_uid = ?1 ORDER BY at DESC, sha256",
            series_uid,
        )
        return [Quarantined(**row, path=self._files.quarantine_path(row["sha256"])) for row in rows]

    def delete_quarantined(self, sha256: str) -> None:
        """Remove an object that was kept aside; nothing happens if it is not there."""
        with self._keeping:
            self._database.change("DELETE FROM quarantine WHERE sha256 = ?", (sha256,))
            self._files.remove([self._files.quarantine_path(sha256)])

    def series(self, state: SeriesState | None = None) -> list[SeriesRow]:
        """All series, or those in a state, the newest first."""
        rows = self._database.rows(
            f"{_SERIES} WHERE ?1 IS NULL OR state = ?1 ORDER BY last_at DESC, series_uid", state
        )
        return [self._series_row(row) for row in rows]

    def series_row(self, series_uid: str) -> SeriesRow | None:
        """One series; None if it is not there."""
        rows = self._database.rows(f"{_SERIES} WHERE series_uid = ?", series_uid)
        return self._series_row(rows[0]) if rows else None

    def series_of_study(self, study_uid: str) -> list[SeriesRow]:
        """The series of a study, the newest first."""
        rows = self._database.rows(
            f"{_SERIES} WHERE study_uid = ? ORDER BY last_at DESC, series_uid", study_uid
        )
        return [self._series_row(row) for row in rows]

    def series_of_person(self, person: str) -> list[SeriesRow]:
        """The series with the same Patient ID and issuer, the newest first; none for an empty `person`."""
        rows = self._database.rows(
            f"{_SERIES} WHERE person = ? AND person != '' ORDER BY last_at DESC, series_uid", person
        )
        return [self._series_row(row) for row in rows]

    def namesakes(self, row: SeriesRow) -> list[SeriesRow]:
        """The series of other studies whose Patient ID or its issuer differs from a series' in spelling alone."""
        rows = self._database.rows(
            f"{_SERIES} WHERE namesake = ? AND namesake != '' AND person != ? AND study_uid != ?",
            row.namesake,
            row.person,
            row.study_uid,
        )
        return [self._series_row(found) for found in rows]

    def instances(self, series_uid: str) -> list[Instance]:
        """The instances of a series with the paths of their files, in the order of their hashes."""
        rows = self._database.rows(
            "SELECT * FROM instances WHERE series_uid = ? ORDER BY sha256, sop_uid", series_uid
        )
        return [Instance(**row, path=self._files.object_path(row["sha256"])) for row in rows]

    def images(self, series_uid: str) -> list[Instance]:
        """The instances of a series that are segmented and shown: those that were not left out."""
        return [each for each in self.instances(series_uid) if not each.left_out]

    def leave_out(self, series_uid: str, sha256: Collection[str]) -> None:
        """Segment and show all of a series but these instances."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE instances SET left_out = 0 WHERE series_uid = ?", (series_uid,))
            for each in sha256:
                connection.execute(
                    "UPDATE instances SET left_out = 1 WHERE series_uid = ? AND sha256 = ?",
                    (series_uid, each),
                )

    def acquisition_counts(self, study_uid: str) -> dict[str, int]:
        """Acquisition Number to the number of single images with it in a study."""
        rows = self._database.rows(
            "SELECT acquisition, count(*) AS n FROM instances WHERE study_uid = ? AND frames = 1"
            " GROUP BY acquisition",
            study_uid,
        )
        return {row["acquisition"]: row["n"] for row in rows}

    def association_opened(self, series_uids: Iterable[str]) -> None:
        """An association began to send these series; they are not complete while it is open."""
        with self._association_lock:
            self._associations.update(series_uids)

    def association_closed(self, series_uids: Iterable[str]) -> None:
        """An association that sent these series ended, however it ended; the quiet time starts now."""
        uids = list(series_uids)
        with self._association_lock:
            self._associations.subtract(uids)
            self._associations = +self._associations
        with self._database.transaction() as connection:
            for uid in uids:
                connection.execute(
                    "UPDATE series SET last_at = ? WHERE series_uid = ? AND state = 'receiving'", (now(), uid)
                )

    def series_to_complete(self, quiet_seconds: float) -> list[SeriesRow]:
        """The series that have arrived: as many instances as they said, or quiet for so long with no sender.

        A series that came in parts is given twice the longest pause between them. A time in the future is of a clock
        that was wrong, and no reason to wait for it.
        """
        at = datetime.now(UTC)
        latest = (at + timedelta(seconds=1)).isoformat(timespec="milliseconds")

        def is_quiet(row: SeriesRow) -> bool:
            seconds = max(quiet_seconds, 2 * row.pause_seconds)
            before = (at - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
            return row.open_associations == 0 and not before < row.last_at <= latest

        return [row for row in self.series("receiving") if row.instances == row.expected or is_quiet(row)]

    def look_again(self, series_uid: str) -> None:
        """Something happened to a series: once it is quiet, it is judged anew; nothing happens if it is not there."""
        self._database.change(
            "UPDATE series SET state = 'receiving', last_at = ?, reason = '', released = '' WHERE series_uid = ?",
            (now(), series_uid),
        )

    def complete(self, series_uid: str) -> None:
        """The series has arrived. Ask for its instances after this call: what comes later reopens the series."""
        self.set_series_state(series_uid, "complete")

    def hold(self, series_uid: str, reason: str) -> bool:
        """A complete series turns out to be incomplete, and waits for a person or for more of it.

        Returns:
            False if more of it has come meanwhile; then nothing changes.
        """
        return bool(
            self._database.change(
                "UPDATE series SET state = 'incomplete', reason = ? WHERE series_uid = ? AND state = 'complete'",
                (reason, series_uid),
            )
        )

    def release(self, series_uid: str, by: str) -> bool:
        """Have an incomplete series segmented all the same.

        Returns:
            False if it is not incomplete, or not any more; then nothing changes.
        """
        return bool(
            self._database.change(
                "UPDATE series SET state = 'complete', released = ? WHERE series_uid = ? AND state = 'incomplete'",
                (by, series_uid),
            )
        )

    def released_series(self) -> list[str]:
        """The released series that wait for their task."""
        rows = self._database.rows(
            "SELECT series_uid FROM series WHERE state = 'complete' AND released != '' AND NOT EXISTS"
            " (SELECT 1 FROM tasks WHERE tasks.series_uid = series.series_uid"
            " AND tasks.created_at >= series.last_at)"
        )
        return [row["series_uid"] for row in rows]

    def set_series_state(self, series_uid: str, state: SeriesState, *, of: SeriesState | None = None) -> bool:
        """Set the state of a series, or only if it is in another one; an instance sets it back to "receiving".

        Returns:
            Whether it was set.
        """
        return bool(
            self._database.change(
                "UPDATE series SET state = ?1 WHERE series_uid = ?2 AND (?3 IS NULL OR state = ?3)",
                (state, series_uid, of),
            )
        )

    def settled_series(self) -> list[SeriesRow]:
        """The series for which nothing more is expected, longest quiet first.

        They have arrived, nobody sends them, no task of them is open or failed, and every result was sent.
        """
        rows = self._database.rows(f"{_SERIES} WHERE {_SETTLED} ORDER BY last_at, series_uid")
        found = [self._series_row(row) for row in rows]
        return [row for row in found if row.open_associations == 0]

    def delete_series(self, series_uid: str) -> bool:
        """Remove a settled series with all that was made of it: first the rows, then the files.

        Nothing is kept meanwhile: an instance that arrives in this moment belongs to a series that stays, or to a new
        one.

        Returns:
            False if something is expected of it by now; then nothing is removed.

        Raises:
            DataError: the store cannot be changed.
        """
        with self._keeping:
            if self._associations[series_uid]:
                return False
            paths = [instance.path for instance in self.instances(series_uid)]
            tasks = self._database.rows("SELECT task_id FROM tasks WHERE series_uid = ?", series_uid)
            with self._database.transaction() as connection:
                gone = connection.execute(
                    f"DELETE FROM series WHERE series_uid = ? AND {_SETTLED}", (series_uid,)
                ).rowcount
                if gone:
                    connection.execute("DELETE FROM sendings WHERE series_uid = ?", (series_uid,))
            if not gone:
                return False
            self._files.remove(paths, [row["task_id"] for row in tasks])
            return True

    def remove_old_strangers(self, days: float) -> int:
        """Remove the objects of a bucket that no row names, if they are older than any study may be.

        Returns:
            How many went.

        Raises:
            DataError: the bucket or the database cannot be used now.
        """
        if not isinstance(self._files, BucketFiles) or not (old := self._files.old(days)):
            return 0
        with self._keeping:  # what comes again meanwhile is kept after this
            rows = self._database.rows(
                "SELECT sha256 AS name FROM instances UNION SELECT sha256 FROM quarantine"
                " UNION SELECT task_id FROM tasks"
            )
            known = {row["name"] for row in rows}
            strangers = [
                key for key in old if not known.intersection(PurePosixPath(key).with_suffix("").parts)
            ]
            self._files.bucket.remove(strangers)
        return len(strangers)

    def was_taken(self, path: Path, size: int, mtime_ns: int) -> bool:
        """Whether a file of the watched folder was taken in as it is now."""
        found = self._database.rows(
            "SELECT 1 FROM watched WHERE path = ? AND bytes = ? AND mtime_ns = ?", str(path), size, mtime_ns
        )
        return bool(found)

    def mark_taken(self, path: Path, size: int, mtime_ns: int) -> None:
        """Remember a file of the watched folder, so that a restart does not take it in again."""
        with self._database.transaction() as connection:
            connection.put("watched", ["path"], {"path": str(path), "bytes": size, "mtime_ns": mtime_ns})

    def forget_taken(self, present: set[Path]) -> None:
        """Forget the files of the watched folder that are no longer there.

        What lay in a folder that holds nothing now is remembered: its share may not be mounted, and would be taken
        once more when it is.
        """
        known = {Path(row["path"]) for row in self._database.rows("SELECT path FROM watched")}
        filled = {folder for path in present for folder in path.parents}
        with self._database.transaction() as connection:
            for path in known - present:
                there = next((folder for folder in path.parents if folder.is_dir()), None)
                if there in filled:
                    connection.execute("DELETE FROM watched WHERE path = ?", (str(path),))

    def _sha256_of(self, sop_uid: str) -> str | None:
        rows = self._database.rows("SELECT sha256 FROM instances WHERE sop_uid = ?", sop_uid)
        return rows[0]["sha256"] if rows else None

    def _see_again(self, staged: Staged, series_uid: str) -> None:
        """A kept instance came again: its series is looked at again, and its file is put back if it was lost."""
        self._files.place_again(staged, self._files.object_path(staged.sha256))
        self.look_again(series_uid)

    def _place(self, staged: Staged, header: Header, source: str) -> None:
        """First the file, then its row: a row without a file would be a loss, a file without a row is not."""
        path, at = self._files.object_path(staged.sha256), now()
        self._files.place(staged, path)
        try:
            with self._database.transaction() as connection:
                pause = _pause_seconds(connection, header.series_uid, at)
                connection.execute(
                    "INSERT INTO series (series_uid, study_uid, modality, body_part, description,"
                    " manufacturer_model, state, first_at, last_at, expected, person, namesake, told)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'receiving', ?, ?, ?, ?, ?, ?) ON CONFLICT (series_uid) DO UPDATE"
                    " SET state = 'receiving', last_at = excluded.last_at, reason = '', released = '',"
                    " pause_seconds = CASE WHEN series.pause_seconds > ?13 THEN series.pause_seconds ELSE ?13 END,"
                    " expected = CASE WHEN series.expected > excluded.expected THEN series.expected"
                    " ELSE coalesce(excluded.expected, series.expected) END,"
                    " told = excluded.told",
                    (
                        header.series_uid,
                        header.study_uid,
                        header.modality,
                        header.body_part,
                        header.description,
                        header.manufacturer_model,
                        at,
                        at,
                        header.expected,
                        header.person,
                        header.namesake,
                        _together(connection, header),
                        pause,
                    ),
                )
                connection.execute(
                    "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                    (
                        header.sop_uid,
                        header.series_uid,
                        header.study_uid,
                        staged.sha256,
                        staged.bytes,
                        source,
                        at,
                        header.frames,
                        header.number,
                        header.acquisition,
                        header.acquisition_images,
                        header.normal,
                        header.position_mm,
                    ),
                )
        except BaseException:
            self._remove_without_row(path, staged.sha256)
            raise

    def _remove_without_row(self, path: Path, sha256: str) -> None:
        """Remove a file whose row failed, unless the row is there: only the answer to its commit may have been lost.

        A transaction begins when the one before it has ended, so that it sees the row. If the database cannot be asked,
        the file stays until the next start.
        """
        with suppress(DataError), self._database.transaction() as connection:
            if not connection.rows("SELECT 1 AS found FROM instances WHERE sha256 = ?", sha256):
                path.unlink(missing_ok=True)

    def _note_loss(self, series_uid: str, reason: str) -> None:
        self._database.change(
            "INSERT INTO sendings (series_uid, began_at, ended_at, fault) VALUES (?, ?, ?, ?)",
            (series_uid, now(), now(), reason),
        )

    def _series_row(self, row: Row) -> SeriesRow:
        open_associations = self._associations[row["series_uid"]]
        return SeriesRow(**row, open_associations=open_associations)


def _pause_seconds(connection: Transaction, series_uid: str, at: str) -> float:
    """How long a series rested before more of it came; 0 while it was being received."""
    rows = connection.rows("SELECT state, last_at FROM series WHERE series_uid = ?", series_uid)
    if not rows or rows[0]["state"] == "receiving":
        return 0.0
    pause = (datetime.fromisoformat(at) - datetime.fromisoformat(rows[0]["last_at"])).total_seconds()
    return pause if 0 < pause <= _LONGEST_PAUSE_SECONDS else 0.0


def _together(connection: Transaction, header: Header) -> str:
    """What a series tells with one more image: every value of an attribute that any image of it has, as JSON."""
    rows = connection.rows("SELECT told FROM series WHERE series_uid = ?", header.series_uid)
    told: dict[str, str] = json.loads(rows[0]["told"]) if rows else {}
    for keyword, value in header.told.items():
        known = told[keyword].split("\\") if keyword in told else []
        added = [each for each in value.split("\\") if each not in known]
        told[keyword] = "\\".join([*known, *added][:_MOST_VALUES])
    return json.dumps(told, sort_keys=True)

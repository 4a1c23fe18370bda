"""The device's store: everything that was received and made, on one disk, durable before it is acknowledged.

FOLDER/objects/ab/SHA256.dcm and FOLDER/quarantine/SHA256.dcm hold what came, FOLDER/results/TASK/ what was made, and
FOLDER/store.sqlite the rows that say what all that is. With a bucket these files are objects in it, and those in FOLDER
copies.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from focalis.device.accounts import Accounts
from focalis.device.alive import Alive, is_dead, living
from focalis.device.bucket import Bucket, LostObjectError
from focalis.device.bucket_files import BucketFiles
from focalis.device.counters import Counters
from focalis.device.database import Database
from focalis.device.edits import Edits
from focalis.device.notices import Notices
from focalis.device.object_files import ObjectFiles
from focalis.device.received import Received
from focalis.device.records import Held
from focalis.device.retrained import Retrained
from focalis.device.senders import Senders
from focalis.device.work import Work
from focalis.errors import UsageError

_OBJECTS = "objects"
"""The secret that the marker in a bucket repeats."""
FRONT = "focalis-device"
"""What the process that takes in and sends is called among those that share a database."""
_SPARED_SECONDS = 3600.0


class Store(Received, Senders, Work, Edits, Notices, Accounts, Retrained):
    """The store in a folder; safe to use from all threads of one process."""

    def __init__(self, folder: Path, database: str | None = None, objects: str | None = None) -> None:
        """Open the store; make it if it is not there.

        Args:
            database: the address of the PostgreSQL database with the rows; by default they are in the folder.
            objects: the address of the bucket with the objects, see `focalis.device.bucket`; by default they are in
                the folder.

        Raises:
            UsageError: its objects lie elsewhere, or those there are another store's.
            DataError: it cannot be made or opened.
        """
        self.folder = folder
        files = BucketFiles(folder, Bucket(objects)) if objects else ObjectFiles(folder)
        self._address = database
        self._alive: Alive | None = None
        rows = Database(database or folder / "store.sqlite")
        self.counters = counters = Counters()
        Received.__init__(self, rows, files)
        Edits.__init__(self, rows)
        Notices.__init__(self, rows)
        Accounts.__init__(self, rows)
        Retrained.__init__(self, rows)
        Senders.__init__(self, rows, counters)
        Work.__init__(self, rows, files, counters)
        self._owner = FileLock(folder / "lock")
        try:
            self._claim_objects()
        except BaseException:
            self.close()
            raise

    def _claim_objects(self) -> None:
        """Make sure that the objects are where they were at the first start."""
        known = self._database.rows("SELECT value FROM secrets WHERE name = ?", _OBJECTS)
        if not isinstance(self._files, BucketFiles):
            if known:
                raise UsageError.at(
                    self.folder,
                    "the objects of this store are in a bucket",
                    "set store.objects as before, or begin anew",
                )
            return
        if not known and not self.is_empty():
            raise UsageError.at(
                self._files.bucket.address,
                "the store has its objects in files",
                "begin with an empty database",
            )
        is_new = not self._database.rows("SELECT 1 FROM instances LIMIT 1")
        self._files.bucket.claim(self.secret(_OBJECTS), is_new)

    def objects_problem(self) -> str:
        """Why the bucket cannot be used now; empty if it can, or there is none."""
        return self._files.problem()

    def tidy(self, most_bytes: float, least_free_bytes: float, spared_seconds: float) -> None:
        """Remove copies of objects in a bucket from the folder; see `BucketFiles.tidy`. Without one nothing happens."""
        self._files.tidy(most_bytes, least_free_bytes, spared_seconds)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def own(self) -> None:
        """Become the only process that takes in and sends, and remove what a stop left unfinished.

        Raises:
            UsageError: another process works with it.
            DataError: the disk fails.
        """
        self.claim()
        self.break_off_sendings()
        if self.in_bucket:  # what is left there goes by its age, see `tidy` and `remove_old_strangers`
            return
        known = self._database.rows("SELECT sha256 FROM instances UNION SELECT sha256 FROM quarantine")
        tasks = self._database.rows("SELECT task_id FROM tasks")
        spared_seconds = _SPARED_SECONDS if self._address else 0
        self._files.remove_strangers(
            {row["sha256"] for row in known}, {row["task_id"] for row in tasks}, spared_seconds
        )

    def claim(self) -> None:
        """Let no other process take in and send, until this store is closed.

        Raises:
            UsageError: another process works with it.
            DataError: the disk fails.
        """
        try:
            self._owner.acquire(timeout=0)
        except Timeout as error:
            raise UsageError.at(
                self.folder, "another focalis serve works with it", "stop that one first"
            ) from error
        self.join(FRONT)

    def join(self, name: str) -> None:
        """Be one of the processes that share the database; nothing happens without one.

        From now on this process ends when it loses the connection, before it changes anything.

        Raises:
            UsageError: another process has this name.
            DataError: the database cannot be reached.
        """
        if self._address:
            self._alive = Alive(self._address, name)
            self._database.guard = self._alive.check

    @contextmanager
    def successor_of(self, name: str) -> Iterator[bool]:
        """Whether a process of the database is dead, and this one alone may see to its work now."""
        with self._database.locking() as connection:
            yield is_dead(connection, name)

    def others(self) -> int:
        """How many other processes share the database."""
        return living(self._database) - 1 if self._address else 0

    def close(self) -> None:
        """Close the store and release it."""
        self._database.close()
        if self._alive is not None:
            self._alive.end()
        self._owner.release()

    def results_folder(self, task_id: str) -> Path:
        """Where the results of a task are written."""
        return self.folder / "results" / task_id

    def model_path(self, name: str) -> Path:
        """Where a model lies that was trained here."""
        return self.folder / "models" / f"{name}.safetensors"

    def object_path(self, sha256: str) -> Path:
        """Where a kept object lies."""
        return self._files.object_path(sha256)

    def at_hand(self, held: Iterable[Held]) -> list[Path]:
        """The files of what the store keeps, in its order, to be read now; whoever reads one asks here for it.

        Raises:
            DataError: one is lost, was changed, or cannot be had now.
        """
        return self._files.at_hand(held)

    def at_hand_or_lost(self, held: Iterable[Held]) -> list[Path | LostObjectError]:
        """As `at_hand`, with the error in place of a file that is lost.

        Raises:
            DataError: one cannot be had now.
        """
        return self._files.at_hand_or_lost(held)

    def holds(self, each: Held) -> bool:
        """Whether what a row names is there, as far as can be told without asking a bucket."""
        return self.in_bucket or each.path.is_file()

    def free_bytes(self) -> int:
        """Free space on the disk of the store."""
        return self._files.free_bytes()

    def backup_database(self, path: Path) -> None:
        """Write a consistent copy of the rows to `path` while work goes on.

        Raises:
            DataError: it cannot be written.
        """
        copy = Database(path)
        try:
            self._database.copy_into(copy)
        finally:
            copy.close()

    def copy_rows(self, other: Store, finish: Callable[[], None]) -> None:
        """Copy all rows into another, empty store.

        Args:
            finish: called when the rows are copied; if it fails, none is.

        Raises:
            DataError: they cannot be read or written.
        """
        self._database.copy_into(other._database, finish)

    def is_empty(self) -> bool:
        """Whether it has no rows at all."""
        return self._database.is_empty()

    def secret(self, name: str) -> str:
        """A random number of 256 bits, hexadecimal, made when it is asked for first; it goes with backups."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, secrets.token_hex(32))
            )
            return str(connection.execute("SELECT value FROM secrets WHERE name = ?", (name,)).scalar_one())

    def counts(self) -> dict[str, int]:
        """How many there are of everything, for the system page and the metrics.

        Returns:
            "instances", "instance_bytes", "quarantined", and "series.STATE", "tasks.STATE", "deliveries.STATE" for
            each state that occurs.
        """
        (totals,) = self._database.rows(
            "SELECT count(*) AS n, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS size FROM instances"
        )
        (aside,) = self._database.rows("SELECT count(*) AS n FROM quarantine")
        found = {"instances": totals["n"], "instance_bytes": totals["size"], "quarantined": aside["n"]}
        for table in ("series", "tasks", "deliveries"):
            for row in self._database.rows(f"SELECT state, count(*) AS n FROM {table} GROUP BY state"):
                found[f"{table}.{row['state']}"] = row["n"]
        return found

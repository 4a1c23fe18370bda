"""The device's SQLite file: one connection, one writer at a time, durable when a transaction ends."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focalis.errors import DataError

_VERSION = 1
_SCHEMA = """
CREATE TABLE series (
    series_uid TEXT PRIMARY KEY, study_uid TEXT NOT NULL, modality TEXT NOT NULL, body_part TEXT NOT NULL,
    description TEXT NOT NULL, manufacturer_model TEXT NOT NULL, state TEXT NOT NULL,
    first_at TEXT NOT NULL, last_at TEXT NOT NULL, expected INTEGER);
CREATE INDEX series_by_state ON series (state);
CREATE TABLE instances (
    sop_uid TEXT PRIMARY KEY, series_uid TEXT NOT NULL REFERENCES series ON DELETE CASCADE,
    study_uid TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, source TEXT NOT NULL,
    received_at TEXT NOT NULL);
CREATE INDEX instances_by_series ON instances (series_uid);
CREATE TABLE quarantine (
    sha256 TEXT PRIMARY KEY, bytes INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL,
    at TEXT NOT NULL, series_uid TEXT);
CREATE TABLE watched (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL);
CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY, series_uid TEXT NOT NULL REFERENCES series ON DELETE CASCADE,
    model TEXT NOT NULL, model_sha256 TEXT NOT NULL, input_sha256 TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, seconds REAL,
    supersedes TEXT REFERENCES tasks ON DELETE SET NULL);
CREATE INDEX tasks_by_series ON tasks (series_uid);
CREATE INDEX tasks_by_age ON tasks (created_at);
CREATE INDEX tasks_superseded ON tasks (supersedes);
CREATE TABLE results (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, kind TEXT NOT NULL, sop_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (task_id, sop_uid));
CREATE TABLE deliveries (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, kind TEXT NOT NULL, sop_uid TEXT NOT NULL,
    destination TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, last_error TEXT NOT NULL,
    next_at TEXT, sent_at TEXT, PRIMARY KEY (task_id, sop_uid, destination));
CREATE INDEX deliveries_by_state ON deliveries (state);
CREATE TABLE reviews (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, lesion INTEGER NOT NULL, verdict TEXT NOT NULL,
    by TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (task_id, lesion));
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL,
    task_id TEXT, series_uid TEXT);
"""


class Database:
    """The file's connection, shared by the threads of one process under a lock.

    Every change is one short transaction, so waiting costs a reader little more than the disk's flush.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; make it if it is not there.

        Raises:
            DataError: it cannot be opened, is damaged, or was written by a later version.
        """
        self._path = path
        self._lock = threading.RLock()
        with self._errors():
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=30
            )
            self._connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._prepare()

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Changes that all happen or none; they are on the disk when the block ends.

        Raises:
            DataError: the disk is full or the file is damaged; nothing was changed.
        """
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query.

        Raises:
            DataError: the file cannot be read.
        """
        with self._lock, self._errors():
            return self._connection.execute(query, values).fetchall()

    def backup(self, path: Path) -> None:
        """Write a consistent copy of the file to `path` while work goes on.

        Raises:
            DataError: it cannot be written.
        """
        with self._lock, self._errors():
            copy = sqlite3.connect(path)
            try:
                self._connection.backup(copy)
            finally:
                copy.close()

    def _prepare(self) -> None:
        with self.transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise DataError(f"{self._path}: was written by a later version; install that one")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(f"{self._path}: {error}; check the disk and its free space") from error

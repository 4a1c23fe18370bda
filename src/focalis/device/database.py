"""The device's rows, in an SQLite file or a PostgreSQL database: one writer at a time, durable when a change ends.

The queries are written once, in the SQL that both speak, with SQLite's `?` for values (`?2` is the second). What the
two differ in stands in this file and in `focalis.device.schema`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from focalis.device.schema import STEPS, TABLES, for_postgresql
from focalis.errors import DataError

Row = dict[str, Any]

# PostgreSQL waits for whoever writes, as SQLite does: no two processes change the store at once.
_WRITING = "SELECT pg_advisory_xact_lock(7163105)"
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OPTIONS = {
    "cursor_factory": psycopg.ClientCursor,  # values go into the statement: of a bare parameter no type is known
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # the server ends the session of a machine that is gone, or of a process that stops while it writes, and frees its
    # locks; a process that waits for the writer gives up after as long as on SQLite
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2"
    " -c tcp_user_timeout=15000 -c lock_timeout=30000 -c idle_in_transaction_session_timeout=20000",
}


class Transaction:
    """Changes that all happen or none."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlalchemy.CursorResult[Any]:
        """Run a statement."""
        if not self._postgresql:
            return self._connection.exec_driver_sql(query, tuple(values))
        given = {f"p{number}": _plain(value) for number, value in enumerate(values, start=1)}
        return self._connection.exec_driver_sql(_named(query), given)

    def rows(self, query: str, *values: Any) -> list[Row]:
        """All rows of a query."""
        found = [dict(row) for row in self.execute(query, values).mappings()]
        for row in found:
            row.pop("rowid", None)  # SELECT * has it in PostgreSQL alone
        return found

    def put(self, table: str, key: Sequence[str], row: Mapping[str, Any]) -> None:
        """Add a row; it takes the place of one with the same key."""
        changed = ", ".join(f"{name} = excluded.{name}" for name in row if name not in key)
        self.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}",
            tuple(row.values()),
        )


class Database:
    """The rows, for all threads of a process; they share one lock, and every change is short."""

    def __init__(self, address: Path | str) -> None:
        """Open an SQLite file, made if it is not there, or a database, as `postgresql://USER@HOST/NAME`.

        Raises:
            DataError: it cannot be opened, is damaged, or was written by a later version.
        """
        self._lock = threading.RLock()
        self._postgresql = isinstance(address, str)
        self._engine = engine_for(address)
        url = self._engine.url
        self._name = f"database {url.database} at {url.host}" if self._postgresql else str(address)
        self._closed = False
        self.guard: Callable[[], None] = lambda: None
        """Called before every change."""
        self._prepare()

    def close(self) -> None:
        """Close the connections; whatever is asked for later is refused. A second time does nothing."""
        with self._lock:
            self._closed = True
            self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that all happen or none; they are on the disk when the block ends.

        Raises:
            DataError: the disk is full, the file is damaged, the database cannot be reached, or another process writes
                for too long; nothing was changed.
        """
        self.guard()
        with self._opened(), self._engine.begin() as connection:
            connection.exec_driver_sql(_WRITING if self._postgresql else "BEGIN IMMEDIATE")
            yield Transaction(connection)

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """One change, as a transaction of its own; returns how many rows it changed."""
        with self.transaction() as connection:
            return connection.execute(query, values).rowcount

    def rows(self, query: str, *values: Any) -> list[Row]:
        """All rows of a query.

        Raises:
            DataError: they cannot be read.
        """
        with self._opened(), self._engine.connect() as connection:
            return Transaction(connection).rows(query, *values)

    @contextmanager
    def locking(self) -> Iterator[Transaction]:
        """A transaction for the locks that it takes: it changes nothing, and keeps nobody from writing."""
        with self._errors(), self._engine.begin() as connection:
            yield Transaction(connection)

    def is_empty(self) -> bool:
        """Whether no table has a row."""
        return not any(self.rows(f"SELECT 1 AS found FROM {table} LIMIT 1") for table in TABLES)

    def copy_into(self, other: Database, finish: Callable[[], None] = lambda: None) -> None:
        """Copy all rows, as they are at one moment, into an empty database; work may go on meanwhile.

        Args:
            finish: called when the rows are copied; if it fails, none is.

        Raises:
            DataError: they cannot be read or written.
        """
        with self._errors(), self._engine.connect() as connection, other.transaction() as target:
            connection.exec_driver_sql(_SNAPSHOT if self._postgresql else "BEGIN")
            for table in TABLES:
                order = " ORDER BY rowid" if table in ("tasks", "results", "deliveries") else ""
                rows = Transaction(connection).rows(f"SELECT * FROM {table}{order}")
                for row in rows:
                    places = ", ".join("?" * len(row))
                    target.execute(
                        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values())
                    )
                if other._postgresql and rows and "number" in rows[0]:
                    target.execute(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'number'), max(number)) FROM {table}"
                    )
            finish()

    def _prepare(self) -> None:
        with self.transaction() as connection:
            version = self._version(connection)
            if version > len(STEPS):
                raise DataError.at(self._name, "was written by a later version", "install that one")
            for step in STEPS[version:]:
                for statement in (for_postgresql(step) if self._postgresql else step).split(";"):
                    if statement.strip():
                        connection.execute(statement)
            if version == len(STEPS):
                return
            if self._postgresql:
                connection.execute("DELETE FROM version")
                connection.execute("INSERT INTO version VALUES (?)", (len(STEPS),))
            else:
                connection.execute(f"PRAGMA user_version = {len(STEPS)}")

    def _version(self, connection: Transaction) -> int:
        if not self._postgresql:
            return int(connection.execute("PRAGMA user_version").scalar_one())
        if connection.execute("SELECT to_regclass('version')").scalar() is None:
            return 0
        return int(connection.execute("SELECT number FROM version").scalar_one())

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self._lock, self._errors():
            if self._closed:
                raise DataError.at(self._name, "is closed", "open the store again")
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            advice = "see that it runs" if self._postgresql else "check the disk and its free space"
            raise DataError.at(self._name, cause_of(error), advice) from error


def engine_for(address: Path | str, **options: Any) -> sqlalchemy.Engine:
    """The connections to an SQLite file (path) or a PostgreSQL database (address), which opens at its first use."""
    if isinstance(address, str):
        url = sqlalchemy.make_url(address).set(drivername="postgresql+psycopg")
        return sqlalchemy.create_engine(url, connect_args=_OPTIONS, pool_pre_ping=True, **options)
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(address)),
        connect_args={"check_same_thread": False, "timeout": 30},
        **options,
    )

    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # this module begins transactions itself
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    sqlalchemy.event.listen(engine, "connect", set_up)
    return engine


def cause_of(error: SQLAlchemyError) -> str:
    """What the database says, in one line; without the statement and the row, whose values may tell of a patient."""
    cause = getattr(error, "orig", None)
    if cause is None:
        return type(error).__name__
    told = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return (told or str(cause).strip() or type(cause).__name__).splitlines()[0]


@cache
def _named(query: str) -> str:
    """A query with psycopg's placeholders."""
    numbers = count(1)
    return re.sub(r"\?(\d*)", lambda found: f"%(p{found[1] or next(numbers)})s", query)


def _plain(value: Any) -> Any:
    """A value as PostgreSQL takes it into the columns: no boolean, and no character NUL."""
    if isinstance(value, bool):
        return int(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value

"""Shows the processes that share a database which of them live: each holds a lock that its end frees."""

from __future__ import annotations

import logging
import os
import threading
import time

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from focalis.device.database import Database, Transaction, cause_of, engine_for
from focalis.errors import DataError, UsageError

_LIVES = 7163106
"""The first half of the numbers of these locks."""
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Alive:
    """The lock of this process, on a connection of its own, which the server ends at the latest when it is gone.

    Who loses it ends, since others may do its work by then.
    """

    def __init__(self, address: str, name: str) -> None:
        """Take the lock.

        Raises:
            UsageError: another process has it.
            DataError: the database cannot be reached.
        """
        self._using = threading.Lock()
        self._ended = False
        engine = engine_for(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._where = f"database {engine.url.database} at {engine.url.host}"
        try:
            self._connection = engine.connect()
            found = Transaction(self._connection).execute(
                "SELECT pg_try_advisory_lock(?, hashtext(?))", (_LIVES, name)
            )
            taken = bool(found.scalar_one())
        except SQLAlchemyError as error:
            raise DataError.at(self._where, cause_of(error), "see that it runs") from error
        if not taken:
            self._connection.close()
            raise UsageError.at(self._where, "another focalis serve works with it", "stop that one first")
        threading.Thread(target=self._watch, name="focalis-alive", daemon=True).start()

    def check(self) -> None:
        """End the process, at once, if it has lost the lock."""
        with self._using:
            if self._ended:
                return
            try:
                self._connection.exec_driver_sql("SELECT 1")
            except SQLAlchemyError:
                _log.critical(
                    "%s: the connection was lost, so this process ends; start it again", self._where
                )
                os._exit(1)

    def end(self) -> None:
        """Free the lock."""
        with self._using:
            self._ended = True
            self._connection.close()

    def _watch(self) -> None:
        while not self._ended:
            self.check()
            time.sleep(_LOOK_SECONDS)


def is_dead(connection: Transaction, name: str) -> bool:
    """Whether nobody has the lock of a process; until the transaction ends, nobody else is told the same."""
    found = connection.execute("SELECT pg_try_advisory_xact_lock(?, hashtext(?))", (_LIVES, name))
    return bool(found.scalar_one())


def living(database: Database) -> int:
    """How many processes have their lock."""
    (found,) = database.rows(
        "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = ?"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        _LIVES,
    )
    return int(found["n"])

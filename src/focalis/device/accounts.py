"""The store's half about people: users who were added on the page, and the audit trail of what everybody did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from focalis.device.database import Database
from focalis.device.records import Account, Audited, Role, now

_AT_ONCE = 1000


class Accounts:
    """Users beside those of focalis.toml, and the audit trail; see `focalis.device.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accounts(self) -> list[Account]:
        """All users that were added, by name."""
        return [
            Account(row["name"], row["password_hash"], row["role"], bool(row["disabled"]), row["subject"])
            for row in self._database.rows("SELECT * FROM accounts ORDER BY name")
        ]

    def keep_account(self, account: Account) -> None:
        """Add a user, or put another role, password or state in the place of the one of that name."""
        with self._database.transaction() as connection:
            connection.put("accounts", ["name"], asdict(account))

    def keep_person(self, name: str, subject: str, role: Role) -> Account | None:
        """Add a user who comes by single sign-on, or give the one of that subject another role, unless disabled.

        Returns:
            The user, who keeps the first name; None if somebody else has the name.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE accounts SET role = ? WHERE subject = ? AND disabled = 0", (role, subject)
            )
            connection.execute(
                "INSERT INTO accounts SELECT ?, '', ?, 0, ?"
                " WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE subject = ?) ON CONFLICT DO NOTHING",
                (name, role, subject, subject),
            )
        return next((each for each in self.accounts() if each.subject == subject), None)

    def audit(
        self, who: str, address: str, did: str, task_id: str | None = None, series_uid: str | None = None
    ) -> None:
        """Write down what somebody did.

        Args:
            who: the user, the token, or the device itself.
            address: where from; empty for the device itself.
            did: what, in the past tense; never a patient's name.
            task_id, series_uid: the study, if it was about one.
        """
        self._database.change(
            "INSERT INTO audit (at, who, address, did, task_id, series_uid) VALUES (?, ?, ?, ?, ?,"
            " coalesce(?, (SELECT series_uid FROM tasks WHERE task_id = ?)))",
            (now(), who, address, did, task_id, series_uid, task_id),
        )

    def audited(self, since: str = "") -> Iterator[Audited]:
        """The audit trail since a time, the oldest first; it is read in parts, so that it may be of any length."""
        last = 0
        while True:
            rows = self._database.rows(
                "SELECT * FROM audit WHERE number > ? AND at >= ? ORDER BY number LIMIT ?",
                last,
                since,
                _AT_ONCE,
            )
            if not rows:
                return
            last = rows[-1]["number"]
            yield from (Audited(**row) for row in rows)

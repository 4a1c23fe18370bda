"""Who may do what: passwords, tokens, sessions, and how often a login may be tried."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from focalis.device.config import Token, User
from focalis.device.records import Role

ROLES: tuple[Role, ...] = ("viewer", "reviewer", "admin")
"""Each may what those before it may."""

SESSION_SECONDS = 10 * 3600
IDLE_SECONDS = 30 * 60
ATTEMPTS_PER_NAME, ATTEMPTS_PER_ADDRESS = 5, 20
ATTEMPTS_SECONDS = 5 * 60

# 32 MB and about a tenth of a second per guess (RFC 7914)
_N, _R, _P = 2**15, 8, 1
_MEMORY = 128 * 1024 * 1024


def hash_password(password: str) -> str:
    """A password as focalis.toml holds it: "scrypt$N$r$p$SALT$HASH", salt and hash in base64 (RFC 7914)."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, _N, _R, _P)
    return "$".join(["scrypt", str(_N), str(_R), str(_P), _text(salt), _text(digest)])


def password_fits(password: str, stored: str) -> bool:
    """Whether a password is the one that was hashed; never for a malformed hash."""
    try:
        name, n, r, p, salt, digest = stored.split("$")
        if name != "scrypt":
            return False
        wanted = base64.b64decode(digest, validate=True)
        found = _scrypt(password, base64.b64decode(salt, validate=True), int(n), int(r), int(p))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(found, wanted)


# what the password of an unknown user is compared with, so that the answer takes as long; nothing hashes to zeros
_NOBODY = f"scrypt${_N}${_R}${_P}${'A' * 22}==${'A' * 43}="


def find_user(users: Sequence[User], name: str, password: str) -> User | None:
    """The user of that name and password; as slow for an unknown name as for a wrong password."""
    user = next((user for user in users if hmac.compare_digest(user.name.encode(), name.encode())), None)
    fits = password_fits(password, user.password_hash if user else _NOBODY)
    return user if fits else None


def find_token(tokens: Sequence[Token], secret: str) -> Token | None:
    """The token whose secret this is; none for an empty secret, whatever hash focalis.toml holds."""
    if not secret:
        return None
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return next((token for token in tokens if hmac.compare_digest(token.sha256, digest)), None)


@dataclass(frozen=True)
class Session:
    """A person at a browser.

    Attributes:
        csrf: what every form and every change must send back.
        started: when it began, in seconds of the clock.
    """

    user: str
    role: Role
    csrf: str
    started: float
    used: float

    def may(self, role: Role) -> bool:
        """Whether the user has that role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Sessions:
    """The open sessions, in memory: a restart ends them. The browser holds a key, this holds only its hash.

    Attributes:
        local: the session of everybody on this machine, for a device without users.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self.local = Session("local", "admin", secrets.token_urlsafe(32), 0.0, 0.0)

    def open(self, user: str, role: Role) -> str:
        """Begin a session; the key for the browser. The user's sessions of another role end."""
        key, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._open = {
                name: each
                for name, each in self._open.items()
                if self._lives(each) and (each.user != user or each.role == role)
            }
            self._open[_key_hash(key)] = Session(user, role, secrets.token_urlsafe(32), now, now)
        return key

    def find(self, key: str, *, use: bool = True) -> Session | None:
        """The session of a key; None if there is none or it has ended. `use` keeps it from ending idle."""
        name = _key_hash(key)
        with self._lock:
            session = self._open.get(name)
            if session is None:
                return None
            if not self._lives(session):
                del self._open[name]
                return None
            if use:
                self._open[name] = session = replace(session, used=self._clock())
            return session

    def close(self, key: str) -> None:
        """End a session."""
        with self._lock:
            self._open.pop(_key_hash(key), None)

    def close_all(self, user: str) -> None:
        """End all sessions of a user."""
        with self._lock:
            self._open = {name: each for name, each in self._open.items() if each.user != user}

    def _lives(self, session: Session) -> bool:
        now = self._clock()
        return now - session.started < SESSION_SECONDS and now - session.used < IDLE_SECONDS


class LoginLimit:
    """At most 5 failed logins with one name from one address, and 20 from one address, in `ATTEMPTS_SECONDS`.

    No number of failures elsewhere keeps a person out. Of IPv6 a network of 64 bits counts as one address.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, list[float]] = {}

    def wait_seconds(self, name: str, address: str) -> float:
        """How long to wait before the next attempt; 0 if it may be made now."""
        now = self._clock()
        waits = [0.0]
        with self._lock:
            for key, most in zip(
                _keys(name, address), (ATTEMPTS_PER_NAME, ATTEMPTS_PER_ADDRESS), strict=True
            ):
                recent = self._recent(key, now)
                if len(recent) >= most:
                    waits.append(recent[-most] + ATTEMPTS_SECONDS - now)
        return max(waits)

    def failed(self, name: str, address: str) -> None:
        """Count a failed attempt."""
        now = self._clock()
        with self._lock:
            recent = {key: self._recent(key, now) for key in self._failures}
            self._failures = {key: times for key, times in recent.items() if times}
            for key in _keys(name, address):
                self._failures.setdefault(key, []).append(now)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of an address from which somebody has logged in."""
        with self._lock:
            for key in _keys(name, address):
                self._failures.pop(key, None)

    def _recent(self, key: str, now: float) -> list[float]:
        return [at for at in self._failures.get(key, []) if now - at < ATTEMPTS_SECONDS]


def _keys(name: str, address: str) -> tuple[str, str]:
    source = source_of(address)
    return f"{source} as {name}", f"address {source}"


def source_of(address: str) -> str:
    """What limits count by: of IPv6 the network of 64 bits, which one client has for itself; IPv4 in IPv6 as IPv4."""
    with suppress(ValueError):
        found = ipaddress.ip_address(address)
        if found.version == 6 and not found.is_loopback:
            return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return address


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _key_hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()

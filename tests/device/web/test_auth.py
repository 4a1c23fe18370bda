"""Passwords, sessions and the limit of logins."""

import base64
import hashlib

import pytest

from focalis.device.config import Token, User
from focalis.device.web.auth import (
    ATTEMPTS_PER_ADDRESS,
    ATTEMPTS_PER_NAME,
    ATTEMPTS_SECONDS,
    IDLE_SECONDS,
    SESSION_SECONDS,
    LoginLimit,
    Sessions,
    find_token,
    find_user,
    hash_password,
    password_fits,
)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_password_fits_its_hash_and_no_other():
    stored = hash_password("Grüße 山田")

    assert password_fits("Grüße 山田", stored)
    assert not password_fits("Grüße 山", stored)
    assert hash_password("Grüße 山田") != stored


def test_the_hash_is_scrypt_of_rfc_7914():
    digest = bytes.fromhex("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162")
    stored = f"scrypt$1024$8$16${base64.b64encode(b'NaCl').decode()}${base64.b64encode(digest).decode()}"

    # the first 32 bytes of the RFC's second test vector, whose password is "password"
    assert password_fits("password", stored)


@pytest.mark.parametrize(
    "stored", ["", "password", "md5$1$1$1$AA==$AA==", "scrypt$3$8$1$AA==$AA==", "scrypt$2$8$1$?$AA=="]
)
def test_a_malformed_hash_fits_nothing(stored):
    assert not password_fits("password", stored)


def test_an_unknown_name_has_no_user():
    user = User(name="anna", password_hash=hash_password("x"), role="admin")

    assert find_user((user,), "anna", "x") is user
    assert find_user((user,), "anna", "y") is None
    assert find_user((user,), "ANNA", "x") is None


def test_a_token_is_found_by_its_secret_only():
    token = Token(name="ct", sha256=hashlib.sha256(b"secret").hexdigest())

    assert find_token((token,), "secret") is token
    assert find_token((token,), token.sha256) is None


def test_an_empty_secret_opens_nothing():
    token = Token(name="ct", sha256=hashlib.sha256(b"").hexdigest())  # of `printf %s "$UNSET"`

    assert find_token((token,), "") is None


def test_a_session_ends_idle_and_at_its_age():
    clock = Clock()
    sessions = Sessions(clock)
    key = sessions.open("anna", "viewer")
    clock.now += IDLE_SECONDS - 1
    assert sessions.find(key, use=False) is not None
    clock.now += 2
    assert sessions.find(key) is None

    key = sessions.open("anna", "viewer")
    start = clock.now
    while clock.now - start < SESSION_SECONDS - 60:
        clock.now += 60
        assert sessions.find(key) is not None
    clock.now += 120
    assert sessions.find(key) is None


def test_a_closed_session_is_gone_and_sessions_differ():
    sessions = Sessions(Clock())
    first, second = sessions.open("a", "viewer"), sessions.open("a", "viewer")
    assert sessions.find(first).csrf != sessions.find(second).csrf

    sessions.close(first)

    assert sessions.find(first) is None
    assert sessions.find(second) is not None


def test_roles_are_ranked():
    sessions = Sessions(Clock())
    session = sessions.find(sessions.open("a", "reviewer"))

    assert [session.may(role) for role in ("viewer", "reviewer", "admin")] == [True, True, False]


def test_a_name_is_locked_after_its_failures_and_free_again_later():
    clock = Clock()
    limit = LoginLimit(clock)
    for _ in range(ATTEMPTS_PER_NAME):
        assert limit.wait_seconds("anna", "10.0.0.1") == 0
        limit.failed("anna", "10.0.0.1")

    assert limit.wait_seconds("anna", "10.0.0.1") == ATTEMPTS_SECONDS
    assert limit.wait_seconds("anna", "10.0.0.9") == 0
    assert limit.wait_seconds("bert", "10.0.0.1") == 0
    clock.now += ATTEMPTS_SECONDS
    assert limit.wait_seconds("anna", "10.0.0.1") == 0


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::1", "::2", False),
    ],
)
def test_an_ipv6_network_counts_as_one_address(one, other, alike):
    limit = LoginLimit(Clock())
    for _ in range(ATTEMPTS_PER_NAME):
        limit.failed("anna", one)

    assert (limit.wait_seconds("anna", other) > 0) is alike


def test_an_address_is_locked_whatever_the_names():
    limit = LoginLimit(Clock())
    for number in range(ATTEMPTS_PER_ADDRESS):
        limit.failed(f"name{number}", "10.0.0.1")

    assert limit.wait_seconds("another", "10.0.0.1") > 0
    assert limit.wait_seconds("another", "10.0.0.2") == 0
    limit.succeeded("x", "10.0.0.1")
    assert limit.wait_seconds("another", "10.0.0.1") == 0

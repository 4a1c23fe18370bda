"""The page's server as a socket meets it: TLS, silent and stalled connections, and addresses that want too many."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
import warnings
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from focalis.device.config import WebSettings
from focalis.device.web import server
from focalis.device.web.server import CONNECTIONS, CONNECTIONS_PER_ADDRESS, WebServer
from focalis.errors import UsageError

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


async def answer_in_a_second(scope, _receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


async def answer_what_came(scope, receive, send):
    if scope["type"] == "http":
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


LONG = 64 * 1024 * 1024


async def answer_at_length(scope, _receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(LONG)})


async def answer_who(scope, _receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})


@contextmanager
def serving(app=answer_what_came, **settings):
    web = WebServer(app, WebSettings(port=0, **settings))
    web.start()
    try:
        yield web
    finally:
        web.stop()
    assert "ended" in web.wrong()


def port_of(web):
    return int(web.url.rstrip("/").rsplit(":", 1)[1])


def connect(web):
    connection = socket.create_connection(("127.0.0.1", port_of(web)), timeout=10)
    return closing(connection)


def is_served(connection):
    """Whether a request over this connection is answered, and not the connection closed."""
    try:
        connection.sendall(REQUEST)
        return connection.recv(100).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_who_is_silent_is_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    with serving() as web, connect(web) as connection:
        connection.sendall(sent)
        started = time.monotonic()

        assert connection.recv(100) == b""
        assert time.monotonic() - started < 5


def test_a_head_that_trickles_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with serving() as web, connect(web) as connection:
        started = time.monotonic()
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nX: ")
            while time.monotonic() - started < 5:
                connection.sendall(b"x")
                time.sleep(0.05)

        assert time.monotonic() - started < 3


def test_a_body_that_trickles_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.4)
    with serving() as web, connect(web) as connection:
        started = time.monotonic()
        with suppress(ConnectionError):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n")
            while time.monotonic() - started < 5:
                connection.sendall(b"x")
                time.sleep(0.05)

        assert time.monotonic() - started < 3


def test_a_slow_but_steady_upload_is_taken(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.4)
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(server, "BODY_BYTES", 1000)
    with serving() as web, connect(web) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n")
        for _ in range(20):
            time.sleep(0.1)
            connection.sendall(b"x" * 1000)

        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_answer_that_nobody_takes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    with serving(answer_at_length) as web, connect(web) as connection:
        connection.sendall(REQUEST)
        time.sleep(2)
        taken = 0
        with suppress(ConnectionError):
            while data := connection.recv(1 << 20):
                taken += len(data)

        assert taken < LONG


def test_six_hundred_trickling_connections_are_outlived(monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 2)
    with serving() as web, ExitStack() as stack:
        crowd = []
        for _ in range(600):
            with suppress(OSError):
                connection = stack.enter_context(connect(web))
                connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nX: ")
                crowd.append(connection)
        started = time.monotonic()
        served = False
        while not served and time.monotonic() - started < 15:
            for connection in crowd:
                with suppress(OSError):
                    connection.sendall(b"x")
            with connect(web) as person:
                served = is_served(person)
            time.sleep(0.1)

        assert served


@pytest.mark.parametrize(
    ("proxies", "seen"), [((), "127.0.0.1"), (("127.0.0.1",), "10.9.9.9"), (("10.0.0.1",), "127.0.0.1")]
)
def test_a_forwarded_address_is_believed_of_named_proxies_only(proxies, seen):
    with serving(answer_who, https_proxies=proxies) as web:
        request = urllib.request.Request(web.url, headers={"X-Forwarded-For": "10.9.9.9"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.read().decode() == seen


def test_who_waits_for_an_answer_is_kept(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    with serving(answer_in_a_second) as web, connect(web) as connection:
        assert is_served(connection)


def test_one_address_takes_no_more_than_its_share(monkeypatch):
    assert server.most_from("10.0.0.7") == CONNECTIONS_PER_ADDRESS < CONNECTIONS
    assert server.most_from("127.0.0.1") == CONNECTIONS
    monkeypatch.setattr(server, "most_from", lambda _address: 2)
    with serving() as web, connect(web) as first, connect(web), connect(web) as third:
        assert not is_served(third)
        assert is_served(first)  # and is closed by that
        time.sleep(0.2)
        with connect(web) as again:
            assert is_served(again)


def test_this_machine_is_recognised_by_either_kind_of_address(monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_PER_ADDRESS", 1)
    with closing(server.Door("::", 0)) as door:
        door.listen()
        port = door.getsockname()[1]
        for address in ("127.0.0.1", "::1", "127.0.0.1"):
            with closing(socket.create_connection((address, port))), closing(door.accept()[0]):
                pass
        calls = [socket.create_connection((address, port)) for address in ("127.0.0.1", "127.0.0.1")]
        answers = [door.accept()[0] for _ in calls]
        assert len(answers) == 2
        for each in (*calls, *answers):
            each.close()


def test_an_ipv6_network_has_the_connections_of_one_address(monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_PER_ADDRESS", 2)
    peers = [("2001:db8:1:2::1", 1, 0, 0), ("2001:db8:1:2:ffff::9", 2, 0, 0), ("2001:db8:1:2::3", 3, 0, 0)]
    peers.append(("2001:db8:1:3::1", 4, 0, 0))
    waiting = iter(peers)
    monkeypatch.setattr(
        socket.socket, "accept", lambda _self: (socket.socket(socket.AF_INET6), next(waiting))
    )
    with closing(server.Door("::", 0)) as door:
        admitted = [door.accept()[0], door.accept()[0]]
        with pytest.raises(ConnectionAbortedError):
            door.accept()
        admitted.append(door.accept()[0])
        for each in admitted:
            each.close()


def test_stalled_handshakes_count_as_connections(monkeypatch, certificate):
    monkeypatch.setattr(server, "CONNECTIONS", 2)
    with serving(**certificate) as web, connect(web), connect(web):
        time.sleep(0.2)
        with connect(web) as third, pytest.raises((ssl.SSLError, ConnectionError)):
            trusting(certificate).wrap_socket(third, server_hostname="127.0.0.1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=web -addext subjectAltName=IP:127.0.0.1"
    paths = {"tls_certificate": folder / "web.pem", "tls_key": folder / "web.key"}
    subprocess.run(
        ["openssl", *command.split(), "-keyout", paths["tls_key"], "-out", paths["tls_certificate"]],
        check=True,
        capture_output=True,
    )
    return paths


def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate["tls_certificate"]))


def test_the_page_is_https_with_its_own_certificate(certificate):
    with serving(**certificate) as web:
        assert web.url.startswith("https://")
        with urllib.request.urlopen(web.url, context=trusting(certificate), timeout=10) as answer:
            assert answer.read() == b"here"
        with pytest.raises(OSError, match="certificate verify failed"):
            urllib.request.urlopen(web.url, timeout=10)


@pytest.mark.parametrize(("version", "served"), [("TLSv1_1", False), ("TLSv1_2", True)])
def test_old_tls_is_refused(certificate, version, served):
    context = trusting(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():  # Python's own, of the old version
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with serving(**certificate) as web, connect(web) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
                found = is_served(secured)
        except ssl.SSLError:
            found = False

    assert found is served


def test_a_certificate_that_cannot_be_used_is_named(certificate, tmp_path):
    with pytest.raises(UsageError, match=r"web\.pem, .*none\.key: cannot be used for TLS"):
        WebServer(answer_what_came, WebSettings(**{**certificate, "tls_key": tmp_path / "none.key"}))


def test_a_port_that_is_taken_is_named():
    with serving() as web:
        second = WebServer(answer_what_came, WebSettings(port=port_of(web)))
        with pytest.raises(UsageError, match=rf"127.0.0.1 port {port_of(web)}: the page cannot listen"):
            second.start()
        second.stop()

"""The web server of the device: uvicorn in a thread of its own, behind a socket that no single client can exhaust."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from focalis.device.config import WebSettings
from focalis.device.web.auth import source_of
from focalis.device.web.guarding import is_loopback
from focalis.errors import UsageError

CONNECTIONS, CONNECTIONS_PER_ADDRESS = 512, 64
"""At a time. Well below the files that a process may open, which DICOM node and store need as well."""

CONNECTIONS_KEPT = 32
"""So many of these are kept for this machine, so that strangers cannot shut its administrator out."""

HEAD_SECONDS = 15.0
"""A request whose head is not complete so long after its first byte is not waited for."""

IDLE_SECONDS = 60.0
"""A connection that brings nothing for so long, while a request of it is awaited, is closed."""

BODY_BYTES = 64 * 1024
"""The least that the body of a request must bring in `IDLE_SECONDS`, if it goes on for longer: 1 kB a second."""

_START_SECONDS = 60.0


class WebServer:
    """Serves the page; signals are the main thread's, so that this runs in another one."""

    def __init__(self, app: Callable[..., Any], settings: WebSettings) -> None:
        """Read the certificate; listen to nothing yet.

        Raises:
            UsageError: certificate and key cannot be used.
        """
        self._settings = settings
        config = uvicorn.Config(
            app,
            http=PatientProtocol,
            loop="asyncio",
            ws="none",
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.https_proxies),
            forwarded_allow_ips=list(settings.https_proxies),
            timeout_graceful_shutdown=5,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"{settings.tls_certificate}, {settings.tls_key}: cannot be used for TLS ({error}); "
                "give PEM files that belong together"
            ) from error
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._door: Door | None = None
        self._ended = ""

    @property
    def url(self) -> str:
        """The page's address, once it listens."""
        assert self._door is not None
        scheme = "http" if self._settings.tls_certificate is None else "https"
        host, port = self._settings.host, self._door.getsockname()[1]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

    def start(self) -> None:
        """Start, and wait until it serves.

        Raises:
            UsageError: address and port cannot be had.
        """
        host, port = self._settings.host, self._settings.port
        with UsageError.of_system(
            f"{host} port {port}", "correct web.host or web.port", "the page cannot listen"
        ):
            self._door = Door(host, port)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UsageError(f"the web server did not start ({self._ended or 'no reason given'})")
            time.sleep(0.02)

    def wrong(self) -> str:
        """What ended it by itself; empty while it serves."""
        return "" if self._thread.is_alive() else f"the web server ended ({self._ended or 'no reason given'})"

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=15)
        if self._door is not None:
            self._door.close()

    def _run(self) -> None:
        try:
            assert self._door is not None
            self._server.run([self._door])
        except (Exception, SystemExit) as error:
            self._ended = str(error)


class Door(socket.socket):
    """A listening socket that closes at once what one address, or all together, have too much of.

    It counts from the first packet on, so that connections stalled in the TLS handshake count as well.
    """

    def __init__(self, host: str, port: int) -> None:
        """Bind.

        Raises:
            OSError: address and port cannot be had.
        """
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(family, socket.SOCK_STREAM)
        self._open: Counter[str] = Counter()
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
        except OSError:
            self.close()
            raise

    def accept(self) -> tuple[socket.socket, Any]:
        """The next admitted connection.

        Raises:
            ConnectionAbortedError: it may not, and was closed; asyncio goes on with the next one.
        """
        connection, peer = super().accept()
        address = source_of(peer[0])
        kept = 0 if is_loopback(address) else CONNECTIONS_KEPT
        if self._open.total() >= CONNECTIONS - kept or self._open[address] >= most_from(address):
            connection.close()
            raise ConnectionAbortedError
        self._open[address] += 1
        return _Counted(connection, lambda: self._leave(address)), peer

    def _leave(self, address: str) -> None:
        self._open[address] -= 1
        self._open = +self._open


def most_from(address: str) -> int:
    """How many connections an address may have; this machine may have all of them, since a proxy on it serves many."""
    return CONNECTIONS if is_loopback(address) else CONNECTIONS_PER_ADDRESS


class _Counted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, connection: socket.socket, leave: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._leave: Callable[[], None] | None = leave

    def close(self) -> None:
        super().close()
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for slow clients; uvicorn waits for the rest of a request forever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._request: RequestResponseCycle | None = None
        self._unsent = 0
        self._watch()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Something came: perhaps the rest of a head, perhaps a piece of a body."""
        super().data_received(data)
        self._received += len(data)
        self._await_head()
        if self.cycle is not self._request:  # a body has all its time
            self._request = self.cycle
            self._look.cancel()
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._look.cancel()
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        """Hold the deadline over a head that is under way; a byte more of it wins no time."""
        under_way = self.conn.their_state is h11.IDLE
        if under_way and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
        elif not under_way and self._head is not None:
            self._head.cancel()
            self._head = None

    def _watch(self) -> None:
        self._received = 0
        self._look = self.loop.call_later(IDLE_SECONDS, self._judge)

    def _judge(self) -> None:
        """End the connection if the last span of time brought too little."""
        cycle = self.cycle
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            stalled = 0 < unsent == self._unsent  # the client takes nothing of its answer
        elif self.flow.read_paused:  # the device is at work; the client waits for it
            stalled = False
        elif cycle is not None and cycle.more_body:
            stalled = self._received < BODY_BYTES
        else:
            stalled = not self._received
        if stalled:
            self.transport.abort()
        else:
            self._watch()

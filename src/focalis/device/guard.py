"""The guard in front of the DICOM node: keeps from pynetdicom whatever could exhaust it.

pynetdicom 3.0.4 reads a PDU of any declared length into memory, lets everybody wait for one TLS handshake, and gathers
a message of any size. The guard listens in its place, in one thread that waits for nobody: it admits an
address, holds a deadline over TLS and association request, checks who calls, and then passes whole PDUs of limited
length through a pair of sockets (PS3.8 9.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from focalis.device.certificates import server_context
from focalis.device.config import NodeSettings, Peer
from focalis.device.pdu import (
    ABORT,
    ASSOCIATE_REQUEST,
    DATA,
    HEADER_BYTES,
    LENGTH_FOUR,
    RELEASE_REQUEST,
    Message,
    MessageError,
    abort_pdu,
    abort_reason,
    ae_titles,
    other_protocol,
    reject_pdu,
)
from focalis.errors import UsageError

_NOTE_AGAIN_SECONDS = 60.0
_CALLING_UNKNOWN, _CALLED_UNKNOWN = 3, 7
"""Reasons of A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


@dataclass(frozen=True)
class Caller:
    """Who opened an association: an address as text, the port there, and the calling AE title."""

    address: str
    port: int
    ae_title: str


class Guard:
    """Listens, admits, and passes PDUs on to what `connect` attaches."""

    def __init__(
        self,
        settings: NodeSettings,
        peers: Iterable[Peer],
        most_message_bytes: int,
        *,
        connect: Callable[[socket.socket, Caller], threading.Thread],
        ended: Callable[[Caller, str], None],
        note: Callable[[str, str], None],
    ) -> None:
        """Does not listen yet.

        Args:
            settings: host, port, TLS, limits.
            peers: who may call, beside loopback.
            most_message_bytes: the greatest data set of one message; all associations together may have twice that
                on the way.
            connect: called for each association with a socket on which its PDUs are read and answered; returns the
                thread that does so. A caller's connection counts until that thread has ended.
            ended: called when an association is over, with how it broke off in one line, or nothing if it was released.
            note: told who was refused something, or broke off, and what: both for people.

        Raises:
            UsageError: certificate, key or authorities cannot be used.
        """
        self._settings = settings
        self._peers = [
            (peer.ae_title, [ipaddress.ip_network(net) for net in peer.addresses]) for peer in peers
        ]
        self._most_message_bytes = most_message_bytes
        self._connect, self._ended, self._note = connect, ended, note
        self._tls = server_context(settings)
        self._connections: Counter[str] = Counter()
        self._noted: dict[tuple[str, str], float] = {}
        self._held_bytes = 0
        self._thread = threading.Thread(target=self._run, name="DICOM guard", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: dict[Caller | None, threading.Thread] = {}
        self._running = threading.Event()
        self.port = settings.port

    def start(self) -> None:
        """Listen.

        Raises:
            UsageError: address and port cannot be had.
        """
        host, port = self._settings.host, self._settings.port
        with UsageError.of_system(f"{host} port {port}", "correct node.host or node.port", "cannot listen"):
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._loop = asyncio.new_event_loop()
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._thread.start()
        self._running.wait()

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop listening and end open connections; does nothing if it never listened."""
        if not self._running.is_set():
            return
        self._running.clear()
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._released = asyncio.Condition()
        self._accepting = self._loop.create_task(self._accept())
        self._running.set()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._accepting)
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(self._listener)
            except OSError:  # gone before it was accepted, or no descriptor left
                await asyncio.sleep(0.05)
                continue
            address = _plain(peer[0])
            if refusal := self._refuse(address):
                self._say(address, refusal)
                connection.close()
                continue
            self._connections[address] += 1
            task = self._loop.create_task(self._serve(connection, address, peer[1]))
            self._tasks.add(task)
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # by a stop, perhaps before the task's first line
            connection.close()

    def _refuse(self, address: str) -> str | None:
        """Why an address may not connect now; None if it may."""
        if not self._is_loopback(address) and not any(_within(address, nets) for _, nets in self._peers):
            return "it is not on the list of peers"
        if self._connections[address] >= self._settings.connections_per_address:
            return "it has as many connections open as node.connections_per_address allows: " + str(
                self._connections[address]
            )
        if self._connections.total() >= self._settings.connections:
            return f"as many connections are open as node.connections allows: {self._connections.total()}"
        return None

    async def _serve(self, connection: socket.socket, address: str, port: int) -> None:
        """One connection from its first byte to its last."""
        writer: asyncio.StreamWriter | None = None
        caller: Caller | None = None
        try:
            try:
                async with asyncio.timeout(self._settings.handshake_seconds):
                    reader, writer = await self._open(connection)
                    request = await self._read_pdu(reader)
                    caller = await self._admit(request, writer, address, port)
            except TimeoutError:
                self._say(address, "it did not ask for an association in time")
                return
            if caller is not None:
                await self._pass_on(request, caller, reader, writer)
        except ssl.SSLError as error:
            self._say(address, f"its TLS handshake failed ({error.reason or 'closed'})")
        except MessageError as error:
            self._say(_peer(address, caller), str(error))
            if writer is not None:
                writer.write(abort_pdu())
        except (OSError, EOFError):
            pass  # it went away; what it left unfinished was never acknowledged
        finally:
            if writer is None:
                connection.close()
            else:
                await _close(writer)
            while caller in self._threads and self._threads[caller].is_alive():
                await asyncio.sleep(0.02)
            self._threads.pop(caller, None)
            self._connections[address] -= 1
            self._connections = +self._connections

    async def _open(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(limit=1 << 16)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else self._settings.handshake_seconds,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def _read_pdu(self, reader: asyncio.StreamReader) -> bytes:
        """A whole PDU, of limited length."""
        header = await reader.readexactly(HEADER_BYTES)
        if spoken := other_protocol(header):
            raise MessageError(f"it speaks {spoken}, and not DICOM; correct its port or its settings")
        (length,) = struct.unpack(">2xI", header)
        if length > self._settings.max_pdu:
            # without its length, which would make each one a cause of its own
            raise MessageError(f"it sent a PDU larger than node.max_pdu, {self._settings.max_pdu} bytes")
        return header + await reader.readexactly(length)

    async def _admit(
        self, request: bytes, writer: asyncio.StreamWriter, address: str, port: int
    ) -> Caller | None:
        """Who calls, if it may; otherwise it is told why not."""
        if request[0] != ASSOCIATE_REQUEST:
            raise MessageError("it did not begin with an association request")
        called, calling = ae_titles(request)
        reason = None
        if called != self._settings.ae_title:
            reason = _CALLED_UNKNOWN
            self._say(f"{calling!r} {address}", f"it called {called!r}; this is {self._settings.ae_title!r}")
        elif not self._is_loopback(address) and not any(
            title == calling and _within(address, nets) for title, nets in self._peers
        ):
            reason = _CALLING_UNKNOWN
            self._say(address, f"it calls itself {calling!r}, which is not on the list of peers")
        if reason is None:
            return Caller(address, port, calling)
        writer.write(reject_pdu(reason))
        await writer.drain()
        return None

    async def _pass_on(
        self, request: bytes, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Attach an association and carry its PDUs until one side ends it."""
        inner, outer = socket.socketpair()
        inner_reader, inner_writer = await asyncio.open_connection(sock=outer)
        message = Message(self._most_message_bytes)
        tasks: list[asyncio.Task[None]] = []
        fault = "was sending when the device stopped"
        try:
            thread = await asyncio.to_thread(self._connect, inner, caller)
            self._threads[caller] = thread
            inner_writer.write(request)
            inwards = asyncio.create_task(self._inwards(reader, inner_writer, message))
            outwards = asyncio.create_task(self._outwards(inner_reader, writer, message))
            tasks += [inwards, outwards]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if inwards.done() and inwards.exception() is None:
                # the peer is done; what the node still says has a moment to get out
                await asyncio.wait((outwards,), timeout=1)
            fault = message.fault if inwards.done() else message.fault and "was cut off"
        finally:
            inner_writer.close()  # before anything that stopping the node may interrupt
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._release(message)
            await _close(inner_writer)
            broken = next((each for each in results if isinstance(each, MessageError)), None)
            if broken is not None:
                fault = f"was cut off: {broken}"
            await asyncio.to_thread(self._ended, caller, fault)
        if broken is not None:
            raise broken
        if message.unfinished:
            self._say(_peer(caller.address, caller), "it went away in the middle of a message")
        elif fault:
            self._say(_peer(caller.address, caller), f"it {fault}")

    async def _inwards(
        self, reader: asyncio.StreamReader, inner: asyncio.StreamWriter, message: Message
    ) -> None:
        """From the peer to the node, one message at a time (PS3.7 D.3.3.3: no other window is negotiated)."""
        idle = self._settings.idle_seconds
        while True:
            try:
                async with asyncio.timeout(idle):
                    await message.answered.wait()
            except TimeoutError as error:
                raise MessageError(f"what it sent was not answered in {idle:g} seconds") from error
            try:
                async with asyncio.timeout(idle):
                    pdu = await self._read_pdu(reader)
            except TimeoutError as error:
                raise MessageError(f"it sent nothing whole for {idle:g} seconds") from error
            if pdu[0] == DATA:
                await self._hold(message, message.take(pdu))
            elif pdu[0] not in LENGTH_FOUR or len(pdu) != HEADER_BYTES + 4:
                raise MessageError("it sent a PDU that does not belong into an association")
            if pdu[0] == RELEASE_REQUEST:
                message.fault = ""
            elif pdu[0] == ABORT:
                message.fault = abort_reason(pdu)
            inner.write(pdu)
            await inner.drain()
            if pdu[0] == ABORT:
                return

    async def _outwards(
        self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Message
    ) -> None:
        """From the node to the peer, which must take what it is told within the idle time."""
        while data := await inner.read(1 << 16):
            writer.write(data)
            async with asyncio.timeout(self._settings.idle_seconds):
                await writer.drain()
            if message.is_answered():
                await self._release(message)

    async def _hold(self, message: Message, count: int) -> None:
        """Account for bytes on their way; wait while all associations together have too many."""
        most = 2 * self._most_message_bytes
        async with self._released:
            try:
                async with asyncio.timeout(self._settings.idle_seconds):
                    await self._released.wait_for(
                        lambda: self._held_bytes + count <= most or self._held_bytes == message.held
                    )
            except TimeoutError as error:
                raise MessageError("too much was on its way from others") from error
            self._held_bytes += count
            message.held += count

    async def _release(self, message: Message) -> None:
        async with self._released:
            self._held_bytes -= message.held
            message.held = 0
            self._released.notify_all()

    def _is_loopback(self, address: str) -> bool:
        return ipaddress.ip_address(address).is_loopback

    def _say(self, peer: str, what: str) -> None:
        """Log something about a peer, at most once a minute: a flood must not keep the store busy."""
        now = time.monotonic()
        self._noted = {key: at for key, at in self._noted.items() if now - at < _NOTE_AGAIN_SECONDS}
        if (peer, what) not in self._noted and len(self._noted) < 1000:
            self._noted[peer, what] = now
            self._loop.run_in_executor(None, self._note, f"DICOM connection from {peer}", what)


def _peer(address: str, caller: Caller | None) -> str:
    return address if caller is None else f"{caller.ae_title!r} {address}"


def _plain(address: str) -> str:
    """The address; an IPv4-mapped IPv6 address as IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _within(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(ipaddress.ip_address(address) in network for network in networks)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            await writer.wait_closed()

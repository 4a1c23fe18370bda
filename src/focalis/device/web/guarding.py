"""Checks before every route: who may connect, how much may be sent, and what browsers must refuse."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FORM_BYTES = 64 * 1024
"""What a form without files may hold."""

# blob: and wasm are what the viewer needs for its textures and its workers; nothing inline, nothing from elsewhere
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self' blob: data:",
        "worker-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_PASSED_ON = ("forwarded", "via", "x-client-ip", "x-real-ip")
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class TooLargeError(Exception):
    """The body of a request is larger than allowed."""


class RequestGuard:
    """Middleware before all routes.

    Args:
        app: what comes behind it.
        open_to_loopback: nobody has to log in, so only this machine may connect, and only by a name of its own.
        tls: browsers reach the page by HTTPS.
        limit_of: a path to the bytes that its body may have.
    """

    def __init__(
        self, app: App, *, open_to_loopback: bool, tls: bool, limit_of: Callable[[str], int]
    ) -> None:
        self._app = app
        self._open_to_loopback = open_to_loopback
        self._limit_of = limit_of
        self._headers = _HEADERS | ({"strict-transport-security": "max-age=31536000"} if tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit_of(scope["path"])
        announced = headers.get("content-length", "")
        started = exceeded = False
        received = 0

        async def limited() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                exceeded = True
                raise TooLargeError
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                found = MutableHeaders(raw=message["headers"])
                for name, value in self._headers.items():
                    found[name] = value
                found.setdefault("cache-control", "no-store")
            await send(message)

        async def answered(message: Message) -> None:
            # what the application makes of a body that broke off is not the answer
            if started or not exceeded:
                await guarded(message)

        async def answer(status: int, text: str) -> None:
            await PlainTextResponse(text, status, {"connection": "close"})(scope, receive, guarded)

        too_large = f"A request to this address may have {limit} bytes.\n"
        if self._open_to_loopback and not (
            is_loopback(_client(scope))
            and _names_loopback(headers.get("host", ""))
            and not came_by_proxy(headers)
        ):
            await answer(403, "Without users only this machine may connect; add [[users]] to focalis.toml.\n")
        elif announced.isdigit() and int(announced) > limit:
            await answer(413, too_large)
        else:
            with contextlib.suppress(TooLargeError, ClientDisconnect):
                await self._app(scope, limited, answered)
            if exceeded and not started:
                await answer(413, too_large)


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def came_by_proxy(headers: Headers) -> bool:
    """Whether a proxy says that it passes a request on for somebody else."""
    return any(name in _PASSED_ON or name.startswith("x-forwarded-") for name in headers)


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    if not is_address(address):
        return False
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _names_loopback(host: str) -> bool:
    """Whether a Host header names this machine; one that resolves to 127.0.0.1 (DNS rebinding) does not."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or is_loopback(name)

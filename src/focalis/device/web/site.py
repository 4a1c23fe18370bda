"""What all routes share: templates, the session of a request, and the rules of roles and CSRF."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request, Response
from jinja2 import Environment
from starlette.responses import HTMLResponse
from starlette.types import Message

from focalis.device.config import OidcSettings, User
from focalis.device.records import Level, Role, SeriesTask
from focalis.device.web.auth import LoginLimit, Session, Sessions, find_token
from focalis.device.web.device import Device
from focalis.device.web.guarding import came_by_proxy, is_address, is_loopback
from focalis.device.web.held_headers import Headers
from focalis.device.web.study_identity import Identities
from focalis.device.web.uploads import Uploads
from focalis.device.web.views import Views
from focalis.display import templates_of
from focalis.errors import FocalisError

if TYPE_CHECKING:
    from focalis.device.web.oidc import Provider

_log = logging.getLogger(__name__)

COOKIE = "focalis-session"
MOST_FILES = 5000
"""Of one upload."""
_LEADING_BYTES = 4096
_TOKEN = re.compile(rb'name="csrf"\r\n\r\n([A-Za-z0-9_-]{1,64})\r\n')
STATIC = Path(__file__).parent / "static"
VIEWER = STATIC / "viewer" / "viewer.js"


class LoginNeededError(Exception):
    """Nobody is logged in, or the session has ended."""


@dataclass(frozen=True)
class Site:
    """The page's parts that live as long as the process.

    Attributes:
        sign_on: who logs people in beside the device itself; None if nobody does.
        tested: destination to the time at which a person tested it, and the error, if any.
    """

    device: Device
    sessions: Sessions
    limit: LoginLimit
    views: Views
    uploads: Uploads
    identities: Identities
    headers: Headers
    templates: Environment
    sign_on: Provider | None
    tested: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def tls(self) -> bool:
        """Whether browsers reach the page by HTTPS, its own or a proxy's."""
        return self.device.config.web.https

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """Render a page; every value is escaped."""
        session = getattr(request.state, "session", None)
        text = self.templates.get_template(template).render(
            session=session,
            csrf=session.csrf if session else "",
            path=request.url.path,
            version=self.device.version,
            open_to_all=not self.device.config.users,
            oidc=self.device.config.oidc,
            **context,
        )
        return HTMLResponse(text, status)

    def set_cookie(self, response: Response, key: str) -> None:
        """Give the browser its session."""
        response.set_cookie(COOKIE, key, path="/", httponly=True, samesite="strict", secure=self.tls)

    def users(self) -> list[User]:
        """Who may log in: the users of focalis.toml, and those that were added on the page and not disabled."""
        fixed = self.device.config.users
        added = [
            User(name=each.name, password_hash=each.password_hash, role=each.role)
            for each in self.device.store.accounts()
            if not (each.disabled or each.subject) and all(each.name != user.name for user in fixed)
        ]
        return [*fixed, *added]

    def note(
        self,
        request: Request,
        who: str,
        did: str,
        task_id: str | None = None,
        series_uid: str | None = None,
        level: Level | None = "info",
    ) -> None:
        """Write down what somebody did, in the audit trail and in the log; without a level in the trail alone."""
        try:
            self.device.store.audit(who, address_of(request), did, task_id, series_uid)
        except FocalisError as error:
            if level is not None:
                raise
            # reading goes on with a full disk
            _log.error("the audit trail lacks that %s %s: %s", who, did, error)
        if level is not None:
            self.device.store.event(level, f"{who} {did}", task_id, series_uid)

    def task(self, task_id: str) -> SeriesTask:
        """A task of the store; 404 if there is none."""
        task = self.device.store.task(task_id)
        if task is None:
            raise HTTPException(404, "There is no such study; retention may have removed it.")
        return task


def make_site(device: Device) -> Site:
    """The parts of the page for a device.

    Raises:
        UsageError: there is no secret for single sign-on.
    """
    environment = templates_of("focalis.device.web")
    environment.filters["size"] = readable_size
    # the first window is the one to begin with
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return Site(
        device=device,
        sessions=Sessions(),
        limit=LoginLimit(),
        views=Views(device.store, device.config.limits),
        uploads=Uploads(device.store.folder / "uploads"),
        identities=Identities(device.store, device.config.limits, device.config.node.charset),
        headers=Headers(device.store, device.config.limits, device.config.node.charset),
        templates=environment,
        sign_on=_provider(device.config.oidc),
    )


def _provider(settings: OidcSettings | None) -> Provider | None:
    if settings is None:
        return None
    from focalis.device.web.oidc import Provider

    return Provider(settings)


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    site: Site = request.app.state.site
    return site


def address_of(request: Request) -> str:
    """Where a request comes from.

    What a proxy on this machine passes on counts apart, so that strangers behind it cannot close the login for the
    machine itself.
    """
    address = request.client.host if request.client else ""
    if came_by_proxy(request.headers):
        if is_loopback(address):
            return f"a proxy at {address}"
        if not is_address(address):  # whatever stands in X-Forwarded-For; a guesser could change it each time
            return "a proxy that names no address"
    return address


def session_of(request: Request, *, use: bool = True) -> Session:
    """The session of a request. Without users in the settings everybody on this machine is admin.

    Raises:
        LoginNeededError: there is none.
    """
    site = site_of(request)
    if site.device.config.users:
        session = site.sessions.find(request.cookies.get(COOKIE, ""), use=use)
    else:
        session = site.sessions.local
    if session is None:
        raise LoginNeededError
    request.state.session = session
    return session


def needs(role: Role, *, use: bool = True) -> Callable[[Request], Session]:
    """A dependency: a session with that role or a higher one; 403 for others."""

    def check(request: Request) -> Session:
        session = session_of(request, use=use)
        if not session.may(role):
            raise HTTPException(403, f"This needs the role {role}; you are {session.role}.")
        return session

    return check


def changes(role: Role) -> Callable[[Request], Awaitable[Session]]:
    """A dependency of every route that changes something: `needs(role)`, and the session's CSRF token.

    The token comes in the header X-CSRF-Token, or in the form's field `csrf`. In a form with files that must be the
    first field, so that no file is read before it.
    """

    async def check(request: Request) -> Session:
        session = needs(role)(request)
        sent = request.headers.get("x-csrf-token")
        if sent is None and request.headers.get("content-type", "").startswith("multipart/"):
            sent = await leading_token(request)
        elif sent is None:
            field = (await request.form(max_files=MOST_FILES)).get("csrf")
            sent = field if isinstance(field, str) else ""
        if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
            await request.close()  # what was uploaded with it
            raise HTTPException(403, "The form is out of date; load the page again.")
        return session

    return check


async def leading_token(request: Request) -> str:
    """The field `csrf` at the beginning of a form with files; empty if it is not there. The rest is not read yet."""
    messages: list[Message] = []
    head, more, found = b"", True, None
    while more and found is None and len(head) < _LEADING_BYTES:
        message = await request.receive()
        messages.append(message)
        head += message.get("body", b"")
        more = message.get("more_body", False)
        found = _TOKEN.search(head[:_LEADING_BYTES])
    receive = request._receive

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    request._receive = again
    return found[1].decode("ascii") if found else ""


def token_of(request: Request) -> str | None:
    """The name of the bearer token that a request shows; None if it shows none; 401 if it is not known."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        return None
    token = find_token(site_of(request).device.config.tokens, secret.strip())
    if token is None:
        raise HTTPException(401, "The token is not known.", {"WWW-Authenticate": "Bearer"})
    return token.name


def needs_token(request: Request) -> str:
    """A dependency for programs that bring something: a bearer token, and its name to log.

    A browser's session is not enough, because any page of the same site would send its cookie. Without users and
    tokens in the settings this machine may, if no browser sends the request for another page.
    """
    if name := token_of(request):
        return name
    config = site_of(request).device.config
    if config.users or config.tokens or "origin" in request.headers:
        raise HTTPException(401, "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})
    return "from this machine"


def needs_token_or_login(request: Request) -> str:
    """A dependency for what programs and people may read: a bearer token or a session."""
    return token_of(request) or needs("viewer")(request).user


def readable_size(count: float) -> str:
    """Bytes for a person: 10^3 steps, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

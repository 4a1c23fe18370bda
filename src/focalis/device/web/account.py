"""Log in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import RedirectResponse

from focalis.device.config import User
from focalis.device.web.auth import Session, find_user
from focalis.device.web.site import COOKIE, LoginNeededError, address_of, changes, session_of, site_of

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    site = site_of(request)
    try:
        session_of(request)
        return RedirectResponse("/", 303)
    except LoginNeededError:
        return site.page(request, "login.html.j2", problem="", name="")


@router.post("/login")
def login(
    request: Request,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
) -> Response:
    """Open a session.

    No CSRF token is needed: the cookie is SameSite=Strict, and the answer to a foreign form sets a session whose
    password the other side must know.
    """
    site = site_of(request)
    try:
        user = checked_user(request, name, password)
    except HTTPException as error:
        page = site.page(request, "login.html.j2", error.status_code, problem=error.detail, name=name)
        page.headers.update(error.headers or {})
        return page
    response = RedirectResponse("/", 303)
    site.sessions.close(request.cookies.get(COOKIE, ""))
    site.set_cookie(response, site.sessions.open(user.name, user.role))
    return response


@router.post("/logout")
def logout(request: Request, session: Annotated[Session, Depends(changes("viewer"))]) -> Response:
    """End the session."""
    site = site_of(request)
    site.note(request, session.user, "logged out", level=None)
    site.sessions.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


def checked_user(request: Request, name: str, password: str) -> User:
    """The user of that name and password; in the audit trail either way.

    Raises:
        HTTPException: 401 for a wrong name or password, 429 after too many of them.
    """
    site = site_of(request)
    address = address_of(request)
    if wait := site.limit.wait_seconds(name, address):
        problem = f"Too many attempts; try again in {max(1, round(wait / 60))} minutes."
        raise HTTPException(429, problem, {"retry-after": str(round(wait) + 1)})
    # counted before the password is looked at, so that attempts at the same time count too
    site.limit.failed(name, address)
    users = site.users()
    user = find_user(users, name, password)
    if user is None:
        known = any(each.name == name for each in users)
        who = name if known else "an unknown user"
        site.device.store.audit(who, address, "failed to log in")
        site.device.store.event("warning", f"a login as {who} from {address} failed")
        raise HTTPException(401, "Name or password is wrong.")
    site.limit.succeeded(name, address)
    site.note(request, user.name, f"logged in from {address}")
    return user

"""Log in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from starlette.responses import RedirectResponse

from focalis.device.web.auth import find_user
from focalis.device.web.guarding import came_by_proxy, is_loopback
from focalis.device.web.site import COOKIE, LoginNeededError, changes, session_of, site_of

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    """The form."""
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
    address = address_of(request)
    if wait := site.limit.wait_seconds(name, address):
        problem = f"Too many attempts; try again in {max(1, round(wait / 60))} minutes."
        page = site.page(request, "login.html.j2", 429, problem=problem, name=name)
        page.headers["retry-after"] = str(round(wait) + 1)
        return page
    # counted before the password is looked at, so that attempts at the same time count too
    site.limit.failed(name, address)
    user = find_user(site.device.config.users, name, password)
    if user is None:
        known = any(each.name == name for each in site.device.config.users)
        site.device.store.event(
            "warning", f"a login as {name if known else 'an unknown user'} from {address} failed"
        )
        return site.page(request, "login.html.j2", 401, problem="Name or password is wrong.", name=name)
    site.limit.succeeded(name, address)
    site.device.store.event("info", f"{user.name} logged in from {address}")
    response = RedirectResponse("/", 303)
    site.sessions.close(request.cookies.get(COOKIE, ""))
    site.set_cookie(response, site.sessions.open(user.name, user.role))
    return response


def address_of(request: Request) -> str:
    """Where a request comes from.

    What a proxy on this machine passes on counts apart, so that strangers behind it cannot close the login for the
    machine itself.
    """
    address = request.client.host if request.client else ""
    passed_on = came_by_proxy(request.headers) and is_loopback(address)
    return f"a proxy at {address}" if passed_on else address


@router.post("/logout", dependencies=[Depends(changes("viewer"))])
def logout(request: Request) -> Response:
    """End the session."""
    site = site_of(request)
    site.sessions.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response

"""Log in by single sign-on: to the provider and back."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from starlette.datastructures import URL
from starlette.responses import RedirectResponse

from focalis.device.records import Account
from focalis.device.web.auth import ATTEMPTS_SECONDS
from focalis.device.web.oidc import CALLBACK, Person, Provider, SignOnError
from focalis.device.web.site import COOKIE, Site, address_of, site_of

router = APIRouter()

_BEGIN, _COOKIE = "/login/oidc", "focalis-sign-on"


@router.get(_BEGIN)
def begin(request: Request) -> Response:
    """Send the browser to the provider."""
    site, provider = site_of(request), _provider(request)
    try:
        _count(provider, address_of(request))
        key, target = provider.begin()
    except SignOnError as error:
        return _refused(request, error)
    response = RedirectResponse(target, 303)
    # Lax, because the provider's page sends the browser back here
    response.set_cookie(
        _COOKIE, key, ATTEMPTS_SECONDS, path=_BEGIN, httponly=True, samesite="lax", secure=site.tls
    )
    return response


@router.get(CALLBACK)
def finish(
    request: Request,
    state: Annotated[str, Query(max_length=1024)] = "",
    code: Annotated[str, Query(max_length=4096)] = "",
    error: str = "",
) -> Response:
    """Open a session for whom the provider sends back."""
    site, provider = site_of(request), _provider(request)
    try:
        _count(provider, address_of(request))
        person = provider.finish(request.cookies.get(_COOKIE, ""), state, code, error)
        account = _account(site, person)
        key = site.sessions.open(account.name, person.role)
        _account(site, person)  # who was disabled in between gets no key
    except SignOnError as refused:
        return _refused(request, refused)
    provider.limit.succeeded("", address_of(request))
    site.note(request, account.name, f"logged in from {address_of(request)}, as {person.role}")
    # A browser that comes from another site sends no Strict cookie along a redirect; so the page leads on by itself.
    response = site.page(request, "signed_on.html.j2")
    response.headers["refresh"] = "0; url=/"
    site.sessions.close(request.cookies.get(COOKIE, ""))
    site.set_cookie(response, key)
    response.delete_cookie(_COOKIE, path=_BEGIN)
    return response


@router.get("/login/oidc/end")
def end(request: Request) -> Response:
    """Send the browser to where the provider's own session is ended."""
    site, provider = site_of(request), _provider(request)
    try:
        _count(provider, address_of(request))
        end_address = provider.end_address()
    except SignOnError as error:
        return site.page(request, "login.html.j2", error.status, problem=str(error), name="")
    if not end_address:
        raise HTTPException(404, f"{provider.settings.name} has not said where its session is ended.")
    address = URL(end_address).include_query_params(client_id=provider.settings.client_id)
    return RedirectResponse(str(address), 303)


def _provider(request: Request) -> Provider:
    provider = site_of(request).sign_on
    assert provider is not None, "without a provider there are no such routes"
    return provider


def _count(provider: Provider, address: str) -> None:
    """Count an attempt until somebody has logged in from the address; SignOnError after too many."""
    attempt = secrets.token_urlsafe(8)  # a name of its own, so that the address alone counts
    if provider.limit.wait_seconds(attempt, address):
        raise SignOnError("Too many attempts; try again in some minutes.", 429)
    provider.limit.failed(attempt, address)


def _account(site: Site, person: Person) -> Account:
    """The account of a person, made at the first login; it keeps its name.

    Raises:
        SignOnError: it was disabled here, or somebody else had the name before.
    """
    account = site.device.store.keep_person(person.name, person.subject, person.role)
    if account is None:
        raise SignOnError(
            "Somebody else had your name before; ask the device's administrator.", 403, person.name
        )
    if account.disabled:
        raise SignOnError("You are disabled on this device; ask its administrator.", 403, account.name)
    return account


def _refused(request: Request, error: SignOnError) -> Response:
    """The login page, which says why; in the audit trail and the log."""
    site = site_of(request)
    who = error.who or "an unknown user"
    if error.status != 429:
        site.device.store.audit(who, address_of(request), f"failed to log in: {error}")
        site.device.store.event("warning", f"a login as {who} from {address_of(request)} failed: {error}")
    return site.page(request, "login.html.j2", error.status, problem=str(error), name="")

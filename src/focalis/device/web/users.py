"""Users without a restart: added, disabled, given another role or password; and the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.responses import RedirectResponse, StreamingResponse

from focalis.device.config_values import Name
from focalis.device.records import Account, Role
from focalis.device.web.auth import Session, hash_password
from focalis.device.web.site import Site, changes, needs, site_of

router = APIRouter()

LEAST_CHARACTERS = 12
"""Of a password."""

Admin = Annotated[Session, Depends(changes("admin"))]
Password = Annotated[str, Form(max_length=1024)]


@router.get("/users")
def users(request: Request, _: Annotated[Session, Depends(needs("admin"))]) -> Response:
    site = site_of(request)
    return site.page(
        request,
        "users.html.j2",
        fixed=site.device.config.users,
        accounts=site.device.store.accounts(),
        least=LEAST_CHARACTERS,
    )


@router.post("/users")
def add(
    request: Request,
    session: Admin,
    name: Annotated[str, Form(max_length=64)],
    password: Password,
    role: Annotated[Role, Form()],
) -> Response:
    """Add a user."""
    site = site_of(request)
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise HTTPException(422, "A name has letters, digits, dot, dash and underscore, up to 64.") from error
    if not site.device.config.users:
        raise HTTPException(
            409, "Name a first administrator in focalis.toml; until then the page is open here."
        )
    taken = {each.name for each in site.device.config.users} | {
        each.name for each in site.device.store.accounts()
    }
    if name in taken:
        raise HTTPException(409, f"There is a user {name} already.")
    site.device.store.keep_account(Account(name, _hashed(password), role))
    site.note(request, session.user, f"added the user {name} as {role}")
    return RedirectResponse("/users", 303)


@router.post("/users/{name}/role")
def change_role(request: Request, session: Admin, name: str, role: Annotated[Role, Form()]) -> Response:
    """Give a user another role; who is logged in has to log in again."""
    return _change(
        request, session, replace(_local(site_of(request), name), role=role), f"made {name} a {role}"
    )


@router.post("/users/{name}/password")
def reset_password(request: Request, session: Admin, name: str, password: Password) -> Response:
    """Give a user another password."""
    account = replace(_local(site_of(request), name), password_hash=_hashed(password))
    return _change(request, session, account, f"set another password for {name}")


@router.post("/users/{name}/disable")
def disable(request: Request, session: Admin, name: str) -> Response:
    """Shut a user out, at once."""
    account = replace(_account(site_of(request), name), disabled=True)
    return _change(request, session, account, f"disabled the user {name}")


@router.post("/users/{name}/enable")
def enable(request: Request, session: Admin, name: str) -> Response:
    """Let a user in again."""
    account = replace(_account(site_of(request), name), disabled=False)
    return _change(request, session, account, f"enabled the user {name}")


@router.get("/audit.jsonl")
def audit(
    request: Request, session: Annotated[Session, Depends(needs("admin"))], since: str = ""
) -> Response:
    """The audit trail as JSON lines, from a date or time on (UTC, ISO 8601)."""
    site = site_of(request)
    site.note(request, session.user, "exported the audit trail")

    def lines() -> Iterator[str]:
        for each in site.device.store.audited(since):
            yield json.dumps(asdict(each)) + "\n"

    headers = {"content-disposition": 'attachment; filename="focalis-audit.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


def _account(site: Site, name: str) -> Account:
    found = next((each for each in site.device.store.accounts() if each.name == name), None)
    if found is None:
        raise HTTPException(404, "There is no such user here; users of focalis.toml are changed there.")
    return found


def _local(site: Site, name: str) -> Account:
    account = _account(site, name)
    if account.subject:
        raise HTTPException(409, "Role and password of this user come by single sign-on; change them there.")
    return account


def _change(request: Request, session: Session, account: Account, did: str) -> Response:
    """Keep a changed user and end its sessions."""
    site = site_of(request)
    if account.name == session.user:
        raise HTTPException(409, "Nobody changes their own account; ask another administrator.")
    site.device.store.keep_account(account)
    site.sessions.close_all(account.name)
    site.note(request, session.user, did)
    return RedirectResponse("/users", 303)


def _hashed(password: str) -> str:
    if len(password) < LEAST_CHARACTERS:
        raise HTTPException(422, f"A password has at least {LEAST_CHARACTERS} characters.")
    return hash_password(password)

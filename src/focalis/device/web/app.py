"""The web application of the device."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from focalis.device.web import (
    account,
    beside,
    editing,
    models_page,
    monai_label,
    monitoring,
    pointing,
    quarantine,
    querying,
    study,
    system,
    taking,
    users,
    worklist,
)
from focalis.device.web.device import Device
from focalis.device.web.guarding import FORM_BYTES, RequestGuard
from focalis.device.web.site import STATIC, LoginNeededError, make_site, site_of
from focalis.errors import FocalisError
from focalis.object_store import UnreachableError

_BIG_BODIES = ("/upload", "/dicom-web/", "/infer/", "/session/", "/datastore/")
_PRUNE_SECONDS = 600
_log = logging.getLogger(__name__)


def create_app(device: Device) -> FastAPI:
    """The page, DICOMweb, metrics and health of a device, as an ASGI application.

    With users in the settings everything but /healthz and /readyz needs a login or a token; without users only this
    machine may connect. torch is never imported.
    """
    site = make_site(device)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def prune() -> None:
            while True:
                for each in (site.views.prune, site.uploads.prune):
                    try:
                        await run_in_threadpool(each)
                    except (FocalisError, OSError) as error:  # the next round tries again
                        _log.error("old views and uploads were not removed: %s", error)
                await asyncio.sleep(_PRUNE_SECONDS)

        pruning = asyncio.create_task(prune())
        yield
        pruning.cancel()

    app = FastAPI(title="Focalis", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.site = site
    for each in (
        account,
        worklist,
        study,
        pointing,
        editing,
        beside,
        models_page,
        monai_label,
        monitoring,
        quarantine,
        querying,
        system,
        taking,
        users,
    ):
        app.include_router(each.router)
    if site.sign_on is not None:
        from focalis.device.web import signing_on

        app.include_router(signing_on.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(LoginNeededError, _login)
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(FocalisError, _problem)
    app.add_exception_handler(RequestValidationError, _problem)
    config = device.config
    app.add_middleware(
        RequestGuard,
        open_to_loopback=not config.users,
        tls=site.tls,
        limit_of=lambda path: (
            int(config.limits.series_gb * 1e9) if path.startswith(_BIG_BODIES) else FORM_BYTES
        ),
    )
    return app


async def _login(request: Request, _: Exception) -> Response:
    if request.method == "GET" and _wants_page(request):
        return RedirectResponse("/login", 303)
    return JSONResponse({"detail": "Log in first."}, 401)


async def _problem(request: Request, error: Exception) -> Response:
    status, headers = 500, None
    if isinstance(error, HTTPException):
        status, headers, text = error.status_code, error.headers, str(error.detail)
    elif isinstance(error, RequestValidationError):
        status, text = 422, "The request lacks a value, or has one that is not known."
    else:
        status = 503 if isinstance(error, UnreachableError) else 500
        text = str(error)
    if _wants_page(request):
        page = site_of(request).page(request, "problem.html.j2", status, code=status, text=text)
        page.headers.update(headers or {})
        return page
    return JSONResponse({"detail": text}, status, headers)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")

"""The device itself: queue, disk, destinations, what needs a person, the log."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import RedirectResponse

from focalis.device.delivery import check
from focalis.device.records import Instance, ResultObject, now
from focalis.device.store import Store
from focalis.device.web.auth import Session
from focalis.device.web.children import run_job
from focalis.device.web.site import Site, changes, needs, site_of
from focalis.device.web.worklist import WORKING

router = APIRouter()
_exporting = threading.Lock()


@router.get("/system")
def system(
    request: Request,
    _: Annotated[Session, Depends(needs("viewer"))],
    level: Literal["", "info", "warning", "error"] = "",
    find: str = "",
) -> Response:
    site = site_of(request)
    store, config = site.device.store, site.device.config
    counts = store.counts()
    deliveries = store.deliveries()
    per_destination = {
        each.name: Counter(delivery.state for delivery in deliveries if delivery.destination == each.name)
        for each in config.destinations
    }
    return site.page(
        request,
        "system.html.j2",
        config=config,
        counts=counts,
        working=sum(counts.get(f"tasks.{state}", 0) for state in WORKING),
        disk=shutil.disk_usage(store.folder),
        per_destination=per_destination,
        tested=site.tested,
        notices=store.notices() if config.notify else [],
        dead=[each for each in deliveries if each.state == "dead"],
        waiting=[each for each in deliveries if each.state in ("waiting", "stored") and each.attempts],
        refusals=store.refusals(),
        events=store.events(200, level or None, find=find),
        level=level,
        find=find,
        exports=sorted(
            (path.name for path in (store.folder / "exports").glob("*") if not path.name.startswith(".")),
            reverse=True,
        ),
        exports_folder=store.folder / "exports",
        reviewed=sum(map(len, reviewed_studies(site).values())),
    )


@router.post("/system/resend")
def resend(
    request: Request,
    session: Annotated[Session, Depends(changes("admin"))],
    task_id: Annotated[str, Form()],
    sop_uid: Annotated[str, Form()],
    destination: Annotated[str, Form()],
) -> Response:
    """Try a delivery at once, one that is dead or one that waits for its next try."""
    site = site_of(request)
    known = {
        (each.task_id, each.sop_uid, each.destination)
        for each in site.device.store.deliveries(task_id)
        if each.state not in ("sent", "committed")
    }
    if (task_id, sop_uid, destination) not in known:
        raise HTTPException(404, "There is no such delivery that is dead or waiting; it may be sent already.")
    site.device.resend(task_id, sop_uid, destination)
    site.note(request, session.user, f"sends to {destination} again", task_id)
    return RedirectResponse("/system", 303)


@router.post("/system/destinations/{name}/test")
def ask_destination(
    request: Request, name: str, session: Annotated[Session, Depends(changes("admin"))]
) -> Response:
    """Ask a destination whether it answers; the page shows what came of it."""
    site = site_of(request)
    config = site.device.config
    destination = next((each for each in config.destinations if each.name == name), None)
    if destination is None:
        raise HTTPException(404, "There is no such destination.")
    error = check(destination, config.node.ae_title)
    site.tested[name] = (now(), error)
    said = error or "it answers"
    site.note(request, session.user, f"tested {name}: {said}", level="warning" if error else "info")
    return RedirectResponse("/system#destinations", 303)


@router.post("/system/notices/{name}/test")
def tell_for_a_test(
    request: Request, name: str, session: Annotated[Session, Depends(changes("admin"))]
) -> Response:
    """Send a recipient a test notice; the page shows what came of it."""
    site = site_of(request)
    if all(each.name != name for each in site.device.config.notify):
        raise HTTPException(404, "There is no such recipient.")
    text = f"{session.user} asked for a test"
    site.device.store.add_notice(name, f"test {now()}", "test", text, None, None)
    site.note(request, session.user, f"asked for a test of {name}")
    site.device.deliver("")
    return RedirectResponse("/system#notices", 303)


@router.post("/system/export")
def export(request: Request, session: Annotated[Session, Depends(changes("reviewer"))]) -> Response:
    """Write the reviewed studies as a data set below the store."""
    site = site_of(request)
    if not _exporting.acquire(blocking=False):
        raise HTTPException(409, "An export is being written; wait for it.")
    try:
        reviewed = reviewed_studies(site)
        for model, studies in reviewed.items() or [("", [])]:
            name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}" + (f"-{model}" if len(reviewed) > 1 else "")
            out = site.device.store.folder / "exports" / name
            told = [study.at_hand(site.device.store) for study in studies]
            count = run_job("export", {"studies": told, "out": str(out)}, site.device.config.limits)
            said = f"exported {count} reviewed studies as {name}"
            if count < len(studies):
                said += f"; the other {len(studies) - count} were removed meanwhile"
            site.note(request, session.user, said)
    finally:
        _exporting.release()
    return RedirectResponse("/system#export", 303)


@dataclass(frozen=True)
class ReviewedStudy:
    """A study whose corrections a reviewer has sent."""

    case: str
    images: list[Instance]
    correction: ResultObject

    def at_hand(self, store: Store) -> dict[str, Any]:
        """Its files, as jobs take them."""
        correction, *files = map(str, store.at_hand([self.correction, *self.images]))
        return {"case": self.case, "files": files, "correction": correction}


def reviewed_studies(site: Site) -> dict[str, list[ReviewedStudy]]:
    """By model, the last correction of every study that is not superseded, with its images.

    What one model does not know is not marked in its corrections, so each model has a data set of its own.
    """
    store = site.device.store
    found: dict[str, list[ReviewedStudy]] = {}
    for task in store.tasks():
        corrections = [each for each in store.results(task.task_id) if each.kind == "correction"]
        if corrections and task.superseded_by is None:
            name = f"case_{task.input_sha256[:12]}"
            study = ReviewedStudy(name, store.images(task.series_uid), corrections[-1])
            found.setdefault(task.model, []).append(study)
    return found

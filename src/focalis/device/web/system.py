"""The device itself: queue, disk, destinations, what needs a person, the log; health and metrics for machines."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import JSONResponse, RedirectResponse

from focalis.device.delivery import check
from focalis.device.records import now
from focalis.device.web.auth import Session
from focalis.device.web.children import run_job
from focalis.device.web.site import Site, changes, needs, needs_token_or_login, site_of
from focalis.device.web.worklist import WORKING
from focalis.errors import FocalisError

router = APIRouter()
_exporting = threading.Lock()


@router.get("/system")
def system(request: Request, _: Annotated[Session, Depends(needs("viewer"))]) -> Response:
    """The page."""
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
        dead=[each for each in deliveries if each.state == "dead"],
        waiting=[each for each in deliveries if each.state == "waiting" and each.attempts],
        quarantined=store.quarantined(),
        refusals=store.refusals(),
        events=store.events(200),
        exports=sorted(
            (path.name for path in (store.folder / "exports").glob("*") if not path.name.startswith(".")),
            reverse=True,
        ),
        exports_folder=store.folder / "exports",
        reviewed=len(_reviewed(site)),
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
        if each.state != "sent"
    }
    if (task_id, sop_uid, destination) not in known:
        raise HTTPException(404, "There is no such delivery that is dead or waiting; it may be sent already.")
    site.device.resend(task_id, sop_uid, destination)
    site.device.store.event("info", f"{session.user} sends to {destination} again", task_id)
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
    site.device.store.event("warning" if error else "info", f"{session.user} tested {name}: {said}")
    return RedirectResponse("/system#destinations", 303)


@router.post("/system/export")
def export(request: Request, session: Annotated[Session, Depends(changes("reviewer"))]) -> Response:
    """Write the reviewed studies as a data set below the store."""
    site = site_of(request)
    if not _exporting.acquire(blocking=False):
        raise HTTPException(409, "An export is being written; wait for it.")
    try:
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        out = site.device.store.folder / "exports" / name
        count = run_job("export", {"studies": _reviewed(site), "out": str(out)}, site.device.config.limits)
        site.device.store.event("info", f"{session.user} exported {count} reviewed studies as {name}")
    finally:
        _exporting.release()
    return RedirectResponse("/system#export", 303)


@router.api_route("/healthz", methods=["GET", "HEAD"])
def health(request: Request) -> Response:
    """Whether the device can work; tells nothing about studies, so nobody need log in."""
    site = site_of(request)
    least = site.device.config.store.least_free_gb * 1e9
    try:
        problems = ["disk"] if site.device.store.free_bytes() < least else []
        site.device.store.counts()
    except (OSError, FocalisError):
        problems = ["store"]
    body = {"status": "failing" if problems else "ok", "problems": problems}
    return JSONResponse(body, 503 if problems else 200)


@router.get("/metrics")
def metrics(request: Request, _: Annotated[str, Depends(needs_token_or_login)]) -> Response:
    """Counts and sizes in Prometheus' text format."""
    return Response(metrics_text(site_of(request)), media_type="text/plain; version=0.0.4; charset=utf-8")


def metrics_text(site: Site) -> str:
    """The metrics: every state of series, tasks and deliveries, also those that are at 0."""
    counts = site.device.store.counts()
    usage = shutil.disk_usage(site.device.store.folder)
    lines: list[str] = []

    def gauge(name: str, what: str, samples: dict[str, float]) -> None:
        lines.append(f"# HELP focalis_{name} {what}")
        lines.append(f"# TYPE focalis_{name} gauge")
        lines.extend(
            f"focalis_{name}{labels} {value:g}" if value < 1e6 else f"focalis_{name}{labels} {value:.0f}"
            for labels, value in samples.items()
        )

    for table, what, states in (
        ("series", "Image series by state.", ("receiving", "complete", "incomplete", "unrouted")),
        (
            "tasks",
            "Segmentation tasks by state.",
            (*WORKING, "done", "out of scope", "held", "refused", "failed"),
        ),
        ("deliveries", "Results on their way to destinations, by state.", ("waiting", "sent", "dead")),
    ):
        gauge(table, what, {f'{{state="{state}"}}': counts.get(f"{table}.{state}", 0) for state in states})
    gauge("instances", "DICOM instances in the store.", {"": counts["instances"]})
    gauge("instance_bytes", "Bytes of these instances.", {"": counts["instance_bytes"]})
    gauge("quarantined", "Objects in quarantine.", {"": counts["quarantined"]})
    gauge("disk_free_bytes", "Free bytes of the store's disk.", {"": usage.free})
    gauge("disk_total_bytes", "Size of the store's disk.", {"": usage.total})
    gauge("info", "The version of Focalis.", {f'{{version="{site.device.version}"}}': 1})
    return "\n".join(lines) + "\n"


def _reviewed(site: Site) -> list[dict[str, object]]:
    """The last correction of every study that is not superseded, with its images."""
    store = site.device.store
    found: list[dict[str, object]] = []
    for task in store.tasks():
        corrections = [each for each in store.results(task.task_id) if each.kind == "correction"]
        if corrections and task.superseded_by is None:
            files = [str(each.path) for each in store.instances(task.series_uid)]
            name = f"case_{task.input_sha256[:12]}"
            found.append({"case": name, "files": files, "correction": str(corrections[-1].path)})
    return found

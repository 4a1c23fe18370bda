"""Health, readiness and metrics, for machines."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse

from focalis.device.web.site import Site, needs_token_or_login, site_of
from focalis.device.web.worklist import WORKING
from focalis.errors import FocalisError

router = APIRouter()


@router.api_route("/healthz", methods=["GET", "HEAD"])
def health(request: Request) -> Response:
    """Whether the device can work; tells nothing about studies, so nobody need log in."""
    return _answer(_failing(site_of(request)))


@router.api_route("/readyz", methods=["GET", "HEAD"])
def ready(request: Request) -> Response:
    """Whether all parts of the device work; tells no more than health does."""
    site = site_of(request)
    return _answer([*_failing(site), *site.device.unready()])


def _failing(site: Site) -> list[str]:
    least = site.device.config.store.least_free_gb * 1e9
    try:
        site.device.store.counts()
        return ["disk"] if site.device.store.free_bytes() < least else []
    except (OSError, FocalisError):
        return ["store"]


def _answer(problems: list[str]) -> Response:
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
        (
            "deliveries",
            "Results on their way to destinations, by state.",
            ("waiting", "sent", "stored", "committed", "dead"),
        ),
    ):
        gauge(table, what, {f'{{state="{state}"}}': counts.get(f"{table}.{state}", 0) for state in states})
    waiting = [task.urgent for task in site.device.store.tasks("waiting")]
    queue: dict[str, float] = {'{priority="urgent"}': sum(waiting), '{priority="normal"}': waiting.count(0)}
    gauge("queue", "Segmentation tasks that wait, by priority.", queue)
    gauge("instances", "DICOM instances in the store.", {"": counts["instances"]})
    gauge("instance_bytes", "Bytes of these instances.", {"": counts["instance_bytes"]})
    gauge("quarantined", "Objects in quarantine.", {"": counts["quarantined"]})
    gauge("disk_free_bytes", "Free bytes of the store's disk.", {"": usage.free})
    gauge("disk_total_bytes", "Size of the store's disk.", {"": usage.total})
    gauge("info", "The version of Focalis.", {f'{{version="{site.device.version}"}}': 1})
    return "\n".join([*lines, *site.device.store.counters.lines()]) + "\n"

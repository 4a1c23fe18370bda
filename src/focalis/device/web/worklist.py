"""The work list: every series with its task, live."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import JSONResponse, RedirectResponse

from focalis.device.records import Delivery, SeriesRow, SeriesTask, TaskState
from focalis.device.web.auth import Session
from focalis.device.web.site import Site, changes, needs, site_of
from focalis.device.web.study_identity import Identity

router = APIRouter()
SHOWN = 200

WORKING = ("waiting", "checking", "segmenting", "writing", "sending")
TROUBLED = ("failed", "refused", "unrouted", "incomplete", "held")
_FAILED: tuple[TaskState, ...] = ("failed", "refused", "held", "out of scope")


@dataclass(frozen=True)
class WorkListRow:
    """A line of the work list.

    Attributes:
        state: of the task; of the series where there is no task yet.
        at: when it last changed.
        series: the series; None if retention has just removed it.
        task: None while nothing is to be done with the series.
        accepted, rejected: lesions judged.
        corrected: whether a corrected Segmentation was made.
        deliveries: state to number.
    """

    state: str
    reason: str
    at: str
    series: SeriesRow | None
    task: SeriesTask | None
    identity: Identity
    accepted: int
    rejected: int
    corrected: bool
    deliveries: dict[str, int]

    @property
    def text(self) -> str:
        """What is searched."""
        found = [self.state, self.reason, self.at, self.task.model if self.task else ""]
        found += [str(value) for value in asdict(self.identity).values()]
        if self.series is not None:
            found += [
                self.series.modality,
                self.series.description,
                self.series.body_part,
                self.series.series_uid,
            ]
        return " ".join([*found, "needs a person" if self.needs_a_person else ""]).lower()

    @property
    def needs_a_person(self) -> bool:
        """Whether a person must look: there is no result, or a doubtful one that nobody has corrected."""
        doubtful = (
            self.task is not None and bool(self.task.partial or self.task.outside) and not self.corrected
        )
        return self.state in TROUBLED or "dead" in self.deliveries or doubtful


@router.get("/")
def work_list(request: Request, session: Annotated[Session, Depends(needs("viewer"))]) -> Response:
    site = site_of(request)
    site.note(request, session.user, "looked at the work list", level=None)
    rows = rows_of(site)
    return site.page(request, "work.html.j2", rows=rows, tiles=tiles_of(rows), shown=SHOWN, find="")


@router.post("/work/find")
def find_work(
    request: Request,
    session: Annotated[Session, Depends(changes("viewer"))],
    find: Annotated[str, Form(max_length=200)],
) -> Response:
    """The lines of all that is kept that have some words; by POST, so that no name stands in an address."""
    site = site_of(request)
    site.note(request, session.user, "searched the work list", level=None)
    rows = rows_of(site, find)
    return site.page(request, "work.html.j2", rows=rows, tiles=tiles_of(rows), shown=SHOWN, find=find)


@router.get("/work/rows")
def work_rows(request: Request, _: Annotated[Session, Depends(needs("viewer", use=False))]) -> Response:
    """The part of the page that lives; 304 while nothing has changed."""
    site = site_of(request)
    rows = rows_of(site)
    tag = '"' + hashlib.sha256(repr(rows).encode()).hexdigest()[:32] + '"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    page = site.page(request, "rows.html.j2", rows=rows, tiles=tiles_of(rows), shown=SHOWN, find="")
    page.headers["etag"] = tag
    return page


@router.post("/series/{series_uid}/release")
def release(
    request: Request, series_uid: str, session: Annotated[Session, Depends(changes("reviewer"))]
) -> Response:
    """Have an incomplete series segmented all the same; its results are marked as partial."""
    store = site_of(request).device.store
    if store.series_row(series_uid) is None:
        raise HTTPException(404, "There is no such series; retention may have removed it.")
    if not store.release(series_uid, session.user):
        raise HTTPException(409, "The series is not held as incomplete, or not any more.")
    site_of(request).note(
        request, session.user, "released it although it is incomplete", series_uid=series_uid
    )
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"series": series_uid, "state": "complete", "partial": True})
    return RedirectResponse("/", 303)


def rows_of(site: Site, find: str = "") -> list[WorkListRow]:
    """The newest lines of the work list: tasks that are not superseded, and series without a task.

    Args:
        find: words that all must stand in a line; then the whole store is searched.
    """
    store = site.device.store
    words = find.lower().split()
    most = None if words else SHOWN
    newest = {task.task_id: task for task in store.tasks(limit=most)}
    # what needs a person stays in sight, however much came after it
    newest |= {task.task_id: task for state in _FAILED for task in store.tasks(state, most)}
    tasks = [task for task in newest.values() if task.superseded_by is None and not task.shadow_of]
    series = {each.series_uid: each for each in store.series()}
    with_task = {task.series_uid for task in tasks}
    alone = [
        each
        for each in series.values()
        if each.state == "incomplete"
        or (each.series_uid not in with_task and (each.state != "complete" or not _has_task(site, each)))
    ]
    alone.sort(key=lambda each: (each.state == "incomplete", each.last_at), reverse=True)
    alone = alone[:most]
    identities = site.identities.of([*with_task, *(each.series_uid for each in alone)])
    rows = [_task_row(site, task, series.get(task.series_uid), identities[task.series_uid]) for task in tasks]
    rows += [
        WorkListRow(
            each.state, each.reason, each.last_at, each, None, identities[each.series_uid], 0, 0, False, {}
        )
        for each in alone
    ]
    found = [row for row in rows if all(word in row.text for word in words)]
    return sorted(found, key=lambda row: row.at, reverse=True)[: 2 * SHOWN if words else None]


def tiles_of(rows: list[WorkListRow]) -> dict[str, int]:
    """How many of the listed lines are receiving, working, done or in need of a person."""
    return {
        "receiving": sum(row.state in ("receiving", "complete") for row in rows),
        "working": sum(row.state in WORKING for row in rows),
        "done": sum(row.state in ("done", "out of scope") for row in rows),
        "attention": sum(row.needs_a_person for row in rows),
    }


def _has_task(site: Site, series: SeriesRow) -> bool:
    return any(site.device.store.task_of(series.series_uid, model) for model in site.device.models)


def _task_row(site: Site, task: SeriesTask, series: SeriesRow | None, identity: Identity) -> WorkListRow:
    store = site.device.store
    verdicts = Counter(review.verdict for review in store.reviews(task.task_id))
    deliveries: list[Delivery] = store.deliveries(task.task_id)
    return WorkListRow(
        state=task.state,
        reason=task.reason,
        at=task.updated_at,
        series=series,
        task=task,
        identity=identity,
        accepted=verdicts["accepted"],
        rejected=verdicts["rejected"],
        corrected=any(result.kind == "correction" for result in store.results(task.task_id)),
        deliveries=dict(Counter(each.state for each in deliveries)),
    )

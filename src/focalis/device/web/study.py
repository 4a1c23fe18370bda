"""One study: image and lesions, verdicts, the corrected Segmentation."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import FileResponse, JSONResponse, RedirectResponse

from focalis.device.config import ObjectKind
from focalis.device.records import ResultKind, SeriesRow, SeriesTask, Verdict
from focalis.device.routing import IMAGE_MODALITIES, model_for_points
from focalis.device.store import Store
from focalis.device.web.auth import Session
from focalis.device.web.children import run_job
from focalis.device.web.site import VIEWER, Site, changes, needs, site_of
from focalis.device.web.slice_picture import AXES, Part, Plane, slice_png
from focalis.device.web.views import IMAGE, LESIONS, View, edits_of, linked, segmentation_of
from focalis.device.web.worklist import WORKING
from focalis.device.written import folder_for_more, follow_up_of, keep_more, pointed_files
from focalis.display import counted

router = APIRouter(prefix="/studies/{task_id}")
_correcting = threading.Lock()
ENDED = ("done", "out of scope", "sending", "failed")
_SENT_AS: dict[ResultKind, ObjectKind] = {
    "correction": "seg",
    "correction-rtstruct": "rtstruct",
    "correction-sr": "sr",
}
"""What a corrected object is to a destination."""

Viewer = Annotated[Session, Depends(needs("viewer"))]
Reviewer = Annotated[Session, Depends(changes("reviewer"))]


@dataclass(frozen=True)
class SliceRequest:
    """What an address says of a slice's picture; `part` is four numbers with spaces between them, or empty."""

    plane: Plane
    index: int
    window: str
    selected: int
    overlay: bool
    part: str


def asked_slice(
    plane: Plane, index: int, window: str = "", selected: int = 0, overlay: bool = True, part: str = ""
) -> SliceRequest:
    """Read an address that ends in /slices/PLANE/INDEX.png."""
    return SliceRequest(plane, index, window, selected, overlay, part)


AskedSlice = Annotated[SliceRequest, Depends(asked_slice)]
Admin = Annotated[Session, Depends(changes("admin"))]


@router.get("")
def study(request: Request, task_id: str, session: Viewer, lesion: int = 0) -> Response:
    """The page; while the images are being read, one that loads itself again."""
    site = site_of(request)
    task = site.task(task_id)
    store = site.device.store
    view = site.views.get(task_id)
    problem = site.views.problem(task_id)
    segmentation = segmentation_of(store, task_id)
    pointing = takes_points(site, task)
    shown = segmentation is not None or pointing
    if view is None and not problem and shown:
        site.views.start(task_id, task.series_uid)
    follow_up = follow_up_of(store, task_id)
    earlier, earlier_view = None, None
    if follow_up is not None and (earlier := store.task(follow_up["task"])) is not None:
        earlier_view = site.views.get(earlier.task_id)
        if earlier_view is None and not site.views.problem(earlier.task_id):
            site.views.start(earlier.task_id, earlier.series_uid)
            view = None  # both are shown, or the page loads again
    verdicts = verdicts_of(site, task_id)
    chosen = None
    if view is not None and view.lesions:
        chosen = next((each for each in view.lesions if each["number"] == lesion), view.lesions[0])
    under_way = segmentation is None and task.state in WORKING
    page = site.page(
        request,
        "study.html.j2",
        task=task,
        under_way=under_way,
        series=store.series_row(task.series_uid),
        left_out=sum(each.left_out for each in store.instances(task.series_uid)),
        identity=site.identities.of([task.series_uid])[task.series_uid],
        view=view,
        problem=problem,
        segmented=shown,
        pointing=pointing,
        searched=segmentation is not None,
        chosen=chosen,
        verdicts=verdicts,
        undecided=_undecided(view, verdicts),
        edition=view.edition if view is not None else 0,
        edited=store.edited_lesions(task_id),
        results=store.results(task_id),
        deliveries=store.deliveries(task_id),
        viewer_built=VIEWER.is_file(),
        planes=list(AXES),
        siblings=siblings(store, task) if view is not None else [],
        places=_places(view, chosen),
        follow_up=follow_up,
        earlier=earlier and earlier_view and _beside(view, earlier, earlier_view, follow_up),
    )
    if view is not None:
        site.note(request, session.user, "opened the study", task_id, level=None)
    if under_way or (view is None and shown and not problem):
        page.headers["refresh"] = "5" if under_way else "1"
    return page


@router.get("/slices/{plane}/{index}.png")
def slice_picture(request: Request, task_id: str, asked: AskedSlice, _: Viewer) -> Response:
    """A slice as a picture, or a part of it."""
    site = site_of(request)
    return picture(view_of(site, task_id), asked, verdicts_of(site, task_id))


@router.get("/image.nii")
def image_file(request: Request, task_id: str, _: Viewer) -> Response:
    """The image for the viewer: NIfTI, uncompressed."""
    return _file(view_of(site_of(request), task_id).folder / IMAGE)


@router.get("/lesions.nii")
def lesions_file(request: Request, task_id: str, _: Viewer) -> Response:
    """The lesions' numbers for the viewer."""
    return _file(view_of(site_of(request), task_id).folder / LESIONS)


@router.get("/results/{sop_uid}")
def result_file(request: Request, task_id: str, sop_uid: str, session: Viewer) -> Response:
    """A result as a DICOM file, byte for byte as it is sent."""
    site = site_of(request)
    found = next((each for each in site.device.store.results(task_id) if each.sop_uid == sop_uid), None)
    path = None if found is None else site.device.store.at_hand([found])[0]
    if found is None or path is None or not path.is_file():
        raise HTTPException(404, "There is no such result.")
    site.note(request, session.user, f"downloaded the {found.kind}", task_id, level=None)
    return FileResponse(path, media_type="application/dicom", filename=f"{task_id[:12]}-{path.name}")


@router.post("/verdicts")
def judge(
    request: Request,
    task_id: str,
    session: Reviewer,
    lesion: Annotated[list[int], Form()],
    verdict: Annotated[Verdict | Literal["undecided"], Form()],
    seen: Annotated[int | None, Form()] = None,
) -> Response:
    """Accept or reject lesions, or take their verdicts back; `seen` is as in `focalis.device.web.editing`."""
    site = site_of(request)
    given = None if verdict == "undecided" else verdict
    with site.views.changing:
        still_current(site.task(task_id))
        still_seen(site, task_id, seen)
        view = view_of(site, task_id)
        for number in lesion:
            if number not in {each["number"] for each in view.lesions}:
                raise HTTPException(404, f"There is no lesion {number}.")
        site.device.store.review(task_id, lesion, given, session.user)
    named = f"lesion{'s' if len(lesion) > 1 else ''} {', '.join(map(str, lesion))}"
    did = "took back the verdict on" if given is None else verdict
    site.note(request, session.user, f"{did} {named}", task_id)
    verdicts = verdicts_of(site, task_id)
    if "application/json" in request.headers.get("accept", ""):
        undecided = _undecided(view, verdicts)
        return JSONResponse({"lesions": lesion, "verdict": verdict, "undecided": undecided})
    return RedirectResponse(f"/studies/{task_id}?lesion={_next_undecided(view, verdicts, lesion[-1])}", 303)


@router.post("/correction")
def send_correction(
    request: Request, task_id: str, session: Reviewer, seen: Annotated[int | None, Form()] = None
) -> Response:
    """Make the results of the accepted lesions, and send each to every destination that takes results of its kind."""
    site = site_of(request)
    store, config = site.device.store, site.device.config
    with _correcting:
        with site.views.changing:  # verdicts and outlines that belong together; edits may go on after that
            task, view = site.task(task_id), view_of(site, task_id)
            still_current(task)
            still_seen(site, task_id, seen)
            verdicts = verdicts_of(site, task_id)
            edits, pointed = edits_of(store, task_id), pointed_files(store, task_id)
        segmentation = segmentation_of(store, task_id)
        model = site.device.models.get(task.model)
        if segmentation is None and (model is None or not view.lesions):
            raise HTTPException(409, "Nobody has pointed at a lesion yet; click on each one first.")
        if undecided := _undecided(view, verdicts):
            raise HTTPException(409, f"{undecided} lesions are not decided yet; accept or reject each one.")
        results = store.results(task_id)
        # the newest of a kind is replaced: the model's, or the last correction
        newest = {_SENT_AS.get(each.kind, each.kind): each for each in results}
        earlier = {kind: newest[kind] for kind in _SENT_AS.values() if kind in newest}
        files = store.at_hand(store.images(task.series_uid))
        with folder_for_more(store, task_id) as folder:
            made = run_job(
                "correct",
                {
                    "files": list(map(str, files)),
                    "segmentation": "" if segmentation is None else str(*store.at_hand([segmentation])),
                    "earlier": dict(zip(earlier, map(str, store.at_hand(earlier.values())), strict=True)),
                    "keep": [number for number, verdict in verdicts.items() if verdict == "accepted"],
                    "folder": str(folder),
                    "number": sum(each.kind == "correction" for each in results) + 1,
                    "version": site.device.version,
                    "charset": config.node.charset,
                    "reviewer": session.user,
                    "at": datetime.now().astimezone().isoformat(timespec="seconds"),
                    "follow_up": follow_up_of(store, task_id),
                    "partial": task.partial,
                    "by": task.model
                    if len({each.model for each in store.tasks_of(task.series_uid)}) > 1
                    else "",
                    "pointed": [str(path) for path in pointed],
                    "edits": edits,
                    "labels": {}
                    if model is None
                    else {str(key): name for key, name in model.header.plan.labels.items()},
                    "model": None if model is None else asdict(model.header.identity),
                },
                config.limits,
            )
            still_current(site.task(task_id))
            keep_more(store, task_id, folder, made)
    for destination in config.destinations:
        for each in made:
            if _SENT_AS[each["kind"]] in destination.objects:
                store.add_delivery(task_id, each["kind"], each["sop_uid"], destination.name)
    still_current(site.task(task_id))
    if segmentation is None:
        accepted = sum(each["parts"] for each in view.lesions if verdicts[each["number"]] == "accepted")
        store.set_task_state(task_id, "done", f"{counted(accepted, 'lesion')}, pointed at")
    site.note(request, session.user, "sent corrected results", task_id)
    site.device.deliver(task_id)
    return RedirectResponse(f"/studies/{task_id}", 303)


@router.post("/retry")
def retry(request: Request, task_id: str, session: Admin) -> Response:
    """Do a failed or refused task again."""
    site = site_of(request)
    task = site.task(task_id)
    if task.state not in ("failed", "refused"):
        raise HTTPException(409, f"The study is {task.state}; only a failed or refused one is done again.")
    with site.views.changing:
        _not_pointed_at(site, task_id)
        site.device.retry(task_id)
    site.note(request, session.user, "asked for another try", task_id)
    return RedirectResponse(f"/studies/{task_id}", 303)


@router.post("/release")
def release(request: Request, task_id: str, session: Reviewer) -> Response:
    """Segment a series that is held, or was refused, because it lies outside of the model's scope; mark the results."""
    site = site_of(request)
    still_current(site.task(task_id))
    with site.views.changing:
        _not_pointed_at(site, task_id)
        if not site.device.store.release_task(task_id, session.user):
            raise HTTPException(409, "The study is not held for lying outside of the model's scope.")
    site.note(request, session.user, "released it although it is out of scope", task_id)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"task": task_id, "state": "waiting", "outside": site.task(task_id).outside})
    return RedirectResponse(f"/studies/{task_id}", 303)


def view_of(site: Site, task_id: str) -> View:
    """The view of a task; 409 while it is not made."""
    site.task(task_id)
    view = site.views.get(task_id)
    if view is None:
        raise HTTPException(409, "The study's images are being read; try again in a moment.")
    return view


def takes_points(site: Site, task: SeriesTask) -> bool:
    """Whether a click on the study segments a lesion: by its own model, which is not about to segment all of it, or by
    that of its route's `points`, beside the results of a detector."""
    store, routes = site.device.store, site.device.config.routes
    model = model_for_points(store.series_row(task.series_uid), task.model, routes, site.device.models)
    if model is None or task.state not in ("held", *ENDED):
        return False
    return model.name == task.model or segmentation_of(store, task.task_id) is not None


def _not_pointed_at(site: Site, task_id: str) -> None:
    """409 if persons pointed at lesions of a task without results; results would take their place and numbers."""
    store = site.device.store
    if segmentation_of(store, task_id) is None and pointed_files(store, task_id):
        raise HTTPException(409, "Lesions of this study were pointed at already; judge those and send them.")


def still_current(task: SeriesTask) -> None:
    """409 if other results have replaced those of a task, or they are those of a model on trial."""
    if task.shadow_of:
        raise HTTPException(
            409, "The model is on trial, and nothing of it is sent; judge the current model's result."
        )
    if task.superseded_by is not None:
        raise HTTPException(409, "More images came and another result has replaced this one; judge that one.")


def still_seen(site: Site, task_id: str, seen: int | None) -> None:
    """409 if a lesion was edited after the edition of the study's edits that a person saw; None is not compared."""
    if seen not in (None, site.device.store.edition(task_id)):
        raise HTTPException(409, "Somebody has edited a lesion of this study meanwhile; load the page again.")


def siblings(store: Store, task: SeriesTask) -> list[SeriesRow]:
    """The other image series of a task's study."""
    row = store.series_row(task.series_uid)
    found = [] if row is None else store.series_of_study(row.study_uid)
    return [
        each
        for each in sorted(found, key=lambda each: each.first_at)
        if each.series_uid != task.series_uid and each.modality.upper() in IMAGE_MODALITIES
    ]


def verdicts_of(site: Site, task_id: str) -> dict[int, Verdict]:
    """The verdicts on a study's lesions, by their numbers."""
    return {review.lesion: review.verdict for review in site.device.store.reviews(task_id)}


def picture(
    view: View,
    asked: SliceRequest,
    verdicts: Mapping[int, Verdict],
    other: View | None = None,
) -> Response:
    """The picture that an address asks for; see `slice_png`."""
    windows = (other or view).windows
    png = slice_png(
        view,
        asked.plane,
        asked.index,
        window=windows.get(asked.window, next(iter(windows.values()))),
        verdicts=verdicts,
        selected=asked.selected,
        overlay=asked.overlay,
        part=_part_of(asked.part, view, asked.plane),
        other=other,
    )
    return Response(png, media_type="image/png")


def _part_of(text: str, view: View, plane: Plane) -> Part | None:
    """The part of a slice that an address names; 422 if it is none."""
    if not text:
        return None
    rows, columns = (count for axis, count in enumerate(view.shape_zyx) if axis != AXES[plane])
    numbers = [int(each) if each.isdecimal() else -1 for each in text.split()]
    if len(numbers) == 4:
        top, bottom, left, right = numbers
        if 0 <= top < bottom <= rows and 0 <= left < right <= columns:
            return top, bottom, left, right
    raise HTTPException(422, "A part of a slice is named by four numbers within it.")


def _undecided(view: View | None, verdicts: dict[int, Verdict]) -> int:
    return sum(lesion["number"] not in verdicts for lesion in view.lesions) if view else 0


def _next_undecided(view: View, verdicts: dict[int, Verdict], number: int) -> int:
    """The next lesion without a verdict, past the last one from the first; the same one if all are decided."""
    numbers = [each["number"] for each in view.lesions]
    at = numbers.index(number) + 1
    return next((each for each in numbers[at:] + numbers[:at] if each not in verdicts), number)


def _places(view: View | None, chosen: dict[str, list[int]] | None) -> dict[str, int]:
    """The slice of each plane to begin with: through the chosen lesion, else through the middle."""
    if view is None:
        return {}
    middle = [count // 2 for count in view.shape_zyx]
    return {plane: (chosen["centre_zyx"] if chosen else middle)[axis] for plane, axis in AXES.items()}


def _beside(
    view: View | None, earlier: SeriesTask, earlier_view: View, follow_up: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The earlier study for the page; `there` and `back` map z, y, x and 1 to voxels of the other study."""
    if view is None or follow_up is None:
        return None
    there = None
    if follow_up["registered"]:
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = follow_up["matrix"], follow_up["offset_mm"]
        there = np.linalg.inv(moved @ earlier_view.affine_zyx()) @ view.affine_zyx()
    return {
        "address": f"/studies/{earlier.task_id}",
        "task": earlier.task_id,
        **linked(earlier_view, there),
        "lesions": {
            number: each["earlier"][0]
            for each in follow_up["lesions"]
            for number in each["lesions"]
            if each["earlier"]
        },
    }


def _file(path: Path) -> Response:
    return FileResponse(path, media_type="application/octet-stream")

"""A click on a slice: the lesion there is segmented and joins the findings of the study."""

from __future__ import annotations

import json
import threading
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, HTTPException, Request, Response
from starlette.responses import JSONResponse, RedirectResponse

from focalis.device.routing import label_of_points
from focalis.device.study_lesions import lesion_at
from focalis.device.web.preparing import lesion_row
from focalis.device.web.site import Site, site_of
from focalis.device.web.study import Reviewer, still_current, takes_points, view_of
from focalis.device.web.views import IMAGE
from focalis.device.written import keep_note, pointed_files
from focalis.volume import Volume

router = APIRouter(prefix="/studies/{task_id}")
_pointing = threading.Lock()


@router.post("/points")
def point(
    request: Request,
    task_id: str,
    session: Reviewer,
    z: Annotated[int, Form()],
    y: Annotated[int, Form()],
    x: Annotated[int, Form()],
) -> Response:
    """Segment the lesion at a voxel of the view; it is undecided at first, as any other.

    Results of the model's own are not changed: the lesion goes into the corrected results, if it is accepted. Each is
    kept beside the task's results as pointed-N.json: "label", "voxels_lps_mm" (x, y, z each), "by", and
    "model" if it is not the task's.
    """
    site = site_of(request)
    _require_points(site, task_id)
    with _pointing:
        view = view_of(site, task_id)
        if not all(0 <= at < size for at, size in zip((z, y, x), view.shape_zyx, strict=True)):
            raise HTTPException(422, "The point lies outside of the images.")
        answer = site.device.point(task_id, view.folder / IMAGE, view.dtype, (z, y, x))
        if answer["outcome"] != "done":
            raise HTTPException(409, f"The point could not be segmented: {answer['reason']}")
        voxels = np.asarray(answer["voxels_zyx"], dtype=np.int64).reshape(-1, 3)
        if not len(voxels):
            raise HTTPException(409, f"The point {answer['said']}.")
        own = site.device.models[site.task(task_id).model].header.plan.labels.values()
        label = label_of_points(answer["label"], set(own))
        if label is None:
            raise HTTPException(
                409, f"The lesion there is a {answer['label']}, which the study's results do not know."
            )
        low = voxels.min(axis=0)
        grid = view.grid()
        with site.views.changing:  # lesions may have been edited, or the study released, while the model ran
            _require_points(site, task_id)
            marks = view.marks()
            there = marks[tuple(voxels.T)]
            if marks[z, y, x] or 2 * np.count_nonzero(there) > len(there):
                number = int(marks[z, y, x]) or int(np.bincount(there[there > 0]).argmax())
                raise HTTPException(409, f"Lesion {number} is there already.")
            free = view.free(low, voxels.max(axis=0) + 1, label)
            voxels = voxels[free[tuple((voxels - low).T)]]
            if not len(voxels):
                raise HTTPException(409, "The lesion there has no room beside the others.")
            lesion = lesion_at(voxels, label, Volume(view.image(), grid), len(view.lesions) + 1)
            content: dict[str, Any] = {
                "label": label,
                "voxels_lps_mm": view.places(voxels),
                "by": session.user,
                "model": answer.get("model", ""),
            }
            number = len(pointed_files(site.device.store, task_id)) + 1
            keep_note(site.device.store, task_id, f"pointed-{number}.json", json.dumps(content))
            view.put(lesion_row(lesion, grid, grid), site.views.state(task_id), added=voxels)
    site.note(request, session.user, f"pointed at lesion {lesion.measured.number}", task_id)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"lesion": lesion.measured.number, "said": answer["said"]})
    return RedirectResponse(f"/studies/{task_id}?lesion={lesion.measured.number}", 303)


def _require_points(site: Site, task_id: str) -> None:
    """409 if a click segments no lesion of a task."""
    task = site.task(task_id)
    still_current(task)
    if not takes_points(site, task):
        raise HTTPException(
            409,
            f"The model {task.model} takes whole scans, not points, or is about to segment this one; "
            "name a guided model as points of its route.",
        )

"""Other series of a study, shown beside the one that was segmented: the channels of an MR study, PET beside CT."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import JSONResponse

from focalis.device.records import SeriesRow
from focalis.device.web.site import Site, site_of
from focalis.device.web.study import AskedSlice, Viewer, picture, siblings, verdicts_of, view_of
from focalis.device.web.views import View, linked, series_key

router = APIRouter(prefix="/studies/{task_id}/beside/{series_uid}")


@router.get("")
def beside(request: Request, task_id: str, series_uid: str, _: Viewer) -> Response:
    """How a series is shown, which is in the planes of the study; 202 while its images are being read."""
    site = site_of(request)
    view = view_of(site, task_id)
    key = series_key(_sibling(site, task_id, series_uid))
    other = site.views.get(key)
    if other is None:
        if problem := site.views.problem(key):
            raise HTTPException(409, f"The images cannot be shown: {problem}")
        site.views.start(key, series_uid)
        return JSONResponse({}, 202)
    _require_same_places(view, other)
    address = f"/studies/{task_id}/beside/{series_uid}"
    return JSONResponse({"address": address, **linked(view, np.eye(4)), "windows": other.windows})


@router.get("/slices/{plane}/{index}.png")
def slice_picture(request: Request, task_id: str, series_uid: str, asked: AskedSlice, _: Viewer) -> Response:
    """The series in a slice of the study, as a picture, with the study's lesions over it."""
    site = site_of(request)
    view = view_of(site, task_id)
    other = site.views.get(series_key(_sibling(site, task_id, series_uid)))
    if other is None:
        raise HTTPException(409, "The images are being read; try again in a moment.")
    _require_same_places(view, other)
    return picture(view, asked, verdicts_of(site, task_id), other)


def _require_same_places(view: View, other: View) -> None:
    if not view.frame or view.frame != other.frame:
        raise HTTPException(
            409, "The series has another frame of reference, so its places are not those of the study."
        )


def _sibling(site: Site, task_id: str, series_uid: str) -> SeriesRow:
    for each in siblings(site.device.store, site.task(task_id)):
        if each.series_uid == series_uid:
            return each
    raise HTTPException(404, "The study has no such series of images.")

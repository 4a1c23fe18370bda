"""Other series of a study, shown beside the one that was segmented: the channels of an MR study, PET beside CT."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import JSONResponse

from focalis.device.records import SeriesRow
from focalis.device.web.site import Site, site_of
from focalis.device.web.study import AskedSlice, Viewer, picture, siblings, verdicts_of, view_of
from focalis.device.web.views import linked, series_key

router = APIRouter(prefix="/studies/{task_id}/beside/{series_uid}")


@router.get("")
def beside(request: Request, task_id: str, series_uid: str, _: Viewer) -> Response:
    """How a series is shown, and where its voxels lie to those of the study; 202 while its images are being read."""
    site = site_of(request)
    view = view_of(site, task_id)
    key = series_key(_sibling(site, task_id, series_uid))
    other = site.views.get(key)
    if other is None:
        if problem := site.views.problem(key):
            raise HTTPException(409, f"The images cannot be shown: {problem}")
        site.views.start(key, series_uid)
        return JSONResponse({}, 202)
    if not view.frame or view.frame != other.frame:
        raise HTTPException(
            409, "The series has another frame of reference, so its places are not those of the study."
        )
    there = np.linalg.inv(other.affine_zyx()) @ view.affine_zyx()
    return JSONResponse({"address": f"/studies/{task_id}/beside/{series_uid}", **linked(other, there)})


@router.get("/slices/{plane}/{index}.png")
def slice_picture(request: Request, task_id: str, series_uid: str, asked: AskedSlice, _: Viewer) -> Response:
    """A slice as a picture; the study's lesions are drawn over it if the series has the same voxels."""
    site = site_of(request)
    view = view_of(site, task_id)
    other = site.views.get(series_key(_sibling(site, task_id, series_uid)))
    if other is None:
        raise HTTPException(409, "The images are being read; try again in a moment.")
    same = view.shape_zyx == other.shape_zyx and np.allclose(view.affine_zyx(), other.affine_zyx(), atol=1e-3)
    if not same:
        return picture(other, replace(asked, overlay=False), {})
    return picture(other, asked, verdicts_of(site, task_id), view.marks())


def _sibling(site: Site, task_id: str, series_uid: str) -> SeriesRow:
    for each in siblings(site.device.store, site.task(task_id)):
        if each.series_uid == series_uid:
            return each
    raise HTTPException(404, "The study has no such series of images.")

"""Edits of a lesion's outline: grown, shrunk, cut, redrawn in a slice, and undone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Form, HTTPException, Request, Response
from numpy.typing import NDArray
from starlette.responses import JSONResponse

from focalis.device.nudging import cut, grow, redraw, shrink
from focalis.device.study_lesions import lesion_at, voxels_of
from focalis.device.web.preparing import lesion_row
from focalis.device.web.site import site_of
from focalis.device.web.slice_picture import AXES, Plane
from focalis.device.web.study import Reviewer, still_current, still_seen, verdicts_of, view_of
from focalis.device.web.views import View
from focalis.volume import Volume

router = APIRouter(prefix="/studies/{task_id}")

Operation = Literal["grow", "shrink", "cut", "redraw"]
_DID = {
    "grow": "grew lesion {}",
    "shrink": "shrank lesion {}",
    "cut": "cut lesion {}",
    "redraw": "redrew lesion {}",
    "undo": "undid the last edit of lesion {}",
}
_UNCHANGED = {
    "grow": "Lesion {} cannot grow here: other lesions or the edge of the images are all around it.",
    "shrink": "Lesion {} fills the images; there is no outline to move.",
    "cut": "The line does not cross lesion {}.",
    "redraw": "The outline of lesion {} is the same as before.",
}
_MOST_POINTS = 2000
_FARTHEST = 1e6
"""Voxels; an outline far beyond the images overflows."""


@router.post("/edits")
def edit(
    request: Request,
    task_id: str,
    session: Reviewer,
    lesion: Annotated[int, Form()],
    operation: Annotated[Operation | Literal["undo"], Form()],
    seen: Annotated[int, Form()],
    plane: Annotated[Plane, Form()] = "axial",
    index: Annotated[int, Form()] = 0,
    points: Annotated[str, Form()] = "",
    keep: Annotated[Literal["larger", "smaller"], Form()] = "larger",
) -> Response:
    """Change a lesion's outline, or take the last change back; an edited lesion is an accepted one.

    The device's own results stay as they are: the outline goes into the corrected ones. `seen` is the edition of the
    study's edits that the person saw; `points` are those of a line (cut) or an outline (redraw): row and column of
    each in voxels of the view, with spaces between all numbers.
    """
    site = site_of(request)
    store = site.device.store
    still_current(site.task(task_id))
    with site.views.changing:
        view = view_of(site, task_id)
        still_seen(site, task_id, seen)
        row = next((each for each in view.lesions if each["number"] == lesion), None)
        if row is None:
            raise HTTPException(404, f"There is no lesion {lesion}.")
        label, marks = row["label"], view.marks()
        now = voxels_of(marks, lesion, row["box_zyx"])
        last = store.last_edit(task_id, lesion)
        if operation != "undo":
            drawn = _points(operation, points)
            stroke = _Stroke(operation, AXES[plane], index, drawn, keep == "smaller")
            changed = _changed(view, lesion, label, now, stroke)
        elif last is None:
            raise HTTPException(409, f"Lesion {lesion} has no edit to undo.")
        else:
            changed = view.voxels(json.loads(last.voxels))
        owner, low = marks[tuple(changed.T)], changed.min(axis=0)
        free = view.free(low, changed.max(axis=0) + 1, label, lesion)[tuple((changed - low).T)]
        if not (free | (owner == lesion)).all():
            raise HTTPException(409, "Another lesion has grown into the place since; undo that edit first.")
        flat = (np.ravel_multi_index(tuple(each.T), marks.shape) for each in (now, changed))
        after = np.stack(np.unravel_index(np.setxor1d(*flat), marks.shape), axis=1)
        grid = view.grid()
        told = lesion_row(lesion_at(after, label, Volume(view.image(), grid), lesion), grid, grid)
        if operation != "undo":
            store.edit(task_id, lesion, operation, json.dumps(view.places(changed)), session.user)
        elif last is not None:
            store.undo_edit(last, session.user)
        state = site.views.state(task_id)
        view.put(told, state, added=changed[free], removed=changed[owner == lesion])
    site.note(request, session.user, f"{_DID[operation].format(lesion)} ({plane})", task_id)
    return JSONResponse(
        {
            "lesion": told,
            "verdict": verdicts_of(site, task_id).get(lesion, "undecided"),
            "edited": lesion in store.edited_lesions(task_id),
            "edition": state[-1],
        }
    )


@dataclass(frozen=True)
class _Stroke:
    """What a person asks for; `points` are rows and columns, shape (n, 2)."""

    operation: Operation
    axis: int
    index: int
    points: NDArray[np.float64]
    keep_smaller: bool


def _points(operation: str, text: str) -> NDArray[np.float64]:
    """The points of a stroke; 422 if they make no line or outline."""
    try:
        points = np.array([float(each) for each in text.split()]).reshape(-1, 2)
    except ValueError:
        points = np.full((1, 2), np.nan)
    if not (np.abs(points) < _FARTHEST).all() or len(points) > _MOST_POINTS:
        raise HTTPException(
            422, f"At most {_MOST_POINTS} points near the images are needed, a row and a column each."
        )
    if operation == "cut" and (len(points) != 2 or np.array_equal(points[0], points[1])):
        raise HTTPException(422, "A line has two different points.")
    if operation == "redraw" and len(points) < 3:
        raise HTTPException(422, "An outline has three points or more.")
    return points


def _changed(view: View, lesion: int, label: str, now: NDArray[np.int_], stroke: _Stroke) -> NDArray[np.int_]:
    """The voxels (n, 3) that a stroke adds to a lesion or takes from it; other lesions keep theirs."""
    marks = view.marks()
    low, high = np.maximum(now.min(axis=0) - 1, 0), np.minimum(now.max(axis=0) + 2, marks.shape)
    axis, index = stroke.axis, stroke.index
    if not 0 <= index < marks.shape[axis]:
        raise HTTPException(422, "The slice lies outside of the images.")
    if stroke.operation == "redraw":
        fixed = np.arange(3) == axis
        low = np.where(fixed, np.minimum(low, index), 0)
        high = np.where(fixed, np.maximum(high, index + 1), marks.shape)
    box = tuple(slice(first, last) for first, last in zip(low.tolist(), high.tolist(), strict=True))
    part = marks[box] == lesion
    points = stroke.points - np.delete(low, axis)
    if stroke.operation == "grow":
        after = grow(part, axis)
    elif stroke.operation == "shrink":
        after = shrink(part, axis)
    elif stroke.operation == "cut":
        after = cut(part, axis, points, keep_smaller=stroke.keep_smaller)
    else:
        after = redraw(part, axis, index - int(low[axis]), points)
    after &= part | view.free(low, high, label, lesion)
    if stroke.operation == "redraw" and not after.take(index - int(low[axis]), axis).any():
        raise HTTPException(409, "The outline encloses no voxel that is free; draw a larger one.")
    if not after.any():
        raise HTTPException(409, f"That would leave nothing of lesion {lesion}; reject it instead.")
    changed: NDArray[np.int_] = np.argwhere(after != part) + low
    if not len(changed):
        raise HTTPException(409, _UNCHANGED[stroke.operation].format(lesion))
    return changed

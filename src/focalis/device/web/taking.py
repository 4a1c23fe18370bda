"""Images that come by the web: the upload form and DICOMweb's STOW-RS."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from focalis.device.intake import Outcome, Sender, Taken
from focalis.device.stow import receive_stow
from focalis.device.web.auth import Session
from focalis.device.web.site import MOST_FILES, changes, needs, needs_token, readable_size, site_of
from focalis.errors import UsageError

router = APIRouter()
_CHUNK_BYTES = 1 << 20
_MOST_REASONS = 5


@router.get("/upload")
def upload_page(request: Request, _: Annotated[Session, Depends(needs("reviewer"))]) -> Response:
    return site_of(request).page(request, "upload.html.j2", counts=None, files=0)


@router.post("/upload")
async def upload(request: Request, session: Annotated[Session, Depends(changes("reviewer"))]) -> Response:
    """Take in the files of the form and say how many became what, and why some were not kept."""
    site = site_of(request)
    require_room(request.headers.get("content-length", ""), site.device.intake.room_bytes())
    counts: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    async with request.form(max_files=MOST_FILES) as form:
        files = [each for each in form.getlist("files") if isinstance(each, UploadFile) and each.filename]
        with site.device.intake.sender(f"upload by {session.user}") as sender:
            for file in files:
                taken = await run_in_threadpool(_take, sender, file.file)
                counts[taken.outcome] += 1
                reasons.update([taken.reason] if not taken.stored else [])
    if files:
        did = f"uploaded {len(files)} files, of which {counts['kept']} are new"
        await run_in_threadpool(site.note, request, session.user, did)
    told: dict[str, Any] = {
        "kept": counts["kept"],
        "known": counts["known"],
        "quarantined": counts["quarantined"],
        "refused": counts["foreign"] + counts["too large"] + counts["no room"],
        "reasons": dict(reasons.most_common(_MOST_REASONS)),
    }
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"files": len(files), **told})
    return site.page(request, "upload.html.j2", counts=told, files=len(files))


@router.post("/dicom-web/studies")
@router.post("/dicom-web/studies/{study_uid}")
async def stow(request: Request, name: Annotated[str, Depends(needs_token)]) -> Response:
    """Store instances (PS3.18 10.5). A request to one study, too, keeps every instance under its own study."""
    site = site_of(request)
    if announced := request.headers.get("content-length", ""):
        require_room(announced, site.device.intake.free_bytes())
    try:
        answer = await receive_stow(
            request.headers.get("content-type", ""), request.stream(), site.device.intake, f"STOW-RS {name}"
        )
    except UsageError as error:
        raise HTTPException(400, str(error)) from error
    return Response(json.dumps(answer.body), answer.status, media_type="application/dicom+json")


def require_room(announced: str, room_bytes: int) -> None:
    """Refuse an upload before a file of it is read: 411 if it does not say how large it is, 507 if there is no room."""
    if not announced.isdigit():
        raise HTTPException(411, "Say how large the upload is, in Content-Length.")
    if int(announced) > room_bytes:
        raise HTTPException(
            507,
            f"The upload has {readable_size(int(announced))}, and the device's disk has room for "
            f"{readable_size(max(0, room_bytes))}; upload less, or free space on the disk.",
        )


def _take(sender: Sender, file: BinaryIO) -> Taken:
    return sender.take(iter(lambda: file.read(_CHUNK_BYTES), b""))

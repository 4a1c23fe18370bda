"""The calls of MONAI Label's clients in 3D Slicer and OHIF: what models there are, and the mask of an image.

Nothing is kept but what a viewer uploads, for some hours. Lesions are judged and exported for training on the device's
own page, so labels cannot be saved here, and no training be started.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import FileResponse, JSONResponse

from focalis.device.mask_job import Voxel
from focalis.device.models import ServedModel
from focalis.device.named_images import numbers_of
from focalis.device.web.account import checked_user
from focalis.device.web.querying import needs_reader
from focalis.device.web.site import Site, site_of
from focalis.device.web.taking import require_room
from focalis.errors import FocalisError, UsageError

router = APIRouter()

ENDINGS = (".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".mha")
"""In which a mask is written; the first one if a client names none."""

_NO_LABELS = (
    "The device keeps no labels that were drawn elsewhere: save the segmentation in the viewer, or judge the lesions "
    "on the device's page, which exports reviewed studies for training."
)
_NO_TRAINING = (
    "Viewers start no training: retrain a model on the page Models, "
    "or export reviewed studies and run focalis fit."
)
_NO_SAMPLES = "The device proposes no images: its work list shows what waits."


def needs_client(request: Request) -> str:
    """A dependency: the bearer token of a login at /auth/token, or one of focalis.toml that may read.

    A browser's cookie is not enough, for any page of the same site would send it. Without users this machine may, if no
    page from elsewhere sends the request.
    """
    site = site_of(request)
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        session = site.sessions.find(secret.strip())
        return session.user if session else needs_reader(request)
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site.device.config.users or foreign:
        raise HTTPException(401, "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})
    return "local"


Client = Annotated[str, Depends(needs_client)]


@router.get("/auth/")
def authentication(request: Request) -> dict[str, Any]:
    """Whether a login is needed."""
    return {"enabled": bool(site_of(request).device.config.users), "client_id": "focalis", "realm": ""}


@router.post("/auth/token")
def token(
    request: Request,
    username: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
) -> dict[str, str]:
    """Log in; the token ends like a session of the page."""
    user = checked_user(request, username, password)
    return {"access_token": site_of(request).sessions.open(user.name, user.role), "token_type": "bearer"}


@router.get("/auth/token/valid")
def token_is_valid(who: Client) -> dict[str, str]:
    """Who a token belongs to."""
    return {"username": who}


@router.get("/info/")
def info(request: Request, _: Client) -> dict[str, Any]:
    """The models and their labels. The background comes first: OHIF's client drops the first label of the list."""
    site = site_of(request)
    models = {name: _described(model) for name, model in site.device.models.items()}
    names = {name: None for model in models.values() for name in model["labels"] if name != "background"}
    return {
        "name": "Focalis",
        "description": "For research use only.",
        "version": site.device.version,
        "labels": ["background", *names],
        "models": models,
        "trainers": {},
        "strategies": {},
        "scoring": {},
        "train_stats": {},
        "datastore": _datastore(site),
    }


@router.post("/infer/{model}")
async def infer(
    request: Request, model: str, who: Client, image: str = "", session_id: str = "", output: str = "all"
) -> Response:
    """The mask of an image: of the form's `file`, of a session, of an uploaded image, or of a series of the device.

    `params` may name result_extension and result_dtype (of a plain .nrrd: uint8 or uint16), and for a guided model
    foreground, a list of voxels (x, y, z).
    """
    site = site_of(request)
    if model not in site.device.models:
        raise HTTPException(404, f"There is no model {model!r}; GET /info/ lists them.")
    if output not in ("all", "image", "json"):
        raise HTTPException(422, f"output={output} is not known here; ask for all, image or json.")
    require_room(request.headers.get("content-length", ""), site.device.intake.room_bytes())
    async with request.form(max_files=2) as form:
        params = _params(form)
        points = _points(params, guided=site.device.models[model].header.guided)
        ending = params.get("result_extension") or ENDINGS[0]
        if ending not in ENDINGS:
            raise HTTPException(422, f"A mask is written as {', '.join(ENDINGS)}, not as {ending}.")
        dtype = params.get("result_dtype") or ""
        if ending != ENDINGS[0]:
            dtype = ""  # their readers go by the header
        elif dtype not in ("", "uint8", "uint16"):
            raise HTTPException(422, f"The values of a mask are uint8 or uint16, not {dtype}.")
        if isinstance(form.get("label"), UploadFile):
            raise HTTPException(422, "Models of the device take no scribbles; leave the label out.")
        once = None
        if isinstance(file := form.get("file"), UploadFile):
            once = session_id = secrets.token_urlsafe(16)
            await run_in_threadpool(_keep, site, once, file)
    try:
        return await run_in_threadpool(
            _segment, request, who, model, (session_id or image), points, ending, dtype, output
        )
    finally:
        if once is not None:
            site.uploads.remove(once)


@router.put("/session/")
async def create_session(request: Request, who: Client) -> dict[str, Any]:
    """Keep an image until the session ends."""
    name = secrets.token_urlsafe(16)
    await _take_image(request, who, name, "files")
    return {"session_id": name, "session_info": {"name": name}}


@router.get("/session/{session_id}")
def get_session(request: Request, session_id: str, _: Client) -> dict[str, str]:
    """Whether a session lives."""
    _uploaded(site_of(request), session_id)
    return {"name": session_id}


@router.delete("/session/{session_id}")
def remove_session(request: Request, session_id: str, _: Client) -> dict[str, str]:
    """End a session; its image is removed."""
    site = site_of(request)
    _uploaded(site, session_id)
    site.uploads.remove(session_id)
    return {"name": session_id}


@router.get("/datastore/")
def datastore(request: Request, _: Client, output: str = "stats") -> Any:
    """The series that an image of /infer may name, by their Series Instance UIDs; `output=all` lists them."""
    site = site_of(request)
    if output == "train":
        return []
    if output != "all":
        return _datastore(site)
    objects = {uid: {"image": {"ext": "", "info": {}}, "labels": {}} for uid in _series(site)}
    return {"name": "focalis", "description": "", "objects": objects}


@router.put("/datastore/")
async def add_image(request: Request, who: Client, image: str = "") -> dict[str, str]:
    """Keep an image under a name, for some hours."""
    if not image:
        raise HTTPException(422, "Name the image: PUT /datastore/?image=NAME.")
    await _take_image(request, who, image, "file")
    return {"image": image}


@router.get("/datastore/image")
def download_image(request: Request, image: str, who: Client) -> Response:
    """An image that was uploaded."""
    site = site_of(request)
    path = _uploaded(site, image)
    site.note(request, who, "downloaded an uploaded image")
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.delete("/datastore/")
def remove_image(request: Request, id: str, who: Client) -> dict[str, str]:
    """Remove an image that was uploaded; series are removed by retention alone."""
    site = site_of(request)
    _uploaded(site, id)
    site.uploads.remove(id)
    site.note(request, who, "removed an uploaded image")
    return {}


@router.put("/datastore/label")
@router.get("/datastore/label")
def label(_: Client) -> None:
    """Refused."""
    raise HTTPException(501, _NO_LABELS)


@router.post("/activelearning/{strategy}")
def next_sample(_: Client) -> None:
    """Refused."""
    raise HTTPException(501, _NO_SAMPLES)


@router.get("/train/")
@router.delete("/train/")
def training(_: Client) -> None:
    """No training runs: 404, as a MONAI Label server without one answers."""
    raise HTTPException(404, _NO_TRAINING)


@router.post("/train/")
@router.post("/train/{model}")
def train(_: Client) -> None:
    """Refused."""
    raise HTTPException(501, _NO_TRAINING)


def _described(model: ServedModel) -> dict[str, Any]:
    plan, guided = model.header.plan, model.header.guided
    return {
        "type": "deepgrow" if guided else "segmentation",
        "labels": {"background": 0} | {name: value for value, name in sorted(plan.labels.items())},
        "dimension": 3,
        "description": "Outlines the lesion at each point." if guided else "Finds lesions in a whole scan.",
        "config": {},
    }


def _series(site: Site) -> list[str]:
    return [row.series_uid for row in site.device.store.series() if row.state != "receiving"]


def _datastore(site: Site) -> dict[str, Any]:
    return {"total": len(_series(site)), "completed": 0, "label_tags": {}, "train": []}


def _params(form: FormData) -> dict[str, Any]:
    text = form.get("params")
    try:
        params = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError as error:
        raise HTTPException(422, "params is not JSON.") from error
    if not isinstance(params, dict):
        raise HTTPException(422, "params is not a JSON object.")
    return params


def _points(params: dict[str, Any], *, guided: bool) -> list[Voxel]:
    foreground, background = (params.get(name) or [] for name in ("foreground", "background"))
    if guided and background:
        raise HTTPException(422, "The model takes points in lesions only; remove the background points.")
    if guided and not foreground:
        raise HTTPException(422, "The model takes points: click on each lesion.")
    if foreground and not guided:
        raise HTTPException(422, "The model takes whole scans and no points; choose segmentation.")
    try:
        found = [(int(x), int(y), int(z)) for x, y, z in foreground]
    except (TypeError, ValueError) as error:
        raise HTTPException(422, "A foreground point is three numbers: x, y, z of a voxel.") from error
    return found


def _segment(
    request: Request,
    who: str,
    model: str,
    image: str,
    points: list[Voxel],
    ending: str,
    dtype: str,
    output: str,
) -> Response:
    site = site_of(request)
    path = site.uploads.find(image)
    images = {str(path): None} if path else _images(site, image)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"mask{ending}"
        answer = site.device.mask(model, images, path is None, out, points, dtype)
        if answer.pop("outcome") != "done":
            raise HTTPException(422, f"The image could not be segmented: {answer['reason']}")
        site.note(
            request, who, f"had an image segmented by {model}", series_uid=None if path else image, level=None
        )
        if output == "json":
            return JSONResponse(answer)
        content = out.read_bytes()
    if output == "image":
        headers = {"content-disposition": f'attachment; filename="mask{ending}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)
    return _both(answer, content, f"mask{ending}")


def _images(site: Site, series_uid: str) -> dict[str, int | None]:
    row = site.device.store.series_row(series_uid) if series_uid else None
    if row is None:
        raise HTTPException(
            404,
            "There is no such image: upload it, name a session, or give a Series Instance UID of the device.",
        )
    if row.state in ("receiving", "incomplete"):
        raise HTTPException(
            409, "The series is not complete; wait for it, or release it on the device's page."
        )
    images = site.device.store.images(series_uid)
    return numbers_of(site.device.store.at_hand(images), images)


def _both(answer: dict[str, Any], content: bytes, filename: str) -> Response:
    """The parts `params` and `image` of a form, headers spelt as OHIF's client looks for them."""
    boundary = secrets.token_hex(16)
    parts = (
        ('name="params"', "application/json", json.dumps(answer).encode()),
        (f'name="image"; filename="{filename}"', "application/octet-stream", content),
    )
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {named}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + part
        + b"\r\n"
        for named, kind, part in parts
    )
    return Response(
        body + f"--{boundary}--\r\n".encode(), media_type=f"multipart/form-data; boundary={boundary}"
    )


async def _take_image(request: Request, who: str, name: str, field: str) -> None:
    site = site_of(request)
    require_room(request.headers.get("content-length", ""), site.device.intake.room_bytes())
    async with request.form(max_files=2) as form:
        files = [each for each in form.getlist(field) if isinstance(each, UploadFile)]
        if len(files) != 1:
            raise HTTPException(422, f"Give one image file as {field}; send DICOM series to the DICOM node.")
        await run_in_threadpool(_keep, site, name, files[0])
    await run_in_threadpool(site.note, request, who, "uploaded an image to have it segmented")


def _keep(site: Site, name: str, file: UploadFile) -> None:
    try:
        site.uploads.keep(name, file.filename or "", file.file)
    except UsageError as error:
        raise HTTPException(422, str(error)) from error
    except FocalisError as error:
        raise HTTPException(507, "The image cannot be kept; the device's disk may be full.") from error


def _uploaded(site: Site, name: str) -> Path:
    path = site.uploads.find(name)
    if path is None:
        raise HTTPException(404, "There is no such image, or not any more; upload it again.")
    return path

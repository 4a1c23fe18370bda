"""QIDO-RS and WADO-RS (PS3.18 10.6, 10.4), read only: the images that the device holds, and the results it made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from focalis.device.records import Held, SeriesRow
from focalis.device.routing import fits_one
from focalis.device.web.held_headers import Described
from focalis.device.web.site import Site, needs, site_of, token_of
from focalis.errors import FocalisError

router = APIRouter(prefix="/dicom-web")

_JSON = "application/dicom+json"
_CHUNK_BYTES = 1 << 20
MOST = 1000
"""Answers to one query."""
_OTHER = ("limit", "offset", "includefield", "fuzzymatching")

# keyword to tag, by level (PS3.18 tables 10.6.1-5 and 10.6.3-3 to -5)
_STUDY = {
    "StudyDate": "00080020",
    "StudyTime": "00080030",
    "AccessionNumber": "00080050",
    "ReferringPhysicianName": "00080090",
    "StudyDescription": "00081030",
    "PatientName": "00100010",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "PatientBirthDate": "00100030",
    "PatientSex": "00100040",
    "StudyInstanceUID": "0020000D",
    "StudyID": "00200010",
}
_SERIES = {
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "SeriesInstanceUID": "0020000E",
    "SeriesNumber": "00200011",
}
_INSTANCE = {
    "SOPClassUID": "00080016",
    "SOPInstanceUID": "00080018",
    "InstanceNumber": "00200013",
    "Rows": "00280010",
    "Columns": "00280011",
    "NumberOfFrames": "00280008",
}
_MODALITIES = "00080061"
_SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"
_LITTLE_ENDIAN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


def needs_reader(request: Request) -> str:
    """A dependency: a login, or a token that may read."""
    name = token_of(request)
    if name is None:
        return needs("viewer")(request).user
    if not any(each.name == name and each.read for each in site_of(request).device.config.tokens):
        raise HTTPException(403, "This token may not read; set read = true for it in focalis.toml.")
    return name


Reader = Annotated[str, Depends(needs_reader)]


@router.get("/studies")
def studies(request: Request, who: Reader) -> Response:
    """The studies."""
    site = site_of(request)
    by_study: dict[str, list[Any]] = {}
    for row in site.device.store.series():
        by_study.setdefault(row.study_uid, []).append(row)
    first = {
        uid: instances[0]
        for uid, rows in by_study.items()
        if (instances := site.device.store.instances(rows[0].series_uid))
    }
    headers_of = site.headers.of_those_there
    told = dict(zip(first, _headers(list(first.values()), headers_of), strict=True))
    answers = []
    for uid, header in sorted(told.items()):
        modalities = sorted({row.modality for row in by_study[uid]})
        more = {
            _STUDY["StudyInstanceUID"]: {"vr": "UI", "Value": [uid]},
            _MODALITIES: {"vr": "CS", "Value": modalities},
        }
        answers.append({**_only(header, _STUDY), **more})
    site.note(request, who, "asked for studies by QIDO-RS", level=None)
    fitting = _fitting(request, answers, {**_STUDY, "ModalitiesInStudy": _MODALITIES})
    rows_of = [by_study[_value(each, _STUDY["StudyInstanceUID"])] for each in fitting]
    results_of = [_results_of(site, rows) for rows in rows_of]
    # of all studies at once: a child process reads them
    every = [each for results in results_of for each in results]
    headers = dict(zip((each.path for each in every), _headers(every, headers_of), strict=True))
    for answer, rows, results in zip(fitting, rows_of, results_of, strict=True):
        readable = [header for each in results if (header := headers[each.path])]
        series_uids = {_value(each, _SERIES["SeriesInstanceUID"]) for each in readable}
        counts = {
            _SERIES_OF_STUDY: len(series_uids | {row.series_uid for row in rows}),
            _INSTANCES_OF_STUDY: len(readable) + sum(row.instances for row in rows),
        }
        answer.update(_counted(counts))
    return _answer(fitting)


@router.get("/studies/{study_uid}/series")
def series(request: Request, study_uid: str, _: Reader) -> Response:
    """The series of a study, those of results too."""
    site = site_of(request)
    by_series: dict[str, list[Described]] = {}
    for header in _described(site, study_uid):
        by_series.setdefault(_value(header, _SERIES["SeriesInstanceUID"]), []).append(header)
    fields = {**_STUDY, **_SERIES}
    answers = [
        {**_only(headers[0], fields), **_counted({_INSTANCES_OF_SERIES: len(headers)})}
        for headers in by_series.values()
    ]
    return _answer(_fitting(request, answers, fields))


@router.get("/studies/{study_uid}/instances")
@router.get("/studies/{study_uid}/series/{series_uid}/instances")
def instances(request: Request, study_uid: str, _: Reader, series_uid: str = "") -> Response:
    """The instances of a study or a series."""
    site = site_of(request)
    fields = {**_STUDY, **_SERIES, **_INSTANCE}
    found = _described(site, study_uid, series_uid)
    return _answer(_fitting(request, [_only(header, fields) for header in found], fields))


@router.get("/studies/{study_uid}/metadata")
@router.get("/studies/{study_uid}/series/{series_uid}/metadata")
@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/metadata")
def metadata(
    request: Request, study_uid: str, who: Reader, series_uid: str = "", sop_uid: str = ""
) -> Response:
    """Whole headers, without bulk data."""
    site = site_of(request)
    found = _described(site, study_uid, series_uid, sop_uid)
    if not found:
        raise HTTPException(404, "The device holds no such object.")
    site.note(
        request, who, f"read headers of {len(found)} objects by WADO-RS", None, _source(site, study_uid), None
    )
    return JSONResponse(found, media_type=_JSON)


@router.get("/studies/{study_uid}")
@router.get("/studies/{study_uid}/series/{series_uid}")
@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}")
def objects(
    request: Request, study_uid: str, who: Reader, series_uid: str = "", sop_uid: str = ""
) -> Response:
    """Whole objects, byte for byte as they are held."""
    site = site_of(request)
    accept = request.headers.get("accept", "*/*")
    if not any(kind in accept for kind in ("*/*", "multipart/related", "multipart/*", "application/dicom")):
        raise HTTPException(406, 'Objects are given as multipart/related; type="application/dicom".')
    found = [each for each, _ in _asked(site, study_uid, series_uid, sop_uid)]
    if not found:
        raise HTTPException(404, "The device holds no such object.")
    paths = _at_hand(site, found)
    site.note(request, who, f"fetched {len(paths)} objects by WADO-RS", None, _source(site, study_uid), None)
    boundary = secrets.token_hex(16)
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return StreamingResponse(_parts(paths, boundary), media_type=kind)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/frames/{numbers}")
def frames(
    request: Request, study_uid: str, who: Reader, series_uid: str, sop_uid: str, numbers: str
) -> Response:
    """Frames as they are held, by their numbers from 1, with commas between them."""
    site = site_of(request)
    series = _asked(site, study_uid, series_uid)
    one = [each for each, header in series if _is(header, series_uid, sop_uid)]
    if not one:
        raise HTTPException(404, "The device holds no such object.")
    try:
        # of the whole series at once: whoever asks for one frame wants all
        site.headers.frames_of([each for each, _ in series])
        (held,) = site.headers.frames_of(one)
    except FocalisError as error:
        raise HTTPException(503, str(error)) from error
    if not held:
        raise HTTPException(406, "Its frames cannot be given by themselves; fetch the object.")
    wanted = [int(each) if each.isdecimal() else 0 for each in numbers.split(",")]
    if not all(1 <= number <= len(held["frames"]) for number in wanted):
        raise HTTPException(404, f"It has the frames 1 to {len(held['frames'])}.")
    syntax = held["syntax"]
    accept = request.headers.get("accept", "*/*").replace('"', "").replace(" ", "")
    if (
        syntax not in _LITTLE_ENDIAN
        and f"transfer-syntax={syntax}" not in accept
        and "syntax=*" not in accept
    ):
        raise HTTPException(
            406, f"They are held in the transfer syntax {syntax}; accept it, or transfer-syntax=*."
        )
    if wanted[0] == 1:  # a viewer asks for each frame; one line says so
        site.note(request, who, "fetched frames by WADO-RS", None, _source(site, study_uid), None)
    boundary = secrets.token_hex(16)
    kind = f"application/octet-stream; transfer-syntax={syntax}"
    parts = [held["frames"][number - 1] for number in wanted]
    return StreamingResponse(
        _frame_parts(_at_hand(site, one)[0], parts, kind, boundary),
        media_type=f'multipart/related; type="application/octet-stream"; boundary={boundary}',
    )


def _held(site: Site, study_uid: str) -> list[Held]:
    """What the device holds of a study: its images, and the results that count."""
    rows = site.device.store.series_of_study(study_uid)
    found = [each for row in rows for each in site.device.store.instances(row.series_uid)]
    return [*(each for each in found if site.device.store.holds(each)), *_results_of(site, rows)]


def _results_of(site: Site, rows: Iterable[SeriesRow]) -> list[Held]:
    store = site.device.store
    tasks = (task for row in rows for task in store.tasks_of(row.series_uid))
    counting = (task for task in tasks if task.superseded_by is None and not task.shadow_of)
    found = (each for task in counting for each in store.results(task.task_id))
    return [each for each in found if store.holds(each)]


def _counted(counts: Mapping[str, int]) -> dict[str, Any]:
    return {tag: {"vr": "IS", "Value": [count]} for tag, count in counts.items()}


def _source(site: Site, study_uid: str) -> str | None:
    rows = site.device.store.series_of_study(study_uid)
    return rows[0].series_uid if rows else None


def _described(site: Site, study_uid: str, series_uid: str = "", sop_uid: str = "") -> list[Described]:
    return [header for _, header in _asked(site, study_uid, series_uid, sop_uid) if header]


def _asked(
    site: Site, study_uid: str, series_uid: str = "", sop_uid: str = ""
) -> list[tuple[Held, Described]]:
    """The objects of a study, of one of its series, or one object, each with its header."""
    found = _held(site, study_uid)
    headers = zip(found, _headers(found, site.headers.of), strict=True)
    return [(each, header) for each, header in headers if _is(header, series_uid, sop_uid)]


def _headers(
    held: Sequence[Held], headers_of: Callable[[Sequence[Held]], list[Described]]
) -> list[Described]:
    """The headers of objects; 503 if they cannot be read now."""
    try:
        return headers_of(held)
    except FocalisError as error:
        raise HTTPException(503, str(error)) from error


def _at_hand(site: Site, held: Sequence[Held]) -> list[Path]:
    """The files of objects; 503 if they cannot be read now."""
    try:
        return site.device.store.at_hand(held)
    except FocalisError as error:
        raise HTTPException(503, str(error)) from error


def _is(header: Described, series_uid: str, sop_uid: str) -> bool:
    return series_uid in ("", _value(header, _SERIES["SeriesInstanceUID"])) and sop_uid in (
        "",
        _value(header, _INSTANCE["SOPInstanceUID"]),
    )


def _only(header: Described, fields: Mapping[str, str]) -> dict[str, Any]:
    return {tag: header[tag] for tag in sorted(fields.values()) if tag in header}


def _value(header: Described, tag: str) -> str:
    """An attribute as text; several values with a backslash between them."""
    values = header.get(tag, {}).get("Value") or []
    return "\\".join(
        str(each.get("Alphabetic", "") if isinstance(each, Mapping) else each) for each in values
    )


def _answer(found: Sequence[Described]) -> Response:
    return JSONResponse(found, media_type=_JSON) if found else Response(status_code=204)


def _fitting(
    request: Request, found: Iterable[dict[str, Any]], fields: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What fits the query, page by page."""
    wanted: list[tuple[str, str]] = []
    for name, value in request.query_params.multi_items():
        if name in _OTHER:
            continue
        tag = fields.get(name, name.upper())
        if tag not in fields.values():
            raise HTTPException(400, f"{name} cannot be asked for; ask for {', '.join(fields)}.")
        wanted.append((tag, value))
    limit, offset = (_count(request, name, default) for name, default in (("limit", MOST), ("offset", 0)))
    fitting = [each for each in found if all(_fits(_value(each, tag), tag, value) for tag, value in wanted)]
    return fitting[offset : offset + min(limit, MOST)]


def _count(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not value.isdecimal():
        raise HTTPException(400, f"{name} is a number.")
    return int(value)


def _fits(value: str, tag: str, wanted: str) -> bool:
    """Matching of PS3.4 C.2.2.2: single values, lists of UIDs, wildcards, and ranges of dates."""
    if not wanted:
        return True
    if tag in (_STUDY["StudyDate"], _STUDY["PatientBirthDate"]) and "-" in wanted:
        first, _, last = wanted.partition("-")
        return bool(value) and (not first or value >= first) and (not last or value <= last)
    if tag in (_STUDY["StudyInstanceUID"], _SERIES["SeriesInstanceUID"], _INSTANCE["SOPInstanceUID"]):
        return value in wanted.replace("\\", ",").split(",")
    return fits_one(wanted, value)


def _frame_parts(
    path: Path, frames: Sequence[Sequence[tuple[int, int]]], kind: str, boundary: str
) -> Iterator[bytes]:
    with path.open("rb") as file:
        for pieces in frames:
            yield f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
            for offset, length in pieces:
                file.seek(offset)
                yield file.read(length)
            yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _parts(paths: Sequence[Path], boundary: str) -> Iterator[bytes]:
    for path in paths:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()

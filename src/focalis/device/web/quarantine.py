"""What was quarantined, grouped by study and cause: looked through, downloaded, removed."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.responses import RedirectResponse, StreamingResponse

from focalis.device.records import Quarantined, SeriesRow
from focalis.device.web.auth import Session
from focalis.device.web.site import Site, changes, needs, site_of
from focalis.display import counted

router = APIRouter(prefix="/quarantine")

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Group:
    """Quarantined objects of one series, or of none that is known, with one cause.

    Attributes:
        key: names it in addresses.
        series_uid: their series; None if nobody knows it.
        task_id: its newest task, if it has one.
        objects: the newest first.
    """

    key: str
    cause: str
    series_uid: str | None
    series: SeriesRow | None
    task_id: str | None
    objects: tuple[Quarantined, ...]

    @property
    def bytes(self) -> int:
        """Size of all objects."""
        return sum(each.bytes for each in self.objects)

    @property
    def sources(self) -> list[str]:
        """Who sent them."""
        return sorted({each.source for each in self.objects})

    def has(self, words: Sequence[str]) -> bool:
        """Whether each word occurs somewhere in what the page shows of it."""
        about = [self.cause, self.series_uid or "", *self.sources, *(each.reason for each in self.objects)]
        if self.series is not None:
            about += [self.series.study_uid, self.series.modality, self.series.description]
        text = " ".join(about).lower()
        return all(word in text for word in words)


@router.get("")
def quarantine(request: Request, _: Annotated[Session, Depends(needs("viewer"))], find: str = "") -> Response:
    site = site_of(request)
    groups = groups_of(site)
    shown = [each for each in groups if each.has(find.lower().split())]
    uids = [each.series_uid for each in shown if each.series is not None and each.series_uid]
    return site.page(
        request,
        "quarantine.html.j2",
        groups=shown,
        count=sum(len(each.objects) for each in groups),
        find=find,
        identities=site.identities.of(uids),
    )


@router.get("/{key}.zip")
def download(request: Request, key: str, session: Annotated[Session, Depends(needs("admin"))]) -> Response:
    """The objects of a group as they came, in a ZIP file."""
    site = site_of(request)
    group = _group(site, key)
    paths = site.device.store.at_hand(group.objects)
    site.note(request, session.user, f"downloaded {_told(group)}", series_uid=group.series_uid)
    return StreamingResponse(
        _zipped(paths),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="quarantine-{key}.zip"'},
    )


@router.post("/{key}/remove")
def remove(request: Request, key: str, session: Annotated[Session, Depends(changes("admin"))]) -> Response:
    """Remove the objects of a group for good."""
    site = site_of(request)
    group = _group(site, key)
    for each in group.objects:
        site.device.store.delete_quarantined(each.sha256)
    site.note(request, session.user, f"removed {_told(group)}", series_uid=group.series_uid)
    return RedirectResponse("/quarantine", 303)


def groups_of(site: Site) -> list[Group]:
    """All groups, the one with the newest object first."""
    store = site.device.store
    found: dict[tuple[str | None, str], list[Quarantined]] = {}
    for each in store.quarantined():
        found.setdefault((each.series_uid, each.cause), []).append(each)
    groups = []
    for (series_uid, cause), objects in found.items():
        tasks = store.tasks_of(series_uid) if series_uid else []
        groups.append(
            Group(
                key=hashlib.sha256(f"{series_uid} {cause}".encode()).hexdigest()[:16],
                cause=cause,
                series_uid=series_uid,
                series=store.series_row(series_uid) if series_uid else None,
                task_id=tasks[0].task_id if tasks else None,
                objects=tuple(objects),
            )
        )
    return groups


def _group(site: Site, key: str) -> Group:
    found = next((each for each in groups_of(site) if each.key == key), None)
    if found is None:
        raise HTTPException(404, "There is nothing of that kind in quarantine any more.")
    return found


def _told(group: Group) -> str:
    return f"{counted(len(group.objects), 'quarantined object')}: {group.cause}"


def _zipped(paths: Sequence[Path]) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as spool:
        with zipfile.ZipFile(spool, "w") as archive:
            for path in paths:
                if path.is_file():
                    archive.write(path, f"{path.stem[:16]}.dcm")
        spool.seek(0)
        while chunk := spool.read(_CHUNK_BYTES):
            yield chunk

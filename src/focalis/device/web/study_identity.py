"""Who and what a series is about, as its own files say: shown on the page, kept nowhere else."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from focalis.device.bucket import LostObjectError
from focalis.device.config import Limits
from focalis.device.store import Store
from focalis.device.web.children import run_job
from focalis.errors import FocalisError
from focalis.object_store import UnreachableError

_REMEMBERED = 5000
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Identity:
    """What a person calls a study; empty where the files do not say.

    Attributes:
        known: whether the files have been read.
        name: the patient's name as people write it, "Family, Given (ideographic)".
    """

    known: bool = False
    name: str = ""
    patient_id: str = ""
    birth_date: str = ""
    sex: str = ""
    study_date: str = ""
    study: str = ""
    accession: str = ""


class Identities:
    """Identities by series, read in a child process once and remembered in memory."""

    def __init__(self, store: Store, limits: Limits, charset: str) -> None:
        self._store = store
        self._limits = limits
        self._charset = charset
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._reader = ThreadPoolExecutor(1, "identities")
        self._reading: Future[None] | None = None

    def of(self, series_uids: Iterable[str]) -> dict[str, Identity]:
        """The identities of some series; empty ones where the files cannot be read, or not within two seconds.

        What takes longer is there the next time.
        """
        wanted = list(dict.fromkeys(series_uids))
        with self._lock:
            unknown = [uid for uid in wanted if uid not in self._known]
            if unknown and (self._reading is None or self._reading.done()):
                self._reading = self._reader.submit(self._read, unknown)
            reading = self._reading if unknown else None
        if reading is not None:
            wait([reading], timeout=_PATIENCE_SECONDS)
        with self._lock:
            return {uid: self._known.get(uid, Identity()) for uid in wanted}

    def _read(self, series_uids: list[str]) -> None:
        first = {uid: each[0] for uid in series_uids if (each := self._store.instances(uid))}
        found = dict.fromkeys(first, Identity(known=True))
        try:
            files = {}
            for uid, file in zip(first, self._store.at_hand_or_lost(first.values()), strict=True):
                if isinstance(file, LostObjectError):
                    self._store.event("error", f"a patient's name cannot be shown: {file}", series_uid=uid)
                else:
                    files[uid] = str(file)
            if files:
                told: dict[str, object] = {"files": list(files.values()), "charset": self._charset}
                rows = run_job("identify", told, self._limits)
                found |= {uid: Identity(**row) for uid, row in zip(files, rows, strict=True)}
        except UnreachableError:  # nothing is remembered, so that the next page asks again
            return
        except FocalisError as error:
            self._store.event("error", f"patients' names cannot be shown: {error}")
        with self._lock:
            self._known.update(found)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def identify(files: list[str], charset: str) -> list[dict[str, str | bool]]:
    """The identities in DICOM files, one each in their order; empty where a file cannot be read."""
    return [asdict(_identity(Path(file), charset)) for file in files]


def _identity(path: Path, charset: str) -> Identity:
    from focalis.dicom.headers import read_header, text

    try:
        header = read_header(path, charset=charset)
    except FocalisError:
        return Identity(known=True)
    return Identity(
        known=True,
        name=readable_name(text(header, "PatientName")),
        patient_id=text(header, "PatientID"),
        birth_date=_date(text(header, "PatientBirthDate")),
        sex=text(header, "PatientSex")[:1],
        study_date=_date(text(header, "StudyDate")),
        study=text(header, "StudyDescription"),
        accession=text(header, "AccessionNumber"),
    )


def readable_name(value: str) -> str:
    """A person name (PS3.5 6.2.1.2): "Family, Given Middle", the ideographic form behind it in brackets."""
    first, second, *_ = [*value.split("="), ""]
    alphabetic, ideographic = _group(first, ", "), _group(second, " ")
    if alphabetic and ideographic:
        return f"{alphabetic} ({ideographic})"
    return alphabetic or ideographic


def _group(value: str, separator: str) -> str:
    parts = [part.strip() for part in value.split("^")]
    given = " ".join(part for part in parts[1:3] if part)
    return separator.join(part for part in (parts[0], given) if part)


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value

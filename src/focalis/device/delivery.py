"""Send results to a destination: C-STORE (PS3.4 annex B) or STOW-RS (PS3.18 10.5), the file's bytes as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association

from focalis.device.certificates import client_context
from focalis.device.config import Destination
from focalis.device.deidentify import is_deidentified
from focalis.errors import UsageError, one_line

# the file itself goes out, without being decoded and encoded again
_config.STORE_SEND_CHUNKED_DATASET = True

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60

FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 3600.0
MOST_ATTEMPTS = 100
"""About four days of a destination that does not answer."""
DOWN_ATTEMPTS = 8
"""After so many, some ten minutes, a destination counts as down, and people are told."""
MOST_REJECTIONS = 5
"""A destination that answers, and does not want the object, will hardly change its mind."""

# PS3.4 table B.2-1: out of resources may pass; the sender of all other failures has to change something
_MAY_PASS = range(0xA700, 0xA800)
_WARNINGS = (0xB000, 0xB006, 0xB007)


@dataclass(frozen=True)
class Sent:
    """The outcome of sending one object.

    Attributes:
        outcome: "sent"; "rejected", the destination does not want it; "failed", it could not be reached or failed.
        error: why it was not sent; one line.
    """

    outcome: Literal["sent", "rejected", "failed"]
    error: str = ""


def send(files: Sequence[Path], destination: Destination, calling: str) -> dict[Path, Sent]:
    """Send files, in one association or session; failures of the destination or the network never raise.

    Returns:
        What became of each file.
    """
    if destination.deidentify and not all(map(is_deidentified, files)):
        return dict.fromkeys(files, Sent("rejected", "is sent nothing: an object was not de-identified"))
    if destination.kind == "stow":
        return _stow(files, destination)
    return _c_store(files, destination, calling)


def wait_seconds(attempts: int) -> float:
    """How long to wait after so many attempts: twice as long each time, an hour at most."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS)


def later(seconds: float) -> str:
    """A time so many seconds from now, as the store writes times."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def next_attempt_at(outcome: str, attempts: int) -> str | None:
    """When to try again after so many attempts, the last of which ended so; None to give up."""
    most = MOST_REJECTIONS if outcome == "rejected" else MOST_ATTEMPTS
    return None if attempts >= most else later(wait_seconds(attempts))


def is_due(next_at: str | None, moment: str) -> bool:
    """Whether what waits is due; a time beyond the longest wait was set by a wrong clock, and is due too."""
    latest = datetime.fromisoformat(moment) + timedelta(seconds=LONGEST_WAIT_SECONDS)
    return next_at is None or not moment < next_at <= latest.isoformat(timespec="milliseconds")


def check(destination: Destination, calling: str) -> str:
    """Whether a destination answers: C-ECHO, or any answer of the web server; the error, or nothing."""
    if destination.kind == "stow":
        try:
            with _session(destination) as session:
                session.get(destination.url or "", timeout=(CONNECT_SECONDS, CONNECT_SECONDS))
        except requests.RequestException as error:
            return web_error(error)
        return ""
    ae = entity(calling)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = open_association(ae, destination)
    if isinstance(association, str):
        return association
    status = association.send_c_echo()
    association.release()
    return "" if status and status.Status == 0 else "does not answer C-ECHO"


def _c_store(files: Sequence[Path], destination: Destination, calling: str) -> dict[Path, Sent]:
    ae = entity(calling)
    try:
        metas = [read_file_meta_info(file) for file in files]
    except OSError as error:
        return dict.fromkeys(files, Sent("failed", f"{error.filename}: cannot be read ({error.strerror})"))
    wanted = {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}
    for sop_class, syntax in sorted(wanted):
        ae.add_requested_context(sop_class, syntax)
    association = open_association(ae, destination)
    if isinstance(association, str):
        return dict.fromkeys(files, Sent("failed", association))
    found: dict[Path, Sent] = {}
    for file in files:
        sent = _store_one(association, file)
        if sent is None:
            # pynetdicom may not have noticed yet that the association is over: nobody would answer the next object
            association.abort()
            found[file] = Sent("failed", "did not answer, or ended the association")
            break
        found[file] = sent
    else:
        association.release()
    return {file: found.get(file, Sent("failed", "the association ended early")) for file in files}


def _store_one(association: Association, file: Path) -> Sent | None:
    """What the destination says of an object; None if it says nothing."""
    try:
        status = association.send_c_store(file)
    except ValueError as error:  # no presentation context was accepted for it
        return Sent("rejected", f"does not take this kind of object ({one_line(error, 200)})")
    except (OSError, RuntimeError):
        return None
    if not status:
        return None
    code = int(status.Status)
    if code == 0 or code in _WARNINGS:
        return Sent("sent")
    comment = " ".join(str(status.get("ErrorComment", "")).split())[:100]
    told = f"answered with status 0x{code:04X}" + (f" ({comment})" if comment else "")
    return Sent("failed" if code in _MAY_PASS else "rejected", told)


def entity(calling: str) -> AE:
    """The device as it calls others."""
    ae = AE(ae_title=calling)
    ae.connection_timeout = CONNECT_SECONDS
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = ANSWER_SECONDS
    return ae


def open_association(
    ae: AE, destination: Destination, handlers: list[evt.EventHandlerType] | None = None
) -> Association | str:
    """An association with a destination, or why there is none: one line."""
    tls = None
    # load_config made sure that a destination of this kind has them
    host, port, called = destination.host or "", destination.port or 0, destination.ae_title or ""
    try:
        if destination.tls:
            tls = (
                client_context(destination.tls_ca, destination.tls_certificate, destination.tls_key),
                host,
            )
        association = ae.associate(host, port, ae_title=called, tls_args=tls, evt_handlers=handlers)
    except (OSError, RuntimeError, ValueError, UsageError) as error:
        return str(error)
    if association.is_established:
        return association
    if association.is_rejected:
        return "rejected the association; check the AE titles on both sides"
    if association.is_aborted:
        return "is not reached, or ended the association; check host, port, TLS and firewall"
    return "is not reached; check host, port and firewall"


def _stow(files: Sequence[Path], destination: Destination) -> dict[Path, Sent]:
    found: dict[Path, Sent] = {}
    with _session(destination) as session:
        client = DICOMwebClient(
            str(destination.url),
            session=session,
            chunk_size=1 << 40,  # in one piece: not every server takes pieces
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
        )
        client.set_http_retry_params(retry=False)
        for file in files:
            found[file] = _stow_one(client, file)
    return found


def _stow_one(client: DICOMwebClient, file: Path) -> Sent:
    try:
        answer = client.store_instances([dcmread(file)])
    except FileNotFoundError:
        return Sent("failed", f"{file}: is not there")
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        rejected = 400 <= code < 500 and code not in (401, 403, 404, 408, 429)
        return Sent("rejected" if rejected else "failed", f"answered with HTTP status {code}")
    except requests.RequestException as error:
        return Sent("failed", web_error(error))
    except ValueError as error:  # an answer that is not DICOM JSON
        return Sent("failed", f"gave an answer that cannot be read ({one_line(error, 200)})")
    failed = answer.get("FailedSOPSequence")
    if failed:
        return Sent("rejected", f"did not store it, reason 0x{int(failed[0].get('FailureReason', 0)):04X}")
    return Sent("sent")


def web_session(tls_ca: Path | None) -> requests.Session:
    """A session that trusts `tls_ca` instead of the system's authorities, and uses no proxy and no .netrc."""
    session = requests.Session()
    session.trust_env = False
    if tls_ca is not None:
        session.verify = str(tls_ca)
    return session


def _session(destination: Destination) -> requests.Session:
    session = web_session(destination.tls_ca)
    if destination.token is not None:
        session.headers["Authorization"] = f"Bearer {destination.token}"
    if destination.tls_certificate is not None:
        session.cert = (str(destination.tls_certificate), str(destination.tls_key))
    return session


def web_error(error: requests.RequestException) -> str:
    """What a person needs of it; the whole text holds addresses of objects in memory."""
    kinds: Mapping[type[Exception], str] = {
        requests.exceptions.SSLError: "TLS failed; check tls_ca and the certificates",
        requests.exceptions.Timeout: "did not answer in time",
        requests.exceptions.ConnectionError: "is not reached; check url and firewall",
    }
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), type(error).__name__)

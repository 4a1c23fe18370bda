"""How a notice reaches its recipient: a signed webhook, or e-mail."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

import requests

from focalis.device.certificates import client_context
from focalis.device.config import Recipient
from focalis.device.delivery import ANSWER_SECONDS, CONNECT_SECONDS, web_error, web_session
from focalis.device.records import Notice, NoticeEvent
from focalis.errors import UsageError

SUBJECTS: Mapping[NoticeEvent, str] = {
    "person": "a study needs a person",
    "dead": "results were not sent",
    "disk": "the disk is full",
    "done": "a study was segmented",
    "test": "a test",
}
NOT_FOR_DIAGNOSIS = "For research use only, not for diagnosis."


def send(recipient: Recipient, notice: Notice, version: str, patient: str) -> str:
    """One attempt to tell; the error in one line, or nothing.

    Args:
        patient: name and ID; empty if the recipient is not to know them.
    """
    if recipient.kind == "webhook":
        return _post(recipient, _content(recipient, notice, version, patient))
    return _mail(recipient, notice, patient)


def signature(secret: str, body: bytes) -> str:
    """What the header X-Focalis-Signature holds: "sha256=" and the HMAC-SHA256 of the body, hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _content(recipient: Recipient, notice: Notice, version: str, patient: str) -> bytes:
    told = {
        "event": notice.event,
        "text": notice.text,
        "at": notice.at,
        "notice": notice.number,
        "device": f"Focalis {version}",
        "task": notice.task_id,
        "series": notice.series_uid,
        "page": _page(recipient, notice),
        **({"patient": patient} if patient else {}),
    }
    return json.dumps(told).encode()


def _page(recipient: Recipient, notice: Notice) -> str | None:
    if recipient.page is None:
        return None
    return recipient.page.rstrip("/") + (f"/studies/{notice.task_id}" if notice.task_id else "/system")


def _post(recipient: Recipient, body: bytes) -> str:
    # the configuration was refused without a secret
    signed = signature(recipient.secret or "", body)
    headers = {"Content-Type": "application/json", "X-Focalis-Signature": signed}
    with web_session(recipient.tls_ca) as session:
        try:
            answer = session.post(
                recipient.url or "",
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return web_error(error)
    return "" if 200 <= answer.status_code < 300 else f"answered with HTTP status {answer.status_code}"


def _mail(recipient: Recipient, notice: Notice, patient: str) -> str:
    message = EmailMessage()
    message["Subject"] = f"Focalis: {SUBJECTS.get(notice.event, notice.event)}"
    message["From"], message["To"] = recipient.sender, ", ".join(recipient.to)
    message["Date"] = format_datetime(datetime.fromisoformat(notice.at))
    # the same for each attempt, so that a mailbox shows it once
    domain = (recipient.sender or "").rpartition("@")[2] or "focalis"
    message["Message-ID"] = (
        f"<focalis.{notice.number}.{hashlib.sha256(notice.at.encode()).hexdigest()[:12]}@{domain}>"
    )
    lines = [line for line in (notice.text, patient, _page(recipient, notice)) if line]
    message.set_content("\n".join([*lines, "", NOT_FOR_DIAGNOSIS]))
    try:
        context = client_context(recipient.tls_ca)
        host, port = recipient.host or "", recipient.port or 25
        if recipient.tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=ANSWER_SECONDS, context=context)
        else:
            client = smtplib.SMTP(host, port, timeout=ANSWER_SECONDS)
        with client:
            if recipient.tls == "starttls":
                client.starttls(context=context)
            if recipient.user is not None:
                client.login(recipient.user, recipient.password or "")
            client.send_message(message)
    except smtplib.SMTPResponseException as error:
        return f"answered {error.smtp_code}"
    except smtplib.SMTPRecipientsRefused:
        return "refused the recipients"
    except UsageError as error:
        return str(error)
    except (OSError, smtplib.SMTPException) as error:
        return f"could not be used ({type(error).__name__}); check host, port, tls and firewall"
    return ""

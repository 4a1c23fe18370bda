"""Who is told what: signed webhooks, e-mail by a real SMTP server, and what waits when they fail."""

import email
import hashlib
import hmac
import socket
from contextlib import contextmanager

import pytest
from aiosmtpd.controller import Controller
from device_work import (
    GRID,
    block,
    config,
    destination,
    in_this_process,
    keep_files,
    until,
    webhook,
    working,
)

from focalis.device import delivery, notify
from focalis.device.config import Config
from focalis.device.notify import Notifier
from focalis.device.store import Store
from focalis.errors import DataError

SECRET = "a secret of the hook"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


def notifier(store, **recipient):
    return Notifier(Config.model_validate({"notify": [{"name": "ris", **recipient}]}), store, "1.0")


def hook(url, **more):
    return {"url": url, "secret": SECRET, **more}


def test_a_webhook_is_signed_and_names_no_patient(store):
    with webhook() as (url, told):
        teller = notifier(store, **hook(url, page="https://focalis.example/"))
        teller.tell("person", "a study has failed: out of memory", "1", task_id="t1")
        teller.send(*teller.due())
    ((content, headers),) = told
    digest = hmac.new(SECRET.encode(), headers["body"], hashlib.sha256).hexdigest()
    assert headers["X-Focalis-Signature"] == f"sha256={digest}"
    assert (content["event"], content["text"], content["task"]) == (
        "person",
        "a study has failed: out of memory",
        "t1",
    )
    assert content["page"] == "https://focalis.example/studies/t1"
    assert "patient" not in content
    assert [each.state for each in store.notices()] == ["sent"]


def test_a_patient_is_named_only_where_that_is_configured(store, write_series, tmp_path, monkeypatch):
    monkeypatch.setattr(notify, "run_job", lambda *_: [{"name": "Lindqvist, Maja", "patient_id": "17"}])
    uid = keep_files(store, write_series(tmp_path / "in", block(), GRID))
    with webhook() as (url, told):
        teller = notifier(store, **hook(url, patients=True))
        teller.tell("person", "held", "1", series_uid=uid)
        teller.send(*teller.due())
    assert told[0][0]["patient"] == "Lindqvist, Maja, 17"


def test_a_full_disk_costs_the_notice_and_not_the_work(store, monkeypatch, caplog):
    def full(*_):
        raise DataError("store.sqlite: database or disk is full")

    monkeypatch.setattr(store, "add_notice", full)
    notifier(store, **hook("http://127.0.0.1:1/")).tell("person", "a study was held", "1")
    assert "nobody was told that a study was held" in caplog.text


def test_only_chosen_events_are_reported_and_each_once(store):
    teller = notifier(store, **hook("http://127.0.0.1:9/", events=["disk", "done"]))
    for _ in range(2):
        teller.tell("disk", "the disk is full", "2026-01-05T10")
        teller.tell("person", "a study has failed", "1")
        teller.tell("done", "a study was segmented", "t1", "t1")
    assert sorted(each.event for each in store.notices()) == ["disk", "done"]


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_is_not_taken_waits_and_is_tried_again(store, status):
    with webhook([status]) as (url, told):
        teller = notifier(store, **hook(url))
        teller.tell("person", "a study has failed", "1")
        (number,) = teller.due()
        teller.send(number)
        (waiting,) = store.notices("waiting")
        assert (waiting.attempts, waiting.last_error) == (1, f"answered with HTTP status {status}")
        assert teller.due() == []  # not before its time
        teller.send(number)
    assert [each.state for each in store.notices()] == ["sent"]
    assert told[0][1]["body"] == told[1][1]["body"]


def test_a_recipient_that_is_never_reached_is_given_up_and_the_log_says_so(store, monkeypatch):
    monkeypatch.setattr("focalis.device.delivery.MOST_ATTEMPTS", 1)
    teller = notifier(store, **hook("http://127.0.0.1:9/"))
    teller.tell("person", "a study has failed", "1")
    teller.send(*teller.due())
    assert [each.state for each in store.notices()] == ["dead"]
    assert "ris could not be told: it is not reached" in store.events(1)[0].text


# --- e-mail


@contextmanager
def mailbox(**options):
    """A mail server: its port and the messages that it took."""
    messages = []

    class Handler:
        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
            messages.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content)))
            return "250 OK"

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port, messages
    finally:
        controller.stop()


def mail(port, **more):
    about = {"kind": "email", "host": "127.0.0.1", "port": port, "tls": "none"}
    return about | {"sender": "focalis@hospital.example", "to": ["anna@hospital.example"], **more}


def test_an_email_says_what_happened(store):
    with mailbox() as (port, messages):
        teller = notifier(store, **mail(port, to=["anna@hospital.example", "pacs@hospital.example"]))
        teller.tell("dead", "results are given up, archive is not reached", "archive")
        teller.send(*teller.due())
    ((recipients, message),) = messages
    assert recipients == ["anna@hospital.example", "pacs@hospital.example"]
    assert message["Subject"] == "Focalis: results were not sent"
    assert message.get_payload().splitlines()[0] == "results are given up, archive is not reached"
    assert "research use only" in message.get_payload()
    assert store.notices()[0].state == "sent"


def test_mail_is_not_sent_in_the_clear_unless_that_is_configured(store):
    with mailbox() as (port, messages):
        teller = notifier(store, **mail(port, tls="starttls"))
        teller.tell("disk", "the disk is full", "1")
        teller.send(*teller.due())
    assert messages == []
    assert "could not be used" in store.notices()[0].last_error


# --- from the device's work


def test_a_destination_that_is_down_is_reported_long_before_its_results_are_given_up(
    model, write_series, tmp_path, monkeypatch
):
    monkeypatch.setattr(delivery, "FIRST_WAIT_SECONDS", 0.001)
    files = write_series(tmp_path / "in", block(), GRID)
    with webhook() as (url, told):
        recipients = [{"name": "ris", **hook(url), "events": ["dead"]}]
        settings = config(model, destination(1, objects=["sr"]), notify=recipients)
        with Store(tmp_path / "store") as store:
            keep_files(store, files)
        with working(tmp_path / "store", settings, run=in_this_process):
            until(lambda: told)
    assert told[0][0]["text"].startswith("results wait since 8 attempts, pacs is not reached")


def test_the_work_tells_of_a_refused_series_once(model, write_series, tmp_path):
    files = write_series(tmp_path / "in", block(), GRID)
    with webhook([503]) as (url, told):
        settings = config(model, notify=[{"name": "ris", **hook(url)}])
        with Store(tmp_path / "store") as store:
            keep_files(store, files)
        refused = {"outcome": "refused", "reason": "slices are missing"}
        with working(tmp_path / "store", settings, run=lambda *_: refused) as jobs:
            until(lambda: jobs.store.notices("waiting") and told)
            (each,) = until(lambda: [n for n in jobs.store.notices("waiting") if n.attempts == 1])
            jobs.store.set_notice(each.number, "waiting", 1)
            jobs.wake()
            until(lambda: jobs.store.notices("sent"))
    assert [content["text"] for content, _ in told] == ["a study was refused: slices are missing"] * 2

"""Uploads as a socket meets them: what is refused is refused before the files are read."""

import logging
import socket
from contextlib import closing

import pytest
from device_work import config, in_this_process, until, working
from page_clients import csrf_of, local_client

from focalis.device.config import WebSettings
from focalis.device.intake import Intake
from focalis.device.web.app import create_app
from focalis.device.web.server import WebServer

GIGABYTE = 10**9


@pytest.fixture
def web(phantom):
    """The page on a port of this machine, and a token that it takes."""
    app = create_app(phantom.device())
    web = WebServer(app, WebSettings(port=0))
    web.start()
    yield web, app.state.site.sessions.local.csrf
    web.stop()


def answer_to_head(web, headers, body=b"", to="/upload"):
    """What is answered before the files have been sent."""
    port = int(web.url.rstrip("/").rsplit(":", 1)[1])
    head = [
        f"POST {to} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: application/json",
        "Content-Type: multipart/form-data; boundary=here",
        *headers,
    ]
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        found = b""
        while b"}" not in found and (data := connection.recv(4096)):
            found += data
    return found.decode()


def field(token):
    return f'--here\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{token}\r\n--here\r\n'.encode()


def test_an_upload_larger_than_the_free_space_is_refused_before_it_is_read(web, monkeypatch):
    server, csrf = web
    monkeypatch.setattr(Intake, "room_bytes", lambda _self: GIGABYTE)

    told = answer_to_head(server, [f"X-CSRF-Token: {csrf}", f"Content-Length: {2 * GIGABYTE}"])

    assert told.startswith("HTTP/1.1 507")
    assert "The upload has 2.0 GB, and the device's disk has room for 1.0 GB" in told


def test_a_stow_request_larger_than_the_free_space_is_refused_before_it_is_read(web, monkeypatch):
    monkeypatch.setattr(Intake, "free_bytes", lambda _self: GIGABYTE)

    told = answer_to_head(web[0], [f"Content-Length: {3 * GIGABYTE}"], to="/dicom-web/studies")

    assert told.startswith("HTTP/1.1 507")


@pytest.mark.parametrize("in_form", [False, True])
def test_a_wrong_token_is_refused_before_the_files_and_the_space_are_looked_at(web, monkeypatch, in_form):
    server, _ = web
    monkeypatch.setattr(Intake, "room_bytes", lambda _self: GIGABYTE)
    headers = [f"Content-Length: {2 * GIGABYTE}", *([] if in_form else ["X-CSRF-Token: wrong"])]

    told = answer_to_head(server, headers, field("wrong") if in_form else b"")

    assert told.startswith("HTTP/1.1 403")


def test_a_token_behind_the_files_is_none(web):
    server, csrf = web
    file = b'--here\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n' + bytes(5000)

    told = answer_to_head(server, ["Content-Length: 20000"], file + b"\r\n" + field(csrf))

    assert told.startswith("HTTP/1.1 403")


def test_the_right_token_at_the_beginning_of_a_form_is_enough_to_go_on(web, monkeypatch):
    server, csrf = web
    monkeypatch.setattr(Intake, "room_bytes", lambda _self: GIGABYTE)

    told = answer_to_head(server, [f"Content-Length: {2 * GIGABYTE}"], field(csrf))

    assert told.startswith("HTTP/1.1 507")


def test_an_upload_must_say_how_large_it_is(web):
    server, csrf = web

    told = answer_to_head(server, [f"X-CSRF-Token: {csrf}", "Transfer-Encoding: chunked"])

    assert told.startswith("HTTP/1.1 411")


def test_room_is_what_is_free_beyond_the_least(phantom):
    intake = phantom.device().intake

    assert 0 < intake.room_bytes() <= phantom.store.free_bytes()
    assert local_client(phantom).post("/upload", headers={"x-csrf-token": "x"}).status_code == 403
    assert csrf_of(local_client(phantom))


@pytest.mark.parametrize("lost", ["the connection", "the last boundary"])
def test_a_series_of_a_half_sent_stow_request_is_held_as_incomplete(
    web, phantom, model, series, tmp_path, lost, caplog, monkeypatch
):
    # whose records do not propagate
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
    caplog.set_level(logging.ERROR)
    part = b"--here\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"".join(part + path.read_bytes() + b"\r\n" for path in series[:4])
    port = int(web[0].url.rstrip("/").rsplit(":", 1)[1])
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        'Content-Type: multipart/related; type="application/dicom"; boundary=here\r\n'
        f"Content-Length: {len(body) * (2 if lost == 'the connection' else 1)}\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(head.encode() + body)
        uid = until(lambda: [row.series_uid for row in phantom.store.series()], 20)[0]
        if lost == "the last boundary":
            assert b"400" in connection.recv(4096)
    until(lambda: phantom.store.faults_of(uid), 20)

    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        held = until(lambda: jobs.store.series("incomplete"), 20)[0]
        assert jobs.store.tasks() == []
    assert not caplog.records
    assert held.reason.startswith("STOW-RS ")
    assert held.reason.endswith("broke off")

"""Delivery: C-STORE and STOW-RS against peers that work, refuse, fail and are not there."""

import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from device_work import GRID, block, config, destination, dicom_bytes, keep_files, pacs, until, working

from focalis.device import delivery
from focalis.device.certificates import check_client_files
from focalis.device.config import Destination, load_config
from focalis.device.serve import running
from focalis.device.store import Store
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.errors import UsageError
from focalis.identity import ModelIdentity


@pytest.fixture
def files(write_series, tmp_path):
    """Two Segmentations."""
    series = read_series(write_series(tmp_path / "in", block(), GRID))
    paths = [tmp_path / "one.dcm", tmp_path / "two.dcm"]
    for path, model in zip(paths, ("a", "b"), strict=True):
        label = (series.volume.array > 0).astype(np.uint8)
        write_segmentation(label, {1: "nodule"}, series, path, Origin(ModelIdentity(model), "1"))
    return paths


def to(port, **more):
    return Destination.model_validate(destination(port, **more))


def test_c_store_sends_the_files_as_they_are(files):
    with pacs() as (port, received):
        found = delivery.send(files, to(port), "FOCALIS")
    assert {sent.outcome for sent in found.values()} == {"sent"}
    assert len(received) == 2


@pytest.mark.parametrize(
    ("status", "outcome"), [(0xB000, "sent"), (0xA700, "failed"), (0xA900, "rejected"), (0x0124, "rejected")]
)
def test_the_status_says_whether_to_try_again(files, status, outcome):
    with pacs(lambda _event: status) as (port, _):
        found = delivery.send(files[:1], to(port), "FOCALIS")
    assert found[files[0]].outcome == outcome


# pynetdicom leaves the socket of a refused connection to the garbage collector
leaves_a_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@leaves_a_socket
def test_a_destination_that_is_down_fails_with_what_to_check(files):
    with pacs() as (port, _):
        pass
    found = delivery.send(files, to(port), "FOCALIS")
    assert {sent.outcome for sent in found.values()} == {"failed"}
    assert "firewall" in found[files[0]].error


def test_a_destination_that_does_not_answer_fails(files, monkeypatch):
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 1)
    stop = threading.Event()
    with pacs(lambda _event: int(stop.wait(10)) * 0) as (port, _):
        found = delivery.send(files[:1], to(port), "FOCALIS")
        stop.set()
    assert found[files[0]].outcome == "failed"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A destination's certificate, and another one."""
    folder = tmp_path_factory.mktemp("certificates")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name in ("pacs", "stranger"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run(command, check=True, capture_output=True)
    locked = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", folder / "pacs.key"]
    subprocess.run([*locked, "-out", folder / "locked.key"], check=True, capture_output=True)
    return folder


@leaves_a_socket
@pytest.mark.parametrize(("trusted", "outcome"), [("pacs", "sent"), ("stranger", "failed")])
def test_by_tls_results_go_only_to_who_shows_the_right_certificate(files, certificates, trusted, outcome):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "pacs.pem", certificates / "pacs.key")
    with pacs(tls=context) as (port, received):
        found = delivery.send(
            files[:1], to(port, tls=True, tls_ca=str(certificates / f"{trusted}.pem")), "FOCALIS"
        )
    assert found[files[0]].outcome == outcome
    assert len(received) == (outcome == "sent")
    assert outcome == "sent" or "TLS" in found[files[0]].error


OWN = "tls_certificate = '{0}/pacs.pem'\ntls_key = '{0}/{1}.key'"


@pytest.mark.parametrize(
    ("kind", "files", "named"),
    [
        ("destinations", "tls_ca = '{0}/none.pem'", "none.pem: cannot be used for TLS"),
        ("destinations", "tls_ca = '{0}/pacs.key'", "pacs.key: cannot be used for TLS"),
        ("destinations", OWN.replace("{1}", "stranger"), "stranger.key: cannot be used for TLS"),
        ("destinations", OWN.replace("{1}", "locked"), "a key without a pass phrase"),
        ("web", "tls_ca = '{0}/none.pem'", "none.pem: cannot be used for TLS"),
        ("notify", "tls_ca = '{0}/none.pem'", "none.pem: cannot be used for TLS"),
        ("destinations", "tls_ca = '{0}/pacs.pem'\n" + OWN.replace("{1}", "pacs"), None),
        ("notify", "tls_ca = '{0}/pacs.pem'", None),
    ],
)
def test_files_for_tls_are_read_before_the_device_starts(certificates, tmp_path, kind, files, named):
    entries = {
        "destinations": "[[destinations]]\nname = 'a'\nae_title = 'A'\nhost = 'h'\nport = 104\ntls = true\n",
        "web": "[[destinations]]\nname = 'a'\nkind = 'stow'\nurl = 'https://h/dicom-web'\n",
        "notify": "[[notify]]\nname = 'a'\nkind = 'webhook'\nurl = 'https://h'\nsecret = 'sixteen letters!'\n",
    }
    (tmp_path / "focalis.toml").write_text(entries[kind] + files.replace("{0}", str(certificates)))
    found = load_config(tmp_path / "focalis.toml")
    if named is None:
        check_client_files(found)
        return
    with pytest.raises(UsageError, match=named), running(found):
        pass
    assert not found.store.folder.exists()


def test_a_destination_that_ends_the_association_is_not_waited_for(files):
    def drop(event):
        event.assoc.abort()
        return 0xA700

    with pacs(drop) as (port, _):
        began = time.monotonic()
        found = delivery.send(files, to(port), "FOCALIS")
    assert {sent.outcome for sent in found.values()} == {"failed"}
    assert time.monotonic() - began < delivery.ANSWER_SECONDS / 2


@leaves_a_socket
def test_echo_tells_whether_a_destination_answers():
    with pacs() as (port, _):
        assert delivery.check(to(port), "FOCALIS") == ""
    assert delivery.check(to(port), "FOCALIS") != ""


class _Stow(BaseHTTPRequestHandler):
    """A STOW-RS server of a few lines: keeps the bodies, answers what it was told to."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def stow_server():
    server = HTTPServer(("127.0.0.1", 0), _Stow)
    server.received, server.status, server.answer = [], 200, b"{}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def stow(server):
    url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    return Destination(name="web", kind="stow", url=url, token="secret")


def test_stow_sends_the_files_byte_for_byte(files, stow_server):
    found = delivery.send(files, stow(stow_server), "FOCALIS")
    assert {sent.outcome for sent in found.values()} == {"sent"}
    for file, (path, authorization, body) in zip(files, stow_server.received, strict=True):
        assert (path, authorization) == ("/dicom-web/studies", "Bearer secret")
        assert file.read_bytes() in body


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (503, b"", "failed"),
        (401, b"", "failed"),
        (409, b"", "rejected"),
        (
            200,
            b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}',
            "rejected",
        ),
    ],
)
def test_a_stow_answer_says_whether_to_try_again(files, stow_server, status, answer, outcome):
    stow_server.status, stow_server.answer = status, answer
    assert delivery.send(files[:1], stow(stow_server), "FOCALIS")[files[0]].outcome == outcome


def test_waits_double_up_to_an_hour_and_end():
    waits = [delivery.wait_seconds(attempts) for attempts in range(1, 100)]
    assert waits[:3] == [5, 10, 20]
    assert waits[-1] == 3600
    assert delivery.next_attempt_at("failed", 99) is not None
    assert delivery.next_attempt_at("failed", 100) is None
    assert delivery.next_attempt_at("rejected", 5) is None
    assert 3 < sum(waits) / 86400 < 5  # days


@pytest.fixture
def task(write_series, tmp_path):
    """A store whose only task waits to be sent, without a model having worked."""
    folder = tmp_path / "store"
    paths = write_series(tmp_path / "in", block(), GRID)
    with Store(folder) as store:
        series_uid = keep_files(store, paths)
        store.complete(series_uid)
        store.add_task("t1", series_uid, "tiny", "0" * 64, "1" * 64)
        path = store.results_folder("t1") / "seg-1.dcm"
        series = read_series(paths)
        label = (series.volume.array > 0).astype(np.uint8)
        write_segmentation(label, {1: "nodule"}, series, path, Origin(ModelIdentity("m"), "1"))
        store.add_result("t1", "seg", "2.25.5", "2" * 64, path)
        store.add_delivery("t1", "seg", "2.25.5", "pacs")
        store.set_task_state("t1", "sending")
    return folder


@pytest.fixture
def model_file(tmp_path):
    from device_work import save_tiny_model

    return save_tiny_model(tmp_path / "tiny.safetensors")


def test_a_destination_that_recovers_gets_the_same_bytes(task, model_file, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_WAIT_SECONDS", 0.1)
    answers = [0xA700, 0xA700]
    with (
        pacs(lambda _event: answers.pop() if answers else 0) as (port, received),
        working(task, config(model_file, destination(port))) as jobs,
    ):
        until(lambda: jobs.store.tasks("done"))
        (row,) = jobs.store.deliveries()
        file = jobs.store.results("t1")[0].path
    assert (row.state, row.attempts) == ("sent", 3)
    import hashlib

    assert {content for _, content in received} == {hashlib.sha256(dicom_bytes(file)).hexdigest()}


@leaves_a_socket
def test_a_destination_that_was_down_gets_everything_when_it_is_up(task, model_file, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_WAIT_SECONDS", 0.1)
    with pacs() as (port, _):
        pass
    with working(task, config(model_file, destination(port))) as jobs:
        (row,) = until(lambda: [each for each in jobs.store.deliveries() if each.attempts])
        assert (row.state, jobs.store.task("t1").state) == ("waiting", "sending")
        assert "not reached" in row.last_error
        with pacs(port=port) as (_, received):
            until(lambda: jobs.store.tasks("done"))
    assert list(received.values()) == [1]


def test_a_slow_destination_holds_up_nobody_else_and_gets_the_same_bytes_again(task, model_file, monkeypatch):
    """It stores, and answers when nobody waits any more."""
    monkeypatch.setattr(delivery, "FIRST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 1)
    slow = [1.5, 1.5]

    def answer(_event):
        time.sleep(slow.pop() if slow else 0)
        return 0

    with Store(task) as store:
        store.add_delivery("t1", "seg", "2.25.5", "quick")
    with pacs(answer) as (port, received), pacs() as (quick_port, quick):
        settings = config(model_file, destination(port), {**destination(quick_port), "name": "quick"})
        with working(task, settings) as jobs:
            until(lambda: quick)
            assert jobs.store.task("t1").state == "sending"
            until(lambda: jobs.store.tasks("done"))
            (row,) = [each for each in jobs.store.deliveries() if each.destination == "pacs"]
    assert row.attempts >= 3
    assert len(received) == 1  # whatever it stored before, it was the same object with the same content


def test_a_rejected_result_is_given_up_shown_and_can_be_sent_again(task, model_file, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_WAIT_SECONDS", 0.05)
    status = [0xC000]
    with (
        pacs(lambda _event: status[0]) as (port, received),
        working(task, config(model_file, destination(port))) as jobs,
    ):
        failed = until(lambda: jobs.store.tasks("failed"))[0]
        assert "0xC000" in failed.reason
        assert jobs.store.deliveries()[0].state == "dead"
        status[0] = 0
        jobs.resend("t1", "2.25.5", "pacs")
        until(lambda: jobs.store.tasks("done"))
    assert len(received) == 1

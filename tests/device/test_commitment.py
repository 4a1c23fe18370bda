"""Storage commitment: asked after C-STORE, reported by the destination, sent again if it was lost."""

from contextlib import contextmanager

import numpy as np
import peers
import pytest
from committing_archive import archive, kept_by_archive
from device_work import GRID, block, config, destination, keep_files, pacs, until, working
from pydicom import Dataset, dcmread

from focalis.device import commitment, jobs
from focalis.device.commitment import Commitments, read_report
from focalis.device.config import Config, Destination
from focalis.device.delivery import MOST_REJECTIONS, is_due, send
from focalis.device.intake import Intake
from focalis.device.node import Node
from focalis.device.records import now
from focalis.device.store import Store
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.errors import DataError
from focalis.files import sha256_of
from focalis.identity import ModelIdentity


@pytest.fixture
def sending(write_series, tmp_path):
    """A store with a result that is to be sent to the destination "pacs"; its folder."""
    folder = tmp_path / "store"
    with Store(folder) as store:
        uid = keep_files(store, write_series(tmp_path / "in", block(), GRID))
        store.complete(uid)
        inputs = jobs.hashlib.sha256(
            "\n".join(sorted(each.sha256 for each in store.instances(uid))).encode()
        ).hexdigest()
        store.add_task("t1", uid, "tiny", "m" * 64, inputs)
        series = read_series([each.path for each in store.instances(uid)])
        path = store.results_folder("t1") / "seg-1.dcm"
        path.parent.mkdir(parents=True)
        write_segmentation(
            (series.volume.array > 0).astype(np.uint8),
            {1: "nodule"},
            series,
            path,
            Origin(ModelIdentity("m"), "1"),
        )
        store.add_result("t1", "seg", str(dcmread(path).SOPInstanceUID), sha256_of(path), path)
        store.add_delivery("t1", "seg", store.results("t1")[0].sop_uid, "pacs")
        store.set_task_state("t1", "sending")
    return folder


def lost(request, times):
    """The first time it has lost the object."""
    if times > 1:
        return kept_by_archive(request, times)
    information = Dataset()
    information.TransactionUID = request.TransactionUID
    item = Dataset()
    item.update(request.ReferencedSOPSequence[0])
    item.FailureReason = 0x0112
    information.FailedSOPSequence = [item]
    return 2, information


@pytest.fixture
def commitments(sending):
    """A device whose result was stored and whose commitment was asked for as "1.2.3"."""
    with Store(sending) as store:
        store.set_delivery("t1", store.results("t1")[0].sop_uid, "pacs", "stored", attempts=1)
        store.add_commitment("1.2.3", "t1", "pacs")
        to = destination(1, commit=True)
        yield Commitments(Config.model_validate({"destinations": [to]}), store, lambda _task: None)


@contextmanager
def listening(commitments, port=0):
    """A node that takes reports; its port."""
    settings = Config.model_validate({"node": {"port": port}, "store": {"least_free_gb": 0}})
    intake = Intake(commitments._store, settings)
    node = Node(settings, intake, commitments.on_report)
    node.start()
    try:
        yield node.port
    finally:
        node.stop()
        intake.close()


def ask(commitments, port, **more):
    """Ask once; the delivery afterwards."""
    store = commitments._store
    to = Destination.model_validate(destination(port, **{"commit": True, **more}))
    commitments.ask("t1", to, {each.sop_uid: [each.path] for each in store.results("t1")})
    return store.deliveries("t1")[0]


def test_a_result_is_sent_and_committed_and_only_then_done(sending, model):
    with archive(kept_by_archive) as (port, where, asked, stored):
        settings = config(model, destination(port, commit=True))
        with working(sending, settings) as work:
            until(lambda: work.store.deliveries()[0].last_error, 60)
            assert work.store.task("t1").state == "sending"
            assert work.store.settled_series() == []
            with listening(work.commitments) as node:
                where.append(node)
                uid = work.store.results("t1")[0].sop_uid
                work.store.set_delivery("t1", uid, "pacs", "stored", attempts=1)
                work.wake()
                until(lambda: work.store.task("t1").state == "done", 60)
                # the device has noted the report a moment before the archive has the answer
                until(lambda: hasattr(asked[-1], "answer"), 20)
            assert work.store.deliveries()[0].state == "committed"
    assert stored == [uid]
    assert [item.ReferencedSOPInstanceUID for item in asked[-1].ReferencedSOPSequence] == [uid]
    assert asked[-1].answer == 0x0000


def test_what_the_destination_lost_is_sent_again_and_the_reason_shown(commitments):
    with archive(lost) as (port, where, _, _), listening(commitments) as node:
        where.append(node)
        ask(commitments, port)
        (each,) = until(lambda: commitments._store.deliveries(state="waiting"), 20)
    assert each.last_error == "did not commit it: it has no such object"
    assert not is_due(each.next_at, now())


def test_what_is_lost_again_and_again_is_given_up(commitments):
    store, uid = commitments._store, commitments._store.results("t1")[0].sop_uid
    store.set_delivery("t1", uid, "pacs", "stored", attempts=MOST_REJECTIONS)
    assert commitments.take(read_report(lost(request(uid), 1)[1]))
    assert store.deliveries()[0].state == "dead"


def test_a_destination_that_reports_nothing_is_asked_again_by_another_transaction(commitments, monkeypatch):
    monkeypatch.setattr(commitment, "LONGEST_WAIT_SECONDS", 0)
    with archive(lambda *_: None) as (port, _, asked, _):
        first, second = ask(commitments, port), ask(commitments, port)
    assert (first.state, second.state) == ("stored", "stored")
    assert "has not reported" in second.last_error
    assert second.attempts == first.attempts + 1
    assert len({each.TransactionUID for each in asked}) == 2


def test_a_report_on_the_association_of_the_request_counts(commitments):
    with archive(kept_by_archive, on_same=True) as (port, *_):
        assert ask(commitments, port).state == "committed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_destination_that_is_down_is_asked_later(commitments):
    each = ask(commitments, peers.free_port())
    assert (each.state, each.attempts) == ("stored", 2)
    assert "not reached" in each.last_error
    assert not is_due(each.next_at, now())


def test_a_destination_that_refuses_the_request_is_asked_later(commitments):
    with archive(lambda *_: None, status=0x0213) as (port, *_):
        assert "0x0213" in ask(commitments, port).last_error


def test_a_destination_without_storage_commitment_says_so(commitments, monkeypatch):
    monkeypatch.setattr("focalis.device.delivery.MOST_REJECTIONS", 1)
    with pacs() as (port, _):
        each = ask(commitments, port)
    assert each.state == "dead"
    assert "does not offer storage commitment" in each.last_error


def test_without_the_option_any_more_what_was_stored_counts_as_sent(commitments):
    assert ask(commitments, 1, commit=False).state == "sent"


def request(uid, transaction="1.2.3"):
    asked, item = Dataset(), Dataset()
    asked.TransactionUID, item.ReferencedSOPInstanceUID = transaction, uid
    asked.ReferencedSOPSequence = [item]
    return asked


def test_a_report_that_nobody_asked_for_changes_nothing(commitments):
    store = commitments._store
    uid = store.results("t1")[0].sop_uid
    assert not commitments.take(read_report(kept_by_archive(request(uid, "1.2.4"), 1)[1]))
    assert [each.state for each in store.deliveries()] == ["stored"]


def test_a_report_that_comes_twice_counts_once(commitments):
    report = read_report(kept_by_archive(request(commitments._store.results("t1")[0].sop_uid), 1)[1])
    assert commitments.take(report)
    assert not commitments.take(report)


def test_a_report_on_other_objects_leaves_the_result_to_be_asked_for_again(commitments):
    assert commitments.take(read_report(kept_by_archive(request("1.2.9"), 1)[1]))
    (each,) = commitments._store.deliveries()
    assert (each.state, is_due(each.next_at, now())) == ("stored", True)


def test_an_object_that_is_named_as_kept_and_as_failed_has_failed():
    information = kept_by_archive(request("1.2.9"), 1)[1]
    information.FailedSOPSequence = information.ReferencedSOPSequence
    report = read_report(information)
    assert report.committed == frozenset()
    assert report.failed == {"1.2.9": "processing failure"}


def test_a_full_disk_answers_a_report_with_a_failure(commitments, monkeypatch):
    def full(*_arguments, **_options):
        raise DataError("store.sqlite: database or disk is full")

    information = kept_by_archive(request(commitments._store.results("t1")[0].sop_uid), 1)[1]

    class Event:
        event_information = information

        class request:  # noqa: N801
            class EventInformation:
                getvalue = staticmethod(lambda: b"")

    monkeypatch.setattr(Store, "set_delivery", full)
    assert commitments.on_report(Event)[0] == 0x0110
    monkeypatch.undo()
    assert commitments.on_report(Event)[0] == 0x0000  # told again, it is noted


def test_orthanc_commits_itself(commitments, tmp_path):
    peers.require()
    with listening(commitments) as port:
        modality = {"focalis": {"AET": "FOCALIS", "Host": "127.0.0.1", "Port": port}}
        with peers.orthanc(tmp_path / "orthanc", DicomModalities=modality) as (dicom_port, _):
            ask(commitments, dicom_port, ae_title="ORTHANC")
            (each,) = until(lambda: commitments._store.deliveries(state="waiting"), 20)
            assert "no such object" in each.last_error
            to = Destination.model_validate(destination(dicom_port, ae_title="ORTHANC"))
            send([commitments._store.results("t1")[0].path], to, "FOCALIS")
            commitments._store.set_delivery("t1", each.sop_uid, "pacs", "stored", attempts=1)
            ask(commitments, dicom_port, ae_title="ORTHANC")
            until(lambda: commitments._store.deliveries(state="committed"), 20)

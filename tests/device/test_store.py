"""The store: what it said is kept is there, the first content of a UID stays, steps may be repeated."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from focalis.device.backup import back_up
from focalis.device.config import StoreSettings
from focalis.device.database import Database
from focalis.device.records import Header
from focalis.device.retention import make_room
from focalis.device.store import Store
from focalis.errors import DataError, UsageError
from focalis.files import PermissionsWarning

HEADER = Header("1.2.3.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2", "1.2.840.10008.1.2.1", "CT", "CHEST")


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def database(request):
    """The address of an empty database; None for the file in the store."""
    if request.param == "SQLite":
        return None
    return request.getfixturevalue("database_server").new_database()


@pytest.fixture
def store(tmp_path, database):
    with Store(tmp_path / "store", database) as opened:
        yield opened


def header(number, **changes):
    return dataclasses.replace(HEADER, sop_uid=f"1.2.3.{number}", **changes)


def files(store):
    return sorted(path.name for path in store.folder.rglob("*.dcm"))


def test_what_is_kept_is_there_after_reopening(store, database):
    assert store.keep(b"one", HEADER, "C-STORE CT1") == "kept"
    assert store.keep(b"two", header(2), "upload") == "kept"
    store.close()

    with Store(store.folder, database) as again:
        found = again.instances("1.2.3")
        (row,) = again.series()

    assert {instance.path.read_bytes() for instance in found} == {b"one", b"two"}
    assert found[0].path.name == f"{found[0].sha256}.dcm"
    assert found[0].sha256 == hashlib.sha256(found[0].path.read_bytes()).hexdigest()
    assert (row.instances, row.state, row.modality, row.body_part) == (2, "receiving", "CT", "CHEST")


def test_the_store_is_closed_to_other_users(store):
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_the_same_content_again_is_known_and_other_content_is_quarantined(store):
    store.keep(b"first", HEADER, "CT1")

    assert store.keep(b"first", HEADER, "CT1") == "known"
    assert store.keep(b"second", HEADER, "CT2") == "quarantined"

    (instance,) = store.instances("1.2.3")
    (aside,) = store.quarantined()
    assert instance.path.read_bytes() == b"first"
    assert aside.path.read_bytes() == b"second"
    assert "1.2.3.1" in aside.reason
    assert (aside.source, aside.series_uid) == ("CT2", "1.2.3")


def test_of_many_threads_with_one_uid_one_wins_and_the_rest_is_quarantined(store):
    answers = []
    contents = [f"content {number}".encode() for number in range(8)]
    threads = [
        threading.Thread(target=lambda content=content: answers.append(store.keep(content, HEADER, "x")))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == ["kept"] + ["quarantined"] * 7
    assert {*(row.path.read_bytes() for row in store.quarantined())} | {
        store.instances("1.2.3")[0].path.read_bytes()
    } == set(contents)


def test_a_file_is_copied_and_stays(store, tmp_path):
    path = tmp_path / "slice.dcm"
    path.write_bytes(b"mine")

    store.keep(path, HEADER, "watched folder")

    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("number", [1, 2], ids=["sent again", "late slice"])
def test_an_instance_reopens_its_series(store, number):
    store.keep(b"1", header(1), "x")
    for state in ("complete", "unrouted"):
        store.set_series_state("1.2.3", state)

        store.keep(str(number).encode(), header(number), "x")

        assert store.series_row("1.2.3").state == "receiving"


def test_a_series_of_a_clock_that_was_wrong_does_not_wait_for_it(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("focalis.device.received.now", lambda: "2999-01-01T00:00:00.000+00:00")
        store.keep(b"1", header(1), "x")

    assert [row.series_uid for row in store.series_to_complete(3600)] == ["1.2.3"]


def test_a_file_that_was_lost_is_put_back_when_it_is_sent_again(store):
    store.keep(b"1", header(1), "x")
    (instance,) = store.instances("1.2.3")
    instance.path.unlink()

    assert store.keep(b"1", header(1), "x") == "known"

    assert instance.path.read_bytes() == b"1"


def test_a_series_is_complete_when_its_senders_are_gone_and_it_is_quiet(store):
    store.association_opened(["1.2.3"])
    store.association_opened(["1.2.3"])
    store.keep(b"1", header(1), "x")
    store.association_closed(["1.2.3"])
    assert store.series_to_complete(0) == []

    store.association_closed(["1.2.3"])

    assert store.series_to_complete(3600) == []
    assert [row.series_uid for row in store.series_to_complete(0)] == ["1.2.3"]
    store.complete("1.2.3")
    assert store.series_to_complete(0) == []


def test_a_series_is_complete_when_it_has_as_many_instances_as_it_said(store):
    store.association_opened(["1.2.3"])
    store.keep(b"1", header(1, expected=2), "x")
    assert store.series_to_complete(3600) == []

    store.keep(b"2", header(2, expected=2), "x")

    assert len(store.series_to_complete(3600)) == 1
    store.keep(b"3", header(3, expected=2), "x")
    assert store.series_to_complete(3600) == []


def test_open_associations_do_not_outlive_the_process(store, database):
    store.association_opened(["1.2.3"])
    store.keep(b"1", HEADER, "x")
    store.close()

    with Store(store.folder, database) as again:
        assert again.series_row("1.2.3").open_associations == 0


@pytest.mark.parametrize("place", ["mkstemp", "fsync", "replace"])
def test_a_full_disk_keeps_nothing_and_leaves_nothing(store, monkeypatch, place):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    store.keep(b"before", header(1), "x")
    with monkeypatch.context() as patch:
        target = {"mkstemp": "tempfile.mkstemp", "fsync": "os.fsync", "replace": "pathlib.Path.replace"}[
            place
        ]
        patch.setattr(target, full)
        with pytest.raises(DataError, match="No space left"):
            store.keep(b"after", header(2), "x")

    assert len(files(store)) == 1
    assert store.series_row("1.2.3").instances == 1
    assert store.keep(b"after", header(2), "x") == "kept"


@pytest.mark.parametrize("committed", [True, False], ids=["answer lost", "rolled back"])
def test_an_image_stays_if_only_the_answer_to_its_commit_was_lost(store, monkeypatch, committed):
    transaction = Database.transaction

    @contextlib.contextmanager
    def failing(self):
        patch.undo()
        with contextlib.suppress(KeyError), transaction(self) as connection:
            yield connection
            if not committed:
                raise KeyError
        raise DataError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", failing)
        with pytest.raises(DataError, match="connection was lost"):
            store.keep(b"image", HEADER, "x")

    rows = [instance.path.read_bytes() for instance in store.instances("1.2.3")]
    assert rows == ([b"image"] if committed else [])
    assert len(files(store)) == len(rows)
    assert store.keep(b"image", HEADER, "x") == ("known" if committed else "kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_really_full_disk_loses_nothing_that_was_acknowledged(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with Store(disk / "store") as store:
            acknowledged = 0

            def fill():
                nonlocal acknowledged
                while store.keep(os.urandom(100_000), header(acknowledged), "x") == "kept":
                    acknowledged += 1

            with pytest.raises(DataError, match="free space"):
                fill()
            found = store.instances("1.2.3")
            assert len(found) == acknowledged > 5
            assert all(hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256 for item in found)
            assert len(files(store)) == acknowledged
    finally:
        subprocess.run(["umount", disk], check=True)


def test_killed_while_receiving_it_has_what_it_acknowledged(tmp_path):
    script = """
import dataclasses, itertools, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import Store, header
store = Store(Path(sys.argv[1]))
for number in itertools.count():
    store.keep(f"content {number}".encode() * 1000, header(number), "x")
    print(number, flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "store", Path(__file__).parent],
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged = [int(child.stdout.readline()) for _ in range(25)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()

    with Store(tmp_path / "store") as store:
        store.own()
        found = {instance.sop_uid: instance for instance in store.instances("1.2.3")}
        assert {f"1.2.3.{number}" for number in acknowledged} <= set(found)
        for number in acknowledged:
            assert found[f"1.2.3.{number}"].path.read_bytes() == f"content {number}".encode() * 1000
        assert len(files(store)) == len(found)


def test_owning_removes_what_a_stop_left(store):
    store.keep(b"kept", HEADER, "x")
    store.quarantine(b"aside", "why", "x")
    store.stage(b"half")
    (store.folder / "objects" / "ab").mkdir(exist_ok=True)
    (store.folder / "objects" / "ab" / "abcd.dcm").write_bytes(b"without a row")
    store.results_folder("gone").mkdir()
    attempt = store.folder / "making" / "gone focalis-device"
    attempt.mkdir(parents=True)
    for path in store.folder.rglob("*"):
        os.utime(path, (0, 0))  # beside a database the front spares what is new

    store.own()

    assert len(files(store)) == 2
    assert not store.results_folder("gone").exists()
    assert not attempt.exists()


def test_a_task_begins_while_no_other_of_the_person_has(store):
    for number, person in enumerate(("p", "p", "", "")):
        told = {"series_uid": f"1.2.{number}", "person": person}
        store.keep(f"{number}".encode(), header(number, **told), "x")
        store.add_task(f"task{number}", f"1.2.{number}", "m", "s", "i")

    def begins(number):
        return store.set_task_state(f"task{number}", "checking", alone=True)

    assert [begins(number) for number in range(4)] == [True, False, True, True]
    assert store.task("task1").state == "waiting"
    assert begins(0)  # it was interrupted
    store.set_task_state("task0", "writing")
    assert not begins(1)
    store.set_task_state("task0", "sending")
    assert begins(1)


def test_one_process_owns_a_store(store):
    store.own()
    code = (
        "import sys; from pathlib import Path; from focalis.device.store import Store;"
        "Store(Path(sys.argv[1])).own()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, store.folder], check=False, capture_output=True, text=True
    )

    assert UsageError.__name__ in done.stderr
    assert "another focalis serve" in done.stderr


def test_a_store_of_a_later_version_is_refused(tmp_path):
    Store(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(DataError, match="later version"):
        Store(tmp_path)


@pytest.mark.slow
def test_who_stops_in_the_middle_of_a_change_keeps_nobody_else_from_writing(database_server, tmp_path):
    address = database_server.new_database()
    with Store(tmp_path, address) as store, Store(tmp_path, address) as other:

        def stop():
            with other._database.transaction() as connection:
                store.event("info", "one")
                connection.execute("DELETE FROM events")

        with pytest.raises(DataError, match="idle-in-transaction timeout"):
            stop()
        assert [each.text for each in store.events()] == ["one"]


def test_a_store_that_was_closed_changes_nothing_more(store):
    store.event("info", "one")
    store.close()
    with pytest.raises(DataError, match="is closed"):
        store.event("info", "two")
    with pytest.raises(DataError, match="is closed"):
        store.events()


@pytest.mark.slow
def test_a_database_of_a_later_version_is_refused(database_server, tmp_path):
    address = database_server.new_database()
    Store(tmp_path, address).close()
    with psycopg.connect(address) as connection:
        connection.execute("UPDATE version SET number = 99")

    with pytest.raises(DataError, match="later version"):
        Store(tmp_path, address)


def test_a_damaged_database_is_an_error_that_names_it(tmp_path):
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 1000)

    with pytest.raises(DataError, match=r"store.sqlite"):
        Store(tmp_path)


def test_quarantine_keeps_the_reason_and_can_be_emptied(store):
    store.quarantine(b"odd", "is not a DICOM file", "upload")
    (aside,) = store.quarantined()

    store.delete_quarantined(aside.sha256)

    assert aside.reason == "is not a DICOM file"
    assert store.quarantined() == []
    assert files(store) == []


def test_what_is_quarantined_goes_by_age(store):
    store.quarantine(b"odd", "is not a DICOM file", "upload")

    make_room(store, StoreSettings(retain_days=1, least_free_gb=0))
    assert len(store.quarantined()) == 1
    make_room(store, StoreSettings(retain_days=1e-9, least_free_gb=0))

    assert store.quarantined() == []
    assert files(store) == []


def test_a_full_quarantine_keeps_nothing_more(store, monkeypatch):
    monkeypatch.setattr("focalis.device.received._QUARANTINED_OBJECTS", 2)

    assert [store.quarantine(data, "odd", "x") for data in (b"1", b"2", b"3")] == [True, True, False]

    assert len(files(store)) == 2
    store.keep(b"first", HEADER, "x")
    assert store.keep(b"other", HEADER, "x") == "quarantined"
    assert len(files(store)) == 3


def task(store, task_id="t1", **changes):
    store.keep(b"1", HEADER, "x")
    return store.add_task(task_id, "1.2.3", "lung", "m" * 64, "i" * 64, **changes)


def result_file(store):
    path = store.results_folder("t1") / "seg-1.dcm"
    path.parent.mkdir()
    path.write_bytes(b"seg")
    return path


def test_a_task_is_added_once(store):
    first = task(store)
    store.set_task_state("t1", "segmenting", seconds=2.5)
    store.set_task_state("t1", "done", "3 lesions")

    again = task(store)

    assert first.state == "waiting"
    assert (again.state, again.reason, again.seconds, again.created_at) == (
        "done",
        "3 lesions",
        2.5,
        first.created_at,
    )
    assert [found.task_id for found in store.tasks("done")] == ["t1"]
    assert store.tasks("failed") == []


def test_a_task_knows_what_supersedes_it(store):
    task(store)
    task(store, "t2", supersedes="t1")

    assert store.task("t1").superseded_by == "t2"
    assert store.task("t2").supersedes == "t1"
    assert store.task_of("1.2.3", "lung").task_id == "t2"
    assert store.task_of("1.2.3", "other") is None


def test_a_result_is_written_once(store):
    task(store)
    path = result_file(store)
    store.add_result("t1", "seg", "9.1", "a" * 64, path)
    store.add_result("t1", "seg", "9.1", "a" * 64, path)

    assert [(found.kind, found.path) for found in store.results("t1")] == [("seg", path)]
    with pytest.raises(DataError, match="other content"):
        store.add_result("t1", "seg", "9.1", "b" * 64, path)
    with pytest.raises(DataError, match="outside the store"):
        store.add_result("t1", "seg", "9.2", "a" * 64, store.folder.parent / "x.dcm")
    with pytest.raises(DataError, match="No such file"):
        store.add_result("t1", "seg", "9.3", "a" * 64, path.parent / "never-written.dcm")


def test_results_move_with_the_store(store, tmp_path, database):
    task(store)
    store.add_result("t1", "seg", "9.1", "a" * 64, result_file(store))
    store.close()
    shutil.copytree(store.folder, tmp_path / "restored")

    with Store(tmp_path / "restored", database) as restored:
        (found,) = restored.results("t1")

    assert found.path == tmp_path / "restored" / "results" / "t1" / "seg-1.dcm"


def test_a_delivery_goes_from_waiting_to_sent(store):
    task(store)
    store.add_delivery("t1", "seg", "9.1", "pacs")
    store.set_delivery("t1", "9.1", "pacs", "waiting", attempts=1, last_error="refused", next_at="2999")
    store.add_delivery("t1", "seg", "9.1", "pacs")
    (waiting,) = store.deliveries(state="waiting")
    store.set_delivery("t1", "9.1", "pacs", "sent", attempts=2)

    assert (waiting.attempts, waiting.last_error, waiting.next_at) == (1, "refused", "2999")
    (sent,) = store.deliveries("t1")
    assert (sent.state, sent.attempts) == ("sent", 2)
    assert sent.sent_at is not None


def test_a_later_verdict_takes_the_place_of_an_earlier_one(store):
    task(store)
    store.review("t1", [2, 1], "accepted", "ada")
    store.review("t1", [2], "rejected", "bob")

    assert [(row.lesion, row.verdict, row.by) for row in store.reviews("t1")] == [
        (1, "accepted", "ada"),
        (2, "rejected", "bob"),
    ]


def test_events_come_newest_first_and_the_oldest_go(store, monkeypatch):
    monkeypatch.setattr("focalis.device.work._EVENTS_KEPT", 3)
    for number in range(5):
        store.event("error" if number == 3 else "info", f"event {number}")

    assert [event.text for event in store.events()] == ["event 4", "event 3", "event 2"]
    assert [event.text for event in store.events(level="error")] == ["event 3"]


@pytest.fixture
def settled(store):
    """A series whose only result was sent."""
    task(store)
    store.add_result("t1", "seg", "9.1", "a" * 64, result_file(store))
    store.add_delivery("t1", "seg", "9.1", "pacs")
    store.set_delivery("t1", "9.1", "pacs", "sent", attempts=1)
    store.set_task_state("t1", "done")
    store.complete("1.2.3")
    assert [row.series_uid for row in store.settled_series()] == ["1.2.3"]
    return store


def test_deleting_a_series_removes_all_that_was_made_of_it(settled):
    assert settled.delete_series("1.2.3")

    assert files(settled) == []
    assert (settled.series(), settled.tasks(), settled.results("t1"), settled.deliveries()) == (
        [],
        [],
        [],
        [],
    )
    assert settled.keep(b"1", HEADER, "x") == "kept"


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.keep(b"2", header(2), "x"),
        lambda store: store.association_opened(["1.2.3"]),
        lambda store: store.set_task_state("t1", "waiting"),
        lambda store: store.add_delivery("t1", "correction", "9.2", "pacs"),
        lambda store: store.set_delivery("t1", "9.1", "pacs", "dead", attempts=9),
    ],
    ids=["a slice", "a sender", "another try", "a correction", "a dead letter"],
)
def test_a_series_of_which_something_came_to_be_expected_is_not_deleted(settled, change):
    before = files(settled)
    change(settled)

    assert not settled.delete_series("1.2.3")

    assert set(before) <= set(files(settled))
    assert settled.task("t1") is not None


def test_what_is_sent_again_while_its_series_is_removed_is_kept(settled, monkeypatch):
    """Rows go first and files then: between the two the same object must not find its place taken."""
    unlink, answers = Path.unlink, []
    again = threading.Thread(target=lambda: answers.append(settled.keep(b"1", HEADER, "x")))

    def slow(path, missing_ok=False):
        if path.parent.parent.name == "objects" and not again.ident:
            again.start()
            again.join(0.3)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", slow)
        assert settled.delete_series("1.2.3")
    again.join()

    assert answers == ["kept"]
    assert [instance.path.read_bytes() for instance in settled.instances("1.2.3")] == [b"1"]


def test_counts_say_how_many_there_are_of_everything(store):
    task(store)
    store.add_delivery("t1", "seg", "9.1", "pacs")
    store.quarantine(b"odd", "why", "x")

    assert store.counts() == {
        "instances": 1,
        "instance_bytes": 1,
        "quarantined": 1,
        "series.receiving": 1,
        "tasks.waiting": 1,
        "deliveries.waiting": 1,
    }


def test_a_backup_of_the_rows_is_a_database_of_its_own(store, tmp_path):
    task(store)
    folder = tmp_path / "copy"
    folder.mkdir()

    store.backup_database(folder / "store.sqlite")

    with Store(folder) as copy:
        assert copy.task("t1").model == "lung"


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    """A store as the first version wrote it: without the columns and tables that came later."""
    uid = "1.2.3"
    with Store(tmp_path / "old") as store:
        store.keep(b"first", HEADER, "x")
        store.add_task("t", uid, "nodules", "7" * 64, "8" * 64)
        store.event("warning", "the series lies outside of what the model was trained on: it is small", "t")
        store.quarantine(b"odd", "is not a DICOM file", "x")
    later = {
        "series": ("reason", "released", "pause_seconds", "person", "told", "namesake"),
        "instances": (
            "frames",
            "number",
            "acquisition",
            "acquisition_images",
            "normal",
            "position_mm",
            "left_out",
        ),
        "quarantine": ("sop_uid", "cause"),
        "tasks": ("partial", "outside", "released", "urgent", "shadow_of"),
    }
    connection = sqlite3.connect(tmp_path / "old" / "store.sqlite")
    for name in ("instances_by_study", "quarantine_by_series", "series_by_person", "series_by_namesake"):
        connection.execute(f"DROP INDEX {name}")
    for table in (
        "sendings",
        "refusals",
        "notices",
        "accounts",
        "audit",
        "commitments",
        "secrets",
        "roles",
        "retrainings",
        "edits",
    ):
        connection.execute(f"DROP TABLE {table}")
    for table, columns in later.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()

    with Store(tmp_path / "old") as store:
        store.own()
        task = store.task("t")
        assert task.outside == "lies outside of what the model was trained on: it is small"
        assert (task.partial, store.series_row(uid).released, len(store.instances(uid))) == ("", "", 1)
        assert [each.cause for each in store.quarantined()] == ["is not a DICOM file"]


def test_a_series_that_comes_in_parts_is_given_twice_the_longest_pause(store, monkeypatch):
    from datetime import UTC, datetime, timedelta

    began = datetime.now(UTC) - timedelta(seconds=100)

    def clock(seconds):
        at = (began + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        monkeypatch.setattr("focalis.device.received.now", lambda: at)

    clock(0)
    store.keep(b"first", HEADER, "x")
    store.complete("1.2.3")
    clock(40)
    store.keep(b"second", dataclasses.replace(HEADER, sop_uid="1.2.3.99"), "x")

    assert store.series_row("1.2.3").pause_seconds == pytest.approx(40)
    assert store.series_to_complete(5) == []  # 60 seconds later, and 80 are given
    clock(10)
    store.association_closed(["1.2.3"])
    assert len(store.series_to_complete(5)) == 1


def test_a_store_counts_refusals_by_sender_and_reason(store):
    assert [
        store.refuse("CT1", "no room"),
        store.refuse("CT1", "no room"),
        store.refuse("CT2", "no room"),
    ] == [
        True,
        False,
        True,
    ]
    assert {(each.peer, each.times) for each in store.refusals()} == {("CT1", 2), ("CT2", 1)}


def test_a_store_and_its_backup_lie_on_a_share_that_refuses_chmod(tmp_path, monkeypatch):
    def refused(*_arguments, **_more):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    with pytest.warns(PermissionsWarning, match="its permissions cannot be set to 700"):
        Store(tmp_path / "store").close()
    with pytest.warns(PermissionsWarning) as said:
        back_up(tmp_path / "store", tmp_path / "backup.tar")
    lines = [str(warning.message) for warning in said]
    assert any(line.startswith(f"{tmp_path / 'backup.tar'}: its permissions cannot be") for line in lines)
    assert (tmp_path / "backup.tar").stat().st_size

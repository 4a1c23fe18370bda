"""A device whose objects lie in a bucket of an S3 server: nothing acknowledged is lost, nothing wrong is read."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import boto3
import buckets
import pydicom
import pytest
import requests
from device_work import (
    GRID,
    block,
    config,
    destination,
    dicom_bytes,
    digest_of,
    forget_copies,
    in_this_process,
    keep_files,
    pacs,
    until,
    working,
)
from pydicom.uid import CTImageStorage
from pynetdicom import AE

from focalis.cli.main import main
from focalis.device import retention
from focalis.device.backup import back_up
from focalis.device.bucket import Bucket
from focalis.device.config import StoreSettings, load_config
from focalis.device.serve import running
from focalis.device.store import Store
from focalis.device.written import folder_for_more, has_results, keep_results, lesions_found, making_folder
from focalis.dicom import read_series
from focalis.errors import DataError, UsageError
from focalis.files import sha256_of
from focalis.object_store import UnreachableError


@pytest.fixture
def address(objects_address):
    return objects_address


@pytest.fixture
def store(address, tmp_path):
    with Store(tmp_path / "store", objects=address) as opened:
        yield opened


class Objects:
    """What another client of the server sees below an address."""

    def __init__(self, address):
        self._bucket, self._prefix = address.removeprefix("s3://").split("/")
        self._client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def keys(self):
        listed = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix)
        return {each["Key"].removeprefix(f"{self._prefix}/") for each in listed.get("Contents", ())}

    def read(self, key):
        return self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")["Body"].read()

    def write(self, key, content):
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}", Body=content)

    def remove(self, key):
        self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")


@pytest.fixture
def objects(address):
    return Objects(address)


def contents(paths):
    return sorted(map(sha256_of, paths))


def attempt(store, maker, content, lesions=1):
    """Make results of the task t1 as a process of a name does; what it tells of them."""
    folder = making_folder(store, "t1", maker)
    (folder / "seg-1.dcm").write_bytes(content)
    (folder / "figures.json").write_text(json.dumps({"by": maker}))
    sha256 = hashlib.sha256(content).hexdigest()
    return folder.name, [
        {"kind": "seg", "file": "seg-1.dcm", "sop_uid": "1.2.3", "sha256": sha256, "lesions": lesions}
    ]


@pytest.fixture
def task(store, series):
    """The task t1 of a series; the series' UID."""
    uid = keep_files(store, series)
    store.complete(uid)
    store.add_task("t1", uid, "tiny", "0" * 64, "0" * 64)
    return uid


def test_what_was_kept_is_read_on_a_new_disk(store, series):
    uid = keep_files(store, series)
    forget_copies(store)
    assert contents(store.at_hand(store.instances(uid))) == contents(series)


def test_what_was_quarantined_is_read_on_a_new_disk_and_goes(store, objects):
    assert store.quarantine(b"broken", "is damaged", "test")
    forget_copies(store)
    (aside,) = store.quarantined()
    (path,) = store.at_hand([aside])
    assert path.read_bytes() == b"broken"
    store.delete_quarantined(aside.sha256)
    assert objects.keys() == {"focalis-device"}
    assert not path.exists()


DIES = """
import os, signal, sys
from pathlib import Path
from device_work import keep_files
from focalis.device.bucket_files import BucketFiles
from focalis.device.serve import running
from focalis.device.store import Store
place = BucketFiles.place
def dying(self, *given):
    place(self, *given)
    os.kill(os.getpid(), signal.SIGKILL)
BucketFiles.place = dying
keep_files(Store(Path(sys.argv[1]), objects=sys.argv[2]), sys.argv[3:])
"""


def test_a_front_killed_between_object_and_row_has_kept_nothing_and_is_sent_it_again(
    address, objects, series, tmp_path
):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", DIES, tmp_path / "store", address, *series]
    assert subprocess.run(words, env=environment, check=False).returncode == -9
    assert len(objects.keys()) == 2
    with Store(tmp_path / "store", objects=address) as store:
        assert store.series() == []
        uid = keep_files(store, series)
        forget_copies(store)
        assert contents(store.at_hand(store.instances(uid))) == contents(series)


def test_the_first_write_stays(address, objects):
    bucket = Bucket(address)
    assert bucket.create("one", b"first")
    assert not bucket.create("one", b"second")
    assert objects.read("one") == b"first"


def test_what_others_keep_there_is_not_taken_over(address, objects, tmp_path):
    objects.write("results/2024/table.csv", b"a,b")
    with pytest.raises(
        UsageError, match=r"is not empty: it holds results/2024/table.csv; give the device a prefix"
    ):
        Store(tmp_path / "store", objects=address)
    assert objects.keys() == {"results/2024/table.csv"}


@pytest.mark.usefixtures("task")
def test_two_additions_to_one_task_do_not_disturb_each_other(store):
    with folder_for_more(store, "t1") as one, folder_for_more(store, "t1") as other:
        (one / "a.txt").write_text("a")
        (other / "a.txt").write_text("b")
        assert (one / "a.txt").read_text() == "a"


def test_an_object_store_that_overwrites_is_refused(address, tmp_path, monkeypatch):
    from focalis.device import bucket as module

    class Overwriting:
        def __init__(self, *given):
            self._store = opened(*given)

        def __getattr__(self, name):
            return getattr(self._store, name)

        def put(self, key, content, **_):
            return self._store.put(key, content)

    opened = module.open_object_store
    monkeypatch.setattr(module, "open_object_store", Overwriting)
    with pytest.raises(UsageError, match=f"{address}: ignores If-None-Match"):
        Store(tmp_path, objects=address)


@pytest.mark.usefixtures("task")
def test_of_two_attempts_at_one_task_the_first_one_counts_whole(store):
    first, second = attempt(store, "one", b"first", 1), attempt(store, "two", b"second", 2)
    assert keep_results(store, "t1", *first)
    assert keep_results(store, "t1", *second)
    forget_copies(store)
    assert [path.read_bytes() for path in store.at_hand(store.results("t1"))] == [b"first"]
    assert lesions_found(store, "t1") == 1
    assert json.loads(store.at_hand([store.notes("t1")["figures.json"]])[0].read_text()) == {"by": "one"}
    assert not list((store.folder / "making").iterdir())


@pytest.mark.usefixtures("task")
def test_attempts_at_the_same_moment_never_mix(store):
    """Both have found that there are no results yet; a file of one has the name of a file of the other."""
    one, two = (
        store.folder / "making" / attempt(store, maker, maker.encode())[0] for maker in ("one", "two")
    )
    assert store.keep_results("t1", [("seg", "1.2.3", one / "seg-1.dcm")])
    assert not store.keep_results(
        "t1", [("note", "figures.json", two / "figures.json"), ("seg", "1.2.3", two / "seg-1.dcm")]
    )
    assert [path.read_bytes() for path in store.at_hand(store.results("t1"))] == [b"one"]
    assert store.notes("t1") == {}


@pytest.mark.usefixtures("task")
def test_results_of_another_machine_are_made_again(store):
    name, made = attempt(store, "one", b"first")
    shutil.rmtree(store.folder / "making" / name)
    assert not keep_results(store, "t1", name, made)
    assert not has_results(store, "t1")


@pytest.fixture
def way(address, object_server, monkeypatch):  # noqa: ARG001 - sets the environment first
    """A way to the server that can be cut."""
    found = buckets.Way(object_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
    yield found
    found.cut()


def test_nothing_is_named_in_the_rows_before_its_object_is_there(way, address, series, tmp_path):
    with Store(tmp_path / "store", objects=address) as store:
        uid = keep_files(store, series[:1])
        store.add_task("t1", uid, "tiny", "0" * 64, "0" * 64)
        made = attempt(store, "one", b"first")
        way.cut()
        with pytest.raises(UnreachableError, match=address):
            keep_results(store, "t1", *made)
        with pytest.raises(UnreachableError, match=address):
            keep_files(store, series[1:])
        assert store.results("t1") == []
        assert len(store.instances(uid)) == 1
        way.mend()
        assert keep_results(store, "t1", *made)
        assert keep_files(store, series) == uid
        assert len(store.instances(uid)) == len(series)


def test_while_the_bucket_is_away_images_are_refused_and_said_so(way, address, make_intake, series):
    intake = make_intake(store={"objects": address, "least_free_gb": 0})
    with intake.sender("test") as sender:
        way.cut()
        taken = sender.take([series[0].read_bytes()])
        assert (taken.outcome, taken.reason) == ("no room", "cannot be stored; send it again later")
        assert address in intake.store.objects_problem()
        way.mend()
        assert sender.take([series[0].read_bytes()]).outcome == "kept"
        until(lambda: not intake.store.objects_problem())


def pretend(job, tell):
    """Instead of segmenting, "find" the hash of the images."""
    tell("segmenting")
    found = Path(job.folder) / "seg.dcm"
    found.write_text(digest_of(job.files))
    made = {"kind": "seg", "file": found.name, "sop_uid": "1.2", "sha256": sha256_of(found)}
    return {"outcome": "done", "results": [made]}


@contextlib.contextmanager
def at_work(tmp_path, model, address, **more):
    settings = config(model, store={"objects": address, "least_free_gb": 0, **more})
    with working(tmp_path / "store", settings, run=pretend) as jobs:
        yield jobs


def assert_right(store, files):
    (task,) = store.tasks("done")
    (path,) = store.at_hand(store.results(task.task_id))
    assert path.read_text() == digest_of(files)


@pytest.mark.parametrize("away", ["before", "after"])
def test_work_waits_for_the_bucket_and_goes_on(away, way, address, model, series, tmp_path, monkeypatch):
    monkeypatch.setattr("focalis.device.jobs._FULL_DISK_SECONDS", 0.5)
    with at_work(tmp_path, model, address) as jobs:

        def cut_off(job, tell):
            if away == "after":
                way.cut()
            return pretend(job, tell)

        jobs.segmenter.run = cut_off
        keep_files(jobs.store, series)
        if away == "before":
            way.cut()
        told = until(lambda: jobs.store.events(level="error"))
        assert told[-1].text == "the object store cannot be used; segmenting waits for it"
        until(lambda: any("the object store cannot be used" in task.reason for task in jobs.store.tasks()))
        jobs.segmenter.run = pretend
        way.mend()
        until(lambda: jobs.store.tasks("done"))
        assert_right(jobs.store, series)


@pytest.mark.parametrize("damage", ["altered", "lost"])
def test_a_damaged_object_fails_the_study_by_its_name_until_it_is_sent_again(
    damage, address, objects, model, series, tmp_path
):
    with at_work(tmp_path, model, address) as jobs:
        jobs.store.series_to_complete = lambda _seconds: []
        uid = keep_files(jobs.store, series)
        forget_copies(jobs.store)
        key = f"objects/{sha256_of(series[1])[:2]}/{sha256_of(series[1])}.dcm"
        objects.remove(key) if damage == "lost" else objects.write(key, series[2].read_bytes())
        del jobs.store.series_to_complete
        until(lambda: jobs.store.tasks("failed"))
        (task,) = jobs.store.tasks()
        said = "was changed after it was written" if damage == "altered" else "is lost"
        assert task.reason == f"{address}/{key}: {said}; restore it, or send the images again and try again"
        assert jobs.store.results(task.task_id) == []
        assert keep_files(jobs.store, series) == uid
        jobs.retry(task.task_id)
        until(lambda: jobs.store.tasks("done"))
        assert_right(jobs.store, series)


def test_results_and_images_are_delivered_from_the_bucket(address, model, series, tmp_path):
    with pacs() as (port, received):
        to = destination(port, objects=["seg", "sr", "images"])
        settings = config(model, to, store={"objects": address, "least_free_gb": 0})
        with working(tmp_path / "store", settings, run=in_this_process) as jobs:

            def away(job, tell):
                answer = in_this_process(job, tell)
                forget_copies(jobs.store)
                return answer

            jobs.segmenter.run = away
            uid = keep_files(jobs.store, series)
            until(lambda: jobs.store.tasks("done"))
            (task,) = jobs.store.tasks()
            results = [each for each in jobs.store.results(task.task_id) if each.kind in ("seg", "sr")]
            sent = jobs.store.at_hand([*results, *jobs.store.instances(uid)])
    wanted = {hashlib.sha256(dicom_bytes(path)).hexdigest() for path in sent}
    assert {sha256 for _, sha256 in received} == wanted
    assert set(received.values()) == {1}


def test_an_earlier_study_is_compared_from_the_bucket_and_costs_no_result_if_it_is_lost(
    address, objects, model, write_series, tmp_path
):
    scans = [write_series(tmp_path / "in" / str(number), block(900 + number), GRID) for number in range(3)]
    compared = []
    with at_work(tmp_path, model, address) as jobs:

        def noted(job, tell):
            compared.append([contents(map(Path, each["files"])) for each in job.earlier])
            return pretend(job, tell)

        jobs.segmenter.run = noted
        for number, files in enumerate(scans):
            forget_copies(jobs.store)
            if number == 2:
                lost = f"objects/{sha256_of(scans[0][1])[:2]}/{sha256_of(scans[0][1])}.dcm"
                objects.remove(lost)
            keep_files(jobs.store, files, person="p")
            until(lambda: len(jobs.store.tasks("done")) == number + 1)  # noqa: B023
        warnings = jobs.store.events(level="warning")
    assert compared == [[], [contents(scans[0])], []]
    said = [each.text for each in warnings if each.text.startswith("an earlier study")]
    assert len(said) == 1
    assert said[0].startswith(f"an earlier study could not be compared: {address}/{lost}: is lost")


@pytest.mark.slow
def test_a_device_tells_its_senders_and_its_monitor_that_the_bucket_is_away(
    way, address, model, series, tmp_path
):
    settings = config(
        model,
        store={"folder": tmp_path / "store", "objects": address, "least_free_gb": 0},
        node={"port": 0},
        web={"port": 0},
    )
    with running(settings) as device:

        def told():
            ready = requests.get(device.web_url + "readyz", timeout=60)
            return ready.status_code, ready.json()["problems"]

        def send(path):
            ae = AE("CT1")
            ae.add_requested_context(CTImageStorage)
            association = ae.associate("127.0.0.1", device.dicom_port, ae_title="FOCALIS")
            status = association.send_c_store(pydicom.dcmread(path)).Status
            association.release()
            return status

        assert told() == (200, [])
        assert send(series[0]) == 0
        way.cut()
        assert told() == (503, ["object store"])
        assert send(series[1]) == 0xA700
        way.mend()
        assert told() == (200, [])
        assert send(series[1]) == 0


def test_the_copies_of_a_process_at_work_stay_few(address, model, write_series, tmp_path, monkeypatch):
    monkeypatch.setattr("focalis.device.jobs._TIDY_SECONDS", 0)
    scans = [write_series(tmp_path / "in" / str(n), block(900 + n), GRID) for n in range(2)]
    with at_work(tmp_path, model, address, cache_gb=0) as jobs:
        for files in scans:
            keep_files(jobs.store, files)
        until(lambda: len(jobs.store.tasks("done")) == 2)
        copies = [path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file()]
        assert len(copies) == sum(map(len, scans))  # somebody may be reading them
        for path in copies:
            os.utime(path, (time.time() - 3600,) * 2)
        until(lambda: not any(path.exists() for path in copies))
        for task in jobs.store.tasks():
            assert jobs.store.at_hand(jobs.store.instances(task.series_uid))


def test_a_copy_that_is_removed_just_when_it_is_asked_for_is_fetched(store, series, monkeypatch):
    held = store.instances(keep_files(store, series))

    def late(*arguments, **options):
        shutil.rmtree(store.folder / "objects")
        monkeypatch.undo()
        os.utime(*arguments, **options)

    monkeypatch.setattr("focalis.device.bucket_files.os.utime", late)
    assert all(path.is_file() for path in store.at_hand(held[:1]))


def test_an_image_that_is_sent_again_changes_no_copy_that_is_fetched_meanwhile(store, series, monkeypatch):
    held = store.instances(keep_files(store, series))
    forget_copies(store)
    keep, seen = Bucket.keep, []

    def slowly(bucket, *arguments):
        seen.extend(path.stat().st_ino for path in store.at_hand(held))
        keep(bucket, *arguments)

    monkeypatch.setattr(Bucket, "keep", slowly)
    keep_files(store, series[:1])
    assert seen[: len(held)] == [each.path.stat().st_ino for each in held]


@pytest.mark.parametrize("meanwhile", ["asked for", "fetched", "fetched without hard links", "sent again"])
def test_a_copy_does_not_change_while_it_is_read(store, series, monkeypatch, meanwhile):
    held = store.instances(keep_files(store, series))
    bucket = store._files.bucket
    paths = store.at_hand(held)
    if "without" in meanwhile:
        monkeypatch.setattr("os.link", Mock(side_effect=PermissionError))

    def another_reader(*_):
        if meanwhile == "asked for":
            assert store.at_hand(held) == paths
        elif meanwhile == "sent again":
            keep_files(store, series)
        else:
            for each in held:  # begun before the copy was there, ended while it is read
                bucket.fetch(each.path.relative_to(store.folder).as_posix(), each.path, each.sha256)

    assert read_series(paths, admit=another_reader).volume.array.any()
    assert not [path for path in store.folder.glob("objects/*/*") if path not in paths]


def test_copies_not_used_for_longest_go_first_and_all_after_a_day(store, series, objects):
    uid = keep_files(store, series)
    instances, before = store.instances(uid), objects.keys()
    hours = {each.path: number for number, each in enumerate(instances, start=1)}
    for path, passed in hours.items():
        os.utime(path, (time.time() - 3600 * passed,) * 2)
    two = sum(each.bytes for each in instances[:2])
    store.tidy(two, 0, 60)
    assert [each.path.is_file() for each in instances] == [True] * 2 + [False] * (len(instances) - 2)
    store.tidy(0, 0, 4000)
    assert [each.path.is_file() for each in instances] == [True] + [False] * (len(instances) - 1)
    os.utime(instances[0].path, (time.time() - 90_000,) * 2)
    store.tidy(1e9, 0, 1e9)
    assert not instances[0].path.exists()
    assert objects.keys() == before


def test_what_a_killed_process_was_making_goes_after_a_day(store):
    old, new = making_folder(store, "t1", "gone"), making_folder(store, "t2", "here")
    staged = store.stage(b"half")
    for path in (old, staged.path):
        os.utime(path, (time.time() - 90_000,) * 2)
    store.tidy(1e9, 0, 60)
    assert (old.exists(), new.exists(), staged.path.exists()) == (False, True, False)


OLD = StoreSettings(retain_days=1e-9, least_free_gb=0)


def test_retention_removes_objects_and_copies(store, objects, task):
    assert keep_results(store, "t1", *attempt(store, "one", b"first"))
    store.set_task_state("t1", "done")
    paths = store.at_hand([*store.instances(task), *store.results("t1")])
    assert retention.make_room(store, OLD) == [task]
    assert objects.keys() == {"focalis-device"}
    assert not any(path.exists() for path in paths)


def test_a_full_disk_of_copies_removes_no_study(store, task, monkeypatch):
    store.set_task_state("t1", "done")
    monkeypatch.setattr(store, "free_bytes", lambda: 0)
    assert task
    assert retention.make_room(store, StoreSettings(retain_days=30, least_free_gb=1)) == []


def test_objects_that_retention_could_not_remove_go_later(
    way, address, object_server, monkeypatch, series, tmp_path
):
    with Store(tmp_path / "store", objects=address) as store:
        uid = keep_files(store, series)
        store.set_series_state(uid, "unrouted")
        way.cut()
        assert retention.make_room(store, OLD) == [uid]
        way.mend()
        kept = keep_files(store, series[:1])
        assert store.remove_old_strangers(30) == 0
        assert store.remove_old_strangers(1e-9) == len(series) - 1
        assert store.at_hand(store.instances(kept))
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server)
    assert len(Objects(address).keys()) == 2


def test_a_bucket_that_is_not_there_or_lost_is_one_line_at_the_start(address, objects, series, tmp_path):
    with pytest.raises(DataError, match=r"^s3://nowhere/p: is no bucket, or .*; make or restore it$"):
        Store(tmp_path / "other", objects="s3://nowhere/p")
    with Store(tmp_path / "store", objects=address) as store:
        keep_files(store, series)
    for key in objects.keys():  # noqa: SIM118
        objects.remove(key)
    with pytest.raises(DataError, match=f"^{address}: is no bucket, or has lost the objects of this device"):
        Store(tmp_path / "store", objects=address)


def test_a_bucket_that_cannot_be_reached_is_one_line_at_the_start(tmp_path, monkeypatch):
    for name, value in buckets.environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        DataError, match=r"^s3://bucket/p/\S+: cannot be written .*; check the object store$"
    ) as caught:
        Store(tmp_path, objects="s3://bucket/p")
    assert "\n" not in str(caught.value)
    assert buckets.SECRET not in str(caught.value)


def test_a_lost_bucket_fails_no_study(store, objects, series):
    uid = keep_files(store, series)
    forget_copies(store)
    for key in objects.keys():  # noqa: SIM118
        objects.remove(key)
    with pytest.raises(UnreachableError, match="is no bucket, or has lost the objects of this device"):
        store.at_hand(store.instances(uid))


def test_objects_of_another_device_or_elsewhere_are_refused(store, address, series, tmp_path):
    with pytest.raises(UsageError, match="holds the objects of another device"):
        Store(tmp_path / "other", objects=address)
    with pytest.raises(UsageError, match=r"the objects of this store are in a bucket; set store\.objects"):
        Store(store.folder)
    with Store(tmp_path / "files") as files:
        keep_files(files, series)
    with pytest.raises(UsageError, match="the store has its objects in files; begin with an empty database"):
        Store(tmp_path / "files", objects=f"{address}-more")


@pytest.mark.parametrize(
    "wrong", ["file:///srv/share", "s3://", "s3://key:word@bucket/p", "s3://bucket/p?region=eu", "bucket/p"]
)
def test_an_address_that_is_none_or_has_credentials_is_refused(wrong, tmp_path):
    path = tmp_path / "focalis.toml"
    path.write_text(f'[store]\nobjects = "{wrong}"\n')
    with pytest.raises(UsageError, match="credentials come from the environment") as caught:
        load_config(path)
    assert "word" not in str(caught.value).replace("KEY), and", "")


@pytest.mark.parametrize("option", ["--backup", "--restore"])
def test_a_backup_of_the_folder_alone_is_refused(option, store, address, tmp_path, capsys):
    path = tmp_path / "focalis.toml"
    path.write_text(f'[store]\nobjects = "{address}"\ndatabase = "postgresql://focalis@db/focalis"\n')
    with pytest.raises(SystemExit):
        main(["serve", "--config", str(path), option, str(tmp_path / "store.tar")])
    assert f"{address}: --backup and --restore do not reach the objects there" in capsys.readouterr().err
    with pytest.raises(UsageError, match="the objects of this store are in a bucket"):
        back_up(store.folder, tmp_path / "store.tar")
    assert not (tmp_path / "store.tar").exists()


@pytest.mark.slow
def test_a_start_without_the_bucket_ends_with_a_line(model, database_server, tmp_path, capsys, monkeypatch):
    for name, value in buckets.environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "focalis.toml"
    path.write_text(
        f'[store]\nobjects = "s3://bucket/p"\ndatabase = "{database_server.new_database()}"\n'
        f'[[models]]\nname = "tiny"\nfile = "{model}"\n'
    )
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", str(path)])
    assert ended.value.code == 1
    assert "s3://bucket/p/focalis-device: cannot be written" in capsys.readouterr().err

"""What may go from the disk, and backup and restore."""

import shutil

import pytest
from device_work import GRID, block, keep_files

from focalis.device import retention
from focalis.device.backup import back_up, restore
from focalis.device.config import StoreSettings
from focalis.device.store import Store
from focalis.errors import DataError, UsageError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def add(store, write_series, tmp_path):
    """Add a complete series with a task in a state and one delivery in a state; the series' UID."""

    def call(name, task="done", delivery="sent"):
        uid = keep_files(store, write_series(tmp_path / name, block(), GRID))
        store.complete(uid)
        if task is not None:
            store.add_task(name, uid, "tiny", "0" * 64, name)
            result = store.results_folder(name) / "seg-1.dcm"
            result.parent.mkdir()
            result.write_bytes(name.encode())
            import hashlib

            store.add_result(
                name, "seg", f"2.25.{len(name)}", hashlib.sha256(name.encode()).hexdigest(), result
            )
            if delivery is not None:
                store.add_delivery(name, "seg", f"2.25.{len(name)}", "pacs")
                store.set_delivery(name, f"2.25.{len(name)}", "pacs", delivery, attempts=1)
            store.set_task_state(name, task)
        return uid

    return call


OLD = StoreSettings(retain_days=1e-9, least_free_gb=0)


def test_what_is_old_and_sent_goes_with_its_files(store, add):
    uid = add("one")
    files = [instance.path for instance in store.instances(uid)]
    assert retention.make_room(store, OLD) == [uid]
    assert store.series() == []
    assert not store.results_folder("one").exists()
    assert not any(path.exists() for path in files)


@pytest.mark.parametrize(
    ("task", "delivery"),
    [
        ("done", "waiting"),
        ("failed", "dead"),
        ("sending", "waiting"),
        ("waiting", None),
        ("failed", None),
        (None, None),
    ],
)
def test_what_is_not_yet_done_and_sent_stays(store, add, task, delivery):
    add("one", task, delivery)
    assert retention.make_room(store, OLD) == []


def test_a_study_stays_while_another_of_its_person_is_segmented(store, write_series, tmp_path):
    """The worker may be comparing both."""
    first, second = (
        keep_files(store, write_series(tmp_path / name, block(number), GRID), person="p")
        for number, name in enumerate(("one", "two"), start=900)
    )
    for name, uid in (("t1", first), ("t2", second)):
        store.complete(uid)
        store.add_task(name, uid, "tiny", "0" * 64, name)
    store.set_task_state("t1", "done")
    for state in ("waiting", "checking", "segmenting", "writing"):
        store.set_task_state("t2", state)
        assert retention.make_room(store, OLD) == []
    store.set_task_state("t2", "done")
    assert sorted(retention.make_room(store, OLD)) == sorted([first, second])


def test_young_studies_stay_while_there_is_space_and_the_oldest_goes_first(store, add, monkeypatch):
    first, second = add("one"), add("second")
    assert retention.make_room(store, StoreSettings(retain_days=30, least_free_gb=0)) == []
    free = iter([0, 10**12])
    monkeypatch.setattr(store, "free_bytes", lambda: next(free))
    assert retention.make_room(store, StoreSettings(retain_days=30, least_free_gb=1)) == [first]
    assert store.series_row(second) is not None


def test_a_backup_restores_every_row_and_file(store, add, tmp_path):
    uid = add("one")
    assert back_up(store.folder, tmp_path / "b.tar") == len(store.instances(uid)) + 1
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600  # as closed as the store is
    assert restore(tmp_path / "b.tar", tmp_path / "other") == len(store.instances(uid)) + 1
    with Store(tmp_path / "other") as other:
        other.own()
        assert [row.series_uid for row in other.series()] == [uid]
        for ours, theirs in zip(store.instances(uid), other.instances(uid), strict=True):
            assert ours.path.read_bytes() == theirs.path.read_bytes()
        assert other.results("one")[0].path.read_bytes() == b"one"


def test_a_damaged_backup_is_refused_and_leaves_no_store(store, add, tmp_path):
    add("one")
    back_up(store.folder, tmp_path / "b.tar")
    content = bytearray((tmp_path / "b.tar").read_bytes())
    place = content.rfind(b"Synthetic CT")  # the first ones are in the rows
    content[place : place + 4] = b"XXXX"
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tar"):
        restore(tmp_path / "b.tar", tmp_path / "other")
    assert not (tmp_path / "other" / "store.sqlite").exists()


def test_nothing_is_restored_beside_a_device(store, add, tmp_path):
    add("one")
    back_up(store.folder, tmp_path / "b.tar")
    with Store(tmp_path / "other") as device:
        device.own()
        with pytest.raises(UsageError, match="another focalis serve works with it"):
            restore(tmp_path / "b.tar", device.folder)
        assert device.series() == []
    restore(tmp_path / "b.tar", tmp_path / "other")
    with Store(tmp_path / "other") as restored:
        assert len(restored.series()) == 1


def test_a_store_is_never_restored_over(store, add, tmp_path):
    add("one")
    back_up(store.folder, tmp_path / "b.tar")
    with pytest.raises(UsageError, match="another folder"):
        restore(tmp_path / "b.tar", store.folder)
    with pytest.raises(UsageError, match="write the backup elsewhere"):
        back_up(store.folder, store.folder / "b.tar")
    shutil.rmtree(tmp_path / "one")

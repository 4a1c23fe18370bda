"""The watched folder: files are taken when they rest, once, and stay where they are."""

import os
import shutil

import pytest
from device_work import until

from focalis.device.config import WatchSettings
from focalis.device.watch import Watcher
from focalis.errors import DataError, UsageError


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def slices(write_series, stored, grid, tmp_path):
    return write_series(tmp_path / "slices", stored, grid)


def watcher(inbox, intake):
    return Watcher(WatchSettings(folder=inbox, seconds=0.1), intake)


def remove_the_series(intake):
    """As retention does."""
    uid = intake.store.series()[0].series_uid
    intake.store.set_series_state(uid, "unrouted")
    assert intake.store.delete_series(uid)


def test_files_are_taken_at_the_second_look_and_stay(inbox, intake, slices):
    watched = watcher(inbox, intake)
    shutil.copytree(slices[0].parent, inbox / "deep" / "series")

    assert watched.look() == 0
    assert watched.look() == len(slices)
    assert watched.look() == 0

    assert intake.store.counts()["instances"] == len(slices)
    assert len(list(inbox.rglob("*.dcm"))) == len(slices)
    assert len(intake.store.series_to_complete(0)) == 1


def test_a_file_that_still_grows_waits(inbox, intake, slices):
    watched = watcher(inbox, intake)
    data = slices[0].read_bytes()
    (inbox / "x.dcm").write_bytes(data[:200])
    watched.look()
    (inbox / "x.dcm").write_bytes(data)

    assert watched.look() == 0
    assert intake.store.quarantined() == []
    assert watched.look() == 1
    assert intake.store.counts()["instances"] == 1


def test_a_restart_takes_nothing_twice_even_after_the_study_was_removed(inbox, intake, slices):
    shutil.copy(slices[0], inbox)
    first = watcher(inbox, intake)
    first.look()
    first.look()
    remove_the_series(intake)

    again = watcher(inbox, intake)
    again.look()

    assert again.look() == 0
    assert intake.store.counts()["instances"] == 0


@pytest.mark.parametrize("deep", ["", "scanner 1/today"])
def test_a_share_that_was_not_mounted_for_a_while_brings_nothing_twice(inbox, intake, slices, deep):
    share = inbox / deep
    shutil.copytree(slices[0].parent, share, dirs_exist_ok=True)
    if deep:
        (inbox / "other").write_text("of another share")
    watched = watcher(inbox, intake)
    watched.look()
    watched.look()
    remove_the_series(intake)

    share.rename(inbox.parent / "away")
    share.mkdir()
    watched.look()
    share.rmdir()
    (inbox.parent / "away").rename(share)

    assert [watched.look() for _ in range(3)] == [0, 0, 0]


def test_a_file_that_its_owner_removed_is_forgotten(inbox, intake, slices):
    shutil.copytree(slices[0].parent, inbox / "a")
    (inbox / "b").write_text("stays")
    watched = watcher(inbox, intake)
    watched.look()
    watched.look()
    shutil.rmtree(inbox / "a")
    watched.look()
    shutil.copytree(slices[0].parent, inbox / "a")
    watched.look()
    assert watched.look() == len(slices)


def test_a_file_that_comes_back_changed_is_taken_again(inbox, intake, slices):
    watched = watcher(inbox, intake)
    (inbox / "x.dcm").write_bytes(slices[0].read_bytes())
    watched.look()
    watched.look()

    (inbox / "x.dcm").write_bytes(slices[1].read_bytes())
    os.utime(inbox / "x.dcm", ns=(1, 1))
    watched.look()
    watched.look()

    assert intake.store.counts()["instances"] == 2


def test_links_and_other_files_are_passed_over(inbox, intake, slices):
    watched = watcher(inbox, intake)
    (inbox / "link.dcm").symlink_to(slices[0])
    (inbox / "readme.txt").write_text("hello")
    os.mkfifo(inbox / "pipe")
    watched.look()
    watched.look()

    assert intake.store.counts()["instances"] == 0
    (told,) = intake.store.events()
    assert told.text == "watched folder: an object was refused: it is not a DICOM file"


def test_a_full_disk_leaves_the_rest_for_later(inbox, intake, slices, monkeypatch):
    watched = watcher(inbox, intake)
    shutil.copy(slices[0], inbox)
    watched.look()
    with monkeypatch.context() as patch:
        patch.setattr(intake.store, "free_bytes", lambda: -1)
        assert watched.look() == 0

    assert watched.look() == 1
    assert intake.store.counts()["instances"] == 1


def test_it_looks_by_itself_until_it_is_stopped(inbox, intake, slices):
    watched = watcher(inbox, intake)
    watched.start()
    shutil.copy(slices[0], inbox)
    until(lambda: intake.store.counts()["instances"] == 1, 20)
    watched.stop()

    assert not watched._thread.is_alive()


@pytest.mark.parametrize("place", ["the store", "in it", "around it"])
def test_the_device_does_not_watch_its_own_files(intake, place):
    store = intake.store.folder
    folder = {"the store": store, "in it": store / "incoming", "around it": store.parent}[place]
    with pytest.raises(UsageError, match="the device's own files"):
        watcher(folder, intake)


def test_a_missing_folder_is_an_error(tmp_path, intake):
    with pytest.raises(DataError, match="not a folder to watch"):
        watcher(tmp_path / "nowhere", intake)


def test_a_disk_that_takes_not_even_the_line_that_says_so_does_not_end_the_watch(
    inbox, intake, slices, monkeypatch
):
    watched = watcher(inbox, intake)
    looks = []

    def full(*_given, **_options):
        looks.append(1)
        raise DataError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(intake.store, "forget_taken", full)
        patch.setattr(intake.store, "event", full)
        watched.start()
        shutil.copy(slices[0], inbox)
        until(lambda: len(looks) > 4, 20)
    until(lambda: intake.store.counts()["instances"] == 1, 20)
    watched.stop()

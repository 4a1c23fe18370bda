"""Faults around the device's work: full disks, lost work, changed models, damaged images, names that must not leak."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
import sqlalchemy
from dbos import DBOS
from dbos._sys_db import SystemDatabase
from device_work import (
    GRID,
    block,
    config,
    destination,
    fail_the_first_claim,
    in_this_process,
    keep_files,
    pacs,
    save_tiny_model,
    until,
    working,
)
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from focalis.device import jobs as jobs_module
from focalis.device.backup import back_up, restore
from focalis.device.config import Limits
from focalis.device.store import Store


@pytest.fixture
def hasty(monkeypatch):
    """Wait less for what may pass."""
    for name, seconds in (("_FULL_DISK_SECONDS", 0.2), ("_FAULT_SECONDS", 0.2), ("_LOST_SECONDS", 1.0)):
        monkeypatch.setattr(jobs_module, name, seconds)


def kept(folder, paths):
    with Store(folder) as store:
        return keep_files(store, paths)


@contextmanager
def small_disk(folder, size):
    """A disk of its own, mounted on a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    """Take all that a disk has left, to the last block."""
    with path.open("ab", buffering=0) as file:
        for size in (100_000, 4096, 512, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("when", [pytest.param("inference", marks=pytest.mark.slow), "result"])
def test_a_really_full_disk_stops_the_work_and_room_resumes_it(model, series, tmp_path, when):
    calls = []

    def run(job, tell):
        first = not calls
        calls.append(job)
        if first and when == "inference":
            fill(disk / "filler")
        answer = in_this_process(job, tell)
        if first and when == "result":
            fill(disk / "filler")
        return answer

    with pacs() as (port, received), small_disk(tmp_path / "disk", "24m") as disk:
        uid = kept(disk / "store", series)
        with working(disk / "store", config(model, destination(port)), run=run) as jobs:
            until(lambda: (disk / "filler").exists())
            time.sleep(1.5)
            (task,) = jobs.store.tasks()
            assert task.state in ("waiting", "checking", "segmenting", "writing")
            assert len(jobs.store.instances(uid)) == len(series)
            assert not received
            (disk / "filler").unlink()
            (task,) = until(lambda: jobs.store.tasks("done"))
            assert len(jobs.store.results(task.task_id)) == 4
    assert len(received) == 4


@pytest.mark.usefixtures("hasty")
def test_work_whose_end_could_not_be_written_is_begun_again(model, series, tmp_path, monkeypatch):
    """DBOS gives up when its file cannot be written, and calls the workflow open forever."""
    original, failures = SystemDatabase.update_workflow_outcome, [1]

    def update(self, *given, **options):
        if failures:
            failures.pop()
            raise sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database or disk is full"))
        return original(self, *given, **options)

    monkeypatch.setattr(SystemDatabase, "update_workflow_outcome", update)
    answers = [{"outcome": "no space", "reason": "No space left on device"}]
    kept(tmp_path / "store", series)
    with working(
        tmp_path / "store",
        config(model),
        run=lambda *given: answers.pop() if answers else in_this_process(*given),
    ) as jobs:
        until(lambda: jobs.store.tasks("done"))
    assert not failures


@pytest.mark.usefixtures("hasty")
def test_work_that_was_claimed_and_never_begun_is_begun_again(model, series, tmp_path, monkeypatch):
    failures = fail_the_first_claim(monkeypatch)
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        until(lambda: jobs.store.tasks("done"))
    assert not failures


@pytest.mark.usefixtures("hasty")
def test_work_that_another_version_of_the_steps_began_is_begun_again(model, series, tmp_path):
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        uid = keep_files(jobs.store, series)
        task_id = until(lambda: jobs.store.tasks("done"))[0].task_id
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": "study",
                "queue_name": jobs_module.STUDIES,
                "app_version": "0",
                "deduplication_id": task_id,
            },
            task_id,
        )
        jobs.store.set_task_state(task_id, "waiting")
        jobs.wake()
        until(lambda: jobs.store.tasks("done"))
        assert jobs.store.series_row(uid) is not None


@pytest.mark.usefixtures("hasty")
def test_results_that_a_power_cut_damaged_are_made_again(model, series, tmp_path):
    calls = []

    def run(job, tell):
        answer = in_this_process(job, tell)
        calls.append(job)
        if len(calls) == 1:  # the file was never flushed
            os.truncate(Path(job.folder) / answer["results"][0]["file"], 0)
        return answer

    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=run) as jobs:
        (task,) = until(lambda: jobs.store.tasks("done"))
        assert all(result.path.stat().st_size for result in jobs.store.results(task.task_id))
    assert len(calls) == 2


@pytest.mark.slow
def test_another_model_leaves_old_studies_alone_until_they_are_sent_again(
    model, series, tmp_path, write_series
):
    store, calls = tmp_path / "store", []

    def run(job, tell):
        calls.append(job.model_sha256)
        return in_this_process(job, tell)

    kept(store, series)
    with working(store, config(model), run=run) as jobs:
        first = until(lambda: jobs.store.tasks("done"))[0]
    other = save_tiny_model(tmp_path / "other.safetensors", low=-1500.0)
    settings = config(other)
    with working(store, settings, run=run) as jobs:
        other_series = write_series(tmp_path / "in" / "other", block(700), GRID)
        keep_files(jobs.store, other_series)
        until(lambda: len(jobs.store.tasks("done")) == 2)
        assert len(calls) == 2

        keep_files(jobs.store, series)
        until(lambda: len(jobs.store.tasks("done")) == 3)
        latest = jobs.store.task_of(first.series_uid, "tiny")
        assert latest.supersedes == first.task_id
        keep_files(jobs.store, series)
        until(lambda: jobs.store.series_row(first.series_uid).state == "complete")
        jobs.wake()
        time.sleep(0.3)
        assert len(jobs.store.tasks()) == 3


def test_a_series_that_no_route_took_is_taken_when_it_is_sent_again(model, series, tmp_path):
    store = tmp_path / "store"
    uid = kept(store, series)
    with working(
        store, config(model, routes=[{"model": "tiny", "modality": "MR"}]), run=in_this_process
    ) as jobs:
        until(lambda: jobs.store.series("unrouted"))
    with working(store, config(model), run=in_this_process) as jobs:
        keep_files(jobs.store, series)
        until(lambda: jobs.store.tasks("done"))
        assert jobs.store.series_row(uid).state == "complete"


def test_a_task_segments_the_slices_that_it_was_made_for_and_no_later_ones(model, series, tmp_path):
    ordered = sorted(series, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    kept(tmp_path / "store", ordered[:-1])
    calls = []

    def run(job, tell):
        calls.append(len(job.files))
        return in_this_process(job, tell)

    with working(tmp_path / "store", config(model), run=run) as jobs:
        jobs.segmenter.run = lambda *_: {"outcome": "failed", "reason": "not yet"}
        (task,) = until(lambda: jobs.store.tasks("failed"))
        jobs.segmenter.run = run
        jobs.store.association_opened([task.series_uid])
        keep_files(jobs.store, ordered[-1:])
        jobs.retry(task.task_id)
        (refused,) = until(lambda: jobs.store.tasks("refused"))
        assert "later slices" in refused.reason
        jobs.store.association_closed([task.series_uid])
        (done,) = until(lambda: jobs.store.tasks("done"))
        assert done.supersedes == task.task_id
    assert calls == [len(series)]


@pytest.mark.slow
def test_a_restored_backup_goes_on_with_what_was_under_way(model, series, tmp_path):
    store = tmp_path / "store"
    kept(store, series)
    with working(store, config(model), run=lambda *_: {"outcome": "stopped", "reason": ""}) as jobs:
        until(lambda: [task for task in jobs.store.tasks() if task.state == "checking"])
        back_up(store, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "new")
    with (
        pacs() as (port, received),
        working(tmp_path / "new", config(model, destination(port)), run=in_this_process) as jobs,
    ):
        until(lambda: jobs.store.tasks("done"))
    assert len(received) == 4


def test_more_memory_and_another_try_end_what_was_killed_for_memory(model, series, tmp_path):
    store = tmp_path / "store"
    kept(store, series)
    killed = {"outcome": "killed", "reason": "took more than 1 GB of memory"}
    with working(store, config(model), run=lambda *_: dict(killed)) as jobs:
        (task,) = until(lambda: jobs.store.tasks("failed"))
        assert "more than 1 GB" in task.reason
    with working(store, config(model), run=in_this_process) as jobs:
        jobs.retry(task.task_id)
        until(lambda: jobs.store.tasks("done"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_corrupt_pixels_are_refused_with_the_reason_and_the_next_study_is_done(
    model, series, tmp_path, intake, write_series
):
    """A header that tells the truth over compressed pixels that are noise: seen only when they are decoded."""
    data = pydicom.dcmread(series[2])
    data.compress(RLELossless, generate_instance_uid=False)
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    data.PixelData = encapsulate([frame[:64] + np.random.default_rng(0).bytes(len(frame) - 64)])
    data.save_as(series[2])
    with intake.sender("test") as sender:
        assert {sender.take([path.read_bytes()]).outcome for path in series} == {"kept"}
        for path in write_series(tmp_path / "in" / "good", block(900), GRID):
            sender.take([path.read_bytes()])
    folder = intake.store.folder
    intake.store.close()
    with working(folder, config(model), run=in_this_process) as jobs:
        (done,) = until(lambda: jobs.store.tasks("done"))
        (bad,) = until(lambda: jobs.store.tasks("refused") + jobs.store.tasks("failed"))
    assert done.series_uid != bad.series_uid
    assert "pixel" in bad.reason.lower()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_patients_name_is_in_any_log_or_table(model, series, intake, capfd, caplog):
    name = "<b>Zsazsa</b>^Gröbchen"
    for number, path in enumerate(series):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID = name, "Kennung"  # letters: digits also stand in UIDs
        data.SpecificCharacterSet = "ISO_IR 192"
        data.PatientBirthDate = "Quux"
        if number == 0:
            data.PatientComments = "Xyzzy " * 3000
        data.save_as(path)
    contents = [path.read_bytes() for path in series]
    data.PatientName = "Somebody^Else"
    data.save_as(path)
    caplog.clear()
    capfd.readouterr()
    with intake.sender("test") as sender:
        assert all(sender.take([content]).stored for content in contents)
        for strange in (contents[0][:-20], path.read_bytes()):
            assert sender.take([strange]).outcome == "quarantined"
    folder = intake.store.folder
    intake.store.close()
    with pacs(lambda _event: 0xC000) as (port, _), working(folder, config(model, destination(port))) as jobs:
        until(lambda: jobs.store.release(data.SeriesInstanceUID, "anna"))  # held for what was quarantined
        until(lambda: jobs.store.tasks("sending") or jobs.store.tasks("failed"))
        told = " ".join(event.text for event in jobs.store.events(1000))
    said = capfd.readouterr()
    holders = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert {"store.sqlite", "dbos.sqlite"} <= {path.name for path in holders}
    for words in ("Gröbchen", "Zsazsa", "Quux", "Kennung", "Xyzzy", "Somebody"):
        assert words not in told + said.out + said.err + caplog.text
        assert not [path for path in holders if words.encode() in path.read_bytes()]


def test_a_series_larger_than_the_limit_is_refused_with_the_limits_name(model, series, tmp_path):
    kept(tmp_path / "store", series)
    limits = Limits(series_gb=1e-6).model_dump()
    with working(tmp_path / "store", config(model, limits=limits), run=in_this_process) as jobs:
        (task,) = until(lambda: jobs.store.tasks("refused"))
    assert "raise limits.series_gb" in task.reason

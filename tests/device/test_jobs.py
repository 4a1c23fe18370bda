"""The durable jobs: one result per study whatever happens, and a clear state when there is none."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import device_work
import numpy as np
import pytest
from committing_archive import archive, kept_by_archive
from device_work import (
    GRID,
    block,
    config,
    destination,
    from_folder,
    in_this_process,
    keep_files,
    pacs,
    save_tiny_model,
    until,
    webhook,
    working,
)
from pydicom import dcmread
from structured_reports import read_report

from focalis.device import outgoing
from focalis.device.config import Config, ModelEntry, Route
from focalis.device.records import Roles
from focalis.device.store import Store
from focalis.device.trial import trial_of
from focalis.dicom import find_series, read_segmentation, read_series
from focalis.model import load_model, save_model
from focalis.planning import describe, learn_scope
from focalis.volume import Volume
from focalis.workflows.predict import predict


def kept(folder, paths):
    with Store(folder) as store:
        return keep_files(store, paths)


def test_a_series_becomes_results_that_equal_predict(model, series, tmp_path):
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model)) as jobs:
        task = until(lambda: jobs.store.tasks("done"))[0]
        results = {result.kind: result.path for result in jobs.store.results(task.task_id)}
    assert sorted(results) == ["capture", "rtstruct", "seg", "sr"]
    predict(model, [tmp_path / "in"], tmp_path / "out", output_format="seg")
    source = read_series(find_series(tmp_path / "in")[0])
    ours, theirs = (
        read_segmentation(path, source)["nodule"] for path in (results["seg"], tmp_path / "out/scan_seg.dcm")
    )
    assert ours.any()
    np.testing.assert_array_equal(ours, theirs)
    report = read_report(results["sr"])
    voxel_mm3 = GRID.spacing_xyz_mm[0] * GRID.spacing_xyz_mm[1] * GRID.spacing_xyz_mm[2]
    assert sum(lesion.volume_mm3 for lesion in report.lesions) == pytest.approx(ours.sum() * voxel_mm3)
    assert task.reason == f"{report.total} lesion{'' if report.total == 1 else 's'}"


def test_results_arrive_byte_for_byte(model, series, tmp_path):
    import hashlib

    kept(tmp_path / "store", series)
    with pacs() as (port, received):
        with working(tmp_path / "store", config(model, destination(port)), run=in_this_process) as jobs:
            task = until(lambda: jobs.store.tasks("done"))[0]
            results = jobs.store.results(task.task_id)
        wanted = {
            (result.sop_uid, hashlib.sha256(device_work.dicom_bytes(result.path)).hexdigest())
            for result in results
        }
    assert set(received) == wanted
    assert set(received.values()) == {1}


def test_late_slices_make_a_result_that_names_the_one_it_supersedes(model, series, tmp_path):
    ordered = sorted(series, key=lambda path: dcmread(path).ImagePositionPatient[2])
    kept(tmp_path / "store", ordered[:-1])
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        first = until(lambda: jobs.store.tasks("done"))[0]
        keep_files(jobs.store, ordered[-1:])
        until(lambda: len(jobs.store.tasks("done")) == 2)
        second = next(task for task in jobs.store.tasks() if task.task_id != first.task_id)
        assert second.supersedes == first.task_id
        earlier, later = (
            {result.kind: result for result in jobs.store.results(task.task_id)} for task in (first, second)
        )
    assert read_report(later["sr"].path).supersedes == (earlier["sr"].sop_uid,)
    assert earlier["seg"].sop_uid in dcmread(later["seg"].path).DerivationDescription


@pytest.mark.slow
def test_slices_that_come_while_it_is_segmented_keep_the_early_result_back(model, series, tmp_path):
    """A slow sender that announces nothing: the only result is that of all slices."""
    ordered = sorted(series, key=lambda path: dcmread(path).ImagePositionPatient[2])
    kept(tmp_path / "store", ordered[:-1])
    rest = [ordered[-1]]

    def run(job, tell):
        answer = in_this_process(job, tell)
        while rest:
            keep_files(jobs.store, [rest.pop()])
        return answer

    with working(tmp_path / "store", config(model), run=run) as jobs:
        (whole,) = until(lambda: jobs.store.tasks("done"))
        early = jobs.store.task(whole.supersedes)
        assert (early.state, jobs.store.results(early.task_id)) == ("refused", [])
        seg = next(each for each in jobs.store.results(whole.task_id) if each.kind == "seg")
    assert "supersede" not in dcmread(seg.path).get("DerivationDescription", "").lower()


@pytest.mark.slow
def test_an_early_result_that_was_not_sent_yet_is_withdrawn_by_the_whole_one(model, series, tmp_path):
    ordered = sorted(series, key=lambda path: dcmread(path).ImagePositionPatient[2])
    kept(tmp_path / "store", ordered[:-1])
    with pacs() as (port, _):
        pass
    with working(tmp_path / "store", config(model, destination(port)), run=in_this_process) as jobs:
        early = until(lambda: jobs.store.tasks("sending"))[0]
        until(lambda: any(each.attempts for each in jobs.store.deliveries(early.task_id)))
        keep_files(jobs.store, ordered[-1:])
        until(lambda: (found := jobs.store.task(early.task_id)) and found.superseded_by)
        until(lambda: not jobs.store.deliveries(early.task_id))
        whole = until(lambda: [each for each in jobs.store.tasks("sending") if each.supersedes])[0]
        assert jobs.store.task(early.task_id).state == "done"
        with pacs(port=port) as (_, received):
            jobs.wake()
            until(lambda: jobs.store.task(whole.task_id).state == "done")
        sent = {result.sop_uid for result in jobs.store.results(whole.task_id)}
    assert {uid for uid, _ in received} == sent


def test_a_result_that_is_superseded_while_it_is_made_is_not_sent(model, canned, tmp_path):
    """As if a person had released the series, or its model had been replaced, on another process's page."""
    files, folder = canned
    kept(tmp_path / "store", files)

    def run(job, tell):
        early = jobs.store.tasks()[-1]
        given = (early.series_uid, early.model, early.model_sha256, early.input_sha256)
        jobs.store.add_task("later", *given, early.task_id)
        return from_folder(folder)(job, tell)

    with (
        pacs() as (port, received),
        working(tmp_path / "store", config(model, destination(port)), run=run) as jobs,
    ):
        until(lambda: len(jobs.store.tasks("done")) == 2)
        later, early = jobs.store.tasks()
        assert (later.task_id, early.superseded_by) == ("later", "later")
        assert len(jobs.store.results(early.task_id)) == 4
        assert not jobs.store.deliveries(early.task_id)
    assert sorted(received.values()) == [1, 1, 1, 1]


def test_series_that_came_at_once_are_segmented_as_they_arrived(model, write_series, tmp_path):
    came = []
    for number in range(5):
        files = write_series(tmp_path / str(number), block(1000 + number), GRID)
        came.append(kept(tmp_path / "store", files))
    order = []

    def run(job, _):
        order.append(str(dcmread(next(iter(job.files))).SeriesInstanceUID))
        return {"outcome": "refused", "reason": "a test"}

    with working(tmp_path / "store", config(model), run=run) as jobs:
        until(lambda: len(jobs.store.tasks("refused")) == 5)
    assert order == came


def held_series(jobs):
    return until(lambda: jobs.store.series("incomplete"))[0]


def test_an_incomplete_series_makes_no_result_until_it_is_released(model, series, tmp_path):
    """Three of the six slices that it announces; a person has them segmented, and every object says so."""
    settings = config(model)
    with Store(tmp_path / "store") as store:
        keep_files(store, series[:3], acquisition_images=6)
    with working(tmp_path / "store", settings, run=in_this_process) as jobs:
        row = held_series(jobs)
        assert row.reason == "the acquisition has 6 images, 3 came"
        assert jobs.store.tasks() == []
        assert jobs.store.release(row.series_uid, "anna")
        task = until(lambda: jobs.store.tasks("done"))[0]
        results = {result.kind: dcmread(result.path) for result in jobs.store.results(task.task_id)}
        report = next(each for each in jobs.store.results(task.task_id) if each.kind == "sr")
        cautions = read_report(report.path).cautions
    assert task.partial == row.reason
    told = "PARTIAL: made of an incomplete series: the acquisition has 6 images, 3 came"
    assert cautions == (told,)
    assert results["sr"].CompletionFlag == "PARTIAL"
    assert told in results["seg"].DerivationDescription
    assert told in results["capture"].DerivationDescription
    assert told in results["rtstruct"].StructureSetDescription
    assert all(result.SeriesDescription.startswith("PARTIAL: Focalis") for result in results.values())


def test_what_was_missing_makes_a_held_series_whole(model, series, tmp_path):
    with Store(tmp_path / "store") as store:
        keep_files(store, series[:4], acquisition_images=6)
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        held_series(jobs)
        keep_files(jobs.store, series[4:], acquisition_images=6)
        task = until(lambda: jobs.store.tasks("done"))[0]
        assert len(jobs.store.tasks()) == 1
    assert (task.partial, task.supersedes) == ("", None)


def test_an_incomplete_series_is_released_after_the_configured_time(model, series, tmp_path):
    with Store(tmp_path / "store") as store:
        keep_files(store, series[:3], acquisition_images=6)
    settings = config(model, node={"quiet_seconds": 0, "release_after_hours": 0})
    with working(tmp_path / "store", settings, run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("done"))[0]
    assert task.partial


def test_the_same_images_sent_well_after_all_replace_a_partial_result(model, series, tmp_path):
    with Store(tmp_path / "store") as store:
        uid = keep_files(store, series)
        store.sending_ended(store.sending_began(uid), "CT1 aborted the association")
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        jobs.store.release(held_series(jobs).series_uid, "anna")
        partial = until(lambda: jobs.store.tasks("done"))[0]
        number = jobs.store.sending_began(uid)
        keep_files(jobs.store, series)
        jobs.store.sending_ended(number)
        until(lambda: len(jobs.store.tasks("done")) == 2)
        whole = jobs.store.task_of(uid, "tiny")
    assert (whole.partial, whole.supersedes) == ("", partial.task_id)


@pytest.mark.slow
def test_a_result_whose_series_turns_out_not_to_be_whole_is_replaced_once_a_person_says_so(
    model, series, tmp_path
):
    uid = kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        whole = until(lambda: jobs.store.tasks("done"))[0]
        jobs.store.quarantine(b"other pixels", "another object is kept under its UID", "CT1", uid)
        assert held_series(jobs).reason == "1 image is in quarantine"
        assert jobs.store.task_of(uid, "tiny") == jobs.store.task(whole.task_id)
        assert jobs.store.release(uid, "anna")
        until(lambda: len(jobs.store.tasks("done")) == 2)
        partial = jobs.store.task_of(uid, "tiny")
    assert (partial.partial, partial.supersedes) == ("1 image is in quarantine", whole.task_id)


@pytest.mark.slow
def test_a_series_whose_quarantine_was_emptied_is_released_as_what_it_was_held_for(model, series, tmp_path):
    with Store(tmp_path / "store") as store:
        uid = keep_files(store, series[:4])
        store.quarantine(b"cut short", "has pixel data cut short", "CT1", uid, "1.2.3.99")
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        held_series(jobs)
        for aside in jobs.store.quarantined():
            jobs.store.delete_quarantined(aside.sha256)
        assert jobs.store.release(uid, "anna")
        until(lambda: jobs.store.tasks("done"))
        assert jobs.store.task_of(uid, "tiny").partial == "1 image is in quarantine"


def test_an_irregular_series_is_refused_with_its_reason(model, series, tmp_path):
    kept(tmp_path / "store", [path for path in series if path != series[2]])
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("refused"))[0]
    assert "missing" in task.reason
    assert re.search(r"a slice \(\d+\) at ", task.reason)  # not the store's own names of files
    assert ".dcm" not in task.reason
    assert str(tmp_path) not in task.reason


def test_a_series_outside_of_the_models_scope_is_segmented_and_told(model, series, tmp_path):
    known = load_model(model)
    coarse = replace(GRID, spacing_xyz_mm=(9.0, 9.0, 9.0))
    rng = np.random.default_rng(0)
    usual = [Volume(rng.normal(50, 20, coarse.shape_zyx).astype(np.float32), coarse) for _ in range(8)]
    scope = learn_scope([describe([one], known.plan.normalisation) for one in usual])
    save_model(replace(known, scope=scope), tmp_path / "narrow.safetensors")
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(tmp_path / "narrow.safetensors"), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("out of scope"))[0]
        results = {result.kind: result.path for result in jobs.store.results(task.task_id)}
    assert task.outside.startswith("lies outside of what the model was trained on: ")
    assert read_report(results["sr"]).cautions == (f"OUT OF SCOPE: the series {task.outside}",)
    for kind in ("seg", "capture"):
        assert task.outside in dcmread(results[kind]).DerivationDescription


def test_a_series_of_another_modality_is_refused_and_segmented_when_a_person_says_so(
    model, write_series, tmp_path
):
    kept(tmp_path / "store", write_series(tmp_path / "pet", block(), GRID, modality="PT"))
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("refused"))[0]
        assert "it is a PT series, and the model is for CT" in task.reason
        assert jobs.store.results(task.task_id) == []
        assert jobs.store.release_task(task.task_id, "anna")
        task = until(lambda: jobs.store.tasks("out of scope"))[0]
        assert jobs.store.results(task.task_id)
    assert (task.released, "PT series" in task.outside) == ("anna", True)


def test_a_route_holds_what_lies_out_of_scope(model, write_series, tmp_path):
    kept(tmp_path / "store", write_series(tmp_path / "pet", block(), GRID, modality="PT"))
    routes = [{"model": "tiny", "outside": "hold"}]
    with working(tmp_path / "store", config(model, routes=routes), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("held"))[0]
    assert "it is a PT series" in task.outside


def test_a_series_that_no_route_takes_is_shown_as_unrouted(model, series, tmp_path):
    kept(tmp_path / "store", series)
    routes = [{"model": "tiny", "description": "*brain*"}]
    with working(tmp_path / "store", config(model, routes=routes), run=in_this_process) as jobs:
        assert until(lambda: jobs.store.series("unrouted"))
        assert jobs.store.tasks() == []


def test_a_changed_model_file_is_not_used(model, series, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model.read_bytes())
    with working(tmp_path / "store", config(copy), run=in_this_process) as jobs:
        copy.write_bytes(model.read_bytes() + b" ")
        keep_files(jobs.store, series)
        task = until(lambda: jobs.store.tasks("failed"))[0]
        assert "changed" in task.reason


@pytest.mark.parametrize(
    ("limits", "told"), [({"segment_memory_gb": 0.05}, "memory"), ({"segment_minutes": 0.0001}, "minutes")]
)
def test_a_child_that_takes_too_much_is_killed_and_the_task_fails_with_the_reason(
    model, series, tmp_path, limits, told
):
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model, limits=limits)) as jobs:
        task = until(lambda: jobs.store.tasks("failed"))[0]
    assert told in task.reason
    assert "2 times" in task.reason


@pytest.mark.slow
def test_a_child_killed_by_another_hand_is_started_again(model, series, tmp_path):
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model)) as jobs:
        child = until(lambda: jobs.segmenter._child)
        os.kill(child.pid, signal.SIGKILL)
        assert until(lambda: jobs.store.tasks("done"))


def test_a_full_disk_leaves_the_task_waiting_and_work_resumes(model, series, tmp_path, monkeypatch):
    monkeypatch.setattr("focalis.device.jobs._FULL_DISK_SECONDS", 0.2)
    full = {"outcome": "no space", "reason": "No space left on device"}
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        run, answers = jobs.segmenter.run, [full, full]
        jobs.segmenter.run = lambda *given: answers.pop() if answers else run(*given)
        task = until(lambda: jobs.store.tasks("done"))[0]
        assert len(jobs.store.results(task.task_id)) == 4
        assert any("disk is full" in event.text for event in jobs.store.events())


def test_a_disk_that_is_full_when_results_are_moved_leaves_nothing_half_done(
    model, series, tmp_path, monkeypatch
):
    from focalis.errors import DataError

    monkeypatch.setattr("focalis.device.jobs._FULL_DISK_SECONDS", 0.2)
    original, failures = Store.add_result, [1, 1]

    def add_result(self, *given):
        if failures:
            failures.pop()
            raise DataError("store.sqlite: database or disk is full")
        original(self, *given)

    monkeypatch.setattr(Store, "add_result", add_result)
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("done"))[0]
        assert len(jobs.store.results(task.task_id)) == 4
        assert not list((tmp_path / "store" / "making").iterdir())


@pytest.fixture(scope="module")
def canned(model, tmp_path_factory):
    """A series and the results of its segmentation, made once."""
    from dicom_fixtures import _write_series

    folder = tmp_path_factory.mktemp("canned")
    files = _write_series(folder / "scan", block(), GRID)
    kept(folder / "store", files)
    with working(folder / "store", config(model), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("done"))[0]
    return files, folder / "store" / "results" / task.task_id


def work(folder, settings, canned, version="1.0", point=""):
    """Run the device's work in a process of its own; its exit code."""
    return subprocess.run(
        [
            sys.executable,
            device_work.__file__,
            str(folder),
            settings.model_dump_json(),
            version,
            canned,
            point,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=250,
        check=False,
    ).returncode


TOLD = ("notice added", "told but not noted")
COMMITTED = ("to be asked to commit", "asked to commit", "committed but not forgotten")
TRIED = tuple(point for point in device_work.POINTS if "trial" in point)
COPIED = ("to be copied", "copied", "copied but not sent", "copies sent but not noted")
QUICK = ("moved into place",)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in QUICK else pytest.mark.slow)
        for point in device_work.POINTS
        if point not in (*TOLD, *COMMITTED, *TRIED, *COPIED)
    ],
)
def test_killed_at_any_point_one_result_arrives(model, canned, tmp_path, point):
    files, results = canned
    with pacs() as (port, received):
        settings = config(model, destination(port))
        kept(tmp_path / "store", files)
        assert work(tmp_path / "store", settings, results, point=point) == -signal.SIGKILL
        assert work(tmp_path / "store", settings, results) == 0
    assert len(received) == 4
    assert_one_result(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.parametrize("point", COMMITTED)
def test_killed_while_it_has_results_committed_they_are_committed_once(model, canned, tmp_path, point):
    files, results = canned
    with archive(kept_by_archive, on_same=True) as (port, _, _, stored):
        settings = config(model, destination(port, commit=True))
        kept(tmp_path / "store", files)
        assert work(tmp_path / "store", settings, results, point=point) == -signal.SIGKILL
        assert work(tmp_path / "store", settings, results) == 0
    assert len(stored) == 4
    with Store(tmp_path / "store") as store:
        assert [each.state for each in store.deliveries()] == ["committed"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("point", TRIED)
def test_killed_while_a_model_is_on_trial_both_end_once_and_one_is_sent(model, canned, tmp_path, point):
    files, results = canned
    with pacs() as (port, received):
        models = [{"name": name, "file": str(model)} for name in ("tiny", "new")]
        routes = [{"model": "tiny", "shadow": "new"}]
        settings = config(model, destination(port), models=models, routes=routes)
        kept(tmp_path / "store", files)
        assert work(tmp_path / "store", settings, results, point=point) == -signal.SIGKILL
        assert work(tmp_path / "store", settings, results) == 0
    assert len(received) == 4
    with Store(tmp_path / "store") as store:
        assert sorted((task.model, task.state) for task in store.tasks()) == [
            ("new", "done"),
            ("tiny", "done"),
        ]
        (tried,) = [task for task in store.tasks() if task.shadow_of]
        assert (store.deliveries(tried.task_id), len(store.results(tried.task_id))) == ([], 4)


@pytest.mark.slow
@pytest.mark.parametrize("point", COPIED)
def test_killed_between_copy_and_sending_only_copies_arrive(model, canned, tmp_path, point):
    files, results = canned
    with pacs() as (port, received):
        kinds = ["seg", "rtstruct", "sr"]
        settings = config(model, destination(port, deidentify=True, objects=kinds))
        kept(tmp_path / "store", files)
        assert work(tmp_path / "store", settings, results, point=point) == -signal.SIGKILL
        assert work(tmp_path / "store", settings, results) == 0
    with Store(tmp_path / "store") as store:
        assert [each.state for each in store.deliveries()] == ["sent"] * 3
        originals = {each.sop_uid for task in store.tasks() for each in store.results(task.task_id)}
    assert len(received) == len({uid for uid, _ in received}) == 3
    assert not originals & {uid for uid, _ in received}
    assert not list((tmp_path / "store" / outgoing.FOLDER).glob("*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("point", TOLD)
def test_killed_while_it_tells_it_tells_all_the_same(model, canned, tmp_path, point):
    files, results = canned
    with webhook() as (url, told):
        recipient = {"name": "ris", "url": url, "secret": "s" * 16, "events": ["done"]}
        settings = config(model, notify=[recipient])
        kept(tmp_path / "store", files)
        # a notice is the last thing that happens, so the first process may end before it dies there
        work(tmp_path / "store", settings, results, point=point)
        with working(tmp_path / "store", settings, run=in_this_process) as jobs:
            until(lambda: jobs.store.notices("sent"))
            assert len(jobs.store.notices()) == 1
    assert {each["text"] for each, _ in told} == {"a study was segmented: 12 lesions"}
    assert len({each["notice"] for each, _ in told}) == 1


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_killed_in_every_state_in_turn_one_result_arrives(model, canned, tmp_path):
    """One store that lives through all of it, from the task's first state to its last."""
    files, results = canned
    with pacs() as (port, received):
        settings = config(model, destination(port))
        kept(tmp_path / "store", files)
        for point in (
            "checking",
            "segmenting",
            "written by the child",
            "sending",
            "before done",
        ):
            assert work(tmp_path / "store", settings, results, point=point) == -signal.SIGKILL, point
        assert work(tmp_path / "store", settings, results) == 0
    assert len(received) == 4
    assert_one_result(tmp_path / "store")


@pytest.mark.slow
def test_killed_while_the_child_segments_one_result_arrives(model, series, tmp_path):
    kept(tmp_path / "store", series)
    assert work(tmp_path / "store", config(model), "", point="segmenting") == -signal.SIGKILL
    assert work(tmp_path / "store", config(model), "") == 0
    assert_one_result(tmp_path / "store")


@pytest.mark.slow
def test_a_later_version_finishes_what_was_interrupted(model, canned, tmp_path):
    files, results = canned
    with pacs() as (port, received):
        settings = config(model, destination(port))
        kept(tmp_path / "store", files)
        assert work(tmp_path / "store", settings, results, "1.0", "moved into place") == -signal.SIGKILL
        assert work(tmp_path / "store", settings, results, "2.0") == 0
    assert len(received) == 4
    assert_one_result(tmp_path / "store")


def assert_one_result(folder: Path) -> None:
    with Store(folder) as store:
        (task,) = store.tasks()
        assert task.state == "done"
        results = store.results(task.task_id)
        assert sorted(result.kind for result in results) == ["capture", "rtstruct", "seg", "sr"]
        assert {path.name for path in store.results_folder(task.task_id).iterdir()} == {
            "results.json",
            *(result.path.name for result in results),
        }
        assert {each.state for each in store.deliveries()} <= {"sent"}


def test_an_attempt_that_finds_no_space_leaves_none_of_its_files(model, series, tmp_path):
    def run(job, _):
        (Path(job.folder) / "half.dcm").write_text("half")
        return {"outcome": "no space", "reason": "No space left on device"}

    kept(tmp_path / "store", series)
    with working(tmp_path / "store", config(model), run=run) as jobs:
        until(lambda: any("disk is full" in event.text for event in jobs.store.events()))
        assert not list((tmp_path / "store" / "making").iterdir())


def test_urgent_series_come_before_those_that_wait(model, write_series, tmp_path):
    order = []
    routes = ({"model": "tiny", "description": "stroke", "urgent": True}, {"model": "tiny"})
    for number, name in enumerate(("first", "second", "stroke")):
        kept(
            tmp_path / "store",
            write_series(tmp_path / name, block(1000 + number), GRID, SeriesDescription=name),
        )

    def run(job, _):
        order.append(dcmread(next(iter(job.files))).SeriesDescription)
        return {"outcome": "refused", "reason": "a test"}

    with working(tmp_path / "store", config(model, routes=routes), run=run) as jobs:
        until(lambda: len(jobs.store.tasks("refused")) == 3)
    assert "stroke" in order[:2]  # another one may have begun before it was known
    assert sorted(order) == ["first", "second", "stroke"]


def names_of(store):
    """The results' Series Descriptions by model."""
    return {
        task.model: {str(dcmread(each.path).SeriesDescription) for each in store.results(task.task_id)}
        for task in store.tasks()
    }


def two_models(model, **route):
    entries = [{"name": name, "file": str(model)} for name in ("first", "second")]
    return Config.model_validate(
        {
            "models": entries,
            "routes": [{"model": ["first", "second"], **route}],
            "node": {"quiet_seconds": 0},
        }
    )


@pytest.mark.slow
def test_several_models_segment_a_series_each_with_its_results(model, series, tmp_path):
    kept(tmp_path / "store", series)
    with working(tmp_path / "store", two_models(model), run=in_this_process) as jobs:
        until(lambda: len(jobs.store.tasks("done")) == 2)
        described = names_of(jobs.store)
        uids = {str(each.sop_uid) for task in jobs.store.tasks() for each in jobs.store.results(task.task_id)}
        assert all(task.supersedes is None for task in jobs.store.tasks())
    assert len(uids) == 8
    assert all(" by first" in text for text in described["first"])
    assert all(" by second" in text for text in described["second"])


def test_a_click_is_done_by_the_guided_model_of_the_route_which_the_answer_names(model, series, tmp_path):
    loaded = load_model(model)
    guided = replace(loaded, plan=loaded.plan.model_copy(update={"use": "guided"}))
    save_model(guided, tmp_path / "clicks.safetensors")
    settings = config(model, routes=[{"model": "tiny", "points": "clicks"}])
    entry = ModelEntry(name="clicks", file=tmp_path / "clicks.safetensors")
    settings = settings.model_copy(update={"models": (*settings.models, entry)})
    kept(tmp_path / "store", series)
    asked = []

    def run(job, _):
        asked.append(job)
        return {"outcome": "refused", "reason": "a test"}

    with working(tmp_path / "store", settings, run=run) as jobs:
        (task,) = until(lambda: jobs.store.tasks("refused"))
        answer = jobs.point(task.task_id, tmp_path / "image.nii", "int16", (1, 2, 3))
    assert Path(asked[-1].model).name == "clicks.safetensors"
    assert answer["model"] == f"clicks, SHA-256 {asked[-1].model_sha256}"


@pytest.mark.parametrize("found", [0, 3])
def test_in_sequence_the_next_model_begins_only_if_the_first_has_found_something(
    model, canned, tmp_path, found
):
    files, results = canned
    begun = []

    def run(job, tell):
        begun.append(job.by)
        answer = from_folder(results)(job, tell)
        return {**answer, "results": [{**each, "lesions": found} for each in answer["results"]]}

    kept(tmp_path / "store", files)
    with working(tmp_path / "store", two_models(model, sequence=True), run=run) as jobs:
        until(lambda: jobs.store.tasks("done") and not jobs.store.tasks("waiting"))
        until(lambda: len(jobs.store.tasks("done")) == (2 if found else 1))
    assert begun == (["first", "second"] if found else ["first"])


def test_a_model_that_fails_keeps_the_next_one_from_nothing(model, canned, tmp_path):
    files, results = canned

    def run(job, tell):
        if job.by == "first":
            return {"outcome": "failed", "reason": "broken"}
        return from_folder(results)(job, tell)

    kept(tmp_path / "store", files)
    with working(tmp_path / "store", two_models(model), run=run) as jobs:
        until(lambda: jobs.store.tasks("done") and jobs.store.tasks("failed"))  # in whatever order they end
        assert [task.model for task in jobs.store.tasks("failed")] == ["first"]


@pytest.mark.slow
def test_a_model_on_trial_segments_the_same_series_and_nothing_of_it_is_sent(model, series, tmp_path):
    other = save_tiny_model(tmp_path / "other.safetensors", low=-1500.0)
    files = {"current": model, "new": other}
    with pacs() as (port, received):
        settings = Config.model_validate(
            {
                "models": [{"name": name, "file": str(file)} for name, file in files.items()],
                "routes": [{"model": "current", "shadow": "new"}],
                "destinations": [destination(port)],
                "node": {"quiet_seconds": 0},
            }
        )
        kept(tmp_path / "store", series)
        with working(tmp_path / "store", settings, run=in_this_process) as jobs:
            until(lambda: len(jobs.store.tasks("done")) == 2)
            trial = trial_of(jobs.store, "current", "new")
            shadow = jobs.store.task_of(str(dcmread(series[0]).SeriesInstanceUID), "new", shadow=True)
            assert jobs.store.deliveries(shadow.task_id) == []
            jobs.store.set_roles(Roles("current", "new", "current", "new"), "anna")
            (route,) = jobs.routes()
            assert (route.models, route.shadow) == (("new",), "current")
    assert len(received) == 4
    assert (trial.studies, trial.refused) == (1, 0)
    assert trial.both + trial.only_current > 0


def test_what_a_model_on_trial_cannot_do_is_nobodys_work(model, canned, tmp_path):
    files, results = canned

    def run(job, tell):
        if job.beside:
            return {"outcome": "failed", "reason": "broken"}
        return from_folder(results)(job, tell)

    settings = two_models(model).model_copy(
        update={"routes": (Route(model="first", shadow="second"),), "notify": ()}
    )
    kept(tmp_path / "store", files)
    with working(tmp_path / "store", settings, run=run) as jobs:
        until(lambda: jobs.store.tasks("refused") and jobs.store.tasks("done"))
        assert [task.model for task in jobs.store.tasks("done")] == ["first"]
        assert trial_of(jobs.store, "first", "second").refused == 1
        assert len(jobs.store.settled_series()) == 1

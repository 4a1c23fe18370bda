"""The study's page: pictures, verdicts, the corrected Segmentation, and its files."""

import io
import json
import os
import re
import threading
import time
from datetime import datetime
from unittest.mock import Mock

import numpy as np
import pydicom
import pytest
from device_work import until
from highdicom.seg import segread
from page_clients import csrf_of, local_client, opened
from phantom_device import MODEL_IDENTITY
from PIL import Image
from structured_reports import read_report

from focalis.device.records import Header
from focalis.device.web import study
from focalis.device.web.children import run_job
from focalis.device.web.views import Views, series_key
from focalis.dicom import Caution, read_origin, read_segmentation, read_series
from focalis.dicom.drawn_points import read_tracking
from focalis.dicom.structures import read_structures
from focalis.files import UNFINISHED, flush
from focalis.lesions import label_components


@pytest.fixture
def task_id(phantom):
    return phantom.study("Lindqvist^Maja", seed=1)


def judge(client, task_id, number, verdict, csrf, accept="application/json"):
    return client.post(
        f"/studies/{task_id}/verdicts",
        data={"lesion": number, "verdict": verdict},
        headers={"x-csrf-token": csrf, "accept": accept},
    )


def test_images_that_were_left_out_are_reported(client, phantom, task_id):
    images = phantom.store.instances(phantom.store.task(task_id).series_uid)
    assert "left out" not in opened(client, task_id).text
    phantom.store.leave_out(images[0].series_uid, {images[0].sha256})
    assert "1 left out, of another orientation or size" in opened(client, task_id).text


def test_the_page_waits_for_the_images_and_shows_the_table(client, phantom, task_id):
    _, count = label_components(truth_of(phantom, task_id))

    page = opened(client, task_id)

    assert page.status_code == 200
    assert "Lindqvist, Maja" in page.text
    assert f"{count} lesions found" in page.text
    assert page.text.count("data-lesion=") == count


def test_a_view_is_not_made_again_for_who_looked_before_it_was_there(phantom, task_id, monkeypatch):
    made = Mock(side_effect=run_job)
    monkeypatch.setattr("focalis.device.web.views.run_job", made)
    views, others = Views(phantom.store, phantom.config.limits), threading.active_count()
    for _ in range(2):
        views.start(task_id, phantom.store.task(task_id).series_uid)
        until(lambda: threading.active_count() <= others)
        assert views.get(task_id) is not None
    made.assert_called_once()


def test_a_view_that_is_just_being_finished_is_not_removed(phantom, task_id, monkeypatch):
    views = Views(phantom.store, phantom.config.limits)

    def flushed(path):
        views.prune()
        flush(path)

    monkeypatch.setattr("focalis.files.flush", flushed)
    views.start(task_id, phantom.store.task(task_id).series_uid)
    until(lambda: views.get(task_id) or views.problem(task_id), 20)
    assert views.get(task_id) is not None


def test_what_a_killed_device_left_of_a_view_goes_after_a_day(phantom):
    views = phantom.store.folder / "views"
    for name, days in (("old", 2), ("new", 0)):
        (views / f"{UNFINISHED}{name}").mkdir(parents=True)
        (views / f"{UNFINISHED}{name}" / "view.json").write_text("{}")
        os.utime(views / f"{UNFINISHED}{name}", (time.time() - 86_400 * days,) * 2)
    Views(phantom.store, phantom.config.limits).prune()
    assert [path.name for path in views.iterdir()] == [f"{UNFINISHED}new"]


def test_a_series_outside_of_the_models_scope_is_said(client, phantom, task_id):
    assert "Look twice" not in opened(client, task_id).text
    said = "lies outside of what the model was trained on: spacing of 5 mm <along z>"

    phantom.store.set_outside(task_id, said)

    assert "This series lies outside" in client.get(f"/studies/{task_id}").text
    assert "trained on: spacing of 5 mm &lt;along z&gt;." in client.get(f"/studies/{task_id}").text


def truth_of(phantom, task_id):
    series = series_of(phantom, task_id)
    (mask,) = read_segmentation(phantom.store.results(task_id)[0].path, series).values()
    return mask


def series_of(phantom, task_id):
    instances = phantom.store.instances(phantom.store.task(task_id).series_uid)
    return read_series([each.path for each in instances])


def test_names_that_are_markup_stay_text(client, phantom):
    task_id = phantom.study("<script>alert(1)</script>^<img src=x>", seed=2, StudyDescription='"><i>x')

    for text in (opened(client, task_id).text, client.get("/").text, client.get("/work/rows").text):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<i>x" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田 太郎)"),
        ("Иванова^Елена", "Иванова, Елена"),
        ("محمد^علي", "محمد, علي"),
    ],
)
def test_names_in_any_script_are_shown(client, phantom, stored, shown):
    task_id = phantom.study(stored, seed=3)

    assert shown in opened(client, task_id).text


def test_no_name_or_id_gets_into_addresses_or_the_log(client, phantom):
    task_id = phantom.study("Lindqvist^Maja", seed=1)
    page = opened(client, task_id).text
    judge(client, task_id, 1, "accepted", csrf_of(client))

    addresses = [part.split('"')[0] for part in page.split('="/')[1:]]
    assert not [each for each in addresses if "Lindqvist" in each or "P001" in each]
    assert not [each for each in phantom.store.events() if "Lindqvist" in each.text or "P001" in each.text]


def test_a_slice_is_a_picture_in_square_millimetres(client, task_id):
    opened(client, task_id)
    sizes = {}
    for plane in ("axial", "coronal", "sagittal"):
        answer = client.get(f"/studies/{task_id}/slices/{plane}/5.png")
        assert answer.headers["content-type"] == "image/png"
        sizes[plane] = Image.open(io.BytesIO(answer.content)).size

    assert sizes == {"axial": (720, 720), "coronal": (720, 720), "sagittal": (720, 720)}  # 24 mm each way


def test_a_slice_far_away_is_the_last_one_and_other_planes_are_unknown(client, task_id):
    opened(client, task_id)
    first, last = (client.get(f"/studies/{task_id}/slices/axial/{n}.png").content for n in (999, 11))

    assert first == last
    assert client.get(f"/studies/{task_id}/slices/oblique/1.png").status_code == 422


def test_the_viewers_files_are_the_series_and_its_lesions(client, phantom, task_id, tmp_path):
    from focalis.volume import read_volume

    opened(client, task_id)
    for name in ("image", "lesions"):
        (tmp_path / f"{name}.nii").write_bytes(client.get(f"/studies/{task_id}/{name}.nii").content)

    image, lesions = read_volume(tmp_path / "image.nii"), read_volume(tmp_path / "lesions.nii")

    series = series_of(phantom, task_id)
    assert image.grid.differences(series.volume.grid) == []
    assert np.array_equal(image.array, series.volume.array)
    assert np.array_equal(lesions.array > 0, truth_of(phantom, task_id))


def test_a_verdict_is_kept_with_who_and_can_be_changed(client, phantom, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)

    answer = judge(client, task_id, 2, "rejected", csrf)

    assert answer.json() == {"lesions": [2], "verdict": "rejected", "undecided": 2}
    assert judge(client, task_id, 2, "accepted", csrf, "text/html").headers["location"].endswith("?lesion=3")
    (review,) = phantom.store.reviews(task_id)
    assert (review.lesion, review.verdict, review.by) == (2, "accepted", "local")


def test_verdicts_on_several_lesions_are_kept_together_and_taken_back(client, phantom, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)
    judge(client, task_id, 2, "accepted", csrf)

    assert judge(client, task_id, [1, 3], "rejected", csrf).json()["undecided"] == 0
    assert {each.lesion: each.verdict for each in phantom.store.reviews(task_id)} == {
        1: "rejected",
        2: "accepted",
        3: "rejected",
    }
    assert judge(client, task_id, [1, 2], "undecided", csrf).json()["undecided"] == 2
    assert [each.lesion for each in phantom.store.reviews(task_id)] == [3]
    assert judge(client, task_id, [3, 99], "accepted", csrf).status_code == 404
    assert [each.verdict for each in phantom.store.reviews(task_id)] == ["rejected"]
    texts = [each.text for each in phantom.store.events(task_id=task_id)]
    assert "local rejected lesions 1, 3" in texts
    assert "local took back the verdict on lesions 1, 2" in texts


def test_without_script_a_verdict_leads_to_the_next_undecided_lesion(client, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)
    places = [judge(client, task_id, n, "accepted", csrf, "text/html").headers["location"] for n in (2, 3, 1)]
    assert [place.rpartition("=")[2] for place in places] == ["3", "1", "1"]


@pytest.mark.parametrize(
    ("number", "verdict", "status"), [(99, "accepted", 404), (1, "maybe", 422), (0, "accepted", 404)]
)
def test_no_other_lesion_or_verdict_is_taken(client, phantom, task_id, number, verdict, status):
    opened(client, task_id)

    assert judge(client, task_id, number, verdict, csrf_of(client)).status_code == status
    assert phantom.store.reviews(task_id) == []


def test_the_correction_holds_the_accepted_lesions_and_is_sent(client, phantom, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)
    for number, verdict in ((1, "accepted"), (2, "rejected"), (3, "accepted")):
        judge(client, task_id, number, verdict, csrf)

    answer = client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})

    assert answer.status_code == 303
    first, correction, structures, report = phantom.store.results(task_id)
    assert (correction.kind, correction.sop_uid != first.sop_uid) == ("correction", True)
    components, _ = label_components(truth_of(phantom, task_id))
    (mask,) = read_segmentation(correction.path, series_of(phantom, task_id)).values()
    assert np.array_equal(mask, (components == 1) | (components == 3))
    written = segread(correction.path)
    assert written.SOPInstanceUID == correction.sop_uid
    assert written.ContentCreatorName == "local"
    assert first.sop_uid in written.DerivationDescription
    assert read_origin(correction.path).model == read_origin(first.path).model == MODEL_IDENTITY
    sent = [(each.kind, each.sop_uid, each.destination) for each in phantom.store.deliveries(task_id)]
    assert {each[0] for each in sent if each[2] == "pacs"} >= {
        "correction",
        "correction-rtstruct",
        "correction-sr",
    }
    assert first.sop_uid in {
        item.ReferencedSOPInstanceUID
        for each in written.ReferencedSeriesSequence
        for item in each.ReferencedInstanceSequence
    }
    (drawn,) = read_structures(structures.path, series_of(phantom, task_id)).values()
    assert np.array_equal(drawn, mask)
    told = read_report(report.path)
    assert [lesion.number for lesion in told.lesions] == [1, 3]
    assert told.segmentation_uid == correction.sop_uid
    assert told.model == MODEL_IDENTITY
    assert phantom.calls == [("deliver", task_id)]
    assert "corrected" in client.get("/").text


def test_a_correction_of_what_is_superseded_meanwhile_is_not_sent(client, phantom, task_id, monkeypatch):
    opened(client, task_id)
    csrf = csrf_of(client)
    for number in (1, 2, 3):
        judge(client, task_id, number, "accepted", csrf)
    before = phantom.store.deliveries(task_id)

    def slowly(*arguments):
        task = phantom.store.task(task_id)
        phantom.store.add_task("later", task.series_uid, "nodules", "7" * 64, "8" * 64, supersedes=task_id)
        return made(*arguments)

    made = study.run_job
    monkeypatch.setattr(study, "run_job", slowly)
    answer = client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})
    assert (answer.status_code, "another result has replaced this one" in answer.text) == (409, True)
    assert phantom.store.deliveries(task_id) == before
    assert {each.kind for each in phantom.store.results(task_id)} == {"seg"}


def test_a_second_correction_replaces_the_first_and_has_its_own_time(client, phantom, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)
    for number in (1, 2, 3):
        judge(client, task_id, number, "accepted", csrf)
    before = datetime.now().replace(microsecond=0)
    for _ in range(2):
        client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})

    results = {
        kind: [pydicom.dcmread(each.path) for each in phantom.store.results(task_id) if each.kind == kind]
        for kind in ("correction", "correction-rtstruct", "correction-sr")
    }
    for first, second in results.values():
        assert first.SOPInstanceUID != second.SOPInstanceUID
        assert "reviewed, result 2" in first.SeriesDescription
        assert "reviewed, result 3" in second.SeriesDescription
        made = f"{second.InstanceCreationDate}{second.InstanceCreationTime}"
        assert before <= datetime.strptime(made, "%Y%m%d%H%M%S") <= datetime.now()
    first, second = results["correction-sr"]
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    first, second = results["correction-rtstruct"]
    assert second.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_a_correction_repeats_why_not_to_take_the_result_at_its_word(client, phantom):
    cautions = (
        Caution("PARTIAL", "made of an incomplete series: 59 images announced; 40 came"),
        Caution("TRAINING CASE", "the series trained the model (case p7), so the result flatters it"),
    )
    task_id = phantom.finish(*phantom.receive("Half^Sent", seed=3), cautions=cautions)
    opened(client, task_id)
    csrf = csrf_of(client)
    for number in (1, 2, 3):
        judge(client, task_id, number, "rejected", csrf)
    client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})

    written = {each.kind: each.path for each in phantom.store.results(task_id)}
    assert read_origin(written["correction"]).cautions == cautions
    report = read_report(written["correction-sr"])
    assert report.cautions == tuple(f"{each.mark}: {each.text}" for each in cautions)
    assert (report.total, report.absence) == (0, False)


def test_a_correction_waits_for_every_verdict(client, phantom, task_id):
    opened(client, task_id)
    csrf = csrf_of(client)
    judge(client, task_id, 1, "accepted", csrf)

    answer = client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})

    assert answer.status_code == 409
    assert "2 lesions" in answer.json()["detail"]
    assert len(phantom.store.results(task_id)) == 1


def test_nothing_found_can_be_confirmed(client, phantom):
    task_id = phantom.study("A^B", seed=4, lesions=0)
    assert "No lesions found" in opened(client, task_id).text

    client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf_of(client)})

    _, correction, report = phantom.store.results(task_id)
    assert read_report(report.path).total == 0
    (mask,) = read_segmentation(correction.path, series_of(phantom, task_id)).values()
    assert not mask.any()


def test_a_superseded_result_is_not_judged_any_more(client, phantom):
    series_uid, truth = phantom.receive("A^B", seed=5)
    old = phantom.finish(series_uid, truth)
    new = phantom.finish(series_uid, truth, supersedes=old)
    page = opened(client, old).text

    assert f"/studies/{new}" in page
    assert judge(client, old, 1, "accepted", csrf_of(client)).status_code == 409
    assert f"/studies/{old}" not in client.get("/").text


def test_a_result_is_handed_out_byte_for_byte(client, phantom, task_id):
    (result,) = phantom.store.results(task_id)

    answer = client.get(f"/studies/{task_id}/results/{result.sop_uid}")

    assert answer.content == result.path.read_bytes()
    assert "attachment" in answer.headers["content-disposition"]
    assert client.get(f"/studies/{task_id}/results/1.2.3").status_code == 404


def test_what_cannot_be_read_is_said(client, phantom, task_id):
    for each in phantom.store.instances(phantom.store.task(task_id).series_uid):
        each.path.write_bytes(each.path.read_bytes()[:900])

    page = opened(client, task_id)
    for _ in range(100):
        if "cannot be shown" in page.text:
            break
        time.sleep(0.05)
        page = client.get(f"/studies/{task_id}")

    assert "The images cannot be shown" in page.text
    assert "refresh" in client.get(f"/studies/{task_id}").headers  # the next look reads them again


def test_only_a_failed_study_is_done_again(client, phantom, task_id):
    csrf = {"x-csrf-token": csrf_of(client)}
    assert client.post(f"/studies/{task_id}/retry", headers=csrf).status_code == 409

    phantom.store.set_task_state(task_id, "failed", "out of memory")
    assert "out of memory" in client.get(f"/studies/{task_id}").text
    assert client.post(f"/studies/{task_id}/retry", headers=csrf).status_code == 303

    assert phantom.calls == [("retry", task_id)]


def test_an_unknown_study_is_404_and_a_waiting_one_says_so(client, phantom):
    assert client.get("/studies/nothing").status_code == 404
    series_uid, _ = phantom.receive("A^B", seed=6)
    phantom.store.add_task("t", series_uid, "nodules", "7" * 64, "8" * 64)

    page = client.get("/studies/t")
    assert "There is no result yet" in page.text
    assert page.headers["refresh"] == "5"  # it opens by itself
    assert client.get("/studies/t/slices/axial/1.png").status_code == 409


def test_views_of_studies_that_are_gone_go(phantom, task_id):
    client = local_client(phantom)
    opened(client, task_id)
    folder = phantom.store.folder / "views" / task_id
    assert folder.is_dir()

    for each in phantom.store.deliveries(task_id):
        phantom.store.set_delivery(task_id, each.sop_uid, each.destination, "sent", attempts=1)
    assert phantom.store.delete_series(phantom.store.task(task_id).series_uid)
    client.app.state.site.views.prune()

    assert not folder.exists()


@pytest.fixture
def followed(phantom):
    """A study with an earlier one, and the earlier one."""
    earlier = phantom.study("Lindqvist^Maja", seed=1)
    task_id = phantom.study("Lindqvist^Maja", seed=1, shape_zyx=(14, 24, 24), StudyInstanceUID="1.2.5")
    phantom.follow(task_id, earlier)
    return task_id, earlier


def test_the_follow_up_is_shown_with_the_earlier_study_beside_it(client, followed):
    task_id, earlier = followed
    page = opened(client, task_id).text

    assert "Since 2026-01-05" in page
    assert "+25 %<small>beyond measurement error" in page
    assert "<b>new</b>" in page
    assert f"/studies/{earlier}/slices/axial/" in page
    told = json.loads(re.search(r'id="study">(.*?)</script>', page)[1])["earlier"]
    # z, y, x of a voxel here to there: slices of 2 mm, one lower; the origins differ by the phantoms' sizes
    there = np.array(told["there"])
    assert np.allclose(there[:, :3], np.eye(3))
    assert np.allclose(np.array(told["back"])[:, 3], -there[:, 3])


def test_an_earlier_study_that_was_removed_leaves_the_table(client, phantom, followed):
    task_id, _ = followed
    phantom.follow(task_id, "0" * 32)
    page = opened(client, task_id).text

    assert "+25 %<small>beyond" in page
    assert "The earlier study was removed." in page
    assert "Side by side" not in page


def test_studies_that_could_not_be_registered_are_not_linked(client, phantom, followed):
    task_id, earlier = followed
    phantom.follow(task_id, earlier, registered=False, lesions=[], notes=["could not be registered: unlike"])
    page = opened(client, task_id).text

    assert "could not be registered: unlike" in page
    assert json.loads(re.search(r'id="study">(.*?)</script>', page)[1])["earlier"]["there"] is None


def test_a_correction_keeps_the_tracking_uid_of_the_earlier_study(client, phantom, followed):
    task_id, _ = followed
    opened(client, task_id)
    csrf = csrf_of(client)
    count = opened(client, task_id).text.count("data-lesion=")
    for number in range(1, count + 1):
        judge(client, task_id, number, "accepted", csrf)
    client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})

    (report,) = [each.path for each in phantom.store.results(task_id) if each.kind == "correction-sr"]
    assert read_tracking(report)[1] == "2.25.17"


def windows_of(client, phantom, patient, **attributes):
    task_id = phantom.study(patient, seed=7, **attributes)
    page = opened(client, task_id).text
    return json.loads(re.search(r'id="study">(.*?)</script>', page)[1])["windows"]


def test_windows_fit_the_modality_and_repeat_that_of_the_images(client, phantom):
    windows = windows_of(client, phantom, "A^B", WindowCenter="50", WindowWidth="300")

    assert list(windows) == ["Automatic", "As sent", "Narrow", "Wide"]  # an MR series
    assert windows["As sent"] == [-100, 200]
    low, high = windows["Automatic"]
    assert windows["Narrow"] == pytest.approx([low + (high - low) / 4, high - (high - low) / 4])
    assert windows["Wide"][0] <= low < high <= windows["Wide"][1]


@pytest.fixture
def channels(phantom):
    """A study with a second series on the same voxels and a third one in another frame of reference."""
    one = {"StudyInstanceUID": "1.2.77"}
    task_id = phantom.study("Two^Channels", seed=1, FrameOfReferenceUID="1.2.78", **one)
    same, _ = phantom.receive("Two^Channels", seed=2, FrameOfReferenceUID="1.2.78", **one)
    other, _ = phantom.receive("Two^Channels", seed=3, FrameOfReferenceUID="1.2.79", **one)
    return task_id, same, other


def test_other_series_of_the_study_are_shown_where_their_places_are_the_same(client, channels):
    task_id, same, other = channels
    page = opened(client, task_id).text
    assert page.count("data-series=") == 2
    answers = {uid: wait_for(client, f"/studies/{task_id}/beside/{uid}") for uid in (same, other)}
    told = answers[same].json()
    assert np.allclose(told["there"], np.eye(4)[:3])
    slices = [
        client.get(f"{told['address']}/slices/axial/5.png?overlay={overlay}").content
        for overlay in ("true", "false")
    ]
    marks = client.app.state.site.views.get(task_id).marks()[5]
    assert (slices[0] != slices[1]) is bool(marks.any())  # the lesions of the study, on the same voxels
    assert answers[other].status_code == 409
    assert "another frame of reference" in answers[other].json()["detail"]
    assert client.get(f"/studies/{task_id}/beside/{other}/slices/axial/5.png").status_code == 409
    unknown = client.get(f"/studies/{task_id}/beside/1.2.3")
    assert unknown.status_code == 404


def test_a_series_on_other_voxels_is_shown_in_the_studys_planes_with_its_lesions(client, phantom):
    one = {"StudyInstanceUID": "1.2.77", "FrameOfReferenceUID": "1.2.78"}
    task_id = phantom.study("More^Slices", seed=1, **one)
    longer, _ = phantom.receive("More^Slices", seed=2, shape_zyx=(15, 24, 24), **one)
    opened(client, task_id)
    told = wait_for(client, f"/studies/{task_id}/beside/{longer}").json()
    assert (told["shape"], told["spacing"]) == ([12, 24, 24], [2.0, 1.0, 1.0])
    assert np.allclose(told["there"], np.eye(4)[:3])
    z = client.app.state.site.views.get(task_id).lesions[0]["centre_zyx"][0]
    shown = [client.get(f"{told['address']}/slices/axial/{z}.png?overlay={each}") for each in (True, False)]
    assert [each.status_code for each in shown] == [200, 200]
    assert shown[0].content != shown[1].content


def test_images_that_came_after_a_series_was_shown_are_shown_too(client, phantom, channels):
    task_id, same, _ = channels
    opened(client, task_id)
    address = f"/studies/{task_id}/beside/{same}"
    assert wait_for(client, address).status_code == 200
    last = max(
        phantom.store.instances(same), key=lambda each: pydicom.dcmread(each.path).ImagePositionPatient[2]
    )
    data = pydicom.dcmread(last.path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "2.25.99"
    data.ImagePositionPatient[2] += 2
    data.InstanceNumber += 1
    path = phantom.folder / "late.dcm"
    data.save_as(path)
    uids = (
        data.SOPInstanceUID,
        data.SOPClassUID,
        same,
        data.StudyInstanceUID,
        data.file_meta.TransferSyntaxUID,
    )
    phantom.store.keep(path, Header(*uids, modality="MR"), "C-STORE MR1 10.0.0.7")

    assert wait_for(client, address).status_code == 200
    shown = client.app.state.site.views.get(series_key(phantom.store.series_row(same)))
    assert shown.shape_zyx == (13, 24, 24)


def wait_for(client, address):
    for _ in range(400):
        answer = client.get(address)
        if answer.status_code != 202:
            return answer
        time.sleep(0.05)
    raise AssertionError("the view was not made")


def test_a_part_of_a_slice_is_drawn_enlarged(client, task_id):
    opened(client, task_id)
    address = f"/studies/{task_id}/slices/axial/5.png?overlay=false"
    whole, part = (
        np.asarray(Image.open(io.BytesIO(client.get(address + more).content)), dtype=float)
        for more in ("", "&part=6 18 12 24")
    )
    assert part.shape == (720, 720)
    shown = np.asarray(Image.fromarray(whole[180:540, 360:720]).resize((720, 720), Image.Resampling.BILINEAR))
    assert np.abs(shown - part)[40:-40, 40:-40].mean() < 3  # of 255
    for wrong in ("6 18 12 25", "18 6 12 24", "1 2 3", "a b c d"):
        assert client.get(f"{address}&part={wrong}").status_code == 422

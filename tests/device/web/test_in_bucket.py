"""The page and DICOMweb of a device whose objects lie in a bucket, on a disk that holds none of them."""

import io
import re
import zipfile

import numpy as np
import pytest
from device_work import forget_copies
from page_clients import csrf_of, local_client, opened
from phantom_device import PACS, ROUTE, PhantomDevice

from focalis.device.bucket import Bucket
from focalis.device.config import Config
from focalis.dicom import read_segmentation, read_series
from focalis.lesions import label_components


@pytest.fixture
def phantom(objects_address, tmp_path):
    store = {"objects": objects_address, "least_free_gb": 0}
    device = PhantomDevice(tmp_path, Config(destinations=(PACS,), routes=(ROUTE,), store=store))
    yield device
    device.close()


@pytest.fixture
def task_id(phantom):
    found = phantom.study("Lindqvist^Maja", seed=1, StudyInstanceUID="1.2.3.1")
    forget_copies(phantom.store)
    return found


def correct(client, phantom, task_id, accepted):
    """Accept some lesions, reject the others, and send the correction; its objects."""
    before = len(phantom.store.results(task_id))
    headers = {"x-csrf-token": csrf_of(client)}
    for number in re.findall(r'data-lesion="(\d+)"', opened(client, task_id).text):
        verdict = "accepted" if int(number) in accepted else "rejected"
        client.post(
            f"/studies/{task_id}/verdicts", data={"lesion": number, "verdict": verdict}, headers=headers
        )
    answer = client.post(f"/studies/{task_id}/correction", headers=headers)
    assert answer.status_code == 303, answer.text
    forget_copies(phantom.store)
    return phantom.store.results(task_id)[before:]


def mask_of(phantom, task_id, result):
    store = phantom.store
    series = read_series(store.at_hand(store.instances(store.task(task_id).series_uid)))
    (mask,) = read_segmentation(*store.at_hand([result]), series).values()
    return mask


def test_a_study_is_shown_and_found(client, task_id):
    page = opened(client, task_id)
    assert "3 lesions found" in page.text
    assert "Lindqvist, Maja" in client.get("/").text
    assert client.get(f"/studies/{task_id}/slices/axial/3.png").status_code == 200
    (study,) = client.get("/dicom-web/studies").json()
    assert study["00201208"]["Value"] == [13]


def test_objects_are_handed_out_byte_for_byte(client, phantom, task_id):
    store = phantom.store
    whole = client.get("/dicom-web/studies/1.2.3.1").content
    (result,) = store.results(task_id)
    assert client.get(f"/studies/{task_id}/results/{result.sop_uid}").content in whole
    for path in store.at_hand(store.instances(store.task(task_id).series_uid)):
        assert path.read_bytes() in whole
    assert whole.count(b"DICM") == 13


def test_a_lost_object_is_named_and_nothing_is_handed_out(client, phantom, task_id, objects_address):
    store = phantom.store
    lost = store.instances(store.task(task_id).series_uid)[0].path
    key = lost.relative_to(store.folder).as_posix()
    store._files.bucket.remove([key])
    answer = client.get("/dicom-web/studies/1.2.3.1")
    assert (answer.status_code, f"{objects_address}/{key}: is lost" in answer.text) == (503, True)
    assert f"{key}: is lost" in opened(client, task_id).text


def test_a_lost_object_hides_no_other_study(client, phantom, task_id):
    phantom.study("Berg^Ida", seed=2, StudyInstanceUID="1.2.3.2")
    forget_copies(phantom.store)
    store = phantom.store
    lost = store.instances(store.task(task_id).series_uid)[0].path
    store._files.bucket.remove([lost.relative_to(store.folder).as_posix()])
    assert {each["0020000D"]["Value"][0] for each in client.get("/dicom-web/studies").json()} >= {"1.2.3.2"}
    assert "Berg, Ida" in client.get("/").text


@pytest.mark.usefixtures("task_id")
def test_names_come_back_with_the_bucket(client, phantom, monkeypatch):
    forget_copies(phantom.store)
    away = Bucket(phantom.store._files.bucket.address.replace("s3://", "s3://no-such-"))
    with monkeypatch.context() as patch:
        patch.setattr(phantom.store._files, "bucket", away)
        assert "Lindqvist, Maja" not in client.get("/").text
    assert "Lindqvist, Maja" in client.get("/").text


def test_corrections_are_kept_and_replace_each_other(client, phantom, task_id):
    first = correct(client, phantom, task_id, {1, 3})
    second = correct(client, phantom, task_id, {1})
    assert [each.kind for each in first] == [each.kind for each in second]
    assert [each.kind for each in first] == ["correction", "correction-rtstruct", "correction-sr"]
    assert np.count_nonzero(mask_of(phantom, task_id, second[0])) < np.count_nonzero(
        mask_of(phantom, task_id, first[0])
    )
    assert not list((phantom.store.folder / "making").iterdir())
    headers = {"x-csrf-token": csrf_of(client)}
    assert client.post("/system/export", headers=headers).status_code == 303
    (export,) = (phantom.store.folder / "exports").iterdir()
    assert len(list(export.rglob("*.nii.gz"))) == 2
    answer = client.post("/models/retrain", data={"model": "nodules"}, headers=headers)
    assert answer.status_code == 409
    assert "Models are not retrained here while store.objects is set" in answer.text


def test_lesions_that_were_pointed_at_stay(phantom):
    phantom.guided = True
    series_uid, truth = phantom.receive("Lindqvist^Maja", seed=1)
    components, _ = label_components(truth > 0)
    phantom.pointed = lambda at: {
        "outcome": "done",
        "said": "shows a lesion",
        "label": "lesion",
        "voxels_zyx": np.argwhere(components == components[at]).tolist(),
    }
    task_id = phantom.hold(series_uid)
    with local_client(phantom) as client:
        opened(client, task_id)
        headers = {"x-csrf-token": csrf_of(client), "accept": "application/json"}
        for number, lesion in enumerate((2, 1), start=1):
            at = dict(zip("zyx", map(int, np.argwhere(components == lesion)[0]), strict=True))
            told = client.post(f"/studies/{task_id}/points", data=at, headers=headers)
            assert told.json()["lesion"] == number
        forget_copies(phantom.store)
        (correction, *_) = correct(client, phantom, task_id, {1})
    assert np.array_equal(mask_of(phantom, task_id, correction), components == 2)


def test_a_follow_up_is_shown_beside_the_earlier_study(client, phantom, task_id):
    later = phantom.study("Lindqvist^Maja", seed=1, shape_zyx=(14, 24, 24), StudyInstanceUID="1.2.5")
    phantom.follow(later, task_id)
    forget_copies(phantom.store)
    page = opened(client, later).text
    assert "Since 2026-01-05" in page
    assert f"/studies/{task_id}/slices/axial/" in page


def test_what_was_quarantined_is_downloaded(client, phantom):
    phantom.store.quarantine(b"cut", "is cut short", "C-STORE MR1 10.0.0.7")
    forget_copies(phantom.store)
    (key,) = set(re.findall(r"/quarantine/(\w+)\.zip", client.get("/quarantine").text))
    with zipfile.ZipFile(io.BytesIO(client.get(f"/quarantine/{key}.zip").content)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == [b"cut"]

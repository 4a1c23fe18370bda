"""MONAI Label's own client, and requests as OHIF's client spells them, against the device."""

import io
import json
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import peers
import pytest
import torch
from device_work import GRID, block, keep_files, save_tiny_model
from page_clients import PASSWORD, SECRET, local_client, remote_client

from focalis.device.config import Token, WebSettings
from focalis.device.mask_job import MaskJob, mask
from focalis.device.web import uploads
from focalis.device.web.app import create_app
from focalis.device.web.server import WebServer
from focalis.files import sha256_of
from focalis.model import Model, load_model
from focalis.prediction import Settings, segment
from focalis.volume import Volume, read_volume, write_volume


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "nodules.safetensors", channel="CT")


def masks_by(model):
    """What the child does, in this process."""
    digest = sha256_of(model)

    def masked(name, images, series, out, points, dtype):
        assert name == "nodules"
        return mask(MaskJob(images, series, str(out), points, str(model), digest, 6, "latin-1", dtype), {})

    return masked


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "scan of somebody.nii.gz"
    write_volume(Volume(block().astype(np.int16), GRID), path)
    return path


@pytest.fixture
def expected(model, image):
    return segment(load_model(model), [read_volume(image)], Settings(runtime="torch"))


@pytest.fixture
def open_device(phantom, model):
    phantom.masked = masks_by(model)
    with local_client(phantom) as client:
        yield client


@contextmanager
def own_client(device, folder):
    """MONAI Label's client, and the module it is from, against the page's own server."""
    module = peers.monai_label_client()
    web = WebServer(create_app(device), WebSettings(port=0))
    web.start()
    try:
        with warnings.catch_warnings():  # of cgi, and of files that the client leaves open
            warnings.simplefilter("ignore")
            yield module.MONAILabelClient(web.url, str(folder), "user-xyz"), module
    finally:
        web.stop()


def infer(client, params=None, files=None, model="nodules", **query):
    return client.post(
        f"/infer/{model}", params=query, data={"params": json.dumps(params or {})}, files=files or {}
    )


def test_monai_labels_client_has_the_mask_of_predict(phantom, model, image, expected, tmp_path):
    phantom.masked = masks_by(model)
    with own_client(phantom.device(), tmp_path) as (client, module):
        assert not client.auth_enabled()
        info = client.info()
        assert info["models"]["nodules"]["type"] == "segmentation"
        assert info["labels"][0] == "background"
        params = {"result_extension": ".nrrd", "result_dtype": "uint8"}  # as the Slicer module asks

        session = client.create_session(str(image))["session_id"]
        assert client.get_session(session)
        by_session, told = client.infer("nodules", "", dict(params), session_id=session)
        np.testing.assert_array_equal(read_volume(by_session).array, expected.mask)
        assert read_volume(by_session).grid == read_volume(image).grid
        assert told["label_names"] == {"nodule": 1}
        assert [row["voxels"] for row in told["lesions"]] == [each.voxels for each in expected.lesions]

        client.upload_image(str(image), "MRHead (1)")
        by_name, _ = client.infer("nodules", "MRHead (1)", dict(params))
        np.testing.assert_array_equal(read_volume(by_name).array, expected.mask)
        by_file, _ = client.infer("nodules", "", dict(params), file=str(image))
        np.testing.assert_array_equal(read_volume(by_file).array, expected.mask)

        client.remove_session(session)
        with pytest.raises(module.MONAILabelClientException):
            client.get_session(session)
        assert not client.train_status(check_if_running=True)
        with pytest.raises(module.MONAILabelClientException, match="focalis fit"):
            client.train_start("nodules", {})
        with pytest.raises(module.MONAILabelClientException, match="keeps no labels"):
            client.save_label("MRHead (1)", str(image))
        assert client.datastore()["objects"] == {}


def test_monai_labels_client_logs_in_as_a_user_of_the_device(locked, model, image, tmp_path):
    locked.masked = masks_by(model)
    with own_client(locked.device(), tmp_path) as (client, module):
        assert client.auth_enabled()
        with pytest.raises(module.MONAILabelClientException, match="401"):
            client.info()
        assert not client.auth_valid_token()
        with pytest.raises(module.MONAILabelClientException, match="Name or password"):
            client.auth_token("viewer", "wrong")
        client.update_auth(client.auth_token("viewer", PASSWORD))
        assert client.auth_valid_token()
        assert "nodules" in client.info()["models"]
        mask_file, _ = client.infer("nodules", "", {}, file=str(image))
        assert read_volume(mask_file).array.any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_ohif_gets_raw_values_of_a_series_by_its_uid(
    open_device, phantom, write_series, tmp_path, expected, dtype
):
    uid = keep_files(phantom.store, write_series(tmp_path / "in", block(), GRID))
    phantom.store.complete(uid)
    params = {"result_extension": ".nrrd", "result_dtype": dtype, "result_compress": False}
    answer = infer(open_device, params, image=uid, output="all")
    assert answer.status_code == 200, answer.text
    kind = answer.headers["content-type"]
    boundary = kind.split("boundary=")[1].split(";")[0]
    parts = [part for part in answer.content.split(f"--{boundary}".encode()) if part.strip()]
    told = next(part for part in parts if b"Content-Type: application/json" in part)
    told = json.loads(told[told.index(b"{") : told.rindex(b"}") + 1])
    nrrd = next(part for part in parts if b"Content-Type: application/octet-stream" in part)
    head, values = nrrd.split(b"\r\n\r\n", 1)[1].split(b"\n\n", 1)
    assert b"encoding: raw" in head
    raw = values.removesuffix(b"\r\n")
    np.testing.assert_array_equal(np.frombuffer(raw, dtype).reshape(expected.mask.shape), expected.mask)
    value, *centre = told["centroids"]["nodule"]
    assert value == 1
    np.testing.assert_allclose(centre, np.argwhere(expected.mask).mean(axis=0)[::-1], atol=0.01)
    assert infer(open_device, params, image=uid, output="image").content.startswith(b"NRRD")
    assert set(infer(open_device, params, image=uid, output="json").json()) >= {"lesions", "outside"}


def test_labels_that_the_mask_lacks_are_not_named(model, image, tmp_path):
    """3D Slicer's module gives the names, in their order, to the values that it finds."""
    loaded = load_model(model)
    plan = loaded.plan.model_copy(update={"labels": {1: "nodule", 2: "cyst"}})
    assert plan.label_values == (1, 2)

    class Second(torch.nn.Module):
        def forward(self, volume):
            return torch.stack([0 * volume[:, 0], 0 * volume[:, 0] - 9, volume[:, 0] * 1e3], dim=1)

    two = Model(plan, (Second(),), loaded.operating_point)
    job = MaskJob(
        {str(image): None}, False, str(tmp_path / "a.nrrd"), [], str(model), sha256_of(model), 6, "latin-1"
    )
    told = mask(job, {sha256_of(model): two})
    assert (told["label_names"], set(told["centroids"])) == ({"cyst": 2}, {"cyst"}), told


def test_a_label_that_the_wanted_type_cannot_hold_is_refused(model, image, tmp_path):
    loaded = load_model(model)
    great = replace(loaded, plan=loaded.plan.model_copy(update={"labels": {300: "nodule"}}))
    words = (
        {str(image): None},
        False,
        str(tmp_path / "a.nrrd"),
        [],
        str(model),
        sha256_of(model),
        6,
        "latin-1",
    )
    answer = mask(MaskJob(*words, "uint8"), {sha256_of(model): great})
    assert (answer["outcome"], "label 300, which uint8 cannot hold" in answer["reason"]) == ("refused", True)
    assert mask(MaskJob(*words), {sha256_of(model): great})["label_names"] == {"nodule": 300}


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz", ".mha"])
def test_the_mask_comes_as_the_client_wants_it(open_device, image, expected, tmp_path, ending):
    answer = infer(
        open_device, {"result_extension": ending}, {"file": (image.name, image.read_bytes())}, output="image"
    )
    made = tmp_path / f"made{ending}"
    made.write_bytes(answer.content)
    np.testing.assert_array_equal(read_volume(made).array, expected.mask)


def test_points_go_to_a_guided_model(phantom, image):
    phantom.guided = True
    asked = []

    def masked(*arguments):
        asked.append(arguments)
        return {"outcome": "refused", "reason": "no lesion"}

    phantom.masked = masked
    upload = {"file": (image.name, image.read_bytes())}
    with local_client(phantom) as client:
        assert client.get("/info/").json()["models"]["nodules"]["type"] == "deepgrow"
        assert infer(client, {"foreground": [[3, 2, 1]]}, upload).status_code == 422
        assert asked[0][4] == [(3, 2, 1)]
        for params, why in (
            ({}, "click on each lesion"),
            ({"foreground": [[3, 2, 1]], "background": [[1, 1, 1]]}, "background points"),
            ({"foreground": [[3, 2]]}, "three numbers"),
            ({"foreground": "here"}, "three numbers"),
        ):
            answer = infer(client, params, upload)
            assert (answer.status_code, why in answer.text) == (422, True), params
    assert len(asked) == 1


def test_what_cannot_be_done_is_refused_in_one_sentence(open_device, phantom, write_series, tmp_path, image):
    upload = {"file": (image.name, image.read_bytes())}
    uid = keep_files(phantom.store, write_series(tmp_path / "in", block(), GRID))
    for answer, status, why in (
        (infer(open_device, image="1.2.3"), 404, "no such image"),
        (infer(open_device, session_id="gone"), 404, "no such image"),
        (infer(open_device, image=uid), 409, "not complete"),
        (infer(open_device, files=upload, model="other"), 404, "no model"),
        (infer(open_device, {"foreground": [[1, 1, 1]]}, upload), 422, "whole scans"),
        (infer(open_device, {"result_extension": ".png"}, upload), 422, "written as"),
        (infer(open_device, {"result_dtype": "float32"}, upload), 422, "uint8 or uint16"),
        (infer(open_device, files=upload, output="dicom_seg"), 422, "output=dicom_seg"),
        (infer(open_device, files={**upload, "label": ("a.nii.gz", b"")}), 422, "scribbles"),
        (infer(open_device, files={"file": ("a.png", b"x")}), 422, ".nii.gz"),
        (infer(open_device, files={"file": ("a.nii.gz", b"x")}), 422, "could not be segmented: the image"),
        (open_device.put("/datastore/?image=a", files={"files": ("a.nii", b"x")}), 422, "as file"),
        (open_device.post("/activelearning/random", json={}), 501, "work list"),
        (open_device.delete("/train/"), 404, "start no training"),
    ):
        assert (answer.status_code, why in answer.json()["detail"]) == (status, True), answer.text
        assert str(tmp_path) not in answer.text
    assert not list((phantom.store.folder / "uploads").glob("*"))


def test_a_series_of_another_modality_is_refused(open_device, phantom, write_series, tmp_path):
    uid = keep_files(phantom.store, write_series(tmp_path / "in", block(), GRID, modality="PT"))
    phantom.store.complete(uid)
    answer = infer(open_device, image=uid)
    assert (answer.status_code, "PT series" in answer.text) == (422, True)


def test_a_page_from_elsewhere_and_a_token_that_may_not_read_are_refused(open_device, locked):
    assert open_device.get("/info/", headers={"origin": "http://127.0.0.1:8080"}).status_code == 200
    assert open_device.get("/info/", headers={"origin": "http://evil.example"}).status_code == 401
    scanner = {"authorization": f"Bearer {SECRET}"}
    assert remote_client(create_app(locked.device())).get("/info/", headers=scanner).status_code == 403


def test_a_token_that_may_read_serves_a_proxy_before_ohif(locked):
    tokens = tuple(Token(name=each.name, sha256=each.sha256, read=True) for each in locked.config.tokens)
    locked.config = locked.config.model_copy(update={"tokens": tokens})
    client = remote_client(create_app(locked.device()))
    answer = client.get("/info/", headers={"authorization": f"Bearer {SECRET}"})
    assert answer.json()["models"]["nodules"]["labels"] == {"background": 0, "lesion": 1}


def test_uploads_end_by_time_and_by_size_and_bear_no_names(tmp_path, monkeypatch):
    kept = uploads.Uploads(tmp_path / "uploads")
    for name in ("Lindqvist", "second"):
        kept.keep(name, "x.nii.gz", io.BytesIO(b"12345"))
        kept.keep(name, "x.NRRD", io.BytesIO(b"12345"))
        time.sleep(0.01)
    assert sorted(path.suffix for path in (tmp_path / "uploads").iterdir()) == [".nrrd", ".nrrd"]
    assert "Lindqvist" not in str(list((tmp_path / "uploads").iterdir()))
    monkeypatch.setattr(uploads, "KEPT_BYTES", 7)
    kept.prune()
    assert (kept.find("Lindqvist"), kept.find("second") is None) == (None, False)
    monkeypatch.setattr(uploads, "KEPT_SECONDS", -1)
    kept.prune()
    assert kept.find("second") is None


def test_an_upload_that_is_removed_meanwhile_is_gone_and_stops_no_other(tmp_path, monkeypatch):
    kept = uploads.Uploads(tmp_path / "uploads")
    kept.keep("name", "x.nii.gz", io.BytesIO(b"12345"))
    (path,) = (tmp_path / "uploads").iterdir()

    def removed_first(does):
        def do(*arguments, **options):
            path.unlink(missing_ok=True)
            return does(*arguments, **options)

        return do

    with monkeypatch.context() as patch:
        patch.setattr("os.utime", removed_first(os.utime))
        assert kept.find("name") is None
    assert not path.exists()
    kept.keep("name", "x.nii.gz", io.BytesIO(b"12345"))
    monkeypatch.setattr(Path, "stat", removed_first(Path.stat))
    kept.prune()

"""QIDO-RS and WADO-RS, asked by a client that other programs use."""

import hashlib
import threading
import time

import numpy as np
import pytest
import uvicorn
from dicomweb_client.api import DICOMwebClient
from page_clients import SECRET, local_client, remote_client
from phantom_device import PhantomDevice

from focalis.device.config import Config, Token, User
from focalis.device.web.app import create_app


@pytest.fixture
def held(phantom):
    """Two studies of two patients, both segmented."""
    for seed, name in ((1, "Lindqvist^Maja"), (2, "Berg^Åke")):
        more = {"StudyInstanceUID": f"1.2.3.{seed}", "StudyDate": f"2026010{seed}"}
        phantom.study(name, seed=seed, SpecificCharacterSet="ISO_IR 192", **more)
    return phantom


def asked(client, path, **query):
    answer = client.get(f"/dicom-web{path}", params=query)
    return answer.json() if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["1.2.3.1", "1.2.3.2"]),
        ({"PatientID": "P001"}, ["1.2.3.1"]),
        ({"PatientName": "lind*"}, ["1.2.3.1"]),
        ({"PatientName": "BERG^Å?e"}, ["1.2.3.2"]),
        ({"00100020": "P002"}, ["1.2.3.2"]),
        ({"StudyDate": "20260102-"}, ["1.2.3.2"]),
        ({"StudyDate": "-20260101"}, ["1.2.3.1"]),
        ({"StudyInstanceUID": "1.2.3.2,1.2.3.9"}, ["1.2.3.2"]),
        ({"ModalitiesInStudy": "MR", "limit": "1", "offset": "1"}, ["1.2.3.2"]),
        (
            {"ModalitiesInStudy": "MR", "includefield": "all", "fuzzymatching": "false"},
            ["1.2.3.1", "1.2.3.2"],
        ),
    ],
)
def test_studies_are_found_by_what_is_asked(client, held, query, found):
    assert held
    uids = [each["0020000D"]["Value"][0] for each in asked(client, "/studies", **query)]
    assert sorted(uids) == found


@pytest.mark.usefixtures("held")
def test_nothing_found_is_204_and_what_cannot_be_asked_400(client):
    assert asked(client, "/studies", PatientID="nobody") == 204
    assert asked(client, "/studies", PatientWeight="70") == 400
    assert asked(client, "/studies", limit="many") == 400
    assert asked(client, "/studies/1.2.9/metadata") == 404
    assert client.get("/dicom-web/studies/1.2.3.1", headers={"accept": "text/html"}).status_code == 406


@pytest.mark.usefixtures("held")
def test_results_are_series_of_their_study(client):
    modalities = [each["00080060"]["Value"][0] for each in asked(client, "/studies/1.2.3.1/series")]
    assert sorted(modalities) == ["MR", "SEG"]
    assert len(asked(client, "/studies/1.2.3.1/instances")) == 13
    assert len(asked(client, "/studies/1.2.3.1/instances", Modality="SEG")) == 1


def test_a_dicomweb_client_reads_a_study_whole(tmp_path):
    token = Token(name="slicer", sha256=hashlib.sha256(SECRET.encode()).hexdigest(), read=True)
    hashed = "scrypt$2$1$1$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="
    user = User(name="a", password_hash=hashed)
    phantom = PhantomDevice(tmp_path, Config(tokens=(token,), users=(user,), store={"least_free_gb": 0}))
    phantom.study("Lindqvist^Maja", seed=1, StudyInstanceUID="1.2.3.1")
    server = uvicorn.Server(uvicorn.Config(create_app(phantom.device()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        client = DICOMwebClient(
            f"http://127.0.0.1:{port}/dicom-web", headers={"Authorization": f"Bearer {SECRET}"}
        )
        (study,) = client.search_for_studies(search_filters={"PatientID": "P001"})
        uid = study["0020000D"]["Value"][0]
        series = {
            each["00080060"]["Value"][0]: each["0020000E"]["Value"][0]
            for each in client.search_for_series(uid)
        }
        images = client.retrieve_series(uid, series["MR"])
        (segmentation,) = client.retrieve_series(uid, series["SEG"])
        headers = client.retrieve_series_metadata(uid, series["MR"])
    finally:
        server.should_exit = True
        thread.join(10)
        phantom.close()
    assert len(images) == len(headers) == 12
    assert {each.SOPInstanceUID for each in images} == {each["00080018"]["Value"][0] for each in headers}
    assert all(np.any(each.pixel_array) for each in images)
    assert segmentation.Modality == "SEG"
    assert "7FE00010" not in headers[0]


def test_a_token_reads_only_if_it_may(locked):
    client = remote_client(create_app(locked.device()))
    assert client.get("/dicom-web/studies").status_code == 401
    assert client.get("/dicom-web/studies", headers={"authorization": f"Bearer {SECRET}"}).status_code == 403


def test_what_was_fetched_is_in_the_audit_trail(held):
    client = local_client(held)
    client.get("/dicom-web/studies/1.2.3.1")
    told = [each.did for each in held.store.audited()]
    assert "fetched 13 objects by WADO-RS" in told

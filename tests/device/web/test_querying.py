"""QIDO-RS and WADO-RS, asked by a client that other programs use."""

import hashlib
import threading
import time

import numpy as np
import pydicom
import pytest
import uvicorn
from dicomweb_client.api import DICOMwebClient
from page_clients import SECRET, local_client, remote_client
from phantom_device import PhantomDevice
from pydicom.encaps import encapsulate

from focalis.device.config import Config, Token, User
from focalis.device.web import held_headers
from focalis.device.web.app import create_app
from focalis.device.web.dicomweb_frames import frames


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


def test_results_are_read_at_once_and_only_those_of_the_studies_in_the_answer(client, held, monkeypatch):
    read, run_job = [], held_headers.run_job

    def reading(name, arguments, limits):
        read.append(len(arguments["files"]))
        return run_job(name, arguments, limits)

    monkeypatch.setattr(held_headers, "run_job", reading)
    assert held
    asked(client, "/studies", PatientID="nobody")
    assert read == [2]
    asked(client, "/studies")
    assert read == [2, 2]


def test_a_result_that_cannot_be_read_is_not_a_series(client, held):
    for row in held.store.series():
        for task in held.store.tasks_of(row.series_uid):
            for result in held.store.results(task.task_id):
                result.path.write_bytes(b"cut off")

    for study in asked(client, "/studies"):
        assert [study[tag]["Value"] for tag in ("00201206", "00201208")] == [[1], [12]]


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
    study, _ = asked(client, "/studies")
    assert [study[tag]["Value"] for tag in ("00201206", "00201208")] == [[2], [13]]
    counts = {
        each["00080060"]["Value"][0]: each["00201209"]["Value"]
        for each in asked(client, "/studies/1.2.3.1/series")
    }
    assert counts == {"MR": [12], "SEG": [1]}
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
        sop_uid = images[0].SOPInstanceUID
        (frame,) = client.retrieve_instance_frames(uid, series["MR"], sop_uid, [1])
    finally:
        server.should_exit = True
        thread.join(10)
        phantom.close()
    assert len(images) == len(headers) == 12
    assert {each.SOPInstanceUID for each in images} == {each["00080018"]["Value"][0] for each in headers}
    assert all(np.any(each.pixel_array) for each in images)
    assert segmentation.Modality == "SEG"
    assert "7FE00010" not in headers[0]
    assert frame == images[0].PixelData


OF_OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def frames_of(client, held, number, accept=OF_OHIF):
    """The answer to OHIF's request for a frame of an image of the first study."""
    store = held.store
    (row,) = store.series_of_study("1.2.3.1")
    address = f"/dicom-web/studies/1.2.3.1/series/{row.series_uid}/instances"
    uid = store.instances(row.series_uid)[0].sop_uid
    return client.get(f"{address}/{uid}/frames/{number}", headers={"accept": accept})


def test_frames_are_given_one_by_one_and_told_once(client, held):
    answer = frames_of(client, held, 1)
    instance = held.store.instances(held.store.series_of_study("1.2.3.1")[0].series_uid)[0]
    image = pydicom.dcmread(instance.path)
    assert image.PixelData in answer.content
    assert f"transfer-syntax={image.file_meta.TransferSyntaxUID}".encode() in answer.content
    for number in (0, 2, "x", "1,2"):
        assert frames_of(client, held, number).status_code == 404
    assert [each.did for each in held.store.audited()].count("fetched frames by WADO-RS") == 1


def test_compressed_frames_are_given_to_who_takes_them(client, held):
    (row,) = held.store.series_of_study("1.2.3.1")
    path = held.store.instances(row.series_uid)[0].path
    image = pydicom.dcmread(path)
    image.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    image.save_as(path)
    (frame,) = pydicom.encaps.generate_frames(image.PixelData, number_of_frames=1)
    assert frame in frames_of(client, held, 1).content
    assert frames_of(client, held, 1, "*/*").status_code == 406
    assert frame in frames_of(client, held, 1, f'{OF_OHIF[:-1]}"1.2.840.10008.1.2.5"').content


def pieces(path):
    """The frames of a file, put together of what `frames` says."""
    content = path.read_bytes()
    (held,) = frames([str(path)])
    return [b"".join(content[at : at + size] for at, size in each) for each in held.get("frames", [])]


def an_image(path, count, content, syntax, **more):
    """A file of 4 x 2 pixels of 8 bits."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel, data.NumberOfFrames = 4, 2, 1, count
    data.BitsAllocated = more.pop("bits", 8)
    data.PixelData = content
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    return path


FRAMES = [bytes([number]) * 8 for number in range(1, 4)]


@pytest.mark.parametrize("syntax", [pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ImplicitVRLittleEndian])
def test_frames_of_uncompressed_files_lie_one_after_the_other(tmp_path, syntax):
    assert pieces(an_image(tmp_path / "a.dcm", 3, b"".join(FRAMES), syntax)) == FRAMES
    assert pieces(an_image(tmp_path / "b.dcm", 4, b"".join(FRAMES), syntax)) == []  # cut short
    assert pieces(an_image(tmp_path / "c.dcm", 3, bytes(4), syntax, bits=1)) == FRAMES[:0] + [b"\0"] * 3


@pytest.mark.parametrize(("fragments", "table"), [(1, True), (1, False), (2, True), (2, False)])
def test_frames_of_compressed_files_are_found_where_that_is_possible(tmp_path, fragments, table):
    content = encapsulate(FRAMES, fragments_per_frame=fragments, has_bot=table)
    path = an_image(tmp_path / "a.dcm", 3, content, pydicom.uid.JPEGLSLossless)
    assert pieces(path) == ([] if fragments == 2 and not table else FRAMES)


def test_fragments_of_a_single_frame_belong_together(tmp_path):
    content = encapsulate(FRAMES[:1], fragments_per_frame=3, has_bot=False)
    (whole,) = pieces(an_image(tmp_path / "a.dcm", 1, content, pydicom.uid.JPEGLSLossless))
    assert whole.rstrip(b"\0") == FRAMES[0]


def test_a_file_that_is_cut_off_has_no_frames(tmp_path):
    content = encapsulate(FRAMES, has_bot=True)
    path = an_image(tmp_path / "a.dcm", 3, content, pydicom.uid.JPEGLSLossless)
    path.write_bytes(path.read_bytes()[:-20])
    assert pieces(path) == []


def test_a_token_reads_only_if_it_may(locked):
    client = remote_client(create_app(locked.device()))
    assert client.get("/dicom-web/studies").status_code == 401
    assert client.get("/dicom-web/studies", headers={"authorization": f"Bearer {SECRET}"}).status_code == 403


def test_what_was_fetched_is_in_the_audit_trail(held):
    client = local_client(held)
    client.get("/dicom-web/studies/1.2.3.1")
    told = [each.did for each in held.store.audited()]
    assert "fetched 13 objects by WADO-RS" in told

"""STOW-RS: parts are split whatever the pieces, and the answer says of each what became of it."""

import asyncio
import socket
import threading
import time

import pydicom
import pytest

from focalis.device.stow import Multipart, receive_stow
from focalis.errors import UsageError

TYPE = 'multipart/related; type="application/dicom"; boundary=xyz'


def body(*parts, boundary=b"xyz"):
    lines = b"".join(
        b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts
    )
    return lines + b"--" + boundary + b"--\r\n"


def split(data, size, content_type=TYPE):
    multipart = Multipart(content_type)
    parts, current = [], b""
    for start in range(0, len(data), size):
        for piece in multipart.feed(data[start : start + size]):
            if piece is None:
                parts.append(current)
                current = b""
            else:
                current += piece
    assert multipart.ended
    return parts


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 10_000])
def test_parts_come_out_whole_whatever_the_pieces(size):
    parts = [b"one", b"", b"\r\n--xy\r\n--", b"\r\n" * 5, bytes(range(256)) * 3]

    assert split(body(*parts), size) == parts


def test_what_stands_before_and_behind_the_parts_does_not_count():
    assert split(b"preamble\r\n" + body(b"a") + b"epilogue", 3) == [b"a"]


def test_a_quoted_boundary_is_read():
    kind = 'Multipart/Related; boundary="a b:c"; type="application/dicom"'

    assert split(body(b"x", boundary=b"a b:c"), 100, kind) == [b"x"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/related",
        "multipart/form-data; boundary=x",
        'multipart/related; type="application/dicom+json"; boundary=x',
        f"multipart/related; boundary={'x' * 71}",
    ],
)
def test_other_content_types_are_refused(kind):
    with pytest.raises(UsageError):
        Multipart(kind)


@pytest.mark.parametrize(
    "data",
    [
        b"--xyz\r\n" + b"x" * 9000,
        b"--xyz\r\nContent-Type: text/html\r\n\r\nhello\r\n--xyz--",
    ],
)
def test_a_malformed_part_is_refused(data):
    with pytest.raises(UsageError):
        list(Multipart(TYPE).feed(data))


def stow(intake, data, size=1000, content_type=TYPE):
    async def pieces():
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return asyncio.run(receive_stow(content_type, pieces(), intake, "STOW-RS test"))


@pytest.fixture
def slices(write_series, stored, grid, tmp_path):
    return write_series(tmp_path / "slices", stored, grid)


def uids(answer, tag):
    return [item.get("00081155", {}).get("Value") for item in answer.body.get(tag, {}).get("Value", [])]


def test_all_stored_is_200_and_names_each(intake, slices):
    answer = stow(intake, body(*(path.read_bytes() for path in slices)))

    assert answer.status == 200
    assert uids(answer, "00081199") == [[str(pydicom.dcmread(path).SOPInstanceUID)] for path in slices]
    assert "00081198" not in answer.body
    assert intake.store.counts()["instances"] == len(slices)
    assert len(intake.store.series_to_complete(0)) == 1


def test_some_stored_is_202_and_none_is_409(intake, slices):
    some = stow(intake, body(slices[0].read_bytes(), b"no image"))
    none = stow(intake, body(slices[1].read_bytes()[:-20]))

    assert (some.status, none.status) == (202, 409)
    assert len(uids(some, "00081199")) == 1
    (failed,) = some.body["00081198"]["Value"]
    assert failed["00081197"] == {"vr": "US", "Value": [0x0122]}
    assert none.body["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]


@pytest.mark.parametrize(("damage", "faults"), [(b"", 1), (b"gar", 1), (None, 0)])
def test_a_part_that_is_not_a_dicom_file_may_have_been_an_image(intake, slices, damage, faults):
    parts = [path.read_bytes() for path in slices[:3]]
    if damage is not None:
        parts[2] = damage
    stow(intake, body(*parts))

    found = intake.store.faults_of(pydicom.dcmread(slices[0]).SeriesInstanceUID)
    assert found == ["a part of its request was no DICOM file"] * faults


def test_a_part_that_is_too_large_fills_no_disk(make_intake, slices):
    intake = make_intake(limits={"instance_mb": 0.01})

    answer = stow(intake, body(bytes(3_000_000), slices[0].read_bytes()), size=100_000)

    assert answer.status == 202
    assert answer.body["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]
    assert list((intake.store.folder / "incoming").iterdir()) == []


def test_a_request_cut_short_keeps_what_came_whole(intake, slices):
    data = body(*(path.read_bytes() for path in slices[:2]))

    with pytest.raises(UsageError, match="ended before"):
        stow(intake, data[: len(data) * 3 // 4])

    assert intake.store.counts()["instances"] == 1
    assert list((intake.store.folder / "incoming").iterdir()) == []
    assert "broke off" in intake.store.faults_of(pydicom.dcmread(slices[0]).SeriesInstanceUID)[0]


def test_a_request_that_stalls_ends_and_keeps_nobody_waiting(intake, slices, monkeypatch):
    monkeypatch.setattr("focalis.device.stow._IDLE_SECONDS", 0.3)

    async def stalls():
        yield body(*(path.read_bytes() for path in slices))[:-2000]
        await asyncio.sleep(30)

    with pytest.raises(UsageError, match="nothing came"):
        asyncio.run(receive_stow(TYPE, stalls(), intake, "STOW-RS test"))

    assert len(intake.store.series_to_complete(0)) == 1


def test_an_empty_request_is_refused(intake):
    with pytest.raises(UsageError, match="no part"):
        stow(intake, b"--xyz--")


def test_dicomweb_client_stores_a_series(intake, slices):
    client = pytest.importorskip("dicomweb_client.api")
    uvicorn = pytest.importorskip("uvicorn")
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    async def studies(request):
        answer = await receive_stow(request.headers["content-type"], request.stream(), intake, "STOW-RS")
        return fastapi.responses.JSONResponse(answer.body, answer.status, media_type="application/dicom+json")

    app.add_route("/studies", studies, ["POST"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        found = client.DICOMwebClient(url).store_instances([pydicom.dcmread(path) for path in slices])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()

    assert len(found.ReferencedSOPSequence) == len(slices)
    assert intake.store.counts()["instances"] == len(slices)

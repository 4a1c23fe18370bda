"""The DICOM node against dcmtk and raw sockets: what is acknowledged is there, and nobody can stop it for others."""

import contextlib
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import peers
import psutil
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

from focalis.device.config import Config
from focalis.device.intake import Intake
from focalis.device.node import Node
from focalis.errors import UsageError

needs_dcmtk = pytest.mark.skipif(peers.program("storescu") is None, reason="dcmtk is not installed")
CT = "1.2.840.10008.5.1.4.1.1.2"
# "(Success)" or "(Status: 0x0000 - Success)", by the version of DCMTK
STORED = re.compile(r"Received Store Response.*\bSuccess\b")

STARTUP = """
import sys, threading
from pathlib import Path
from focalis.device.config import Config
from focalis.device.intake import Intake
from focalis.device.node import Node
from focalis.device.store import Store
store = Store(Path(sys.argv[1]))
store.own()
config = Config.model_validate({"node": {"port": 0}, "store": {"least_free_gb": 0}})
node = Node(config, Intake(store, config))
node.start()
print(node.port, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def make_node(make_intake):
    """Start a node on a free port; settings by section."""
    with contextlib.ExitStack() as stack:

        def make(peers=(), limits=None, **settings):
            settings = {"port": 0, "handshake_seconds": 2, "idle_seconds": 5, **settings}
            sections = {"node": settings, "peers": peers, "limits": limits or {}}
            intake = make_intake(**sections)
            node = Node(Config.model_validate(sections), intake)
            node.start()
            stack.callback(node.stop)
            return node

        yield make


@pytest.fixture
def node(make_node):
    return make_node()


@pytest.fixture
def slices(write_series, stored, grid, tmp_path):
    return write_series(tmp_path / "slices", stored, grid)


def store_of(node):
    return node._intake.store


def run(program, node, *arguments, called="FOCALIS"):
    command = [peers.program(program), "-aec", called, *map(str, arguments)]
    place = next((i for i, word in enumerate(command) if word == "HERE"), None)
    address = ["127.0.0.1", str(node.port)]
    command = command + address if place is None else [*command[:place], *address, *command[place + 1 :]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def storescu(node, *files, options=()):
    return run("storescu", node, *options, "HERE", *files)


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def events(node):
    return " | ".join(event.text for event in store_of(node).events())


@needs_dcmtk
def test_echo_is_answered(node):
    assert run("echoscu", node).returncode == 0


@needs_dcmtk
def test_what_storescu_sent_is_in_the_store(node, slices):
    done = storescu(node, *slices)

    assert done.returncode == 0, done.stderr
    kept = store_of(node).instances(pydicom.dcmread(slices[0]).SeriesInstanceUID)
    assert {pydicom.dcmread(item.path).PixelData for item in kept} == {
        pydicom.dcmread(path).PixelData for path in slices
    }
    assert all(item.path.name == f"{item.sha256}.dcm" for item in kept)
    assert kept[0].source == "C-STORE STORESCU 127.0.0.1"


@needs_dcmtk
def test_the_series_is_complete_after_the_association(node, slices):
    storescu(node, *slices)

    wait_for(lambda: len(store_of(node).series_to_complete(0)) == 1)
    assert node.callers() == []


@needs_dcmtk
@pytest.mark.parametrize("option", ["-xi", "-xe", "-xb"])
def test_every_uncompressed_syntax_is_taken(node, slices, option):
    assert storescu(node, *slices, options=[option]).returncode == 0
    assert store_of(node).counts()["instances"] == len(slices)


@needs_dcmtk
def test_compressed_syntaxes_are_taken(node, slices, tmp_path):
    for number, program in enumerate(["dcmcjpeg", "dcmcjpls", "dcmcrle"]):
        subprocess.run([program, slices[number], tmp_path / f"{number}.dcm"], check=True)
        path = tmp_path / f"{number}.dcm"
        assert storescu(node, path, options=[["-xs", "-xt", "-xr"][number]]).returncode == 0
    assert store_of(node).counts()["instances"] == 3


@pytest.mark.parametrize("abstract", [CT, "1.2.840.10008.1.1"])
def test_a_deflated_syntax_is_not_negotiated(node, abstract):
    with raw(node) as connection:
        connection.sendall(request(abstract, syntaxes=[b"1.2.840.10008.1.2.1.99"]))
        assert connection.recv(1) == b"\x02"
        answer = connection.recv(4096)

    context = answer.index(bytes([0x21, 0]))
    assert answer[context + 6] == 4  # transfer syntaxes not supported (PS3.8 table 9-18)


@needs_dcmtk
def test_a_wrong_called_title_is_rejected(node):
    done = run("echoscu", node, called="OTHER")

    assert done.returncode != 0
    assert "Called AE Title Not Recognized" in done.stderr
    wait_for(lambda: "it called 'OTHER'" in events(node))


def from_outside(monkeypatch):
    """Loopback counts as outside, because a machine has no other address of its own to call from."""
    monkeypatch.setattr("focalis.device.guard.Guard._is_loopback", lambda _self, _address: False)


@needs_dcmtk
def test_outside_loopback_nobody_may_call_by_default(node, monkeypatch):
    from_outside(monkeypatch)

    assert run("echoscu", node).returncode != 0
    wait_for(lambda: "not on the list of peers" in events(node))


@needs_dcmtk
def test_a_peer_may_call_by_its_title_from_its_address_only(make_node, monkeypatch):
    from_outside(monkeypatch)
    node = make_node(peers=[{"ae_title": "CT1", "addresses": ["127.0.0.0/24"]}])

    assert run("echoscu", node, "-aet", "CT1").returncode == 0
    rejected = run("echoscu", node, "-aet", "CT2")
    assert "Calling AE Title Not Recognized" in rejected.stderr

    elsewhere = make_node(peers=[{"ae_title": "CT1", "addresses": ["10.0.0.0/8"]}], ae_title="FOCALIS")
    assert run("echoscu", elsewhere, "-aet", "CT1").returncode != 0


@needs_dcmtk
def test_a_duplicate_with_other_content_is_refused_and_quarantined(node, slices):
    storescu(node, slices[0])
    ds = pydicom.dcmread(slices[0])
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(slices[0])

    done = storescu(node, slices[0], options=["-v"])

    assert "Error: CannotUnderstand" in done.stdout + done.stderr
    (aside,) = store_of(node).quarantined()
    assert "SOP Instance UID" in aside.reason
    assert store_of(node).counts()["instances"] == 1


@needs_dcmtk
def test_a_full_disk_is_answered_with_out_of_resources(node, slices, monkeypatch):
    storescu(node, slices[0])
    with monkeypatch.context() as patch:
        patch.setattr("focalis.device.store.Store.free_bytes", lambda _self: -1)
        done = storescu(node, slices[1], options=["-v"])

    assert "Refused: OutOfResources" in done.stdout + done.stderr
    assert store_of(node).counts()["instances"] == 1
    assert storescu(node, slices[1]).returncode == 0


def associate(node, syntax="1.2.840.10008.1.2.1"):
    ae = AE(ae_title="TEST")
    association = ae.associate(
        "127.0.0.1", node.port, contexts=[build_context(CT, syntax)], ae_title="FOCALIS"
    )
    assert association.is_established
    return association


def test_interleaved_associations_each_keep_what_they_sent(node, slices):
    uid = pydicom.dcmread(slices[0]).SeriesInstanceUID
    one, two = associate(node), associate(node)

    for number, path in enumerate(slices):
        assert (one, two)[number % 2].send_c_store(path).Status == 0
    one.release()
    wait_for(lambda: len(node.callers()) == 1)
    assert store_of(node).series_to_complete(0) == []
    two.release()

    wait_for(lambda: store_of(node).series_row(uid).open_associations == 0)
    assert len(store_of(node).instances(uid)) == len(slices)


def test_two_studies_over_three_associations_end_up_apart_and_whole(make_node, slices):
    node, studies = make_node(idle_seconds=60), []
    for study in ("1.2.840.1", "1.2.840.2"):
        datasets = [pydicom.dcmread(path) for path in slices]
        for number, ds in enumerate(datasets):
            ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.9"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{study}.9.{number}"
        studies.append(datasets)
    associations = [associate(node) for _ in range(3)]
    mixed = [ds for pair in zip(*studies, strict=True) for ds in pair]

    for number, ds in enumerate(mixed):
        assert associations[number % 3].send_c_store(ds).Status == 0
    associations.pop().abort()
    for association in associations:
        association.release()

    wait_for(lambda: len(store_of(node).series_to_complete(0)) == 2)
    for datasets in studies:
        kept = store_of(node).instances(datasets[0].SeriesInstanceUID)
        assert {item.sop_uid for item in kept} == {ds.SOPInstanceUID for ds in datasets}
        assert {item.study_uid for item in kept} == {datasets[0].StudyInstanceUID}


@pytest.mark.parametrize("name", ["山田^太郎", "Müller^Jürgen", "<img src=x onerror=alert(1)>"])
def test_a_patients_name_stays_in_its_file(node, slices, name):
    ds = pydicom.dcmread(slices[0])
    ds.PatientName = name
    association = associate(node)

    assert association.send_c_store(ds).Status == 0
    association.send_c_store(pydicom.dcmread(slices[1]))
    association.release()

    (row,) = store_of(node).series()
    assert name not in repr(row) + events(node)
    names = {str(pydicom.dcmread(item.path).PatientName) for item in store_of(node).instances(row.series_uid)}
    assert name in names


def raw(node, address="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", node.port), timeout=20, source_address=(address, 0))


def ended(connection):
    """Whether the node closes the connection, whatever it says before."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return True


def request(abstract=CT, called=b"FOCALIS", syntaxes=(b"1.2.840.10008.1.2.1",), context=1):
    """An A-ASSOCIATE-RQ PDU with one presentation context (PS3.8 9.3.2)."""

    def item(kind, content):
        return struct.pack(">BxH", kind, len(content)) + content

    context = struct.pack(">B3x", context) + item(0x30, abstract.encode())
    context += b"".join(item(0x40, syntax) for syntax in syntaxes)
    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16), b"RAW".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    return struct.pack(">BxI", 1, len(body)) + body


def data_pdu(control, content):
    pdv = struct.pack(">IBB", len(content) + 2, 1, control) + content
    return struct.pack(">BxI", 4, len(pdv)) + pdv


def store_command(uid):
    def element(number, value):
        return struct.pack("<HHI", 0, number, len(value)) + value

    def text(value):
        return value.encode() + b"\0" * (len(value) % 2)

    content = element(0x0002, text(CT)) + element(0x0100, b"\x01\x00") + element(0x0110, b"\x01\x00")
    content += element(0x0700, b"\x00\x00") + element(0x0800, b"\x00\x00") + element(0x1000, text(uid))
    return element(0x0000, struct.pack("<I", len(content))) + content


def established(node):
    connection = raw(node)
    connection.sendall(request())
    assert connection.recv(1) == b"\x02"
    header = connection.recv(5)
    left = struct.unpack(">xI", header)[0]
    while left:
        left -= len(connection.recv(left))
    return connection


def is_success(connection):
    """Whether the next answer is a response with the status success; an abort is none."""
    answer = connection.recv(4096)
    if answer[:1] == b"\x07":
        return False
    assert answer[:1] == b"\x04"
    place = answer.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
    return answer[place : place + 2] == b"\0\0"


@pytest.mark.parametrize("uid", ["../../x", "1.2\x003", "1." + "2" * 63])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_malformed_uids_are_refused_and_name_no_file(node, slices, uid, tmp_path):
    ds = pydicom.dcmread(slices[0])
    ds.SOPInstanceUID = uid
    content = DicomBytesIO()
    content.is_little_endian, content.is_implicit_VR = True, False
    write_dataset(content, ds)
    before = {path for path in tmp_path.rglob("*") if "device" not in path.parts}

    with established(node) as connection:
        connection.sendall(data_pdu(3, store_command(uid)) + data_pdu(2, content.getvalue()))
        assert not is_success(connection)

    assert store_of(node).counts()["instances"] == 0
    assert {path for path in tmp_path.rglob("*") if "device" not in path.parts} == before


def test_a_pdu_length_of_four_gigabytes_ends_the_connection_at_once(node):
    before = psutil.Process().memory_info().rss
    for start in (request()[:2] + struct.pack(">I", 0xFFFFFFF0), struct.pack(">BxI", 4, 0xFFFFFFF0)):
        with raw(node) as connection:
            began = time.monotonic()
            with contextlib.suppress(ConnectionError):
                connection.sendall(start + bytes(1 << 20))
            assert ended(connection)
            assert time.monotonic() - began < 1.5
    with established(node) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(struct.pack(">BxI", 4, 0xFFFFFFF0) + bytes(1 << 20))
        assert ended(connection)
    assert psutil.Process().memory_info().rss - before < 50_000_000
    wait_for(lambda: "PDU larger than node.max_pdu" in events(node))


@needs_dcmtk
def test_stalled_handshakes_on_every_slot_block_nobody_else_and_end_in_time(make_node):
    node = make_node(connections_per_address=4)
    stalled = [raw(node, "127.0.0.2") for _ in range(3)]
    stalled[0].sendall(request()[:40])
    stalled += [raw(node, "127.0.0.2")]
    began = time.monotonic()
    with raw(node, "127.0.0.2") as one_too_many:
        assert ended(one_too_many)

    assert run("echoscu", node).returncode == 0
    assert time.monotonic() - began < 1.5
    for connection in stalled:
        assert ended(connection)
        connection.close()
    assert 1 < time.monotonic() - began < 5
    with raw(node, "127.0.0.2") as connection:
        connection.sendall(request())
        assert connection.recv(1) == b"\x02"


@needs_dcmtk
def test_with_every_slot_of_the_node_stalled_an_honest_sender_waits_no_longer_than_the_deadline(make_node):
    node = make_node(connections=4, connections_per_address=2)
    stalled = [raw(node, f"127.0.0.{number}") for number in (2, 2, 3, 3)]
    wait_for(lambda: node._guard._connections.total() == 4)
    assert run("echoscu", node).returncode != 0

    wait_for(lambda: run("echoscu", node).returncode == 0, 6)

    for connection in stalled:
        assert ended(connection)
        connection.close()


def test_dripping_bytes_do_not_stretch_the_handshake(node):
    connection = raw(node)
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for byte in request():
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    assert ended(connection)
    assert time.monotonic() - began < 5
    connection.close()


@pytest.mark.parametrize(
    "malformed",
    [
        request()[:74],
        request()[:-1],
        request() + b"\x20",
        request(context=2),
    ],
    ids=["no items", "cut short", "overlong", "even context"],
)
def test_a_malformed_request_is_aborted(node, malformed):
    malformed = malformed[:2] + struct.pack(">I", len(malformed) - 6) + malformed[6:]
    assert malformed != request()
    with raw(node) as connection:
        connection.sendall(malformed)
        assert connection.recv(10)[:1] == b"\x07"
    wait_for(lambda: "association request is malformed" in events(node))


def test_a_silent_association_ends(make_node):
    node = make_node(idle_seconds=0.5)
    with established(node) as connection:
        began = time.monotonic()
        assert ended(connection)
        assert time.monotonic() - began < 3
    wait_for(lambda: "nothing whole for 0.5 seconds" in events(node))


def test_an_association_dropped_in_mid_transfer_keeps_what_was_acknowledged(node, slices):
    uid = pydicom.dcmread(slices[0]).SeriesInstanceUID
    association = associate(node)
    assert association.send_c_store(slices[0]).Status == 0
    association.release()
    connection = established(node)
    connection.sendall(data_pdu(3, store_command(str(generate_uid()))) + data_pdu(0, bytes(10_000)))
    time.sleep(0.2)

    connection.close()

    wait_for(lambda: "middle of a message" in events(node))
    wait_for(lambda: node.callers() == [])
    assert len(store_of(node).instances(uid)) == 1
    assert [row.series_uid for row in store_of(node).series_to_complete(0)] == [uid]
    assert list((store_of(node).folder / "incoming").iterdir()) == []


def test_an_object_larger_than_the_limit_ends_the_association(make_node):
    node = make_node(limits={"instance_mb": 1})
    before = psutil.Process().memory_info().rss
    with established(node) as connection:
        connection.sendall(data_pdu(3, store_command("1.2.3")))
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(data_pdu(0, bytes(100_000)))
        assert ended(connection)

    assert psutil.Process().memory_info().rss - before < 50_000_000
    wait_for(lambda: "larger than the limit" in events(node))


@pytest.mark.parametrize(
    "content",
    [
        data_pdu(0, b"data before a command"),
        data_pdu(3, b"no command at all"),
        data_pdu(3, struct.pack("<HHIH", 0, 0x0100, 2, 0x0020)),  # C-FIND
        data_pdu(3, struct.pack("<HHIH", 0, 0x0100, 2, 0xFE01)),
        data_pdu(3, struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)),
        struct.pack(">BxIIBB", 4, 6, 2, 2, 3),
        data_pdu(1, bytes(70_000)),
        struct.pack(">BxIIBB", 4, 6, 0xFFFFFFFF, 1, 3),
        struct.pack(">BxI", 4, 3) + b"abc",
        struct.pack(">BxI", 9, 4) + b"abcd",
        struct.pack(">BxI", 7, 100) + bytes(100),
    ],
)
def test_pdus_that_break_the_protocol_end_the_association(node, content):
    with established(node) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        assert ended(connection)
    wait_for(lambda: node.callers() == [])


def test_a_second_message_waits_for_the_first_answer(node, monkeypatch):
    """Messages that are sent ahead would be gathered in memory without end."""
    reached, go_on = threading.Event(), threading.Event()
    taken = []

    def slow(_self, chunks, _sender):
        taken.append(len(b"".join(chunks)))
        reached.set()
        go_on.wait(10)
        raise RuntimeError("enough")

    monkeypatch.setattr(Intake, "take", slow)
    with established(node) as connection:
        connection.sendall(data_pdu(3, store_command("1.2.3")) + data_pdu(2, bytes(1000)))
        assert reached.wait(10)
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 20_000_000:
                sent += connection.send(data_pdu(3, store_command("1.2.4")) + data_pdu(2, bytes(100_000)))
        go_on.set()
    assert len(taken) == 1
    assert sent < 20_000_000


def test_more_than_twice_the_largest_object_is_never_on_the_way(make_node):
    """What associations have sent and nobody answered yet lies in memory."""
    node = make_node(limits={"instance_mb": 1}, idle_seconds=10)
    first, second, third = (established(node) for _ in range(3))
    part = data_pdu(3, store_command("1.2.3")) + data_pdu(0, bytes(100_000)) * 9
    first.sendall(part)
    second.sendall(part)
    wait_for(lambda: node._guard._held_bytes > 1_800_000)
    third.sendall(data_pdu(3, store_command("1.2.3")) + data_pdu(0, bytes(100_000)) * 8 + data_pdu(2, b"end"))
    time.sleep(0.5)
    assert node._guard._held_bytes <= 2_000_000

    first.close()

    assert not is_success(third)  # answered: it is not an image
    wait_for(lambda: node._guard._held_bytes < 1_000_000)
    second.close()
    third.close()
    wait_for(lambda: node._guard._held_bytes == 0)


@needs_dcmtk
def test_no_more_connections_than_allowed_from_everywhere(make_node):
    node = make_node(connections=1)
    with established(node), raw(node, "127.0.0.2") as second:
        assert ended(second)
    wait_for(lambda: node._guard._connections.total() == 0)
    assert run("echoscu", node).returncode == 0


def test_a_port_that_is_taken_is_an_error(make_node, node):
    with pytest.raises(UsageError, match="cannot listen"):
        make_node(port=node.port)


def test_certificates_that_cannot_be_used_are_an_error(make_node, tmp_path):
    with pytest.raises(UsageError, match="cannot be used for TLS"):
        make_node(tls_certificate=tmp_path / "none.pem", tls_key=tmp_path / "none.key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name in ("node", "peer", "stranger"):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def tls(folder, **more):
    return {"tls_certificate": folder / "node.pem", "tls_key": folder / "node.key", **more}


def tls_client(folder, name=None):
    context = ssl.create_default_context(cafile=folder / "node.pem")
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@needs_dcmtk
def test_tls_with_certificates_on_both_sides_against_dcmtk(make_node, certificates, slices):
    node = make_node(**tls(certificates, tls_ca=certificates / "peer.pem"))
    trusted = ["+tls", certificates / "peer.key", certificates / "peer.pem", "+cf", certificates / "node.pem"]
    wrong = [
        "+tls",
        certificates / "stranger.key",
        certificates / "stranger.pem",
        "+cf",
        certificates / "node.pem",
    ]

    done = storescu(node, *slices, options=trusted)
    assert done.returncode == 0, done.stderr
    assert storescu(node, *slices, options=wrong).returncode != 0
    assert run("echoscu", node).returncode != 0

    assert store_of(node).counts()["instances"] == len(slices)
    wait_for(lambda: "TLS handshake failed" in events(node))


def test_a_stalled_tls_handshake_blocks_nobody(make_node, certificates):
    node = make_node(**tls(certificates))
    stalled = [raw(node) for _ in range(3)]
    began = time.monotonic()
    with tls_client(certificates).wrap_socket(raw(node), server_hostname="127.0.0.1") as connection:
        connection.sendall(request())
        assert connection.recv(1) == b"\x02"
    assert time.monotonic() - began < 1.5
    for connection in stalled:
        assert ended(connection)
        connection.close()
    assert time.monotonic() - began < 5


def test_old_tls_is_refused(make_node, certificates):
    node = make_node(**tls(certificates))
    context = tls_client(certificates)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    with raw(node) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_hostname="127.0.0.1")


@needs_dcmtk
def test_killed_while_receiving_what_was_acknowledged_is_there(tmp_path, write_series, stored, grid):
    import numpy as np

    paths = write_series(tmp_path / "many", np.tile(stored, (20, 1, 1)), grid)
    child = subprocess.Popen(
        [sys.executable, "-c", STARTUP, tmp_path / "device"], stdout=subprocess.PIPE, text=True
    )
    port = int(child.stdout.readline())
    sender = subprocess.Popen(
        ["storescu", "-v", "-aec", "FOCALIS", "127.0.0.1", str(port), *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in sender.stdout:
        lines.append(line)
        if sum(STORED.search(said) is not None for said in lines) == 20:
            child.send_signal(signal.SIGKILL)
            break
    lines += list(sender.stdout)
    sender.wait()
    child.wait()
    child.stdout.close()
    sender.stdout.close()
    acknowledged = sum(STORED.search(line) is not None for line in lines)

    from focalis.device.store import Store

    with Store(tmp_path / "device") as store:
        store.own()
        found = store.instances(pydicom.dcmread(paths[0]).SeriesInstanceUID)
        kept = {item.sop_uid for item in found}
        assert {pydicom.dcmread(path).SOPInstanceUID for path in paths[:acknowledged]} <= kept
        assert 20 <= acknowledged <= len(kept) <= acknowledged + 1 < len(paths)
        assert {str(pydicom.dcmread(item.path).SOPInstanceUID) for item in found} == kept


@needs_dcmtk
def test_a_series_whose_sender_aborts_is_not_whole_until_it_comes_again(node, slices):
    uid = pydicom.dcmread(slices[0]).SeriesInstanceUID
    storescu(node, *slices[:3], options=["--abort"])
    wait_for(lambda: store_of(node).faults_of(uid))
    assert "aborted the association" in store_of(node).faults_of(uid)[0]

    assert storescu(node, *slices).returncode == 0

    wait_for(lambda: not store_of(node).faults_of(uid))


def test_a_connection_that_is_lost_breaks_a_sending_off(node, slices):
    uid = pydicom.dcmread(slices[0]).SeriesInstanceUID
    association = associate(node)
    assert association.send_c_store(slices[0]).Status == 0
    association.dul.socket.close()
    wait_for(lambda: store_of(node).faults_of(uid))
    assert "lost its connection" in store_of(node).faults_of(uid)[0]


def refusals(node):
    return [(each.peer, each.reason) for each in store_of(node).refusals()]


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (build_context("1.2.840.10008.5.1.4.1.1.104.1"), "Encapsulated PDF Storage"),
        (build_context(CT, "1.2.840.10008.1.2.4.50"), "CT Image Storage"),
        (build_context("1.2.3.4.5"), "1.2.3.4.5"),
    ],
)
def test_refused_presentation_contexts_are_reported_once(node, context, told):
    for _ in range(2):
        ae = AE("CT9")
        ae.requested_contexts = [context]
        ae.associate("127.0.0.1", node.port, ae_title="FOCALIS")

    wait_for(lambda: any(told in reason for _, reason in refusals(node)))
    (line,) = (line for line in refusals(node) if "presentation context" in line[1])
    assert line[0] == "C-STORE CT9 127.0.0.1"
    assert events(node).count("presentation context refused") == 1


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP, and not DICOM"),
        (b"PUT /x HTTP/1.1\r\n\r\n", "it speaks HTTP, and not DICOM"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "it speaks TLS, for which node.tls_certificate is not set"),
        (bytes(12), "it speaks another protocol"),
    ],
)
def test_another_protocol_on_the_port_is_reported(node, sent, told):
    for more in (b"", b"!"):
        with raw(node) as connection:
            connection.sendall(sent + more)
            assert ended(connection)
    wait_for(lambda: told in events(node))
    ((peer, line),) = refusals(node)
    assert peer == "DICOM connection from 127.0.0.1"
    assert told in line
    assert events(node).count(told) == 1


def test_many_refused_classes_of_an_association_are_one_line(node):
    """dcmtk's storescu proposes every class that it knows."""
    ae = AE("CT9")
    numbers = (4, 6, 20, 30, 66)
    ae.requested_contexts = [
        build_context(CT),
        *(build_context(f"1.2.840.10008.5.1.4.1.1.{number}") for number in numbers),
    ]
    ae.associate("127.0.0.1", node.port, ae_title="FOCALIS").release()
    wait_for(lambda: refusals(node))
    ((_, line),) = refusals(node)
    assert line.startswith("presentation context refused: the SOP classes ")
    assert line.endswith(" and 1 more are not accepted")
    assert events(node).count("presentation context refused") == 1


def test_a_class_that_is_taken_in_another_transfer_syntax_is_not_a_refusal(node):
    ae = AE("CT9")
    ae.requested_contexts = [build_context(CT, "1.2.840.10008.1.2.4.50"), build_context(CT)]
    association = ae.associate("127.0.0.1", node.port, ae_title="FOCALIS")
    association.release()
    assert not any("presentation context" in reason for _, reason in refusals(node))


@needs_dcmtk
def test_a_wrong_called_title_is_reported_with_both_titles(node):
    run("echoscu", node, "-aet", "MR7", called="WRONG")
    wait_for(lambda: any("'WRONG'" in reason and "'MR7'" in peer for peer, reason in refusals(node)))

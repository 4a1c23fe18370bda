"""Seeded mutations of DICOM files and of conversations with a DICOM node, and campaigns that send them to the device.

Every case follows from its seed alone, so that a finding can be sent again: `mutated_file(seed)`,
`mutated_conversation(seed)`.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import psutil
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE

from focalis.device.intake import Intake
from focalis.device.node import Node

_LENGTHS = (0, 1, 2, 7, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
_VRS = (b"SQ", b"UN", b"OW", b"OB", b"UT", b"DS", b"UI", b"PN", b"AT", b"FD", b"US", b"??")
_TOKENS = (
    struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
    struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) * 64,
    b"../../../../etc/passwd",
    "山田<script>".encode(),
    b"1." * 40,
    bytes(64),
)


@cache
def honest_files() -> tuple[bytes, ...]:
    """Small CT slices that the device takes, in five transfer syntaxes."""
    found = []
    for syntax in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLSLossless,
    ):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{len(found)}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed else syntax
        big = syntax == ExplicitVRBigEndian
        ds = FileDataset(
            "",
            {},
            file_meta=meta,
            preamble=bytes(128),
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=not big,
        )
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.PatientName, ds.PatientID, ds.Modality = "Müller^山田", "P1", "CT"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.4", "1.2.5"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, len(found)], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [1, 1], 1, 1, -1024
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "nested"
        ds.ProcedureCodeSequence = [code, code]
        ds.Rows = ds.Columns = 16
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.PixelData = np.arange(256, dtype=">u2" if big else "<u2").tobytes()
        ds["PixelData"].VR = "OW"
        if syntax.is_compressed:
            ds.compress(syntax, generate_instance_uid=False)
        stream = io.BytesIO()
        ds.save_as(stream, enforce_file_format=True)
        found.append(stream.getvalue())
    return tuple(found)


def mutated_file(seed: int) -> bytes:
    """A DICOM file with one to eight faults."""
    rng = random.Random(f"file {seed}")
    files = honest_files()
    return mutate(rng.choice(files), rng, files)


def mutated_conversation(seed: int) -> bytes:
    """What a peer sends in one association, with one to eight faults."""
    rng = random.Random(f"conversation {seed}")
    files = [conversation(data) for data in honest_files()[:2]]
    return mutate(rng.choice(files), rng, files)


def mutate(data: bytes, rng: random.Random, others: Iterable[bytes]) -> bytes:
    """`data` with one to eight faults: bits, lengths, VRs, pieces cut out, doubled, put in or taken from another."""
    others = list(others)
    for _ in range(rng.randint(1, 8)):
        # headers are the smaller and the more rewarding part, so half of the faults go there
        end = len(data) if rng.random() < 0.5 else min(len(data), 700)
        at = rng.randrange(end) if end else 0
        count = rng.choice((1, 2, 4, 8, 32, 200))
        match rng.randrange(9):
            case 0:
                data = (
                    data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data
                )
            case 1:
                data = data[:at] + rng.randbytes(count) + data[at + count :]
            case 2:
                form = rng.choice(("<I", ">I", "<H", ">H"))
                value = rng.choice(_LENGTHS) & (0xFFFF if form.endswith("H") else 0xFFFFFFFF)
                data = data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]
            case 3:
                data = data[:at] + data[at + count :]
            case 4:
                data = data[:at] + data[at : at + count] * rng.choice((2, 3, 50)) + data[at + count :]
            case 5:
                data = data[:at] + rng.choice(_TOKENS) + data[at:]
            case 6:
                data = data[:at] if rng.random() < 0.3 else data
            case 7:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                data = data[:at] + other[start : start + 200] + data[at:]
            case _:
                places = [place for vr in _VRS if (place := data.find(vr, at)) >= 0]
                if places:
                    place = rng.choice(places)
                    data = data[:place] + rng.choice(_VRS) + data[place + 2 :]
    return data[:200_000]


def conversation(file: bytes) -> bytes:
    """Association request, C-STORE of a file, release request, as a peer sends them (PS3.8 9.3, PS3.7 9.3.1)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    def pdu(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxI", kind, len(content)) + content

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    (meta_bytes,) = struct.unpack("<I", file[140:144])
    data = file[144 + meta_bytes :]
    contexts = b""
    for number, syntax in enumerate((ExplicitVRLittleEndian, ImplicitVRLittleEndian)):
        context = struct.pack(">B3x", 2 * number + 1) + item(0x30, CTImageStorage.encode())
        contexts += item(0x20, context + item(0x40, syntax.encode()))
    request = struct.pack(">H2x16s16s32x", 1, b"FOCALIS".ljust(16), b"FUZZ".ljust(16))
    request += item(0x10, b"1.2.840.10008.3.1.1.1") + contexts
    request += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    command = element(0x0002, CTImageStorage.encode() + b"\0") + element(0x0100, b"\1\0")
    command += element(0x0110, b"\1\0") + element(0x0700, b"\0\0") + element(0x0800, b"\0\0")
    command += element(0x1000, b"1.2.3.0\0")
    command = element(0, struct.pack("<I", len(command))) + command
    number = 3 if ImplicitVRLittleEndian.encode() in file[:400] else 1
    pdvs = [
        (3, command),
        *((0, data[at : at + 400]) for at in range(0, len(data) - 400, 400)),
        (2, data[-400:]),
    ]
    sent = b"".join(
        pdu(4, struct.pack(">IBB", len(part) + 2, number, control) + part) for control, part in pdvs
    )
    return pdu(1, request) + sent + pdu(5, bytes(4))


def fuzz_files(intake: Intake, seeds: Iterable[int], hang_seconds: float) -> dict[str, Any]:
    """Give mutated files to the intake.

    Returns:
        How many had each outcome, the parser's stops among them ("parser stopped"); the seeds that raised ("crashes")
        or took longer than `hang_seconds` ("hangs"); and whether an honest file was still taken after each hundred
        ("deaf": the seeds after which it was not).
    """
    outcomes: Counter[str] = Counter()
    crashes, hangs, deaf = [], [], []
    with _uncaught() as uncaught, intake.sender("fuzz") as sender:
        for count, seed in enumerate(seeds, 1):
            data = mutated_file(seed)
            start = time.monotonic()
            try:
                taken = sender.take([data])
                outcomes[taken.outcome] += 1
                outcomes["parser stopped"] += "could not be parsed" in taken.reason
            except Exception as error:  # whatever it is, it is a finding
                crashes.append([seed, repr(error)])
            if time.monotonic() - start > hang_seconds:
                hangs.append(seed)
            if count % 100 == 0:
                # under a UID of its own: a mutated file may have been kept under the old one
                honest = honest_files()[0].replace(b"1.2.3.0", f"9.{count % 100_000:05d}".encode())
                if not sender.take([honest]).stored:
                    deaf.append(seed)
    return {"outcomes": dict(outcomes), "crashes": crashes + uncaught, "hangs": hangs, "deaf": deaf}


def fuzz_conversations(node: Node, seeds: Iterable[int], hang_seconds: float) -> dict[str, Any]:
    """Send mutated conversations to the node; see `fuzz_files`. A C-ECHO after each fifty must be answered."""
    outcomes: Counter[str] = Counter()
    hangs, deaf = [], []
    with _uncaught() as uncaught:
        for count, seed in enumerate(seeds, 1):
            start = time.monotonic()
            outcomes[_converse(node.port, mutated_conversation(seed), hang_seconds)] += 1
            if time.monotonic() - start > hang_seconds:
                hangs.append(seed)
            if count % 50 == 0 and not _echoes(node.port):
                deaf.append(seed)
    return {"outcomes": dict(outcomes), "crashes": uncaught, "hangs": hangs, "deaf": deaf}


def memory_mb() -> float:
    """Resident memory of this process and its children."""
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return round(total / 1e6, 1)


def _converse(port: int, sent: bytes, seconds: float) -> str:
    """Send, say that nothing more comes, and read to the end; returns the kind of the last PDU."""
    kinds = {1: "request", 2: "accepted", 3: "rejected", 4: "answered", 6: "released", 7: "aborted"}
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except TimeoutError:
            return "hung"
        except OSError:
            pass  # ended by the other side while this one still sent
    last = "closed"
    while len(received) >= 6:
        last = kinds.get(received[0], "other")
        received = received[6 + struct.unpack(">I", received[2:6])[0] :]
    return last


def _echoes(port: int) -> bool:
    entity = AE(ae_title="FUZZ")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title="FOCALIS")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status.get("Status") == 0)


@contextlib.contextmanager
def _uncaught() -> Iterator[list[Any]]:
    """The exceptions that end a thread."""
    found: list[Any] = []
    before = threading.excepthook
    threading.excepthook = lambda args: found.append(["thread", repr(args.exc_value)])
    try:
        yield found
    finally:
        threading.excepthook = before

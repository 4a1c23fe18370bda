"""Send many small studies through a running device to a destination that fails, and count what arrives.

    python benchmarks/soak.py --studies 500 --senders 8 --fail 0.2
    python benchmarks/soak.py --series DICOM_FOLDER

The model is an untrained network, because what is measured is the device around it: `focalis serve` in a process of its
own, real DICOM associations on both sides. The destination refuses or drops a share of all objects. The result is
benchmarks/results/soak/NAME.json; a result that is there is not made again. The exit code is 1 if a result was lost,
or arrived with two contents.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

from focalis.device.segmenter import resident_bytes
from focalis.device.store import Store
from focalis.dicom import find_series
from focalis.model import Model, OperatingPoint, save_model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.planning.parts import network_of
from focalis.workflows.record import provenance, write_json

HERE = Path(__file__).parent
RESULT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
)
SHAPE_ZYX = (12, 48, 48)
QUIET_SECONDS = 1.0


@dataclass
class Arrived:
    """What the destination received: contents by object, and when each study's first object came."""

    contents: dict[str, set[str]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    """Run the soak and write its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument(
        "--fail", type=float, default=0.2, help="the share of objects that the destination fails"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--series", type=Path, help="send this real series once, instead of made ones")
    parser.add_argument("--hours", type=float, default=6, help="give up after so long")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "soak")
    given = parser.parse_args()
    if given.series is not None:
        name = f"series-{given.series.name}"
    else:
        name = f"studies-{given.studies}-senders-{given.senders}-fail-{given.fail:g}-seed-{given.seed}"
    target = given.out / f"{name}.json"
    if target.exists():
        print(f"{target}: is there; remove it to run again")
        return 0
    with tempfile.TemporaryDirectory(prefix="focalis-soak-") as folder:
        figures = run(given, Path(folder))
    packages = {name: version(name) for name in ("dbos", "pynetdicom", "pydicom", "highdicom")}
    write_json(target, {"provenance": provenance(), "device_packages": packages, **figures})
    print(f"{target}: {figures}")
    return 1 if figures["lost"] or figures["with_two_contents"] else 0


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Send everything, wait until the device has nothing left to do, and count."""
    model = save_untrained_model(folder / "untrained.safetensors")
    arrived = Arrived()
    studies: queue.Queue[list[Path]] = queue.Queue()
    if given.series is None:
        for number in range(given.studies):
            studies.put(write_study(folder / "studies" / str(number), given.seed * 1_000_000 + number))
    else:
        for series in find_series(given.series):
            studies.put(list(series.files))
    count = studies.qsize()
    sent: dict[str, float] = {}
    with failing_destination(given.fail, given.seed, arrived) as port:
        settings = write_settings(folder, port)
        with device(model, settings, folder) as (process, dicom_port):
            started = time.monotonic()
            senders = [
                threading.Thread(target=send_all, args=(studies, dicom_port, sent))
                for _ in range(given.senders)
            ]
            for sender in senders:
                sender.start()
            peak_bytes, complete = wait_for_results(
                folder / "store", count, process, started + 3600 * given.hours
            )
            minutes = (time.monotonic() - started) / 60
            for sender in senders:
                sender.join()
    return figures_of(folder / "store", count, arrived, sent, minutes, peak_bytes, complete)


def figures_of(
    folder: Path,
    count: int,
    arrived: Arrived,
    sent: dict[str, float],
    minutes: float,
    peak_bytes: int,
    complete: bool,
) -> dict[str, Any]:
    """Compare what the device made with what the destination received."""
    with Store(folder) as store:
        states = [task.state for task in store.tasks()]
        made = {result.sop_uid for task in store.tasks() for result in store.results(task.task_id)}
        attempts = [each.attempts for each in store.deliveries()]
    waits = sorted(arrived.first[study] - at for study, at in sent.items() if study in arrived.first)
    return {
        "complete": complete,
        "studies": count,
        "tasks_done": states.count("done"),
        "tasks_otherwise": len(states) - states.count("done"),
        "results_made": len(made),
        "results_arrived": len(arrived.contents),
        "lost": len(made - set(arrived.contents)) + count - len(arrived.first),
        "with_two_contents": sum(len(contents) > 1 for contents in arrived.contents.values()),
        "refused_by_destination": arrived.refused,
        "most_attempts": max(attempts, default=0),
        "minutes": round(minutes, 2),
        "studies_per_minute": round(count / minutes, 2),
        "seconds_from_last_image_to_first_result": {
            "median": round(float(np.median(waits)), 2) if waits else None,
            "p95": round(float(np.quantile(waits, 0.95)), 2) if waits else None,
            "longest": round(waits[-1], 2) if waits else None,
            "of_which_quiet": QUIET_SECONDS,
        },
        "peak_memory_mb": round(peak_bytes / 1e6),
    }


def wait_for_results(
    folder: Path, count: int, process: subprocess.Popen[bytes], deadline: float
) -> tuple[int, bool]:
    """Wait until every study is done; the peak memory of the device with its children, and whether all got done."""
    peak = 0
    with Store(folder) as store:
        while time.monotonic() < deadline and process.poll() is None:
            peak = max(peak, sum(resident_bytes(pid) for pid in family(process.pid)))
            found = store.counts()
            ended = sum(found.get(f"tasks.{state}", 0) for state in ("done", "failed", "refused"))
            if ended >= count:
                return peak, True
            time.sleep(0.5)
    return peak, False


def family(pid: int) -> list[int]:
    """A process and all processes below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in task.read_text().split() for each in family(int(child))]
        except OSError:
            continue
    return found


@contextmanager
def device(model: Path, settings: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running `focalis serve`: its process and its DICOM port; stopped by SIGTERM."""
    log = folder / "device.log"
    command = [sys.executable, "-c", "from focalis.cli.main import main; main()", "serve", str(model)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--config", str(settings), "--folder", str(folder / "store")],
            stdout=stream,
            stderr=stream,
        )
    try:
        while "ready;" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"the device did not start:\n{log.read_text()}")
            time.sleep(0.2)
        line = next(line for line in log.read_text().splitlines() if line.startswith("DICOM"))
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
        print(log.read_text(), file=sys.stderr)


@contextmanager
def failing_destination(share: float, seed: int, arrived: Arrived) -> Iterator[int]:
    """A PACS that refuses or drops a share of all objects; its port."""
    chance = random.Random(seed)

    def store(event: evt.Event) -> int:
        content = event.request.DataSet.getvalue()
        with arrived.lock:
            if chance.random() < share:
                arrived.refused += 1
                if chance.random() < 0.5:
                    event.assoc.abort()
                return 0xA700
            uid = str(event.request.AffectedSOPInstanceUID)
            arrived.contents.setdefault(uid, set()).add(hashlib.sha256(content).hexdigest())
            arrived.first.setdefault(str(event.dataset.StudyInstanceUID), time.monotonic())
        return 0x0000

    ae = AE("PACS")
    for uid in RESULT_CLASSES:
        ae.add_supported_context(uid)
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def send_all(studies: queue.Queue[list[Path]], port: int, sent: dict[str, float]) -> None:
    """Send studies, one association each, until there are no more; again what a busy device turned away."""
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    for uid in ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.4"):
        ae.add_requested_context(uid, ExplicitVRLittleEndian)
    while True:
        try:
            files = studies.get_nowait()
        except queue.Empty:
            return
        while not send_one(ae, files, port):
            time.sleep(1)
        sent[str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)] = time.monotonic()


def send_one(ae: AE, files: list[Path], port: int) -> bool:
    """Send a study in one association; whether all of it was acknowledged."""
    association = ae.associate("127.0.0.1", port, ae_title="FOCALIS")
    if not association.is_established:
        return False
    try:
        for file in files:
            status = association.send_c_store(dcmread(file))
            if not status or status.Status != 0:
                return False
    except RuntimeError:  # the association was ended
        return False
    finally:
        if association.is_established:
            association.release()
    return True


def write_settings(folder: Path, port: int) -> Path:
    """focalis.toml for this soak."""
    path = folder / "focalis.toml"
    path.write_text(
        f"[node]\nport = 0\nquiet_seconds = {QUIET_SECONDS}\nconnections_per_address = 32\n"
        "[web]\nport = 0\n[store]\nleast_free_gb = 0\n"
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
    )
    return path


def save_untrained_model(path: Path) -> Path:
    """A small network with random weights; it finds something in noise, which is all that is asked of it."""
    plan = Plan(
        channels=("image",),
        labels={1: "lesion"},
        spacing_zyx_mm=(3.0, 2.0, 2.0),
        normalisation=(Normalisation(kind="window", low=-1000, high=1000, mean=0, std=300),),
        patch_zyx=(8, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    torch.manual_seed(0)
    save_model(Model(plan, (network_of(plan),), OperatingPoint(0.5)), path)
    return path


def write_study(folder: Path, seed: int) -> list[Path]:
    """A CT study of one series of noise around a bright ball."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    values = chance.normal(0, 40, SHAPE_ZYX)
    at = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE_ZYX), indexing="ij"))
    centre = chance.uniform(0.3, 0.7, 3) * SHAPE_ZYX
    values[(((at - centre[:, None, None, None]) * [[[[3]]], [[[2]]], [[[2]]]]) ** 2).sum(axis=0) < 81] += 400
    common = Dataset()
    common.StudyInstanceUID, common.SeriesInstanceUID = generate_uid(), generate_uid()
    common.FrameOfReferenceUID = generate_uid()
    common.PatientID = common.PatientName = f"SOAK{seed}"
    common.PatientBirthDate = common.PatientSex = common.AccessionNumber = common.ReferringPhysicianName = ""
    common.Modality, common.SeriesDescription, common.StudyID = "CT", "soak", "1"
    common.StudyDate = common.SeriesDate = common.ContentDate = "20240101"
    common.StudyTime = common.SeriesTime = common.ContentTime = "120000"
    common.ImageType, common.SeriesNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1
    common.ImageOrientationPatient, common.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 2]
    common.SliceThickness, common.RescaleSlope, common.RescaleIntercept = 3, 1, 0
    common.Rows, common.Columns = SHAPE_ZYX[1:]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 16, 15, 1
    paths = []
    for z, plane in enumerate(values):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", common, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.InstanceNumber, image.ImagePositionPatient = z + 1, [0, 0, 3 * z]
        image.PixelData = plane.astype("<i2").tobytes()
        image["PixelData"].VR = "OW"
        paths.append(folder / f"{z}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())

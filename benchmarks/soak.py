"""Send many small studies through a running device to a destination that fails, and count what arrives.

    python benchmarks/soak.py --studies 500 --senders 8 --fail 0.2
    python benchmarks/soak.py --fail 0 --series DICOM_FOLDER

The model is an untrained network, because what is measured is the device around it: `focalis serve` in a process of its
own, real DICOM associations on both sides. The destination refuses or drops a share of all objects. The senders do not
wait for results, so that with many studies most of a study's latency is its turn in the queue; one series alone shows
the latency of an idle device. The result is benchmarks/results/soak/NAME.json; a result that is there is not made
again. The exit code is 1 if a study did not get done, a result was lost, came with two contents, or was not the
device's.
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
from pydicom.filereader import read_file_meta_info
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

from focalis.children import resident_bytes
from focalis.device.store import Store
from focalis.dicom import find_series
from focalis.lesions import OperatingPoint
from focalis.model import Model, save_model
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
TENTHS = 10


@dataclass
class Arrived:
    """What the destination received: contents by object, and when each study's first and last object came."""

    contents: dict[str, set[str]] = field(default_factory=dict)
    again: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Sent:
    """What the senders did: when each study's last image was acknowledged, and who is still at work."""

    at: dict[str, float] = field(default_factory=dict)
    repeated: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass
class Watched:
    """What was seen while the device worked.

    Attributes:
        complete: whether it got everything done.
        peak_bytes: the most memory that it held with its children.
        tenths: after about each tenth of the studies: how many were done, minutes, memory of the device's own process,
            and with its children.
    """

    complete: bool = False
    peak_bytes: int = 0
    tenths: list[dict[str, float]] = field(default_factory=list)


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
        name = f"series-{'-'.join(given.series.absolute().parts[-2:])}-fail-{given.fail:g}"
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
    return 0 if figures["passed"] else 1


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
    sent = Sent()
    with failing_destination(given.fail, given.seed, arrived) as port:
        settings = write_settings(folder, port)
        with device(model, settings, folder) as (process, dicom_port):
            started = time.monotonic()
            senders = [
                threading.Thread(target=send_all, args=(studies, dicom_port, sent), daemon=True)
                for _ in range(given.senders)
            ]
            for sender in senders:
                sender.start()
            deadline = started + 3600 * given.hours
            watched = watch(folder / "store", count, senders, process, started, deadline)
            minutes = (time.monotonic() - started) / 60
            sent.stop.set()
            for sender in senders:
                sender.join()
    return figures_of(folder / "store", count, arrived, sent, watched, minutes)


def figures_of(
    folder: Path, count: int, arrived: Arrived, sent: Sent, watched: Watched, minutes: float
) -> dict[str, Any]:
    """Compare what the device made with what the destination received."""
    with Store(folder) as store:
        tasks = store.tasks()
        made = {result.sop_uid for task in tasks for result in store.results(task.task_id)}
        attempts = [each.attempts for each in store.deliveries()]
    states = [task.state for task in tasks]
    reasons = sorted({task.reason for task in tasks if task.state != "done"})
    first, last = (
        sorted(came[study] - at for study, at in sent.at.items() if study in came)
        for came in (arrived.first, arrived.last)
    )
    counted = {
        "complete": watched.complete,
        "studies": count,
        "tasks_done": states.count("done"),
        "tasks_otherwise": len(states) - states.count("done"),
        "reasons": reasons,
        "results_made": len(made),
        "results_arrived": len(arrived.contents),
        "lost": len(made - set(arrived.contents)) + count - len(arrived.first),
        "with_two_contents": sum(len(contents) > 1 for contents in arrived.contents.values()),
        "not_of_the_device": len(set(arrived.contents) - made),
    }
    return {
        "passed": watched.complete
        and states == ["done"] * count
        and not (counted["lost"] or counted["with_two_contents"] or counted["not_of_the_device"]),
        **counted,
        "arrived_again_unchanged": arrived.again,
        "refused_by_destination": arrived.refused,
        "most_attempts": max(attempts, default=0),
        "studies_sent_again": sent.repeated,
        "minutes": round(minutes, 2),
        "studies_per_minute": round(count / minutes, 2),
        "quiet_seconds": QUIET_SECONDS,
        "seconds_of_segmenting": spread([task.seconds for task in tasks if task.seconds is not None]),
        "seconds_from_last_image_to_first_result": spread(first),
        "seconds_from_last_image_to_last_result": spread(last),
        "peak_memory_mb": round(watched.peak_bytes / 1e6),
        "after_each_tenth": watched.tenths,
    }


def spread(values: list[float]) -> dict[str, float] | None:
    """Median, 95th percentile and the largest; None of nothing."""
    if not values:
        return None
    shares = {"median": 0.5, "p95": 0.95, "longest": 1.0}
    return {name: round(float(np.quantile(values, share)), 2) for name, share in shares.items()}


def watch(
    folder: Path,
    count: int,
    senders: list[threading.Thread],
    process: subprocess.Popen[bytes],
    started: float,
    deadline: float,
) -> Watched:
    """Look at the device twice a second until all is sent, segmented and delivered, it ends, or time is up."""
    seen = Watched()
    with Store(folder) as store:
        while time.monotonic() < deadline and process.poll() is None:
            own = resident_bytes(process.pid)
            memory = sum(resident_bytes(pid) for pid in family(process.pid))
            seen.peak_bytes = max(seen.peak_bytes, memory)
            found = store.counts()
            done = found.get("tasks.done", 0)
            if done and done * TENTHS >= count * (len(seen.tenths) + 1):
                minutes = (time.monotonic() - started) / 60
                seen.tenths.append(
                    {
                        "done": done,
                        "minutes": round(minutes, 2),
                        "device_mb": round(own / 1e6),
                        "with_children_mb": round(memory / 1e6),
                    }
                )
            if not any(sender.is_alive() for sender in senders) and nothing_left(store.counts(), count):
                seen.complete = True
                break
            time.sleep(0.5)
    return seen


def nothing_left(counts: dict[str, int], count: int) -> bool:
    """Whether every study has ended and nothing arrives, is worked on, or waits to be sent."""
    ended = sum(counts.get(f"tasks.{state}", 0) for state in ("done", "failed", "refused"))
    tasks = sum(number for key, number in counts.items() if key.startswith("tasks."))
    return ended == tasks >= count and not (
        counts.get("series.receiving", 0) or counts.get("deliveries.waiting", 0)
    )


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
            digest = hashlib.sha256(content).hexdigest()
            arrived.again += digest in arrived.contents.get(uid, ())
            arrived.contents.setdefault(uid, set()).add(digest)
            study, at = str(event.dataset.StudyInstanceUID), time.monotonic()
            arrived.first.setdefault(study, at)
            arrived.last[study] = at
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


def send_all(studies: queue.Queue[list[Path]], port: int, sent: Sent) -> None:
    """Send studies, one association each, until there are no more; again what a busy device turned away."""
    while not sent.stop.is_set():
        try:
            files = studies.get_nowait()
        except queue.Empty:
            return
        ae = AE("SCANNER")
        metas = [read_file_meta_info(file) for file in files]
        for kind in sorted({(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}):
            ae.add_requested_context(*kind)
        while not send_one(ae, files, port):
            sent.repeated += 1
            if sent.stop.wait(1):
                return
        study = str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
        sent.at[study] = time.monotonic()


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
    except (
        RuntimeError,
        ValueError,
    ) as error:  # the association was ended, or what it sends was not accepted
        print(f"{files[0].parent}: {error}", file=sys.stderr)
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
    common.StudyInstanceUID, common.SeriesInstanceUID, common.FrameOfReferenceUID = (
        generate_uid(entropy_srcs=[f"soak {seed} {part}"]) for part in ("study", "series", "frame")
    )
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
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"soak {seed} image {z}"])
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

"""Several workers on PostgreSQL: kill them, restart the database, and compare what arrives with one process's results.

    python benchmarks/device_workers.py --studies 500 --workers 3 --kill-seconds 30 --restarts 2
    python benchmarks/device_workers.py --studies 60 --workers 1

Orthanc sends small CT studies to `focalis serve`, the front, and is the archive of the results; `focalis serve
--worker` processes segment them by the model lidc-nodule. Every eighth study is urgent; three of ten are of one person
at three dates, each compared with the ones before. A process that ends is started again after a second, as by a service
manager. Without kills and restarts the workers start when all studies wait, and only their throughput is measured.

With them, the reference is one process that nobody kills, which segments the same files again. What Orthanc has
must be byte for byte the reference's data sets, and nothing else. The results of all runs are in one file; a run that
is there is not made again. The exit code is 1 if a result is missing, is there twice or has other bytes, or if an
ordinary study was begun while an urgent one waited.

It needs Debian's packages postgresql and orthanc; both listen on free ports of this machine while the benchmark runs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
from pydicom import dcmread
from soak import spread

from focalis import __version__
from focalis.device.records import EarlierStudy, SeriesTask
from focalis.device.segment import SeriesJob, segment
from focalis.device.store import Store
from focalis.errors import FocalisError
from focalis.files import sha256_of
from focalis.model import Model
from focalis.models import model_file
from focalis.volume import Grid
from focalis.workflows.record import provenance, write_json

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
MODEL = "lidc-nodule"
RESTART_SECONDS = 1.0
SENDERS = 4
POLL_SECONDS = 0.5
ENDS = ("done", "out of scope")
"""The slices are thicker than those that the model was trained on, so its results are marked."""
KNOWN_SECONDS = 5.0
"""An urgent study that waits for so long is known to the workers."""
Contents = dict[str, dict[str, str]]
"""SHA-256 of the data set of each result, by SOP Instance UID, by study."""


class Service:
    """A process that is started again whenever it ends, as a service manager does."""

    def __init__(self, name: str, folder: Path, threads: int, *arguments: str) -> None:
        """Start it."""
        self._command = [sys.executable, "-m", "focalis", "serve", *arguments]
        self._log = folder / f"{name}.log"
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._stopping = threading.Event()
        self.seconds_to_start: list[float] = []
        self.starts = 0
        self.ready = False
        self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Kill it; it will be started again."""
        self._process.kill()

    def stop(self) -> None:
        """Stop it, for good."""
        self._stopping.set()
        self._thread.join()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=120)

    def _start(self) -> None:
        self.starts += 1
        self.ready, self._started = False, time.monotonic()
        with self._log.open("ab") as log:
            self._said = log.tell()
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            if self._process.poll() is not None:
                time.sleep(RESTART_SECONDS)
                self._start()
            elif not self.ready and b"ready;" in self._log.read_bytes()[self._said :]:
                self.ready = True
                self.seconds_to_start.append(time.monotonic() - self._started)


@dataclass(frozen=True)
class Scan:
    """A study to send.

    Attributes:
        orthanc_id: of its series in Orthanc.
    """

    study_uid: str
    series_uid: str
    person: str
    urgent: bool
    files: list[Path]
    orthanc_id: str


@dataclass
class Seen:
    """What was seen while the workers worked.

    Attributes:
        begun: when each task was first seen not to wait, by its id.
        repeated: how often a study was sent again because the front was away.
    """

    begun: dict[str, float] = field(default_factory=dict)
    kills: int = 0
    restarts_of_the_database: int = 0
    repeated: int = 0


def main() -> int:
    """Make the run and add it to the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of each process")
    parser.add_argument("--kill-seconds", type=float, default=0, help="kill a worker every so often")
    parser.add_argument("--restarts", type=int, default=0, help="of the database")
    parser.add_argument("--minutes", type=float, default=60, help="give up after so long")
    parser.add_argument("--note", default="", help="what else to say of the run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "device_workers.json")
    given = parser.parse_args()
    runs = json.loads(given.out.read_text()) if given.out.exists() else {}
    name = f"{given.studies} studies, {given.workers} workers of {given.threads} threads"
    if given.kill_seconds or given.restarts:
        name += f", a kill every {given.kill_seconds:g} s, {given.restarts} restarts of the database"
    if name in runs:
        print(f"{given.out}: has {name!r}; remove it to run again")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="focalis-workers-"))
    figures = run(given, folder)
    runs[name] = {"provenance": provenance(), "note": given.note, **figures}
    write_json(given.out, runs)
    print(json.dumps(figures, indent=1))
    if not figures["passed"]:
        print(f"everything is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Have the studies segmented by the workers, and again by this process; compare."""
    import peers
    import postgresql

    node, seen, disturbed = peers.free_port(), Seen(), bool(given.kill_seconds or given.restarts)
    modality = {"focalis": ["FOCALIS", "127.0.0.1", node]}
    with (
        ThreadPoolExecutor(1) as pool,
        postgresql.server() as server,
        peers.orthanc(folder / "orthanc", DicomModalities=modality, DicomScuTimeout=60) as (
            archive_port,
            archive,
        ),
    ):
        scans = [upload(archive, folder / "in" / str(number), number) for number in range(given.studies)]
        study_of = {scan.series_uid: scan.study_uid for scan in scans}
        print("the studies are in Orthanc", flush=True)
        database = server.new_database()
        settings = write_settings(folder, node, archive_port, database)
        with (
            services(given, folder, settings) as start_workers,
            Store(folder / "store", database) as store,
        ):
            senders = send_all(archive, scans, seen)
            if not disturbed:
                until(lambda: len(store.tasks()) == len(scans), 60 * given.minutes)
            workers = start_workers()
            until(lambda: any(each.ready for each in workers), 300)
            ended: queue.Queue[SeriesTask | None] = queue.Queue()
            alone = pool.submit(reference, scans, ended, folder / "reference") if disturbed else None
            watch(given, store, server, workers, scans, seen, ended)
            for each in senders:
                each.join()
            tasks = store.tasks()
            ours = {
                study_of[task.series_uid]: {
                    each.sop_uid: data_set_sha256(each.path.read_bytes())
                    for each in store.results(task.task_id)
                }
                for task in tasks
            }
            starts = [each.starts for each in workers]
            to_start = [each for one in workers for each in one.seconds_to_start]
        there = results_in(archive)
        print("segmented; the rest of the reference follows", flush=True)
        wanted = alone.result() if alone else ours
    studies = {*study_of.values(), *there, *ours}
    ends = sorted(datetime.fromisoformat(task.updated_at).timestamp() for task in tasks)
    faults = {
        "studies_not_done": len(scans) - sum(task.state in ENDS for task in tasks),
        "studies_without_a_result": sum(not there.get(each) for each in studies),
        "studies_with_other_results_in_the_archive": sum(
            there.get(each) != wanted.get(each) for each in studies
        ),
        "studies_with_other_results_in_the_store": sum(
            ours.get(each) != wanted.get(each) for each in studies
        ),
        "studies_that_differ": sorted(
            f"{scan.person}, {dcmread(scan.files[0], stop_before_pixels=True).StudyDate}"
            for scan in scans
            if not there.get(scan.study_uid) == ours.get(scan.study_uid) == wanted.get(scan.study_uid)
        ),
        "tasks_too_many": len(tasks) - len(scans),
        "ordinary_studies_begun_while_an_urgent_one_waited": overtakings(tasks, scans, seen.begun),
    }
    return {
        "passed": not any(faults.values()),
        "studies": given.studies,
        "urgent": sum(scan.urgent for scan in scans),
        "workers": given.workers,
        "threads": given.threads,
        **faults,
        "results_in_the_archive": sum(map(len, there.values())),
        "kills": seen.kills,
        "restarts_of_the_database": seen.restarts_of_the_database,
        "starts_of_each_worker": starts,
        "seconds_to_start_a_worker": spread(to_start),
        "studies_sent_again": seen.repeated,
        "minutes_from_first_to_last_end": round((ends[-1] - ends[0]) / 60, 2),
        "studies_per_minute": round(60 * (len(ends) - 1) / (ends[-1] - ends[0]), 1),
        "seconds_of_segmenting": spread([task.seconds for task in tasks if task.seconds is not None]),
        "seconds_that_urgent_studies_waited": spread(waits(tasks, seen.begun, urgent=True)),
        "seconds_that_others_waited": spread(waits(tasks, seen.begun, urgent=False)),
        "load_at_the_end": [round(each, 1) for each in os.getloadavg()],
    }


def write_settings(folder: Path, node: int, archive: int, database: str) -> Path:
    """focalis.toml of front and workers."""
    path = folder / "focalis.toml"
    path.write_text(
        f"[node]\nport = {node}\nquiet_seconds = 20\nconnections_per_address = 32\n[web]\nport = 0\n"
        f'[store]\nfolder = "store"\ndatabase = "{database}"\nleast_free_gb = 0\n'
        f'[[models]]\nname = "{MODEL}"\nfile = "{MODEL}"\n'
        f'[[routes]]\nmodel = "{MODEL}"\ndescription = "urgent"\nurgent = true\n[[routes]]\nmodel = "{MODEL}"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {archive}\n'
    )
    return path


@contextmanager
def services(
    given: argparse.Namespace, folder: Path, settings: Path
) -> Iterator[Callable[[], list[Service]]]:
    """Start the front; what starts the workers. All are stopped in the end."""
    arguments = ("--config", str(settings))
    running = [Service("front", folder, given.threads, *arguments)]

    def start_workers() -> list[Service]:
        running.extend(
            Service(f"worker{number}", folder, given.threads, "--worker", *arguments)
            for number in range(given.workers)
        )
        return running[1:]

    try:
        until(lambda: running[0].ready, 300)
        yield start_workers
    finally:
        for each in running:
            each.stop()


def send_all(archive: str, scans: Sequence[Scan], seen: Seen) -> list[threading.Thread]:
    """Have Orthanc send all studies, those of a person one after the other; again what was not taken."""

    def send(share: Sequence[Scan]) -> None:
        for scan in share:
            told = json.dumps({"Resources": [scan.orthanc_id], "Synchronous": True}).encode()
            while True:
                try:
                    asked(f"{archive}/modalities/focalis/store", told)
                    break
                except HTTPError:
                    seen.repeated += 1
                    time.sleep(1)

    persons = sorted({scan.person for scan in scans}, key=[scan.person for scan in scans].index)
    threads = [
        threading.Thread(
            target=send,
            args=([scan for scan in scans if scan.person in persons[first::SENDERS]],),
            daemon=True,
        )
        for first in range(SENDERS)
    ]
    for each in threads:
        each.start()
    return threads


def watch(
    given: argparse.Namespace,
    store: Store,
    server: Any,
    workers: Sequence[Service],
    scans: Sequence[Scan],
    seen: Seen,
    ended: queue.Queue[SeriesTask | None],
) -> None:
    """Look on, kill and restart until every study is done and sent, or time is up.

    Args:
        ended: given each task that has ended, those of a person in the order in which they arrived, and None after the
            last one.
    """
    person_of = {scan.series_uid: scan.person for scan in scans}
    chance, started = random.Random(0), time.monotonic()
    killed_at, known = started, set[str]()
    while time.monotonic() - started < 60 * given.minutes:
        time.sleep(POLL_SECONDS)
        try:
            tasks = store.tasks()
        except FocalisError:  # the database restarts
            continue
        at = time.time()
        for task in tasks:
            if task.state != "waiting":
                seen.begun.setdefault(task.task_id, at)
        wait_for = set[str]()
        """Persons of whom a study that came first has not ended."""
        for task in sorted(tasks, key=lambda task: task.created_at):
            person = person_of[task.series_uid]
            if task.state not in ENDS:
                wait_for.add(person)
            elif person not in wait_for and task.task_id not in known:
                known.add(task.task_id)
                ended.put(task)
        done = len(known)
        if done == given.studies:
            break
        if seen.restarts_of_the_database < done * (given.restarts + 1) // given.studies:
            server.stop()
            time.sleep(2)
            server.start()
            seen.restarts_of_the_database += 1
        if given.kill_seconds and time.monotonic() - killed_at > given.kill_seconds:
            killed_at = time.monotonic()
            chance.choice(workers).kill()
            seen.kills += 1
    ended.put(None)


def waits(tasks: Sequence[SeriesTask], begun: dict[str, float], *, urgent: bool) -> list[float]:
    """How long studies waited, in seconds, from the moment at which they were whole."""
    return [
        begun[task.task_id] - at_of(task)
        for task in tasks
        if bool(task.urgent) == urgent and task.task_id in begun
    ]


def at_of(task: SeriesTask) -> float:
    """When its study was whole."""
    return datetime.fromisoformat(task.created_at).timestamp()


def overtakings(tasks: Sequence[SeriesTask], scans: Sequence[Scan], begun: dict[str, float]) -> int:
    """How many ordinary studies were begun although an urgent one had waited for a while and went on to wait.

    Urgent studies of a person with others are left out: they wait for each other.
    """
    visits = Counter(scan.person for scan in scans)
    alone = {scan.series_uid for scan in scans if scan.urgent and visits[scan.person] == 1}
    waited = [(at_of(task), begun.get(task.task_id, np.inf)) for task in tasks if task.series_uid in alone]
    return sum(
        any(since + KNOWN_SECONDS < begun[task.task_id] < until for since, until in waited)
        for task in tasks
        if not task.urgent and task.task_id in begun
    )


def results_in(archive: str) -> Contents:
    """What Orthanc has beside the CT images."""
    found: Contents = {}
    for series in json.loads(asked(f"{archive}/series?expand")):
        if series["MainDicomTags"]["Modality"] == "CT":
            continue
        for instance in series["Instances"]:
            content = asked(f"{archive}/instances/{instance}/file")
            header = dcmread(io.BytesIO(content), stop_before_pixels=True)
            of_study = found.setdefault(str(header.StudyInstanceUID), {})
            of_study[str(header.SOPInstanceUID)] = data_set_sha256(content)
    return found


def reference(scans: Sequence[Scan], ended: queue.Queue[SeriesTask | None], folder: Path) -> Contents:
    """Segment the studies of tasks again in this process, until None comes."""
    of_series = {scan.series_uid: scan for scan in scans}
    model = model_file(Path(MODEL))
    digest = sha256_of(model)
    loaded: dict[str, Model] = {}
    found: Contents = {}
    earlier: dict[str, list[EarlierStudy]] = {}
    for task in iter(ended.get, None):
        scan, into = of_series[task.series_uid], folder / task.task_id
        into.mkdir(parents=True)
        job = SeriesJob(
            files=dict.fromkeys(map(str, scan.files)),
            model=str(model),
            model_sha256=digest,
            folder=str(into),
            version=__version__,
            memory_gb=6,
            supersedes={},
            created=task.created_at,
            leave_out=True,
            earlier=[asdict(each) for each in earlier.get(scan.person, ())],
        )
        made = {each["kind"]: each for each in segment(job, lambda _state: None, loaded)["results"]}
        paths = {kind: str(into / each["file"]) for kind, each in made.items()}
        before = EarlierStudy(task.task_id, job.files, paths["seg"], paths["sr"], digest)
        earlier.setdefault(scan.person, []).append(before)
        found[scan.study_uid] = {
            each["sop_uid"]: data_set_sha256((into / each["file"]).read_bytes()) for each in made.values()
        }
    return found


def data_set_sha256(content: bytes) -> str:
    """SHA-256 of a file without its file meta information, which is the archive's own."""
    return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).hexdigest()


def upload(archive: str, folder: Path, number: int) -> Scan:
    """Write a study of a bright ball in lung, and put it into Orthanc.

    Of ten studies the last three are of one person, a year apart each.
    """
    from dicom_fixtures import _write_series

    visit = max(number % 10 - 7, 0)
    first = number - visit
    urgent = first % 8 == 0 or first % 30 == 7
    chance = np.random.default_rng(number)
    grid = Grid((64, 64, int(chance.integers(12, 17))), (0.6, 0.6, 2.5))
    values = chance.normal(-850, 40, grid.shape_zyx)
    steps_mm = np.reshape(grid.spacing_zyx_mm, (3, 1, 1, 1))
    centre = np.reshape(chance.uniform(0.4, 0.6, 3) * grid.shape_zyx, (3, 1, 1, 1))
    distance_mm = np.sqrt((((np.indices(grid.shape_zyx) - centre) * steps_mm) ** 2).sum(axis=0))
    values[distance_mm < chance.uniform(4, 7) + visit] += 880
    dates = dict.fromkeys(
        ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), f"{2022 + visit}0601"
    )
    files = _write_series(
        folder,
        values.astype(np.int16),
        grid,
        PatientID=f"PERSON{first}",
        SeriesDescription="urgent" if urgent else "plain",
        NumberOfSeriesRelatedInstances=len(values),
        **dates,
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archived:
        for path in files:
            archived.write(path, path.name)
    stored = json.loads(asked(f"{archive}/instances", packed.getvalue()))[0]
    header = dcmread(files[0], stop_before_pixels=True)
    uids = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    return Scan(*uids, f"PERSON{first}", urgent, files, stored["ParentSeries"])


def asked(url: str, body: bytes | None = None) -> bytes:
    """What Orthanc answers to a GET, or with a body a POST.

    Raises:
        HTTPError: it cannot do it.
    """
    with urllib.request.urlopen(url, body, timeout=120) as answer:
        return bytes(answer.read())


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())

"""What the tests of the device's work share: a tiny model that finds something, stores with series, a fake PACS.

Run as a program it is a device without web page and node that kills itself with -9 at a named point; see `POINTS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pydicom
from pynetdicom import AE, StoragePresentationContexts, evt

from focalis.device.config import Config, ModelEntry, load_config
from focalis.device.jobs import Jobs
from focalis.device.models import open_models
from focalis.device.records import Header
from focalis.device.store import Store
from focalis.files import sha256_of
from focalis.volume import Grid

GRID = Grid((9, 8, 6), (1.5, 1.5, 3.0), (-4.0, 7.0, 20.0))


def block(bright=1000):
    """Stored values of a CT with a bright block."""
    stored = np.full(GRID.shape_zyx, -900, np.int16)
    stored[0, 0, 0] = -901
    stored[1:3, 2:5, 3:7] = bright
    return stored


def save_tiny_model(path, image=None, low=-2000.0, high=2000.0, channel="image"):
    """A model file whose random network calls a tenth of the bright block foreground, or a little of a given image.

    Args:
        path: the file to write.
        image: a volume to choose the threshold on; the bright block by default.
        low, high: the window of its values.
        channel: the channel's name; one that names a modality makes it a model for that.
    """
    import torch

    from focalis.lesions import OperatingPoint
    from focalis.model import Model, save_model
    from focalis.planning import NetworkSettings, Normalisation, Plan
    from focalis.planning.parts import network_of
    from focalis.prediction import segment
    from focalis.volume import Volume

    plan = Plan(
        channels=(channel,),
        labels={1: "nodule"},
        spacing_zyx_mm=(image.grid if image else GRID).spacing_zyx_mm,
        normalisation=(
            Normalisation(kind="window", low=low, high=high, mean=(low + high) / 2, std=(high - low) / 8),
        ),
        patch_zyx=(8, 8, 8),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    torch.manual_seed(3)
    network = network_of(plan).eval()
    share = 0.9 if image is None else 0.9995
    image = image or Volume(block().astype(np.float32), GRID)
    found = segment(Model(plan, (network,)), [image])
    threshold = float(np.quantile(found.probability, share))
    save_model(Model(plan, (network,), OperatingPoint(threshold)), path)
    return path


def keep_files(store, paths, source="test", **told):
    """Put DICOM files into a store, with more that their headers tell; the series' UID."""
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        store.keep(
            Path(path),
            Header(
                sop_uid=header.SOPInstanceUID,
                sop_class=header.SOPClassUID,
                series_uid=header.SeriesInstanceUID,
                study_uid=header.StudyInstanceUID,
                transfer_syntax=header.file_meta.TransferSyntaxUID,
                modality=header.Modality,
                description=header.SeriesDescription,
                **told,
            ),
            source,
        )
    return str(header.SeriesInstanceUID)


def forget_copies(store):
    """Remove what a folder with copies of a bucket's objects holds, as on a new disk."""
    for part in ("objects", "quarantine", "results", "views"):
        for path in (store.folder / part).glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def until(condition, seconds=240):
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@contextmanager
def pacs(answer=lambda _event: 0x0000, port=0, tls=None):
    """A fake PACS: its port, and how often it received which bytes of which object, as {(uid, sha256): count}."""
    received: Counter = Counter()

    def store(event):
        status = answer(event)
        if status == 0:
            content = event.request.DataSet.getvalue()
            uid = str(event.request.AffectedSOPInstanceUID)
            received[uid, hashlib.sha256(content).hexdigest()] += 1
        return status

    ae = AE("PACS")
    ae.supported_contexts = StoragePresentationContexts
    for uid in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"):
        ae.add_supported_context(uid)
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)], ssl_context=tls
    )
    try:
        yield server.socket.getsockname()[1], received
    finally:
        server.shutdown()


@contextmanager
def webhook(answers=()):
    """A web server: its address, and what it was told, as (content, headers); it answers 204, first `answers`."""
    told, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((json.loads(body), {**self.headers, "body": body}))
            self.send_response(left.pop(0) if left else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def dicom_bytes(path):
    """The data set of a file as it travels: what follows the file meta information."""
    from pynetdicom.dsutils import split_dataset

    _, offset = split_dataset(Path(path))
    return Path(path).read_bytes()[offset:]


def destination(port, **more):
    """The settings of a destination on this machine."""
    return {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, **more}


def config(model, *destinations, **sections):
    """Settings whose series are complete at once."""
    return Config.model_validate(
        {
            "models": [{"name": "tiny", "file": str(model)}],
            "destinations": destinations,
            "node": {"quiet_seconds": 0},
            **sections,
        }
    )


def in_this_process(job, tell):
    """Segment here instead of in a child, which would load torch once more."""
    from focalis.device.segment import segment

    return segment(job, tell, {})


def from_folder(canned):
    """Instead of segmenting, take the results of an earlier segmentation of the same series."""

    def run(job, tell):
        for state in ("checking", "segmenting", "writing"):
            tell(state)
        made = json.loads((Path(canned) / "results.json").read_text())
        for each in made:
            shutil.copy(Path(canned) / each["file"], job.folder)
        return {"outcome": "done", "results": made}

    return run


@contextmanager
def working(store_folder, settings, version="1.0", run=None):
    """The jobs of a device at work on a store; `run` takes the place of the child."""
    with Store(store_folder, settings.store.database, settings.store.objects) as store:
        store.own()
        models = open_models([ModelEntry.model_validate(entry) for entry in settings.models])
        jobs = Jobs(settings, store, models, version)
        if run is not None:
            jobs.segmenter.run = run
        jobs.start()
        try:
            yield jobs
        finally:
            jobs.stop()


def _die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_state(wanted, after):
    original = Store.set_task_state

    def set_task_state(self, task_id, state, *arguments, **options):
        if state == wanted and not after:
            _die()
        original(self, task_id, state, *arguments, **options)
        if state == wanted and after:
            _die()

    Store.set_task_state = set_task_state


def _die_on_trial(state):
    """Die when the task of a model on trial has reached a state."""
    original = Store.set_task_state

    def set_task_state(self, task_id, reached, *arguments, **options):
        original(self, task_id, reached, *arguments, **options)
        if reached == state and self.task(task_id).shadow_of:
            _die()

    Store.set_task_state = set_task_state


def _die_when_tried():
    original = Store.add_task

    def add_task(self, *arguments):
        original(self, *arguments)
        if arguments[-1]:
            _die()

    Store.add_task = add_task


def _die_in(module, name, after):
    import importlib

    found = importlib.import_module(module)
    original = getattr(found, name)

    def dying(*arguments, **options):
        if not after:
            _die()
        original(*arguments, **options)
        _die()

    setattr(found, name, dying)


def _die_in_method(name, after):
    original = getattr(Store, name)

    def dying(self, *arguments, **options):
        value = original(self, *arguments, **options)
        if after:
            _die()
        return value

    setattr(Store, name, dying if after else _die)


POINTS = {
    "series completed": lambda: _die_in_method("complete", True),
    "task added": lambda: _die_in_method("add_task", True),
    "checking": lambda: _die_at_state("checking", True),
    "segmenting": lambda: _die_at_state("segmenting", True),
    "written by the child": lambda: _die_at_state("writing", True),
    "moved into place": lambda: _die_in_method("add_result", False),
    "first row of the results": lambda: _die_in_method("add_result", True),
    "first delivery": lambda: _die_in_method("add_delivery", True),
    "sending": lambda: _die_at_state("sending", True),
    "sent but not noted": lambda: _die_in_method("set_delivery", False),
    "first delivery noted": lambda: _die_in_method("set_delivery", True),
    "notice added": lambda: _die_in_method("add_notice", True),
    "told but not noted": lambda: _die_in_method("set_notice", False),
    "to be asked to commit": lambda: _die_in("focalis.device.commitment", "ask", False),
    "asked to commit": lambda: _die_in("focalis.device.commitment", "ask", True),
    "committed but not forgotten": lambda: _die_in_method("forget_commitment", False),
    "trial added": _die_when_tried,
    "checking on trial": lambda: _die_on_trial("checking"),
    "segmenting on trial": lambda: _die_on_trial("segmenting"),
    "writing on trial": lambda: _die_on_trial("writing"),
    "sending on trial": lambda: _die_on_trial("sending"),
    "done on trial": lambda: _die_on_trial("done"),
    "to be copied": lambda: _die_in("focalis.device.outgoing", "run_job", False),
    "copied": lambda: _die_in("focalis.device.outgoing", "run_job", True),
    "copied but not sent": lambda: _die_in("focalis.device.delivery", "send", False),
    "copies sent but not noted": lambda: _die_in("focalis.device.delivery", "send", True),
    "before done": lambda: _die_at_state("done", False),
    "done": lambda: _die_at_state("done", True),
}


def fail_the_first_claim(monkeypatch):
    """Have DBOS fail once after it has claimed a workflow, before it begins it; the list is empty from then on."""
    import dbos._queue

    original, failures = dbos._queue.execute_dequeued_workflow, [1]

    def execute(*given, **options):
        if failures:
            failures.pop()
            raise OSError("No space left on device")
        return original(*given, **options)

    monkeypatch.setattr(dbos._queue, "execute_dequeued_workflow", execute)
    return failures


def digest_of(paths):
    """One hash of the contents of files, in whatever order they are named."""
    return hashlib.sha256("".join(sorted(map(sha256_of, map(Path, paths)))).encode()).hexdigest()


def front(settings):
    """A front without node and page."""
    found = load_config(Path(settings))
    with working(found.store.folder, found):
        threading.Event().wait()


def pretend(job, tell):
    """Instead of segmenting, take a second, and "find" the hash of the images."""
    tell("segmenting")
    time.sleep(1)
    found = Path(job.folder) / "seg.dcm"
    found.write_text(digest_of(job.files))
    made = {"kind": "seg", "file": found.name, "sop_uid": "1.2", "sha256": sha256_of(found)}
    return {"outcome": "done", "results": [made]}


def worker(settings):
    """A worker that only pretends to segment."""
    from focalis.device import serve

    with serve.working(load_config(Path(settings))) as jobs:
        jobs.segmenter.run = pretend
        threading.Event().wait()


def main(folder, settings, version, canned, point):
    """Work on a store until every task is done; die at a point."""
    if point:
        POINTS[point]()
    run = from_folder(canned) if canned else None
    with working(Path(folder), Config.model_validate(json.loads(settings)), version, run) as jobs:
        until(lambda: jobs.store.tasks() and all(task.state == "done" for task in jobs.store.tasks()))


if __name__ == "__main__":
    roles = {"front": front, "worker": worker}
    roles[sys.argv[1]](sys.argv[2]) if sys.argv[1] in roles else main(*sys.argv[1:])

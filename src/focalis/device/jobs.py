"""The durable jobs: from a complete series to sent results, across kills and restarts.

Two kinds of DBOS workflow: "study" (segment, write, hand over to delivery) and "delivery" (one attempt to send the
results of a task to one destination). The store says what is to be done, DBOS what is under way; a thread compares them
twice a second and enqueues what is missing. So work that DBOS lost, whose checkpoints a full disk kept from being
written, or which an upgrade made unreadable, is begun again, and every step may be repeated.

On SQLite one process does everything. On PostgreSQL workers do the studies, and the front does all the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, EnqueueOptions, WorkflowStatus

from focalis.device import delivery, retention
from focalis.device.bucket import LostObjectError
from focalis.device.commitment import Commitments
from focalis.device.config import Config, Destination, Route
from focalis.device.earlier import earlier_studies, namesake_studies
from focalis.device.mask_job import MaskJob, Voxel
from focalis.device.models import ServedModel, open_models
from focalis.device.named_images import numbers_of
from focalis.device.notify import Notifier
from focalis.device.outgoing import outgoing
from focalis.device.records import Delivery, DeliveryState, Level, SeriesRow, SeriesTask, TaskState, now
from focalis.device.retraining import retrained_models
from focalis.device.routing import (
    choose_models,
    effective_routes,
    model_for_points,
    outside_policies,
    route_of,
)
from focalis.device.segment import PointJob, SeriesJob
from focalis.device.segmenter import Segmenter
from focalis.device.store import FRONT, Store
from focalis.device.wholeness import what_is_missing
from focalis.device.written import (
    clear_making,
    earlier_results,
    has_results,
    keep_results,
    lesions_found,
    making_folder,
    what_was_found,
)
from focalis.errors import DataError, FocalisError, disk_is_full
from focalis.object_store import UnreachableError

Key = tuple[str, ...]
"""A workflow's name and its arguments, which say what work it is."""

APPLICATION_VERSION = "1"
"""Version of the workflows' steps, not of Focalis: fixed, so that a later Focalis finishes an earlier one's work."""

MOST_ATTEMPTS = 2
"""How often a series may kill its child before it fails."""

STUDIES = "studies"
NOTICES = "notices"
_LOOK_SECONDS = 0.5
_TAKE_OVER_SECONDS = 3.0
_FULL_DISK_SECONDS = 30.0
_FAULT_SECONDS = 5.0
_LOST_SECONDS = 20.0
"""A workflow that DBOS says has begun, and that no thread has run for so long, will not end by itself any more."""
_STALLED_SECONDS = 120.0
_RETENTION_SECONDS = 60.0
_TIDY_SECONDS = 60.0
_SWEEP_SECONDS = 86_400.0
_FORGOTTEN_AT_ONCE = 500
_GREW = "later slices arrived before it was segmented"
_OPEN: tuple[TaskState, ...] = ("waiting", "checking", "segmenting", "writing")

_log = logging.getLogger(__name__)


class Jobs:
    """The work of a device; one at a time in a process."""

    def __init__(
        self, config: Config, store: Store, models: dict[str, ServedModel], version: str, worker: str = ""
    ) -> None:
        """Does not start anything yet.

        Args:
            store: owned by this process, or joined by a worker.
            models: by name; a retrained model that others have put on trial is added.
            worker: the name of this process if it takes only studies.
        """
        self.config = config
        self.store = store
        self.models = models
        self.version = version
        self.segmenter = Segmenter(config.limits)
        self.destinations = {each.name: each for each in config.destinations}
        self.notifier = Notifier(config, store, version)
        self.commitments = Commitments(config, store, self._reported)
        # with a new name DBOS recovers nothing by itself: it would let any process do it
        front = f"{FRONT} {secrets.token_hex(4)}" if config.store.database else FRONT
        self._executor, self._is_worker = worker or front, bool(worker)
        self._running: set[Key] = set()
        self._lost: dict[str, float] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        look = self._take_over if worker else self._look
        self._looking = threading.Thread(
            target=self._keep_looking, args=(look,), name="focalis-jobs", daemon=True
        )
        self._retained_at = self._looked_at = self._tidied_at = time.monotonic()
        self._swept_at = -math.inf
        # A stop may have come between a series' completion and its task. Other series are left alone, also if routes or
        # models have changed: nobody wants the studies of a month again.
        complete = () if worker else store.series("complete")
        self._complete = {row.series_uid for row in complete if not self._was_taken(row)}

    def routes(self) -> tuple[Route, ...]:
        """The routes, with the models that were promoted or put on trial on the page."""
        return effective_routes(self.config.routes, self.store.roles())

    def start(self) -> None:
        """Launch DBOS, go on with what a stop interrupted, and begin to look for work."""
        global _jobs
        _jobs = self
        address = self.config.store.database
        settings: DBOSConfig = {
            "name": "focalis-device",
            "system_database_url": address or f"sqlite:///{(self.store.folder / 'dbos.sqlite').absolute()}",
            "executor_id": self._executor,
            "application_version": APPLICATION_VERSION,
            "enable_otlp": False,
            "log_level": "ERROR",
            "use_listen_notify": False,
        }
        DBOS(config=settings)
        others = [*map(_queue_of, self.destinations), NOTICES]
        if address:
            DBOS.listen_queues([STUDIES] if self._is_worker else others)
        DBOS.launch()
        for name in [STUDIES] if self._is_worker else [STUDIES, *others]:
            DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=0.2)
        self._looking.start()

    def stop(self) -> None:
        """Stop at once: the child is killed, and what was under way is done again after the next start."""
        self._stopping.set()
        self._wake.set()
        self.segmenter.stop()
        if self._looking.is_alive():
            self._looking.join()
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def problem(self) -> str:
        """Why no work is begun; empty while it is."""
        late = time.monotonic() - self._looked_at > _STALLED_SECONDS
        if late or not self._looking.is_alive():
            return "work"
        return "no worker" if self.config.store.database and self.store.others() < 1 else ""

    def wake(self) -> None:
        """Look for work now: something was added to the store."""
        self._wake.set()

    def retry(self, task_id: str) -> None:
        """Do a failed or refused task again; nothing happens if it is in another state, or superseded."""
        task = self.store.task(task_id)
        if task is None or task.state not in ("failed", "refused") or task.superseded_by is not None:
            return
        self.store.set_task_state(task_id, "waiting")
        for each in self.store.deliveries(task_id, "dead"):
            place = (each.task_id, each.sop_uid, each.destination)
            self.store.set_delivery(*place, "waiting", attempts=0, next_at=now())
        self.wake()

    def resend(self, task_id: str, sop_uid: str, destination: str) -> None:
        """Try a delivery again at once, its attempts counted from the start."""
        self.store.set_delivery(task_id, sop_uid, destination, "waiting", attempts=0, next_at=now())
        task = self.store.task(task_id)
        if task is not None and task.state in ("done", "out of scope", "failed"):
            self.store.set_task_state(task_id, "sending", what_was_found(self.store, task_id))
        self.wake()

    def _keep_looking(self, look: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            self._looked_at = time.monotonic()
            try:
                look()
                self._tidy()
            except Exception as error:  # a full disk, above all; the next look may find it freed
                _log.error("looking for work failed: %s", error)
                self._stopping.wait(_FAULT_SECONDS)
            self._wake.wait(_TAKE_OVER_SECONDS if self._is_worker else _LOOK_SECONDS)
            self._wake.clear()

    def _look(self) -> None:
        self._take_complete_series()
        # asked before the store: what ends between the two is not begun again
        under_way = self._under_way()
        self._enqueue_tasks(under_way)
        self._enqueue_deliveries(under_way)
        self._enqueue_notices(under_way)
        if time.monotonic() - self._retained_at > _RETENTION_SECONDS:
            self._retained_at = time.monotonic()
            retention.make_room(self.store, self.config.store)
            self._forget_workflows()
            if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
                self._swept_at = time.monotonic()
                threading.Thread(target=self._sweep, name="focalis-sweep", daemon=True).start()

    def _sweep(self) -> None:
        """Remove old objects of a bucket that no row names; a large one takes minutes to list."""
        try:
            if count := self.store.remove_old_strangers(self.config.store.retain_days):
                self.store.event("info", f"removed {count} objects that nothing in the store names")
        except FocalisError as error:
            _log.error("the bucket was not looked through: %s", error)

    def _tidy(self) -> None:
        """Keep the folder small whose objects are in a bucket."""
        if time.monotonic() - self._tidied_at < _TIDY_SECONDS:
            return
        self._tidied_at = time.monotonic()
        settings, longest_seconds = self.config.store, 60 * self.config.limits.segment_minutes
        self.store.tidy(1e9 * settings.cache_gb, 1.2e9 * settings.least_free_gb, longest_seconds + 600)

    def _take_over(self) -> None:
        """Have the studies of dead workers done again: DBOS itself recovers only those of its own name."""
        self._cancel_lost(DBOS.list_workflows(status="PENDING", executor_id=self._executor))
        begun = DBOS.list_workflows(status="PENDING", queue_name=STUDIES, load_input=False, load_output=False)
        for name in {each.executor_id or "" for each in begun} - {self._executor}:
            with self.store.successor_of(name) as alone:
                if not alone:
                    continue
                # asked again, for another successor may have been here
                for each in DBOS.list_workflows(status="PENDING", queue_name=STUDIES, executor_id=name):
                    _log.warning("%s is gone; its study is taken over", name)
                    DBOS.resume_workflow(each.workflow_id, queue_name=STUDIES)

    def _forget_workflows(self) -> None:
        """Remove DBOS's records of work that ended over a day ago; its outcome is in the store."""
        before = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        ended = DBOS.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED"],
            completed_before=before,
            limit=_FORGOTTEN_AT_ONCE,
            load_input=False,
            load_output=False,
        )
        if ended:
            DBOS.delete_workflows([each.workflow_id for each in ended])

    def _take_complete_series(self) -> None:
        for row in self.store.series_to_complete(self.config.node.quiet_seconds):
            self.store.complete(row.series_uid)
            self._complete.add(row.series_uid)
        self._release_in_time()
        self._complete.update(self.store.released_series())
        rows = filter(None, map(self.store.series_row, self._complete))
        for row in sorted(rows, key=lambda row: (row.first_at, row.series_uid)):
            if row.state == "complete":
                self._take(row)
            self._complete.discard(row.series_uid)
        self._complete.clear()

    def _release_in_time(self) -> None:
        hours = self.config.node.release_after_hours
        if hours is None:
            return
        before = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="milliseconds")
        for row in self.store.series("incomplete"):
            if row.last_at <= before and self.store.release(row.series_uid, "node.release_after_hours"):
                self.store.event("warning", f"released after {hours:g} hours", series_uid=row.series_uid)

    def _was_taken(self, row: SeriesRow) -> bool:
        """Whether there is a task for just the instances that a series has."""
        tasks = self.store.tasks_of(row.series_uid)
        if any(task.created_at >= row.last_at for task in tasks):
            return True
        inputs = self._inputs_of(row.series_uid)
        return any(task.input_sha256 == inputs for task in tasks)

    def _inputs_of(self, series_uid: str) -> str:
        """One hash of all instances of a series."""
        hashes = sorted(instance.sha256 for instance in self.store.instances(series_uid))
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def _take(self, row: SeriesRow) -> None:
        """Make a task of a series, unless there is one for just these instances and the same model.

        A series that is not whole is held instead, until it is released or more of it comes.
        """
        names = choose_models(row, self.routes(), self.models)
        if not names:
            if self.store.set_series_state(row.series_uid, "unrouted", of="complete"):
                self.store.event("info", "no route leads to a model", series_uid=row.series_uid)
            return
        inputs, partial = self._inputs_of(row.series_uid), "; ".join(what_is_missing(self.store, row))
        tasks = [task for name in names if (task := self.store.task_of(row.series_uid, name))]
        if row.released and not any(task.input_sha256 == inputs for task in tasks):
            partial = partial or row.reason  # somebody may have emptied the quarantine meanwhile
        route = route_of(row, self.routes())
        wanted = [
            name
            for name in (names[:1] if route and route.sequence else names)
            if self._is_new(row, name, inputs, partial)
        ]
        released = row.released or any(
            (task.input_sha256, task.partial) == (inputs, partial) for task in tasks
        )
        if partial and not released:
            if self.store.hold(row.series_uid, partial):
                text = f"a series is held as incomplete: {partial}"
                self.store.event("warning", f"is held as incomplete: {partial}", series_uid=row.series_uid)
                key = f"{row.series_uid} {inputs} {partial}"
                self.notifier.tell("person", text, key, series_uid=row.series_uid)
            return
        for name in wanted:
            self._add_task(row, name, inputs, partial)

    def _is_new(self, row: SeriesRow, name: str, inputs: str, partial: str, shadow: bool = False) -> bool:
        """Whether a model has not segmented these instances yet."""
        earlier = self.store.task_of(row.series_uid, name, shadow)
        return (
            earlier is None
            or (earlier.input_sha256, earlier.model_sha256)
            != (inputs, self.models[name].header.identity.file_sha256)
            or (not partial and bool(earlier.partial))
            or (bool(row.released) and earlier.partial != partial)
        )

    def _add_task(self, row: SeriesRow, name: str, inputs: str, partial: str, shadow_of: str = "") -> None:
        """Have a series segmented by a model; results of an earlier task by it are superseded."""
        earlier = self.store.task_of(row.series_uid, name, bool(shadow_of))
        model = self.models[name].header.identity.file_sha256
        route = route_of(row, self.routes())
        several = name if route is not None and len(route.models) > 1 else ""  # of the same file, perhaps
        more = [each for each in (partial, several, shadow_of) if each]
        told = json.dumps([row.series_uid, inputs, model, self.version, *more])
        task_id = hashlib.sha256(told.encode()).hexdigest()[:32]
        self.store.add_task(
            task_id,
            row.series_uid,
            name,
            model,
            inputs,
            earlier.task_id if earlier else None,
            partial,
            bool(route and route.urgent),
            shadow_of,
        )
        if earlier is not None:
            same = earlier.input_sha256 == inputs
            cause = (
                "late slices" if not same else "another model" if model != earlier.model_sha256 else "whole"
            )
            self.store.event("info", f"{cause}: supersedes task {earlier.task_id}", task_id=task_id)
            if kept_back := self.store.withdraw(earlier.task_id):
                text = f"{kept_back} results were superseded before they were sent, and stay here"
                self.store.event("info", text, task_id=earlier.task_id)

    def _begin_next(self, task: SeriesTask) -> None:
        """Begin what waited for the results of a task: the model on trial, or the next one of a sequence."""
        row = self.store.series_row(task.series_uid)
        route = None if row is None else route_of(row, self.routes())
        if row is None or route is None or task.shadow_of or task.model not in route.models:
            return
        given = (task.input_sha256, task.partial)
        if route.shadow in self.models and self._is_new(row, route.shadow, *given, shadow=True):
            self._add_task(row, route.shadow, *given, shadow_of=task.task_id)
        following = route.models[route.models.index(task.model) + 1 :] if route.sequence else ()
        if following and lesions_found(self.store, task.task_id) and self._is_new(row, following[0], *given):
            self._add_task(row, following[0], *given)

    def _enqueue_tasks(self, under_way: Set[Key]) -> None:
        """One study of a person after the other: the later one is compared with the results of the earlier one."""
        # it may be in two states, while it goes from one to the next
        tasks = {task.task_id: task for state in _OPEN for task in self.store.tasks(state)}
        persons, busy = self.store.persons(_OPEN), set()
        order = sorted(
            tasks.values(), key=lambda task: (task.state == "waiting", _priority(task), task.created_at)
        )
        for task in order:
            person = persons.get(task.task_id, task.series_uid)
            if person in busy and task.state == "waiting":
                continue
            busy.add(person)
            if ("study", task.task_id) not in under_way:
                _enqueue("study", STUDIES, task.task_id, priority=_priority(task))

    def _enqueue_deliveries(self, under_way: Set[Key]) -> None:
        moment = now()
        due = {
            (each.task_id, each.destination)
            for each in self._undelivered()
            if delivery.is_due(each.next_at, moment)
        }
        for task_id, destination in sorted(due):
            if destination in self.destinations and ("delivery", task_id, destination) not in under_way:
                _enqueue("delivery", _queue_of(destination), task_id, destination)
        waiting = {each.task_id for each in self._undelivered()}
        for task in self.store.tasks("sending"):
            if task.task_id not in waiting:
                self.settle(task.task_id)

    def _undelivered(self, task_id: str | None = None) -> list[Delivery]:
        """What waits to be sent, or to be committed."""
        return [*self.store.deliveries(task_id, "waiting"), *self.store.deliveries(task_id, "stored")]

    def _reported(self, task_id: str) -> None:
        self.settle(task_id)
        self.wake()

    def _under_way(self) -> set[Key]:
        """The work that DBOS has open."""
        found = DBOS.list_workflows(status=["ENQUEUED", "PENDING"], load_output=False)
        self._cancel_lost(found)
        return {_key(each) for each in found}

    def _cancel_lost(self, found: Sequence[WorkflowStatus]) -> None:
        """Cancel the open workflows that nobody runs any more, so that their work can be begun again.

        The end of a workflow may not have been written (DBOS gives up on a full disk), and nobody runs the steps of
        another version.
        """
        moment = time.monotonic()
        self._lost = {
            each.workflow_id: self._lost.get(each.workflow_id, moment)
            for each in found
            if self._is_lost(each)
        }
        for workflow_id, since in self._lost.items():
            if moment - since > _LOST_SECONDS:
                DBOS.cancel_workflow(workflow_id)
                _log.warning("workflow %s was lost, and is begun again", workflow_id)

    def _is_lost(self, workflow: WorkflowStatus) -> bool:
        ours = workflow.executor_id == self._executor or workflow.queue_name != STUDIES
        begun = workflow.status == "PENDING"
        return workflow.app_version != APPLICATION_VERSION or (
            ours and begun and _key(workflow) not in self._running
        )

    def began(self, key: Key) -> None:
        """A workflow runs."""
        self._running.add(key)

    def finished(self, key: Key) -> None:
        """A workflow ended, however it ended; if its work still waits in the store, it is enqueued again."""
        self._running.discard(key)

    def segment(self, task_id: str, alone: bool = False) -> dict[str, Any]:
        """One attempt to segment the series of a task, in the child; see `Segmenter.run`.

        Args:
            alone: without a follow-up, because an attempt with one was killed.
        """
        self._add_retrained_models()
        task = self.store.task(task_id)
        if task is None:
            return {"outcome": "gone", "reason": "its series was removed"}
        if has_results(self.store, task_id):
            return {"outcome": "done", "results": []}
        if task.superseded_by is not None:
            return {"outcome": "refused", "reason": _GREW}
        model = self.models.get(task.model)
        if model is None:
            return {"outcome": "failed", "reason": f"the device has no model {task.model!r} any more"}
        if model.header.identity.file_sha256 != task.model_sha256:
            return {"outcome": "failed", "reason": f"the model {task.model!r} is another one now"}
        # an urgent study overtakes those in DBOS's queue, of which one may be of the same person
        if not self.store.set_task_state(task_id, "checking", alone=True):
            return {"outcome": "stopped", "reason": "another study of the person is segmented"}
        limits = self.config.limits
        instances = self.store.instances(task.series_uid)
        if self._inputs_of(task.series_uid) != task.input_sha256:
            return {"outcome": "refused", "reason": _GREW}
        if sum(instance.bytes for instance in instances) > limits.series_gb * 1e9:
            reason = f"has more than {limits.series_gb:g} GB; raise limits.series_gb"
            return {"outcome": "refused", "reason": reason}
        row = self.store.series_row(task.series_uid)
        route = None if row is None else route_of(row, self.routes())
        wrong, strange = outside_policies(row, self.routes(), bool(task.released))
        if away := self.store.objects_problem():
            return {"outcome": "unreachable", "reason": away}
        try:
            files = self.store.at_hand(instances)
            supersedes = self._superseded(task_id)
            beside = self._segmentation_of(task.shadow_of)
            earlier = self._earlier(task, row, alone)
        except UnreachableError as error:
            return {"outcome": "unreachable", "reason": str(error)}
        except DataError as error:
            full = disk_is_full(error)
            return {"outcome": "no space" if full else "failed", "reason": str(error)}
        making = making_folder(self.store, task_id, self._executor)
        job = SeriesJob(
            files=numbers_of(files, instances),
            model=str(model.file),
            model_sha256=model.header.identity.file_sha256,
            folder=str(making),
            version=self.version,
            memory_gb=limits.segment_memory_gb,
            supersedes=supersedes,
            created=task.created_at,
            edition=sum(
                each.created_at <= task.created_at
                for each in self.store.tasks_of(task.series_uid)
                if each.model == task.model
            ),
            by=task.model if route is not None and len(route.models) > 1 else "",
            partial=task.partial,
            other_modality=wrong,
            outside=strange,
            charset=self.config.node.charset,
            leave_out=route is None or route.leave_out,
            beside=beside,
            earlier=earlier,
        )
        started = time.perf_counter()
        answer = self.segmenter.run(job, lambda state: self._tell(task_id, state))
        if answer["outcome"] != "done":
            clear_making(self.store, making.name)  # on a full disk its bytes are wanted
        if "outside" in answer:
            self.store.set_outside(task_id, answer["outside"])
        if answer.get("outside"):
            self.store.event("warning", f"the series {answer['outside']}", task_id=task_id)
        for caution in answer.get("cautions", ()):
            self.store.event("warning", caution, task_id=task_id)
        left = {Path(file).stem for file in answer.get("left_out_files", ())}
        if (
            "left_out_files" in answer
        ):  # else it did not come so far, and results of another model may rest on it
            self.store.leave_out(task.series_uid, left)
        if left:
            text = f"left out {len(left)} of {len(instances)} images, of another orientation or size than the others"
            self.store.event("warning", text, task_id=task_id)
        if others := row and namesake_studies(self.store, self.routes(), row):
            self.store.event("warning", others, task_id=task_id)
        if answer.get("follow_up"):
            level: Level = "info" if answer["compared"] else "warning"
            self.store.event(level, answer["follow_up"], task_id=task_id)
        if answer.get("doubts"):
            self.store.event("warning", f"of the series: {answer['doubts']}", task_id=task_id)
        if answer.get("left_out"):
            self.store.event("warning", f"of the series, {answer['left_out']}", task_id=task_id)
        if answer["outcome"] == "done" and self._inputs_of(task.series_uid) != task.input_sha256:
            return {"outcome": "refused", "reason": _GREW}
        seconds = time.perf_counter() - started
        return {**answer, "seconds": seconds, "making": making.name}

    def _add_retrained_models(self) -> None:
        """Have the models that the page of another process has put on trial meanwhile."""
        wanted = {name for route in self.routes() for name in (*route.models, route.shadow) if name}
        if wanted <= self.models.keys():
            return
        for made in retrained_models(self.store, self.config.routes):
            try:
                self.models.update(open_models([made]))
            except FocalisError as error:  # studies of other models go on
                _log.error("the retrained model %s cannot be used: %s", made.name, error)

    def _segmentation_of(self, task_id: str) -> str:
        """The Segmentation of a task; empty if there is none."""
        found = [each for each in self.store.results(task_id) if each.kind == "seg"] if task_id else []
        return str(*self.store.at_hand(found[-1:]))

    def _earlier(self, task: SeriesTask, row: SeriesRow | None, alone: bool) -> list[dict[str, Any]]:
        """The studies with which a task's series may be compared; none if an object of one is lost, which costs no
        result."""
        if row is None or alone or task.shadow_of:
            return []
        try:
            return [asdict(each) for each in earlier_studies(self.store, self.routes(), task, row)]
        except LostObjectError as error:
            text = f"an earlier study could not be compared: {error}"
            self.store.event("warning", text, task_id=task.task_id)
            return []

    def _superseded(self, task_id: str) -> dict[str, str]:
        """The files that the results of a task replace, by kind."""
        found = earlier_results(self.store, task_id)
        try:
            return dict(zip(found, map(str, self.store.at_hand(found.values())), strict=True))
        except LostObjectError as error:
            text = f"the new results do not name those that they replace: {error}"
            self.store.event("warning", text, task_id=task_id)
            return {}

    def point(self, task_id: str, image: Path, dtype: str, point_zyx: tuple[int, int, int]) -> dict[str, Any]:
        """Segment the lesion at a point of a task's view, in the child; see `focalis.device.segment.point`."""
        task = self.store.task(task_id)
        series = None if task is None else self.store.series_row(task.series_uid)
        model = (
            None if task is None else model_for_points(series, task.model, self.config.routes, self.models)
        )
        if task is None or model is None:
            return {"outcome": "refused", "reason": "the device has not this model any more"}
        memory_gb = self.config.limits.segment_memory_gb
        identity = model.header.identity
        job = PointJob(str(image), dtype, point_zyx, str(model.file), identity.file_sha256, memory_gb)
        answer = self.segmenter.run(job, lambda _state: None)
        return (
            answer
            if model.name == task.model
            else answer | {"model": f"{model.name}, SHA-256 {identity.file_sha256}"}
        )

    def mask(
        self,
        model: str,
        images: Mapping[str, int | None],
        series: bool,
        out: Path,
        points_xyz: Sequence[Voxel],
        dtype: str = "",
    ) -> dict[str, Any]:
        """Segment an image for a viewer, in the child; see `focalis.device.mask_job.mask`."""
        job = MaskJob(
            dict(images),
            series,
            str(out),
            list(points_xyz),
            str(self.models[model].file),
            self.models[model].header.identity.file_sha256,
            self.config.limits.segment_memory_gb,
            self.config.node.charset,
            dtype,
        )
        return self.segmenter.run(job, lambda _state: None)

    def write(self, task_id: str, making: str, made: list[dict[str, Any]], seconds: float | None) -> None:
        """Keep what was made, and say where it goes; a repetition changes nothing."""
        self._add_retrained_models()
        self.store.set_task_state(task_id, "writing", seconds=seconds)
        if not keep_results(self.store, task_id, making, made):
            self.store.set_task_state(task_id, "waiting", "a stop damaged its results; they are made again")
            return
        task = self.store.task(task_id)
        to = () if task is None or task.shadow_of or task.superseded_by else tuple(self.destinations.values())
        for result in self.store.results(task_id):
            for destination in to:
                if result.kind in destination.objects:
                    self.store.add_delivery(task_id, result.kind, result.sop_uid, destination.name)
        for destination in to:
            if task is not None and "images" in destination.objects:
                self.store.add_delivery(task_id, "images", task.series_uid, destination.name)
        if task is not None:
            self._begin_next(task)
        self.store.set_task_state(task_id, "sending", what_was_found(self.store, task_id))

    def stop_task(self, task_id: str, answer: Mapping[str, Any]) -> None:
        """A task ends without results."""
        if answer["outcome"] == "gone":
            clear_making(self.store, task_id)
            return
        states: dict[str, TaskState] = {"refused": "refused", "held": "held"}
        task = self.store.task(task_id)
        shadow = task is not None and bool(task.shadow_of)
        # nobody needs to act on what a model on trial cannot do
        state = "refused" if shadow else states.get(answer["outcome"], "failed")
        reason = answer["reason"]
        self.store.set_task_state(task_id, state, reason, answer.get("seconds"))
        self.store.event("error" if state == "failed" else "warning", reason, task_id=task_id)
        if not shadow:
            text = f"a study was {state}: {reason}"
            self.notifier.tell("person", text, f"{task_id} {state} {reason}", task_id)
        clear_making(self.store, task_id)

    def wait_for_room(self, task_id: str, reason: str, unreachable: bool = False) -> None:
        """The disk is full, or the bucket cannot be used now: say so, and leave the task waiting."""
        what = "the object store cannot be used" if unreachable else "the disk is full"
        self.store.set_task_state(task_id, "waiting", f"{what}, tried again soon ({reason})")
        text = f"{what}; segmenting waits for {'it' if unreachable else 'room'}"
        self.store.event("error", text, task_id=task_id)
        self.notifier.tell("disk", text, now()[:13])

    def send(self, task_id: str, name: str) -> None:
        """One attempt to send what waits for a destination, and to have it commit itself to what it has stored."""
        destination = self.destinations[name]
        moment = now()
        due = [
            each
            for each in self._undelivered(task_id)
            if each.destination == name and delivery.is_due(each.next_at, moment)
        ]
        with outgoing(self.store, due, destination, self.config.limits) as files:
            sendable = [
                path for each in due if each.state == "waiting" for path in _paths(files[each.sop_uid])
            ]
            sent = delivery.send(sendable, destination, self.config.node.ae_title) if sendable else {}
            for each in due:
                if each.state == "waiting":
                    self._note(each, _outcome(files[each.sop_uid], sent), destination)
            self.commitments.ask(task_id, destination, files)
        self.settle(task_id)

    def settle(self, task_id: str) -> None:
        """A task is done once nothing of it waits to be sent; it fails if something was given up."""
        task = self.store.task(task_id)
        if task is None or task.state != "sending" or self._undelivered(task_id):
            return
        dead = self.store.deliveries(task_id, "dead")
        if dead:
            reason = f"{len(dead)} results were not sent: {dead[0].destination} {dead[0].last_error}"
            self.store.set_task_state(task_id, "failed", reason)
        else:
            state: TaskState = "out of scope" if task.outside else "done"
            found = task.reason  # since its results were written
            self.store.set_task_state(task_id, state, found)
            if task.shadow_of:
                return
            self.notifier.tell(
                "done",
                f"a study was segmented: {found}" if found else "a study was segmented",
                task_id,
                task_id,
            )
            if task.outside or task.partial:
                doubt = task.outside or f"made of an incomplete series: {task.partial}"
                self.notifier.tell("person", f"a result is doubtful: {doubt}", f"{task_id} {state}", task_id)

    def _note(self, each: Delivery, sent: delivery.Sent, destination: Destination) -> None:
        attempts = each.attempts + 1
        place = (each.task_id, each.sop_uid, each.destination)
        next_at = delivery.next_attempt_at(sent.outcome, attempts)
        dead = sent.outcome != "sent" and next_at is None
        outcome = "dead" if dead else "sent" if sent.outcome == "sent" else "failed"
        self.store.counters.add("sent_total", outcome=outcome)
        if sent.outcome == "sent":
            self.store.audit("the device", "", f"sent {each.kind} to {destination.name}", each.task_id)
            state: DeliveryState = "stored" if destination.commit else "sent"
            self.store.set_delivery(*place, state, attempts=attempts)
            return
        error = f"attempt {attempts}: {sent.error}"
        if dead:
            self.store.set_delivery(*place, "dead", attempts=attempts, last_error=error)
            self.store.event(
                "error", f"{each.kind} is given up, {destination.name} {sent.error}", task_id=each.task_id
            )
            text = f"results are given up, {destination.name} {sent.error}"
            self.notifier.tell("dead", text, f"{destination.name} {now()[:13]}", each.task_id)  # once an hour
            return
        self.store.set_delivery(*place, "waiting", attempts=attempts, last_error=error, next_at=next_at)
        if attempts == 1:
            self.store.event(
                "warning", f"{each.kind} waits, {destination.name} {sent.error}", task_id=each.task_id
            )
        if attempts == delivery.DOWN_ATTEMPTS:
            text = f"results wait since {attempts} attempts, {destination.name} {sent.error}"
            self.notifier.tell("dead", text, f"{destination.name} {now()[:13]}", each.task_id)

    def _enqueue_notices(self, under_way: Set[Key]) -> None:
        for number in self.notifier.due():
            if ("notice", str(number)) not in under_way:
                _enqueue("notice", NOTICES, str(number))

    def _tell(self, task_id: str, state: str) -> None:
        if state in ("segmenting", "writing"):
            self.store.set_task_state(task_id, "segmenting" if state == "segmenting" else "writing")

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the stop of the device."""
        self._stopping.wait(seconds)


def _priority(task: SeriesTask) -> int:
    """Models on trial come last, urgent series first."""
    return 3 if task.shadow_of else 1 if task.urgent else 2


def _key(workflow: WorkflowStatus) -> Key:
    arguments = workflow.input["args"] if isinstance(workflow.input, dict) else ()
    return (workflow.name, *map(str, arguments))


def _enqueue(workflow: str, queue: str, *arguments: str, priority: int = 1) -> None:
    options: EnqueueOptions = {
        "workflow_name": workflow,
        "queue_name": queue,
        "app_version": APPLICATION_VERSION,
        "priority": priority,
    }
    DBOS.enqueue_workflow_with_options(options, *arguments)


def _paths(files: list[Path] | str) -> list[Path]:
    return [] if isinstance(files, str) else files


def _outcome(files: list[Path] | str, sent: Mapping[Path, delivery.Sent]) -> delivery.Sent:
    """What became of a delivery: that of the first of its files that was not sent."""
    if isinstance(files, str):
        return delivery.Sent("rejected", files)
    if not files:
        return delivery.Sent("rejected", "is sent nothing: its files are not there any more")
    return next((sent[path] for path in files if sent[path].outcome != "sent"), sent[files[0]])


_jobs: Jobs | None = None
"""The work of this process. DBOS finds workflows by their names, long before anyone could hand them an object."""


def _work() -> Jobs:
    assert _jobs is not None, "workflows run after Jobs.start()"
    return _jobs


@contextmanager
def _at_work(*key: str) -> Iterator[Jobs]:
    """Count a workflow as running; if it fails, the error is logged, and the workflow ends only after a pause."""
    work = _work()
    work.began(key)
    try:
        yield work
    except Exception as error:
        # a full disk keeps the store from writing; what was to be done still waits there
        _log.error("%s: %s", " ".join(key), error)
        work.pause(_FAULT_SECONDS)
        raise
    finally:
        work.finished(key)
        work.wake()


@DBOS.workflow(name="study")
def _study(task_id: str) -> None:
    with _at_work("study", task_id) as work:
        for attempt in range(1, MOST_ATTEMPTS + 1):
            answer = DBOS.run_step({"name": "segment"}, work.segment, task_id, attempt > 1)
            if answer["outcome"] != "killed" or attempt == MOST_ATTEMPTS:
                break
        if answer["outcome"] == "done":
            making = answer.get("making", task_id)  # an earlier version's was called so
            DBOS.run_step(
                {"name": "write"}, _write, task_id, making, answer["results"], answer.get("seconds")
            )
        elif answer["outcome"] in ("no space", "unreachable"):
            away = answer["outcome"] == "unreachable"
            DBOS.run_step({"name": "wait"}, work.wait_for_room, task_id, answer["reason"], away)
            work.pause(_FULL_DISK_SECONDS)
        elif answer["outcome"] != "stopped":
            if answer["outcome"] == "killed":
                answer["reason"] = f"segmenting {answer['reason']} (tried {MOST_ATTEMPTS} times)"
            DBOS.run_step({"name": "stop"}, work.stop_task, task_id, answer)


def _write(task_id: str, making: str, made: list[dict[str, Any]], seconds: float | None) -> None:
    """Results that cannot be written, to the disk or to the bucket, are removed and made again; the task waits.

    If an object of them is lost, the task fails.
    """
    work = _work()
    try:
        work.write(task_id, making, made, seconds)
    except FocalisError as error:
        clear_making(work.store, making)
        if isinstance(error, LostObjectError):
            work.stop_task(task_id, {"outcome": "failed", "reason": str(error)})
            return
        work.wait_for_room(task_id, str(error), isinstance(error, UnreachableError))
        work.pause(_FULL_DISK_SECONDS)


@DBOS.workflow(name="delivery")
def _delivery(task_id: str, destination: str) -> None:
    with _at_work("delivery", task_id, destination) as work:
        if destination in work.destinations:
            DBOS.run_step({"name": "send"}, work.send, task_id, destination)


@DBOS.workflow(name="notice")
def _notice(number: str) -> None:
    with _at_work("notice", number) as work:
        DBOS.run_step({"name": "tell"}, work.notifier.send, int(number))


def _queue_of(destination: str) -> str:
    return f"to {destination}"

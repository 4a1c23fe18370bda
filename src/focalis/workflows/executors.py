"""What carries out tasks: this process, child processes, Slurm, Ray, or what an installed package registers.

An executor tries every task, and then raises a `TrainingError` that names those that failed; how each ended stands in
its outcome.json. Others are registered as entry points of the group `focalis.executors`, each an `Executor`.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass

from focalis import ranks
from focalis.children import Child, LostError, requests, take_over_output
from focalis.errors import FocalisError, PlanError, TrainingError, UsageError, one_line
from focalis.files import only_process_in
from focalis.plugins import find_part
from focalis.training import Progress
from focalis.workflows.ray import ray
from focalis.workflows.record import write_json
from focalis.workflows.run import FAILED, KILLED, OUTCOME, Job, Tell
from focalis.workflows.slurm import slurm
from focalis.workflows.task import carry_out, job_of

_log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "focalis.workflows.executors")
LOG = "log.txt"
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES = 0.5


@dataclass(frozen=True)
class Executor:
    """Where tasks run.

    Attributes:
        run: carries out tasks, so many at a time, and tells of their progress. Returns what is left to do before their
            results are there, in one line; empty if they are.
        elsewhere: the tasks run on machines whose devices and threads are not this one's.
        waits: it returns when the tasks have ended.
    """

    run: Callable[[Sequence[Job], int, Tell], str]
    elsewhere: bool = False
    waits: bool = True


def here(tasks: Sequence[Job], _parallel: int, tell: Tell) -> str:
    """Carry out one task after the other in this process. The error of a single task is raised as it is."""
    failures: list[tuple[Job, Exception]] = []
    processes_before = ranks.count()
    with _alone_in(tasks):
        for task in tasks:
            tell(task.name, None)
            try:
                carry_out(task, tell)
            except Exception as error:
                if ranks.count() < processes_before:  # it has left the others, which wait for its end
                    raise
                _log.debug("%s: failed", task.name, exc_info=error)
                failures.append((task, error))
    if len(tasks) == 1 and failures:
        raise failures[0][1]
    if failures:
        unforeseen = [error for _, error in failures if not isinstance(error, FocalisError)]
        raise TrainingError.of_lines(
            f"{task.name}: {line}" for task, error in failures for line in _lines(error)
        ) from next(iter(unforeseen), None)
    return ""


def _lines(error: Exception) -> Sequence[str]:
    return error.lines if isinstance(error, FocalisError) else (f"{type(error).__name__}: {one_line(error)}",)


def processes(tasks: Sequence[Job], parallel: int, tell: Tell) -> str:
    """Carry out each task in a process of its own: its peak memory is its own, and its death is not its parent's.

    Ctrl-C is passed on: the processes finish their step, write a checkpoint and end, and then it goes on upwards.
    """
    events: queue.Queue[tuple[str, Progress | None]] = queue.Queue()
    running = _Running()
    with _alone_in(tasks), ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_in_a_child, task, events, running) for task in tasks]
        try:
            while not (all(future.done() for future in futures) and events.empty()):
                try:
                    told = events.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    continue
                tell(*told)
        except BaseException:
            running.interrupt()
            for future in futures:
                future.cancel()
            raise
    for future in futures:
        future.result()
    failed = [f"{task.name}: {task.outcome['message']}" for task in tasks if not task.finished]
    if failed:
        raise TrainingError.of_lines(failed)
    return ""


OWN: Mapping[str, Executor] = {
    "here": Executor(here),
    "processes": Executor(processes),
    "slurm": Executor(slurm, elsewhere=True, waits=False),
    "ray": Executor(ray, elsewhere=True),
}


def executor(name: str, parallel: int) -> Executor:
    """An executor by its name; UsageError if there is none, or it does not run so many tasks at a time."""
    if name != "here" and ranks.count() > 1:
        raise UsageError(
            "the processes that torchrun started train one fold after the other together; leave --on and --parallel out"
        )
    if name == "here" and parallel > 1:
        raise UsageError("here is one process; leave --parallel out, or take --on processes")
    try:
        return find_part("executor", name, OWN, Executor)
    except PlanError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _alone_in(tasks: Sequence[Job]) -> Iterator[None]:
    with ExitStack() as held:
        for task in tasks:
            held.enter_context(only_process_in(task.home, "run"))
        yield


class _Running:
    """The children that are running; once interrupted, no other is started."""

    def __init__(self) -> None:
        self._lock, self._children = threading.Lock(), set[Child]()
        self.stopping = False

    def start(self, task: Job) -> Child | None:
        with self._lock:
            if self.stopping:
                return None
            # a Ctrl-C at the terminal then reaches the child through us, and once
            child = Child(COMMAND, log=task.home / LOG, session=True)
            self._children.add(child)
            return child

    def ended(self, child: Child) -> None:
        with self._lock:
            self._children.discard(child)

    def interrupt(self) -> None:
        with self._lock:
            self.stopping = True
            for child in self._children:
                child.interrupt()


def _in_a_child(task: Job, events: queue.Queue[tuple[str, Progress | None]], running: _Running) -> None:
    outcome = task.home / OUTCOME
    outcome.unlink(missing_ok=True)
    child = running.start(task)
    if child is None:
        return
    events.put((task.name, None))
    with suppress(LostError):  # it died before it could read; why stands in how it ended
        child.send(task.model_dump(mode="json"))
    with suppress(LostError):
        while True:
            events.put((task.name, Progress(**child.receive())))
    how = child.ending(1)
    running.ended(child)
    if not outcome.exists() and not running.stopping:
        write_json(outcome, {"outcome": KILLED if child.killed else FAILED, "message": f"the process {how}"})
    child.stop()


def main() -> None:
    """Carry out the task that standard input holds, in a child of `processes`."""
    answer = take_over_output()
    told = 0.0

    def tell(_stage: str, progress: Progress | None) -> None:
        nonlocal told
        due = time.monotonic() - told > SECONDS_BETWEEN_LINES
        if progress is not None and (due or progress.step == progress.steps):
            told = time.monotonic()
            answer(asdict(progress))

    try:
        carry_out(job_of(next(requests())), tell)
    except KeyboardInterrupt:
        sys.exit(130)
    except FocalisError:
        sys.exit(1)  # what it was stands in outcome.json


if __name__ == "__main__":
    main()

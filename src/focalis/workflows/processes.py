"""Runs of a comparison in child processes: started, watched, stopped."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from focalis.training import Progress
from focalis.workflows.child import FAILED, OUTCOME, Task
from focalis.workflows.record import write_json

COMMAND = (sys.executable, "-m", "focalis.workflows.child")
KILLED = "killed"
LOG = "log.txt"
SECONDS_BETWEEN_LOOKS = 0.2

Tell = Callable[[int, Progress | None], None]
"""Told the number of a task when it starts (None) and as it goes on."""


def run_tasks(tasks: Sequence[Callable[[], Task]], parallel: int, tell: Tell) -> None:
    """Do every task in a process of its own, up to `parallel` at a time; each leaves an outcome.json in its folder.

    Ctrl-C is passed on: the processes finish their step, write a checkpoint and end, and then it goes on upwards.

    Args:
        tasks: each makes its task when its turn has come.
        parallel: processes at a time.
        tell: called in this thread.
    """
    events: queue.Queue[tuple[int, Progress | None]] = queue.Queue()
    children = _Children()
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_run, task, number, events, children) for number, task in enumerate(tasks)]
        try:
            while not (all(future.done() for future in futures) and events.empty()):
                try:
                    number, progress = events.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    continue
                tell(number, progress)
        except BaseException:
            children.interrupt()
            _cancel(futures)
            raise
    for future in futures:
        future.result()


class _Children:
    """The processes that are running; once interrupted, no other is started."""

    def __init__(self) -> None:
        self._lock, self._running = threading.Lock(), set[subprocess.Popen[str]]()
        self.stopping = False

    def start(self, log: Path) -> subprocess.Popen[str] | None:
        with self._lock, log.open("w", encoding="utf-8") as errors:
            if self.stopping:
                return None
            child = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a Ctrl-C at the terminal then reaches the child through us, and once
            )
            self._running.add(child)
            return child

    def ended(self, child: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(child)

    def interrupt(self) -> None:
        with self._lock:
            self.stopping = True
            for child in self._running:
                if sys.platform == "win32":
                    child.terminate()
                else:
                    child.send_signal(signal.SIGINT)


def _run(
    make: Callable[[], Task],
    number: int,
    events: queue.Queue[tuple[int, Progress | None]],
    children: _Children,
) -> None:
    task = make()
    home = Path(task.home)
    home.mkdir(parents=True, exist_ok=True)
    (home / OUTCOME).unlink(missing_ok=True)
    child = children.start(home / LOG)
    if child is None:
        return
    events.put((number, None))
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(asdict(task)) + "\n")
            child.stdin.flush()
        except BrokenPipeError:  # it died before it could read; why stands in its exit code and its log
            with suppress(BrokenPipeError):
                child.stdin.close()
        for line in child.stdout:
            try:
                events.put((number, Progress(**json.loads(line))))
            except (ValueError, TypeError):
                continue  # something that a library printed
        code = child.wait()
    children.ended(child)
    if not (home / OUTCOME).exists() and not children.stopping:
        write_json(home / OUTCOME, _outcome_of_exit(code, home / LOG))


def _outcome_of_exit(code: int, log: Path) -> dict[str, str]:
    """What is said of a process that ended without a word of its own."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "; the system does this to a process when memory runs out" if name == "SIGKILL" else ""
        return {"outcome": KILLED, "message": f"the process was ended by {name}{why}"}
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")
    return {"outcome": FAILED, "message": f"the process ended with exit code {code}: {last}"}


def _cancel(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.cancel()

"""Child processes that read and write lines of JSON: the parent's side and the child's.

A child ends when its standard input does, so it never outlives its parent, however that one ends. Nothing that a child
says is executed or unpickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

_TAIL_LINES = 5
_LOOK_SECONDS = 0.1
_ANSWER_BYTES = 1 << 26
_UNEXPECTED = "unexpected "
_log = logging.getLogger(__name__)


class LostError(Exception):
    """A child gave no answer.

    Attributes:
        why: it ended, took too long, took too much memory, or said something else.
    """

    def __init__(self, why: Literal["ended", "late", "large", "unreadable"]) -> None:
        super().__init__(why)
        self.why = why


class Child:
    """A process that is sent values and answers with values, all plain JSON.

    Attributes:
        peak_bytes: the most memory that it was seen to hold, where `receive` was given a limit.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        quiet: bool = False,
        session: bool = False,
        answer_bytes: int = _ANSWER_BYTES,
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            log: file for its standard error.
            quiet: drop its standard error, which may quote a patient's name.
            session: keep a Ctrl-C at the terminal from it; it is then passed on by `interrupt`.
            answer_bytes: no answer may be longer.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.PIPE,
            start_new_session=session,
        )
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log, self._answer_bytes = log, answer_bytes
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._hear, self._overhear)]
        for reader in self._readers:
            reader.start()
        self.peak_bytes = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, value: object) -> None:
        """Give it a value; LostError if it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise LostError("ended") from error

    def receive(self, seconds: float | None = None, memory_bytes: float | None = None) -> dict[str, Any]:
        """Its next answer.

        Args:
            seconds: how long to wait; forever if None.
            memory_bytes: resident memory that it may take meanwhile.

        Raises:
            LostError: it gives none. What goes on in it is not ended: see `stop`.
        """
        end = None if seconds is None else time.monotonic() + seconds
        line = None
        while line is None:
            left = _LOOK_SECONDS if end is None else min(_LOOK_SECONDS, end - time.monotonic())
            with contextlib.suppress(queue.Empty):
                line = self._answers.get(timeout=max(0.0, left))
            if memory_bytes is not None:
                self.peak_bytes = max(self.peak_bytes, resident_bytes(self.pid))
                if self.peak_bytes > memory_bytes:
                    raise LostError("large")
            if line is None and left <= 0:
                raise LostError("late")
        if not line:
            raise LostError("ended")
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise LostError("unreadable")

    def ending(self, lines: int = _TAIL_LINES) -> str:
        """How it ended, in words, with the last lines of its standard error; waits until it has.

        An unexpected error gives one line; where it arose goes into the log.
        """
        code = self._process.wait()
        self._readers[1].join()
        if code >= 0:
            told = list(self._errors)
            if told and told[-1].startswith(_UNEXPECTED):
                _log.error("a process ended: %s", " < ".join(reversed(told)))
                lines = 1
            said = " ".join(told[-lines:])
            return f"ended with exit code {code}: {said or 'it left no message'}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = "; the system does this to a process when memory runs out" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"

    @property
    def killed(self) -> bool:
        """Whether a signal ended it; waits until it has ended."""
        return self._process.wait() < 0

    def interrupt(self) -> None:
        """Press its Ctrl-C."""
        if sys.platform == "win32":
            self._process.terminate()
        else:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once; whoever waits for its answer gets a LostError."""
        self._process.kill()

    def stop(self) -> None:
        """End it at once, and free what it took."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what was still to be written to it
                self._process.stdin.close()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            while line := answers.readline(self._answer_bytes):
                self._answers.put(line)
        self._answers.put(b"")

    def _overhear(self) -> None:
        if self._process.stderr is None:
            return
        with (
            self._process.stderr as errors,
            self._log.open("wb") if self._log else contextlib.nullcontext() as log,
        ):
            for line in errors:
                if log:
                    log.write(line)
                    log.flush()
                if said := line.decode(errors="replace").strip()[:500]:
                    self._errors.append(said)


def resident_bytes(pid: int) -> int:
    """The memory that a process holds; 0 where the system does not say (it is not Linux, or the process is gone)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    rows = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(row[1]) * 1024 for row in rows), 0)


def take_over_output() -> Callable[[object], None]:
    """In a child: what writes an answer. What anything else prints goes to standard error from now on.

    An exception that nobody catches is printed by kind and place alone: its text may quote a patient's name.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.excepthook = _tell_where

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    return answer


def _tell_where(kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
    places = [f"{Path(each.filename).name}:{each.lineno}" for each in traceback.extract_tb(trace)]
    for place in places[:-1]:
        print(place, file=sys.stderr)
    print(f"{_UNEXPECTED}{kind.__name__} at {places[-1] if places else 'its start'}", file=sys.stderr)


def silence_parsers() -> None:
    """In a child: keep complaints about files out of standard error; they may quote a patient's name.

    Its last lines are shown if the child dies.
    """
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").disabled = True


def requests() -> Iterator[Any]:
    """In a child: what the parent sends. When the parent is gone the process ends at once, in the midst of work."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        with os.fdopen(
            os.dup(0), "rb"
        ) as given:  # not sys.stdin, whose lock this thread would hold at the end
            for line in given:
                lines.put(line)
        os._exit(1)  # whatever is under way is of no use to anyone

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())

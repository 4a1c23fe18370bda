"""Keeps the segmenting child: starts it, gives it jobs, kills it when it takes too much memory or time."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from focalis.device.config import Limits
from focalis.device.segment import Job

_LOOK_SECONDS = 0.1
_TOLD_LINES = 5


class Segmenter:
    """One child at a time; `run` may be called from several threads, which then wait for each other."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers: list[threading.Thread] = []
        self._busy = threading.Lock()
        self._stopped = False
        self.peak_bytes = 0

    def run(self, job: Job, tell: Callable[[str], None]) -> dict[str, Any]:
        """Do a job in the child.

        Args:
            job: what to do.
            tell: called with the name of each state that begins.

        Returns:
            As `focalis.device.segment.segment`; and {"outcome": "killed", "reason": ...} if the child had to be
            killed, or died.
        """
        with self._busy:
            if self._stopped:
                return self._killed("was not begun")
            child = self._start()
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps(asdict(job)) + "\n")
                child.stdin.flush()
            except OSError:
                return self._killed("ended before it was given the series")
            try:
                return self._wait(child, tell)
            except BaseException:
                # whoever comes next must not be given the answer to this job
                self._discard()
                raise

    def stop(self) -> None:
        """Kill the child, busy or not; the device is about to end."""
        self._stopped = True
        child = self._child
        if child is not None:
            child.kill()
        with self._busy:
            self._discard()

    def _start(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        if self._child is not None:
            self._discard()
        self._lines, self._errors = queue.Queue(), []
        child = subprocess.Popen(
            [sys.executable, "-m", "focalis.device.segment"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=_read_lines, args=(child, self._lines), daemon=True),
            threading.Thread(target=_read_errors, args=(child, self._errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._child = child
        return child

    def _wait(self, child: subprocess.Popen[str], tell: Callable[[str], None]) -> dict[str, Any]:
        limit_bytes = self._limits.segment_memory_gb * 1e9
        minutes = self._limits.segment_minutes
        deadline = time.monotonic() + 60 * minutes
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                line = ""
            if line is None:
                return self._killed(self._how_it_died(child))
            if self._stopped:
                return self._killed("was stopped")
            used = resident_bytes(child.pid)
            self.peak_bytes = max(self.peak_bytes, used)
            if used > limit_bytes:
                return self._killed(
                    f"took more than {self._limits.segment_memory_gb:g} GB of memory; "
                    "raise limits.segment_memory_gb if the machine has more"
                )
            if time.monotonic() > deadline:
                return self._killed(f"took longer than {minutes:g} minutes; raise limits.segment_minutes")
            if line:
                answer: dict[str, Any] = json.loads(line)
                if "outcome" in answer:
                    return answer
                tell(answer["state"])

    def _killed(self, reason: str) -> dict[str, Any]:
        self._discard()
        return {"outcome": "stopped" if self._stopped else "killed", "reason": reason}

    def _how_it_died(self, child: subprocess.Popen[str]) -> str:
        code = child.wait()
        if code == -9:
            return "was killed by the system, which ran out of memory perhaps"
        return f"ended with code {code}: {' '.join(self._errors[-_TOLD_LINES:])}"[:500]

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for reader in self._readers:
            reader.join()
        if child.stdin is not None:
            with contextlib.suppress(OSError):  # what was still to be written to it
                child.stdin.close()


def resident_bytes(pid: int) -> int:
    """The memory that a process holds; 0 where the system does not say (it is no Linux, or the process is gone)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    rows = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(row[1]) * 1024 for row in rows), 0)


def _read_lines(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line)
    lines.put(None)


def _read_errors(child: subprocess.Popen[str], errors: list[str]) -> None:
    assert child.stderr is not None
    with child.stderr:
        for line in child.stderr:
            errors.append(line.strip())
            del errors[:-_TOLD_LINES]

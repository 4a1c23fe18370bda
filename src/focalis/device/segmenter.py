"""Keeps the segmenting child: starts it, gives it jobs, kills it when it takes too much memory or time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from focalis.children import Child, LostError
from focalis.device.config import Limits
from focalis.device.mask_job import MaskJob
from focalis.device.segment import PointJob, SeriesJob

COMMAND = (sys.executable, "-m", "focalis.device.segment")


class Segmenter:
    """One child at a time; `run` may be called from several threads, which then wait for each other."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: Child | None = None
        self._busy = threading.Lock()
        self._stopped = False
        self.peak_bytes = 0

    def run(self, job: SeriesJob | PointJob | MaskJob, tell: Callable[[str], None]) -> dict[str, Any]:
        """Do a job in the child.

        Args:
            tell: called with the name of each state that begins.

        Returns:
            As `focalis.device.segment.segment`, `point` or `focalis.device.mask_job.mask`; {"outcome": "killed",
            "reason": ...} if the child had to be killed, or died.
        """
        with self._busy:
            if self._stopped:
                return self._killed("was not begun")
            child = self._start()
            if self._stopped:
                return self._killed("was stopped")
            try:
                return self._ask(child, job, tell)
            except LostError as error:
                limits = self._limits
                return self._killed(
                    {
                        "large": f"took more than {limits.segment_memory_gb:g} GB of memory; "
                        "raise limits.segment_memory_gb if the machine has more",
                        "late": f"took longer than {limits.segment_minutes:g} minutes; raise limits.segment_minutes",
                    }.get(error.why)
                    or child.ending()
                )
            except BaseException:
                # whoever comes next must not be given the answer to this job
                self._discard()
                raise
            finally:
                self.peak_bytes = max(self.peak_bytes, child.peak_bytes)

    def stop(self) -> None:
        """Kill the child, busy or not; the device is about to end."""
        self._stopped = True
        child = self._child
        if child is not None:
            child.kill()
        with self._busy:
            self._discard()

    def _start(self) -> Child:
        if self._child is None or not self._child.running:
            self._discard()
            self._child = Child(COMMAND)
        return self._child

    def _ask(
        self, child: Child, job: SeriesJob | PointJob | MaskJob, tell: Callable[[str], None]
    ) -> dict[str, Any]:
        deadline = time.monotonic() + 60 * self._limits.segment_minutes
        child.send(asdict(job))
        while True:
            answer = child.receive(deadline - time.monotonic(), self._limits.segment_memory_gb * 1e9)
            if "outcome" in answer:
                return answer
            tell(answer["state"])

    def _killed(self, reason: str) -> dict[str, Any]:
        self._discard()
        return {"outcome": "stopped" if self._stopped else "killed", "reason": reason}

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stop()

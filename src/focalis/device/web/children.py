"""Run one job of `focalis.device.web.worker` in a process of its own."""

from __future__ import annotations

import sys
from typing import Any

from focalis.children import Child, LostError
from focalis.device.config import Limits
from focalis.errors import DataError


def run_job(name: str, arguments: dict[str, object], limits: Limits) -> Any:
    """Do a job in a child process and wait for it.

    Args:
        name: which one, see `focalis.device.web.worker.JOBS`.

    Returns:
        Its answer, plain JSON.

    Raises:
        DataError: the job failed, was killed, or took too long.
    """
    job = {
        "name": name,
        "arguments": arguments,
        "memory_bytes": int(max(limits.segment_memory_gb * 1e9, limits.parse_memory_mb * 1e6)),
    }
    child = Child([sys.executable, "-m", "focalis.device.web.worker"])
    try:
        child.send(job)
        answer = child.receive(limits.segment_minutes * 60)
    except LostError as error:
        if error.why == "late":
            raise DataError(
                f"reading the images took more than {limits.segment_minutes:g} minutes; "
                "raise limits.segment_minutes in focalis.toml"
            ) from error
        raise DataError(
            "the process that reads the images gave no answer; raise limits.segment_memory_gb if it lacked memory"
        ) from error
    finally:
        child.stop()
    if "error" in answer:
        raise DataError(answer["error"])
    return answer["result"]

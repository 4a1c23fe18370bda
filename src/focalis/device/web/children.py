"""Run one job of `focalis.device.web.worker` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from focalis.device.config import Limits
from focalis.errors import DataError


def run_job(name: str, arguments: dict[str, object], limits: Limits) -> Any:
    """Do a job in a child process and wait for it.

    Args:
        name: which one, see `focalis.device.web.worker.JOBS`.
        arguments: plain JSON.
        limits: memory and time that it may take.

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
    try:
        done = subprocess.run(
            [sys.executable, "-m", "focalis.device.web.worker"],
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=limits.segment_minutes * 60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"reading the images took more than {limits.segment_minutes:g} minutes; "
            "raise limits.segment_minutes in focalis.toml"
        ) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise DataError(
            f"the process that reads the images ended with code {done.returncode}; "
            "raise limits.segment_memory_gb if it lacked memory"
        ) from error
    if "error" in answer:
        raise DataError(answer["error"])
    return answer["result"]

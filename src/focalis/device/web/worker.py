"""The child process that reads received files for the page: `python -m focalis.device.web.worker`.

One job as JSON on standard input, its answer as JSON on standard output. Whatever a file does to the reader, it does
to this process, whose memory and time are limited.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from focalis.errors import FocalisError

JOBS: Mapping[str, str] = {
    "identify": "focalis.device.web.study_identity",
    "prepare": "focalis.device.web.preparing",
    "correct": "focalis.device.web.correcting",
    "export": "focalis.device.web.exporting",
}
"""Jobs and where the function of that name is; imported when it is wanted, for some need little."""


def main() -> None:
    """Do the job that standard input describes."""
    # what a library prints must not mix with the answer
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        job = json.load(sys.stdin)
        try:
            _limit_memory(job["memory_bytes"])
            function = getattr(import_module(JOBS[job["name"]]), job["name"])
            result: dict[str, Any] = {"result": function(**job["arguments"])}
        except FocalisError as error:
            result = {"error": str(error)}
        except MemoryError:
            result = {"error": "needs more memory than [limits] allow; raise them in focalis.toml"}
        json.dump(result, answer)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()

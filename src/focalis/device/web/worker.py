"""The child process that reads received files for the page: `python -m focalis.device.web.worker`.

One job as JSON on standard input, its answer as JSON on standard output. Whatever a file does to the reader, it does
to this process, whose memory and time are limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from focalis.children import requests, take_over_output
from focalis.errors import FocalisError

JOBS: Mapping[str, str] = {
    "identify": "focalis.device.web.study_identity",
    "describe": "focalis.device.web.describing",
    "prepare": "focalis.device.web.preparing",
    "correct": "focalis.device.web.correcting",
    "export": "focalis.device.exporting",
    "frames": "focalis.device.web.dicomweb_frames",
    "copies": "focalis.device.deidentify",
}
"""Jobs and where the function of that name is; imported when it is wanted, for some need little."""


def main() -> None:
    """Do the job that standard input describes."""
    answer = take_over_output()
    job = next(requests())
    try:
        _limit_memory(job["memory_bytes"])
        function = getattr(import_module(JOBS[job["name"]]), job["name"])
        answer({"result": function(**job["arguments"])})
    except FocalisError as error:
        answer({"error": str(error)})
    except MemoryError:
        answer({"error": "needs more memory than [limits] allow; raise them in focalis.toml"})


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()

"""What held DICOM objects say of themselves, for queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalis.device.config import Limits
from focalis.device.web.children import run_job

Described = Mapping[str, Any]
"""A header as DICOM JSON, without bulk data; empty if the file cannot be read."""

_REMEMBERED = 20_000


class Headers:
    """Headers by file, read in a child process once and remembered in memory."""

    def __init__(self, limits: Limits, charset: str) -> None:
        self._limits = limits
        self._charset = charset
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, Path], Described] = OrderedDict()

    def of(self, paths: Sequence[Path]) -> list[Described]:
        """The headers of some files, in their order.

        Raises:
            DataError: they cannot be read within the limits.
        """
        return self._of("describe", paths, {"charset": self._charset})

    def frames_of(self, paths: Sequence[Path]) -> list[Described]:
        """Where the frames of some files lie, in their order; see `focalis.device.web.dicomweb_frames`.

        Raises:
            DataError: they cannot be read within the limits.
        """
        return self._of("frames", paths, {})

    def _of(self, job: str, paths: Sequence[Path], more: Mapping[str, object]) -> list[Described]:
        with self._lock:
            unknown = [path for path in dict.fromkeys(paths) if (job, path) not in self._known]
            if unknown:
                answers = run_job(job, {"files": [str(path) for path in unknown], **more}, self._limits)
                self._known.update(zip(((job, path) for path in unknown), answers, strict=True))
            found = [self._known[job, path] for path in paths]
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

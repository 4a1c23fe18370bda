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
        self._known: OrderedDict[Path, Described] = OrderedDict()

    def of(self, paths: Sequence[Path]) -> list[Described]:
        """The headers of some files, in their order.

        Raises:
            DataError: they cannot be read within the limits.
        """
        with self._lock:
            unknown = [path for path in dict.fromkeys(paths) if path not in self._known]
            if unknown:
                told: dict[str, object] = {"files": [str(path) for path in unknown], "charset": self._charset}
                self._known.update(zip(unknown, run_job("describe", told, self._limits), strict=True))
            found = [self._known[path] for path in paths]
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

"""What held DICOM objects say of themselves, for queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalis.device.bucket import LostObjectError
from focalis.device.config import Limits
from focalis.device.records import Held
from focalis.device.store import Store
from focalis.device.web.children import run_job

Described = Mapping[str, Any]
"""A header as DICOM JSON, without bulk data; empty if the file cannot be read."""

_REMEMBERED = 20_000


class Headers:
    """Headers by file, read in a child process once and remembered in memory."""

    def __init__(self, store: Store, limits: Limits, charset: str) -> None:
        self._store = store
        self._limits = limits
        self._charset = charset
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, Path], Described] = OrderedDict()

    def of(self, held: Sequence[Held]) -> list[Described]:
        """The headers of some objects, in their order.

        Raises:
            DataError: they cannot be read within the limits.
        """
        return self._of("describe", held, {"charset": self._charset})

    def of_those_there(self, held: Sequence[Held]) -> list[Described]:
        """As `of`; an empty header for an object that is lost, which costs the others nothing."""
        try:
            return self.of(held)
        except LostObjectError:
            there = [isinstance(found, Path) for found in self._store.at_hand_or_lost(held)]
            headers = iter(self.of([each for each, is_there in zip(held, there, strict=True) if is_there]))
            return [next(headers) if is_there else {} for is_there in there]

    def frames_of(self, held: Sequence[Held]) -> list[Described]:
        """Where the frames of some objects lie, in their order; see `focalis.device.web.dicomweb_frames`.

        Raises:
            DataError: they cannot be read within the limits.
        """
        return self._of("frames", held, {})

    def _of(self, job: str, held: Sequence[Held], more: Mapping[str, object]) -> list[Described]:
        with self._lock:
            unknown = {each.path: each for each in held if (job, each.path) not in self._known}
            if unknown:
                files = list(map(str, self._store.at_hand(unknown.values())))
                answers = run_job(job, {"files": files, **more}, self._limits)
                self._known.update(zip(((job, path) for path in unknown), answers, strict=True))
            found = [self._known[job, each.path] for each in held]
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

"""Counters and histograms of the device since it started, in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import product

Labels = tuple[tuple[str, str], ...]

STAGES = ("waiting", "checking", "segmenting", "writing", "sending")
_ENDS = ("done", "out of scope", "held", "refused", "failed")
_OUTCOMES = ("kept", "known", "quarantined", "foreign", "too large", "no room")
SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0)
"""Upper bounds of the histograms' buckets."""

_COUNTERS: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "received_total": ("DICOM objects that came, by what became of them.", {"outcome": _OUTCOMES}),
    "refusals_total": ("Things that senders were refused.", {}),
    "tasks_ended_total": ("Segmentation tasks that ended, by state.", {"state": _ENDS}),
    "sent_total": ("Attempts to send a result, by outcome.", {"outcome": ("sent", "failed", "dead")}),
}
_STAGE = "stage_seconds"


class Counters:
    """Counts up from 0 at each start, as Prometheus expects; safe to use from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = {}
        for name, (_, labels) in _COUNTERS.items():
            every = product(*([(label, value) for value in values] for label, values in labels.items()))
            self._counts[name] = dict.fromkeys(every, 0.0)
        self._buckets: dict[str, list[int]] = {stage: [0] * (len(SECONDS) + 1) for stage in STAGES}
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, name: str, **labels: str) -> None:
        """Count one more of something that is listed above."""
        with self._lock:
            self._counts[name][tuple(labels.items())] += 1

    def took(self, stage: str, seconds: float) -> None:
        """A task was in a stage for so long."""
        if stage in self._buckets:
            with self._lock:
                self._buckets[stage][bisect_left(SECONDS, seconds)] += 1
                self._sums[stage] += max(seconds, 0.0)

    def lines(self) -> list[str]:
        """All of it, each family with its help and type."""
        found = []
        with self._lock:
            for name, (what, _) in _COUNTERS.items():
                found += [f"# HELP focalis_{name} {what}", f"# TYPE focalis_{name} counter"]
                found += [
                    f"focalis_{name}{_text(labels)} {value:.0f}"
                    for labels, value in self._counts[name].items()
                ]
            found += [
                f"# HELP focalis_{_STAGE} Seconds that tasks spent in a stage.",
                f"# TYPE focalis_{_STAGE} histogram",
            ]
            for stage, buckets in self._buckets.items():
                count = 0
                for bound, number in zip((*(f"{each:g}" for each in SECONDS), "+Inf"), buckets, strict=True):
                    count += number
                    labels = (("stage", stage), ("le", bound))
                    found.append(f"focalis_{_STAGE}_bucket{_text(labels)} {count}")
                of = _text((("stage", stage),))
                found.append(f"focalis_{_STAGE}_sum{of} {self._sums[stage]:.3f}")
                found.append(f"focalis_{_STAGE}_count{of} {count}")
        return found


def _text(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""

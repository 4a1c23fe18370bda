"""One run of a comparison in a process of its own: its peak memory is its own, and its death is not its parent's.

The parent writes one line of JSON, a `Task`, to this process's standard input and keeps that open: when it closes, the
parent is gone, and this process ends at once instead of training on for nobody. Progress goes to standard output, a
line of JSON each; how the run ended goes to outcome.json in its folder.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from focalis.dataset import Split, open_dataset
from focalis.errors import DivergedError, FocalisError
from focalis.files import only_process_in
from focalis.planning import read_plan
from focalis.prediction import choose_runtime
from focalis.settings import Compute, Length
from focalis.training import Progress, trusted
from focalis.workflows.judge import judge
from focalis.workflows.record import write_json
from focalis.workflows.run import Run, segmenting_as, train_run

OUTCOME = "outcome.json"
FINISHED, DIVERGED, MEMORY, FAILED = "finished", "diverged", "out of memory", "failed"
SECONDS_BETWEEN_LINES = 0.5
_ALLOCATOR_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True)
class Task:
    """What to run; all of it goes through JSON.

    Attributes:
        dataset: the data set's path.
        labels: label value (as text) to name.
        home: the run's folder, whose parent holds plan.yaml.
        prepared: the folder of prepared cases that all runs share.
        train, val: names of the cases that may train, and of those held out.
        seed: the run's seed.
        device, precision, threads: where and how to compute.
        minutes, steps: how long to train; `steps` counts if it is given.
        judged_on: one line that says which cases the figures are taken on.
        record: provenance, which record.json starts from.
        holds: case name to the labels that it holds, where that is known.
    """

    dataset: str
    labels: Mapping[str, str]
    home: str
    prepared: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    seed: int
    device: str
    precision: str
    threads: int
    minutes: float
    steps: int | None
    judged_on: str
    record: Mapping[str, Any]
    holds: Mapping[str, Sequence[int]] = field(default_factory=dict)


def work(task: Task, progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
    """Train and judge a run, or go on with it, and write its outcome; whatever goes wrong becomes the outcome.

    Returns:
        What outcome.json holds: `outcome` and, unless it is `FINISHED`, a `message` of one line.
    """
    home = Path(task.home)
    try:
        with only_process_in(home, "run"):
            result = _train_and_judge(task, progress)
    except Exception as error:
        result = {"outcome": kind_of(error), "message": " ".join(str(error).split()) or type(error).__name__}
        if not isinstance(error, FocalisError):
            result["message"] = f"{type(error).__name__}: {result['message']}"
    write_json(home / OUTCOME, result)
    return result


def kind_of(error: BaseException) -> str:
    """What a table says of an error: diverged, out of memory, or failed."""
    if isinstance(error, DivergedError):
        return DIVERGED
    # The CPU's allocator has no exception of its own: it raises a RuntimeError.
    words = str(error).lower()
    allocator = isinstance(error, RuntimeError) and any(word in words for word in _ALLOCATOR_WORDS)
    return MEMORY if isinstance(error, MemoryError | torch.OutOfMemoryError) or allocator else FAILED


def _train_and_judge(task: Task, progress: Callable[[Progress], None] | None) -> dict[str, Any]:
    torch.set_num_threads(task.threads)
    home = Path(task.home)
    labels = {int(value): name for value, name in task.labels.items()}
    data = replace(open_dataset(Path(task.dataset)), labels=labels).holding(task.holds)
    split = Split(tuple(task.train), tuple(task.val))
    plan = read_plan(home.parent / "plan.yaml")
    runtime = trusted(choose_runtime(task.device, task.precision), plan)
    segmenting = segmenting_as(Compute(task.device, task.precision, task.threads), plan)
    run = Run(
        home, Path(task.prepared), data, split, plan, task.seed, runtime, task.record, segmenting=segmenting
    )
    model = train_run(
        run, Length(None if task.steps else task.minutes, task.steps), resume=True, progress=progress
    )
    judge(run, model, task.judged_on)
    result: dict[str, Any] = {"outcome": FINISHED}
    if runtime.device.type == "cuda":
        result["peak_gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(runtime.device) / 1e9, 3)
    return result


def main() -> None:
    """Read a task from standard input and do it."""
    task = Task(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    told = 0.0

    def tell(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN_LINES or progress.step == progress.steps:
            told = time.monotonic()
            print(json.dumps(asdict(progress)), flush=True)

    try:
        work(task, tell)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_the_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold when the process ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()

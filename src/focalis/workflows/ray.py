"""Jobs as tasks of Ray: on the cluster that this machine belongs to, or on this machine alone.

Ray places, watches and retries; what is known of a job is read from its folder, which all nodes must see.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from focalis import __version__
from focalis.errors import DataError, TrainingError, UsageError, one_line
from focalis.files import only_process_in
from focalis.training import Progress, read_metrics
from focalis.workflows.record import read_json, write_json
from focalis.workflows.run import KILLED, OUTCOME, Job, Task, Tell
from focalis.workflows.slurm import THREADS
from focalis.workflows.task import carry_out, job_of

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 60.0
"""So long a training may take to finish its step and write a checkpoint after Ctrl-C."""


def ray(jobs: Sequence[Job], parallel: int, tell: Tell) -> str:
    """Carry out each job as a task of Ray; one whose worker or node is lost is tried again, three times.

    `parallel` above 1 limits how many run at a time; otherwise as many do as the cluster has room for.

    Raises:
        UsageError: Ray is not installed or cannot be reached, or no node has what a job needs.
        TrainingError: jobs failed; a line each.
    """
    engine = _engine()
    starts = not engine.is_initialized()
    if starts:
        _start(engine)
    try:
        wanted = _options(jobs[0], [node for node in engine.nodes() if node["Alive"]])
        remote = engine.remote(max_calls=1, **wanted)(
            _on_a_worker
        )  # a process for each: its memory is its own
        _run(engine, jobs, parallel, tell, lambda job: remote.remote(_written(job), __version__))
    finally:
        if starts:
            engine.shutdown()
    if failed := [f"{job.name}: {job.outcome['message']}" for job in jobs if not job.finished]:
        raise TrainingError.of_lines(failed)
    return ""


def _engine() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError("--on ray needs Ray; pip install 'focalis[ray]'") from error


def _start(engine: Any) -> None:
    """Join the cluster that RAY_ADDRESS names or that runs on this machine, or start one here that ends with us."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # it is 15 otherwise
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # without it Ray warns that this will change
    try:
        engine.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        said = one_line(error, 200)
        raise UsageError(
            f"Ray cannot be reached ({said}); check RAY_ADDRESS and `ray status`, or take --on processes"
        ) from error


def _options(job: Job, nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What to ask of a node; a task that no node has room for would wait forever, and is refused."""
    needs, found = job.needs, [node["Resources"] for node in nodes]
    most = {name: max((each.get(name, 0) for each in found), default=0) for name in ("CPU", "GPU", "memory")}
    if needs.device.partition(":")[2]:
        raise UsageError(f"device {needs.device} is a choice that Ray makes; give --device cuda")
    if needs.device == "mps" or (needs.device == "cuda" and not most["GPU"]):
        raise UsageError(f"no node of the Ray cluster has {needs.device}; give another --device")
    gpu = 1 if needs.device != "cpu" and most["GPU"] else 0
    fitting = [each for each in found if each.get("GPU", 0) >= gpu] or found
    threads = needs.threads or int(min(THREADS, max((each.get("CPU", 0) for each in fitting), default=0)))
    memory = needs.memory_gb * 10**9
    asked = {"CPU": max(1, threads), "GPU": gpu, "memory": memory}
    if not any(all(each.get(name, 0) >= value for name, value in asked.items()) for each in found):
        raise UsageError(
            f"a task needs {asked['CPU']} threads and {needs.memory_gb} GB{' and a GPU' if gpu else ''}, and no node "
            f"of the Ray cluster has them (at most {most['CPU']:g} and {most['memory'] / 1e9:.1f} GB); give a smaller "
            "--threads or --memory-gb"
        )
    return {"num_cpus": asked["CPU"], "num_gpus": gpu, "memory": memory}


def _written(job: Job) -> str:
    return job.placed().model_dump_json()


def _on_a_worker(written: str, version: str) -> None:
    """Carry out a job in a process of Ray; how it ended stands in its folder."""
    if version != __version__:
        raise UsageError(f"the node has Focalis {__version__}, and {version} is wanted; install that")
    job = job_of(json.loads(written))
    if not job.shared.is_dir():
        raise UsageError.at(job.shared, "is not on this node", "give a folder that all nodes share")
    with only_process_in(job.home, "run"), suppress(Exception):
        carry_out(job)


def _run(engine: Any, jobs: Sequence[Job], parallel: int, tell: Tell, submit: Callable[[Job], Any]) -> None:
    """Have all jobs carried out, so many at a time, and tell of their progress; Ctrl-C stops them all."""
    for job in jobs:
        (job.home / OUTCOME).unlink(missing_ok=True)
    left, running, told = list(reversed(jobs)), dict[Any, Job](), dict[Path, Progress | None]()
    try:
        while left or running:
            while left and (parallel == 1 or len(running) < parallel):
                job = left.pop()
                running[submit(job)] = job
            done, _ = engine.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
            for reference, job in running.items():
                if job.home.is_dir() and (
                    (now := _progress(job)) != told.get(job.home) or job.home not in told
                ):
                    told[job.home] = now
                    tell(job.name, now)
                if reference in done:
                    _ended(engine, reference, job)
            running = {each: job for each, job in running.items() if each not in done}
    except BaseException:
        for reference in running:
            engine.cancel(reference)
        end = time.monotonic() + SECONDS_TO_STOP
        engine.wait(list(running), num_returns=len(running), timeout=max(0.0, end - time.monotonic()))
        raise


def _ended(engine: Any, reference: Any, job: Job) -> None:
    """Record the end of a job that could not do so itself: its process was lost too often, or never began."""
    try:
        engine.get(reference)
    except Exception as error:
        if not (job.home / OUTCOME).exists():
            cause = getattr(error, "cause", None)
            said = one_line(cause or error)
            job.home.mkdir(parents=True, exist_ok=True)
            write_json(job.home / OUTCOME, {"outcome": KILLED, "message": said})


def _progress(job: Job) -> Progress | None:
    """The last row that a training wrote, wherever it runs; None before there is one."""
    if not isinstance(job, Task):
        return None
    with suppress(OSError, ValueError, LookupError, DataError):
        row, steps = read_metrics(job.home)[-1], read_json(job.home / "record.json")["steps"]
        left = row["seconds"] / row["step"] * (steps - row["step"])
        return Progress(row["step"], steps, row["loss"], row.get("val_dice"), left)
    return None

"""Jobs as an array job of Slurm: files of jobs, a script of one screen, and what became of them.

The first call writes `tasks/N.json` and `tasks/job.sh` beside the runs' folders and names the `sbatch` line; the same
call again collects. Slurm's own commands submit, watch and cancel: Focalis talks to no scheduler.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focalis.errors import UsageError
from focalis.files import write_text
from focalis.planning import Plan
from focalis.workflows.record import changes
from focalis.workflows.run import UNTOUCHED, Job, Tell
from focalis.workflows.task import read_task

TASKS = "tasks"
THREADS = 4
"""Where nobody says how many."""
JOB = """#!/bin/bash
# Carries out the tasks that lie beside this script, one per element of the array. One that is stopped, or requeued
# after its node was lost, goes on where it was. Change or add #SBATCH lines as your cluster wants them:
# a partition, a time limit, --gres=gpu:1.
#SBATCH --job-name=focalis
#SBATCH --array={array}
#SBATCH --cpus-per-task={threads}
#SBATCH --mem={memory_gb}G
#SBATCH --requeue
#SBATCH --chdir={here}
#SBATCH --open-mode=append
#SBATCH --output={logs}

export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
exec {python} -m focalis work {quoted}/"$SLURM_ARRAY_TASK_ID".json
"""


def slurm(tasks: Sequence[Job], parallel: int, _tell: Tell) -> str:
    """Write the tasks down for Slurm; once they are finished, nothing more is to do.

    Returns:
        What is left to do, in one line; empty when every task is finished.

    Raises:
        UsageError: other tasks were written down before.
    """
    folder = (tasks[0].shared / TASKS).resolve()
    numbers = _write(folder, tasks)
    script = folder / "job.sh"
    if not script.exists():
        write_text(script, _job(folder, tasks[0], _ranges(sorted(numbers.values())), parallel))
        submit = f"sbatch {shlex.quote(str(script))}"
        return f"submit the {tasks[0].kind} with: {submit}; the same command again then collects"
    waiting = [task for task in tasks if not task.finished]
    if not waiting:
        return ""
    failed = [
        f"{task.name}: {task.outcome['message']}" for task in waiting if task.outcome["outcome"] != UNTOUCHED
    ]
    again = _ranges(sorted(numbers[task.home] for task in waiting))
    return "; ".join(
        [
            f"{len(tasks) - len(waiting)} of {len(tasks)} {tasks[0].kind} are finished",
            *failed,
            "wait for those that run; what is not in the queue is submitted again with: "
            f"sbatch --array={again} {shlex.quote(str(script))}",
        ]
    )


def _job(folder: Path, task: Job, array: str, parallel: int) -> str:
    """The script; what one of the tasks wants, all of them want."""
    return JOB.format(
        array=f"{array}%{parallel}" if parallel > 1 else array,
        threads=task.needs.threads or THREADS,
        memory_gb=task.needs.memory_gb,
        logs=shlex.quote(f"{folder}/%a.log"),
        here=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        quoted=shlex.quote(str(folder)),
    )


def _write(folder: Path, tasks: Sequence[Job]) -> dict[Path, int]:
    """Write the tasks down with absolute paths; the number of each by its `home`, which it keeps from then on."""
    before = {
        task.home: (int(path.stem), task) for path in folder.glob("*.json") for task in [read_task(path)]
    }
    numbers = {}
    for task in tasks:
        mine = task.placed()
        number, written = before.get(mine.home, (len(before), None))
        path = folder / f"{number}.json"
        if written is None:
            before[mine.home] = number, mine
            write_text(path, mine.model_dump_json(indent=1) + "\n")
        elif changed := changes(_told(written), _told(mine)):
            raise UsageError.at(path, f"was written with other settings: {changed}", "give a new folder")
        numbers[task.home] = number
    return numbers


def _told(task: Job) -> dict[str, Any]:
    """What a task says, each option by its own name, but not when it was written and why its plan is so."""
    told = dict(task)
    told = {**told, "record": None, "pooled": None, "options": None, **told.get("options", {})}
    if isinstance(plan := told.get("plan"), Plan):
        told["plan"] = plan.without_reasons()
    return told


def _ranges(numbers: Sequence[int] | range) -> str:
    """Numbers as Slurm writes them: 0-3,5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

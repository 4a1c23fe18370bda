"""`focalis work`: carry out one task that another command wrote down, as a batch job does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import Advance, progress_bar, show_training
from focalis.cli.launched import launched


def work(
    task: Annotated[Path, typer.Argument(metavar="TASK.json", help="A task file that --on slurm wrote.")],
) -> None:
    """Carry out one task of a batch job, or go on with it.

    SIGTERM, with which schedulers stop a job, writes a checkpoint, as Ctrl-C does.
    """
    from focalis import ranks
    from focalis.files import only_process_in
    from focalis.workflows.task import carry_out, read_task, train_and_judge

    given = read_task(task)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))

    @ranks.led(train_and_judge)
    def carried_out(advance: Advance) -> None:
        with only_process_in(given.home, "run"):
            carry_out(given, show_training(advance))

    with launched(), progress_bar() as advance:
        carried_out(advance)
    print(f"{given.name}: {given.outcome['outcome']}")

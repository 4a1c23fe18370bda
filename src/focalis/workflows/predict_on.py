"""Predict many cases in parts that an executor carries out: in processes, on a cluster."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from focalis.files import only_process_in
from focalis.models import model_file
from focalis.settings import at_least
from focalis.workflows.executors import executor
from focalis.workflows.inputs import find_cases
from focalis.workflows.part import Part, plain
from focalis.workflows.predict import PredictReport
from focalis.workflows.predict_options import check_options, require_dicom
from focalis.workflows.result_files import older_masks
from focalis.workflows.run import Tell
from focalis.workflows.slurm import TASKS

CASES_PER_PART = 20
MACHINE = {"device": "auto", "precision": "auto", "runtime": "auto"}
"""In place of the options that only the machine can judge that carries a part out."""


def predict_on(
    on: str,
    model: Path | str,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    parallel: int = 1,
    threads: int | None = None,
    tell: Tell = lambda _stage, _progress: None,
    **options: Any,
) -> tuple[PredictReport | None, str]:
    """Segment images as `predict` does, in parts of about twenty cases.

    Cases that were finished before are kept, see `resume` of `predict`: after whatever happened, the same call goes on.

    Args:
        on: the executor: here, processes, slurm, ray, or one that a package registers.
        model, inputs, out: see `predict`.
        parallel: parts at a time; in processes they share the threads.
        tell: told the name of each part that begins.
        options: those of `predict`, `memory_gb` and `device` among them; the memory is that of each part.

    Returns:
        The report, and what is left to do before there is one, in a line: on Slurm, submit or wait.

    Raises:
        UsageError: an option is wrong, or no image was given.
        TrainingError: parts did not come to their end; a line each.
    """
    at_least("parallel", parallel, 1)
    at_least("threads", threads, 1)
    chosen = executor(on, parallel)
    file, folder = model_file(model), Path(out).absolute()
    checked = {name: value for name, value in options.items() if name != "probabilities"}
    asked = check_options(file, folder, **checked | (MACHINE if chosen.elsewhere else {}))
    plan = asked.model.plan
    cases = find_cases([Path(path) for path in inputs], plan.channels, plan.channels_may_miss)
    require_dicom(asked.codec, cases)
    count = min(len(cases), max(math.ceil(len(cases) / CASES_PER_PART), parallel))
    parallel = min(parallel, count)
    if parallel > 1 and not chosen.elsewhere:
        threads = max(1, (threads or torch.get_num_threads()) // parallel)
    parts = [
        Part(
            name=f"part {number + 1}/{count}",
            home=folder / TASKS / f"part_{number + 1}",
            model=os.path.abspath(file) if Path(model).exists() else str(model),  # noqa: PTH100 - a link stays
            inputs=tuple(plain(case) for case in cases[number::count]),
            out=folder,
            threads=threads,
            options=options,
        )
        for number in range(count)
    ]
    with only_process_in(folder / TASKS, "prediction"):
        if left := chosen.run(parts, parallel, tell):
            return None, left
        reports = [part.report for part in parts]
        if on != "slurm":  # whose files stay, because the same command collects again
            shutil.rmtree(folder / TASKS)
    place = {case.name: number for number, case in enumerate(cases)}
    rows = sorted((row for report in reports for row in report.rows), key=lambda row: place[row.case])
    ran = "; ".join(dict.fromkeys(report.runtime for report in reports))
    older = older_masks(folder, {row.output for row in rows}, set())
    return replace(reports[0], rows=tuple(rows), runtime=ran, older_masks=older), ""

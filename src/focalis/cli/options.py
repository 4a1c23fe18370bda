"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Data set: a folder, or a CSV manifest.")
]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Training time of each run; 30 if --steps is not given.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps of each run instead.")]
Splits = Annotated[Path | None, typer.Option(help="JSON file of splits, as nnU-Net's splits_final.json.")]
MayMiss = Annotated[
    list[str] | None,
    typer.Option(
        "--channels-may-miss",
        help="A channel that cases may lack; once for each. Trainings leave it out of a share of the patches.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
On = Annotated[
    str | None,
    typer.Option(
        help="What carries the trainings out: here, processes, slurm, ray, or one that a package adds."
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read all files again, also those that seem to be as they were."),
]
Charset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Reads DICOM text of no or a wrong character set, such as ISO_IR 144; Latin-1 if not given.",
    ),
]

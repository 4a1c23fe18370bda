"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", help="A data set: a folder, or a CSV manifest.")
]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Minutes of training per run; 30 without --steps.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps per run, instead of minutes.")]
Splits = Annotated[
    Path | None,
    typer.Option(
        help="JSON file of splits, like nnU-Net's splits_final.json; default: the data set's own, else by patient."
    ),
]
MayMiss = Annotated[
    list[str] | None,
    typer.Option(
        "--channels-may-miss",
        help="A channel that cases may lack; repeat for more. Training leaves it out of some patches.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str,
    typer.Option(help="auto, float32, bfloat16 or float16; auto takes bfloat16 where the processor has it."),
]
On = Annotated[
    str | None,
    typer.Option(
        help="Where trainings run: here, processes, slurm, ray, or an executor that a package adds."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Read all files again, also those with the path, size and times of before."
    ),
]
Prepared = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Object store that keeps prepared cases: s3://bucket/prefix; default: a folder of the run.",
    ),
]
Charset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Character set of DICOM text that states none or a wrong one, such as ISO_IR 144; default Latin-1.",
    ),
]

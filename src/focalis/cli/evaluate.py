"""`focalis evaluate`: how good predictions are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import print_json, print_readers, print_summary, progress_bar


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Folder of predicted label maps, or one file.")
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS", help="Folder of the true label maps under the same names, or one file."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for evaluation.json, cases.csv and report.html; without it figures are only printed.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images, for pictures in the report (100 cases at most, worst first)."
        ),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(help="Folder of readers' masks CASE_READER: compare the model with each reader."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="CSV table with columns case and patient, for intervals over patients; default: each case is one."
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Label value of voxels that nobody has judged; they do not count. Default: the data set's.",
        ),
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(min=0, help="Tolerance of the surface Dice, in mm.")] = 1.0,
    min_size: Annotated[
        float, typer.Option("--min-size", min=0, help="Ignore components of fewer mm3, in both maps.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of evaluation.json.")] = False,
) -> None:
    """Measure how good masks are: by voxel, by surface and by lesion."""
    from focalis.workflows.evaluate import evaluate as run_evaluate

    with progress_bar() as advance:
        evaluation = run_evaluate(
            predictions,
            labels,
            out,
            images=images,
            readers=readers,
            patients=patients,
            ignore=ignore,
            tolerance_mm=tolerance_mm,
            min_lesion_mm3=min_size,
            seed=seed,
            progress=partial(advance, "evaluate"),
        )
    if as_json:
        print_json(evaluation.to_json())
        return
    for line in evaluation.alerts:
        print(f"WARNING: {line}")
    print("Dice and lesions with 95 % intervals:")
    print_summary(evaluation.summary)
    print_readers(evaluation.readers, len(evaluation.seen))
    if out is not None:
        print(f"report: {out / 'report.html'}")

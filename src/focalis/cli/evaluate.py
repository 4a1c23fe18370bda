"""`focalis evaluate`: how good predictions are."""

from __future__ import annotations

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
        typer.Argument(metavar="LABELS", help="Folder of the true ones under the same names, or one file."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for evaluation.json, cases.csv and report.html."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images: the report then shows cases and missed lesions."),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(help="Folder of readers' masks CASE_READER: is the model inside their spread?"),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV table with the columns case and patient: intervals are then over patients."),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(min=1, help="Value of the labels where nobody has judged; left out.")
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(min=0, help="Tolerance of the surface Dice.")] = 1.0,
    min_size: Annotated[
        float,
        typer.Option("--min-size", min=0, help="Components of fewer mm3 are no lesions, in either map."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json's content.")] = False,
) -> None:
    """Compare predicted label maps with true ones, by voxel, by surface and by lesion."""
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
            progress=lambda done, total, case: advance("evaluate", done, total, case),
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

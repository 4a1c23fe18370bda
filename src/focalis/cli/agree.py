"""`focalis agree`: how well readers agree."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import figure_with_interval, print_json, progress_bar
from focalis.display import counted


def agree(
    labels: Annotated[
        list[Path],
        typer.Argument(
            metavar="LABELS_A LABELS_B ...",
            help="A folder of label maps per reader, or one data set with raters/CASE_READER.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for agreement.json, pairs.csv and report.html; without it figures are only printed.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, for the pictures; a data set has its own.")
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Files are masks of one structure each, named CASE_STRUCTURE.")
    ] = False,
    ignore: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Label value of voxels that a reader has not judged; they do not count. Default: the data set's.",
        ),
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(min=0, help="Tolerance of the surface Dice, in mm.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of agreement.json.")] = False,
) -> None:
    """Measure how well readers of the same cases agree."""
    from focalis.workflows.agree import agree as run_agree

    with progress_bar() as advance:
        agreement = run_agree(
            labels,
            out,
            images=images,
            masks=masks,
            ignore=ignore,
            tolerance_mm=tolerance_mm,
            seed=seed,
            progress=partial(advance, "agree"),
        )
    if as_json:
        print_json(agreement.to_json())
        return
    print("Mean pairwise Dice of readers with 95 % intervals:")
    for structure in agreement.structures:
        dice, surface, hd95 = (structure[name] for name in ("dice", "surface_dice", "hd95_mm"))
        kappa = structure.detection_kappa
        print(
            f"  {structure.structure}: {counted(structure.cases)}, Dice "
            f"{figure_with_interval(dice.mean, dice.low, dice.high)}, surface Dice "
            f"{figure_with_interval(surface.mean, surface.low, surface.high)}, HD95 in mm "
            f"{figure_with_interval(hd95.mean, hd95.low, hd95.high)}, detection kappa "
            f"{figure_with_interval(kappa.value, kappa.low, kappa.high)}"
        )
    if agreement.single:
        print(f"  {counted(len(agreement.single))} with fewer than two readers left out")
    if out is not None:
        print(f"report: {out / 'report.html'}")

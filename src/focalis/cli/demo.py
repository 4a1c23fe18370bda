"""`focalis demo`: the main job in a few minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import print_json, print_summary, progress_bar, show_training
from focalis.errors import UsageError

DATA_VARIABLE = "FOCALIS_DATA"
CAVEAT = (
    "These are generated phantoms: the figures show that everything works, "
    "and are no evidence of clinical accuracy."
)


def demo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help=f"A data set in the folder that {DATA_VARIABLE} names; default: generated phantoms.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0, help="Minutes of training.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed of the phantoms and of the training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Try everything in a few minutes: train, predict held-out cases, evaluate."""
    data = None if name is None else _named(name)
    from focalis.workflows.demo import demo as run_demo

    with progress_bar() as advance:
        result = run_demo(out, data, minutes, seed, show_training(advance))
    if as_json:
        print_json(result)
        return
    print(f"data: {result.data}")
    print(f"model: {result.model}")
    print(f"masks of the held-out cases: {result.masks}")
    for line in result.alerts:
        print(f"WARNING: {line}")
    print("held-out cases, Dice and lesions with 95 % intervals:")
    print_summary(result.summary)
    print(f"report of the training: {result.training_report}")
    print(f"report of the evaluation: {result.report}")
    if result.generated:
        print(CAVEAT)


def _named(name: str) -> Path:
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise UsageError(
            f"{DATA_VARIABLE}: is not set; let it name the folder that holds {name}, or leave the name out"
        )
    data = Path(folder) / name
    if not (data / "images").is_dir():
        known = sorted(path.parent.name for path in Path(folder).glob("*/images"))
        raise UsageError.at(data, "is not a data set", f"{DATA_VARIABLE} holds {', '.join(known) or 'none'}")
    return data

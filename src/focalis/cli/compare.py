"""`focalis compare`: networks and losses side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from focalis.cli.console import figure_with_interval, print_json, print_warning, progress_bar, show_training
from focalis.cli.options import (
    DatasetFolder,
    Device,
    MayMiss,
    Minutes,
    On,
    Precision,
    Prepared,
    Splits,
    Steps,
    Verify,
)
from focalis.display import counted
from focalis.errors import UsageError


def compare(
    dataset: DatasetFolder,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the comparison; run the same command again to go on."),
    ],
    networks: Annotated[
        str,
        typer.Option(
            help="Networks, such as dense,unet,deeplab+crf; the others are compared with the first."
        ),
    ] = "",
    losses: Annotated[
        str, typer.Option(help="Losses, such as distance_focal,tversky; the first one trains every network.")
    ] = "",
    minutes: Minutes = None,
    steps: Steps = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2; every row trains once with each.")] = "0",
    fold: Annotated[
        int | None, typer.Option(min=0, help="Hold out the cases of this fold; 0 without --folds.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Hold out each of this many folds in turn.")
    ] = None,
    splits: Splits = None,
    channels_may_miss: MayMiss = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Weights that every row starts from: scratch, shapes, or a model file; default: those of the "
            "rows that are there, else those of the plans if they agree."
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Runs at a time; needs --steps.")] = 1,
    on: On = None,
    verify: Verify = False,
    prepared: Prepared = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Processor threads of a run; default all, shared by parallel runs."),
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Memory that a run may use, in 10^9 bytes; default 8. The batch fits the largest network.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of compare.json.")] = False,
) -> None:
    """Train networks and losses on the same cases, and compare them.

    Exit code 1 means that the work failed, or that no run learned anything.
    """
    numbers = _numbers(seeds)  # wrong words stop before torch loads

    from focalis.report.comparison_page import starts_told
    from focalis.workflows.compare import compare as run_compare

    with progress_bar() as advance:
        result = run_compare(
            dataset,
            out,
            networks=_words(networks),
            losses=_words(losses),
            minutes=minutes,
            steps=steps,
            seeds=numbers,
            fold=fold,
            folds=folds,
            splits=splits,
            channels_may_miss=channels_may_miss or (),
            start=start,
            parallel=parallel,
            on=on,
            verify=verify,
            prepared=prepared,
            device=device,
            precision=precision,
            threads=threads,
            memory_gb=memory_gb,
            progress=show_training(advance),
            doubt=print_warning,
        )
    if result.alert:
        print(f"WARNING: {result.alert}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print_json(result.content)
    else:
        for row in result.content["rows"]:
            print(_line(row))
        for line in starts_told(result.content):
            print(line)
        print(f"figures: {result.json}")
        print(f"report: {result.page}")
        if result.left:
            print(result.left)
    if result.alert:
        raise typer.Exit(1)


def _line(row: Mapping[str, Any]) -> str:
    """A row of the table as one line."""
    problems = [run["outcome"] for run in row["runs"] if run["outcome"] != "finished"]
    parts = (
        [f"{len(problems)} of {len(row['runs'])} runs {', '.join(dict.fromkeys(problems))}"]
        if problems
        else []
    )
    if row["figures"]:
        dice = row["figures"]["overall"]["dice"]
        filled = row["figures"]["overall"].get("dice_with_lesion")
        line = f"Dice {figure_with_interval(dice['value'], dice['low'], dice['high'])} of {counted(dice['cases'])}"
        if filled:
            own = figure_with_interval(filled["value"], filled["low"], filled["high"])
            line += f", {own} of the {filled['cases']} with a lesion"
        parts.insert(0, line)
    if row["difference_to_first_row"]:
        dice = row["difference_to_first_row"]["dice"]
        parts.insert(1, f"to the first row {figure_with_interval(dice['value'], dice['low'], dice['high'])}")
    if collapsed := row.get("collapsed_runs"):
        reason = next(run["collapse"] for run in row["runs"] if run.get("collapse"))
        parts.insert(0, f"COLLAPSED in {collapsed} of {len(row['runs'])} runs ({reason})")
    if steps := _steps(row):
        parts.append(steps)
    return f"  {row['network']}, {row['loss']}: {'; '.join(parts)}"


def _steps(row: Mapping[str, Any]) -> str:
    """How many steps the finished runs of a row took, and whether that is too few to judge by."""
    done = [run["steps"] for run in row["runs"] if run["outcome"] == "finished" and run.get("steps")]
    if not done:
        return ""
    count = f"{min(done)}" if min(done) == max(done) else f"{min(done)} to {max(done)}"
    word = "step" if count == "1" else "steps"
    return f"{count} {word}" + (", too few to judge by" if row.get("few_steps") else "")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise UsageError(
            f"--seeds {text}: must be whole numbers with commas between them, as 0,1,2"
        ) from error

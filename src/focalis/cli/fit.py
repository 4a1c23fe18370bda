"""`focalis fit`: train a model on a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from focalis.cli.console import print_doubt, print_json, print_summary, progress_bar, show_training
from focalis.cli.launched import launched
from focalis.cli.options import DatasetFolder, Device, MayMiss, Minutes, On, Precision, Splits, Steps, Verify


def fit(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; made if it is not there.")],
    minutes: Minutes = None,
    steps: Steps = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Hold out the cases of this fold, from 0.")] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Train this many folds; they become one ensemble.")
    ] = None,
    then_all: Annotated[
        bool,
        typer.Option("--then-all", help="After the folds train on all cases, with their operating point."),
    ] = False,
    splits: Splits = None,
    plan: Annotated[Path | None, typer.Option(help="Train by this plan.yaml instead of a new one.")] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Write the plan and stop.")] = False,
    network: Annotated[
        str | None,
        typer.Option(
            help="dense, unet, deeplab and more, which an unknown name lists; NAME+crf refines its masks."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="distance_focal, dice_cross_entropy and more, which an unknown name lists."),
    ] = None,
    readers: Annotated[
        Literal["labels", "majority", "staple", "mean", "random"] | None,
        typer.Option(help="What cases with masks of several readers (raters/CASE_READER) train on."),
    ] = None,
    channels_may_miss: MayMiss = None,
    start: Annotated[
        str | None, typer.Option(help="Weights to start from: scratch, shapes, or MODEL.safetensors.")
    ] = None,
    freeze: Annotated[
        Literal["nothing", "encoder", "all-but-head"] | None,
        typer.Option(help="Which of the start's weights stay as they are."),
    ] = None,
    aim: Annotated[
        str, typer.Option(help="What the operating point is chosen for: dice, or fp-per-scan=X.")
    ] = "dice",
    promise: Annotated[
        str | None,
        typer.Option(help="What is to hold on new scans: miss<=10% or fp-per-scan<=1."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--eight-bit/--no-eight-bit",
            help="Calibrate the model for 8-bit integers at the end; never done where a GPU trains.",
        ),
    ] = True,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="With --fold: say what twenty more cases are likely to bring. Trains three times.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    parallel: Annotated[int, typer.Option(min=1, help="Folds at a time; they share threads and memory.")] = 1,
    on: On = None,
    verify: Verify = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; all if not given.")] = None,
    memory_gb: Annotated[float | None, typer.Option(min=0.1, help="Memory that the run may take.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Check a data set, plan, train a model, and report how good it is.

    If nothing at all was learned the exit code is 1, and the output says so first.
    """
    from focalis.workflows.fit import fit as run_fit

    with launched() as anew, progress_bar() as advance:
        result = run_fit(
            dataset,
            out,
            minutes=minutes,
            steps=steps,
            fold=fold,
            folds=folds,
            then_all=then_all,
            splits=splits,
            plan=plan,
            plan_only=plan_only,
            network=network,
            loss=loss,
            readers=readers,
            channels_may_miss=channels_may_miss,
            start=start,
            freeze=freeze,
            aim=aim,
            promise=promise,
            seed=seed,
            eight_bit=eight_bit,
            learning_curve=learning_curve,
            resume=resume or anew,
            parallel=parallel,
            on=on,
            verify=verify,
            device=device,
            precision=precision,
            threads=threads,
            memory_gb=memory_gb,
            progress=show_training(advance),
            doubt=print_doubt,
        )
    if result.alert:
        print(f"WARNING: {result.alert}", file=sys.stderr if as_json else sys.stdout)
    for line in result.caveats:
        print(f"WARNING: {line}", file=sys.stderr if as_json else sys.stdout)
    if result.float32_because:
        print(f"note: computed in float32: {result.float32_because}", file=sys.stderr)
    if result.start:
        print(f"start: {result.start}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print_json(result)
    elif result.left:
        print(result.left)
    elif result.summary is None:
        print(f"plan: {result.plan}")
    else:
        print(f"{result.judged_on}:")
        print_summary(result.summary)
        if result.promise:
            print(f"promise: {result.promise}")
        if result.outlook:
            print(result.outlook)
        print(f"model: {result.model}")
        if result.all_cases:
            print(f"model of all cases: {result.all_cases}")
        print(f"report: {result.report}")
    if not result.learned:
        raise typer.Exit(1)

"""`focalis fit`: train a model on a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from focalis.cli.console import print_json, print_summary, print_warning, progress_bar, show_training
from focalis.cli.launched import launched
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


def fit(
    dataset: DatasetFolder,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run: new, with a plan.yaml to follow, or an earlier run with --resume.",
        ),
    ],
    minutes: Minutes = None,
    steps: Steps = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Hold out the cases of this fold, counted from 0.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=1, help="Train this many folds: an ensemble, and figures that may be quoted."),
    ] = None,
    then_all: Annotated[
        bool, typer.Option("--then-all", help="Afterwards, train one more model on all cases.")
    ] = False,
    splits: Splits = None,
    plan: Annotated[Path | None, typer.Option(help="Follow this plan.yaml instead of a new plan.")] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Write the plan and stop.")] = False,
    network: Annotated[
        str | None,
        typer.Option(
            help="Instead of the plan's: dense, small-unet, unet, nnunet or another; NAME+crf refines the masks."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Instead of the plan's: dice_cross_entropy, distance_focal, tversky or another."),
    ] = None,
    readers: Annotated[
        Literal["labels", "majority", "staple", "mean", "random"] | None,
        typer.Option(help="What cases with masks of several readers (raters/CASE_READER) train on."),
    ] = None,
    channels_may_miss: MayMiss = None,
    start: Annotated[
        str | None, typer.Option(help="Weights to start from: scratch, shapes, or a model file.")
    ] = None,
    freeze: Annotated[
        Literal["nothing", "encoder", "all-but-head"] | None,
        typer.Option(help="Which of these weights to keep as they are."),
    ] = None,
    aim: Annotated[
        str, typer.Option(help="Choose the operating point for dice, or for fp-per-scan=X.")
    ] = "dice",
    promise: Annotated[
        str | None,
        typer.Option(
            help="What must hold on new scans: miss<=10% or fp-per-scan<=1; @95% behind it for that confidence."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--eight-bit/--no-eight-bit",
            help="Calibrate the model for faster prediction in 8-bit integers; never on a GPU.",
        ),
    ] = True,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="With --fold: forecast what twenty more cases would bring. Trains three times.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run; with more --steps also if it is finished.")
    ] = False,
    parallel: Annotated[
        int, typer.Option(min=1, help="Folds to train at a time; they share threads and memory.")
    ] = 1,
    on: On = None,
    verify: Verify = False,
    prepared: Prepared = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; default all.")] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(min=0.1, help="Memory that the run may use, in 10^9 bytes; default: the plan's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on a data set, and report how good it is.

    Exit code 1 means that the work failed, or that the model learned nothing.
    """
    from focalis.workflows.fit import begun
    from focalis.workflows.fit import fit as run_fit

    with launched(lambda: begun(out)) as anew, progress_bar() as advance:
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

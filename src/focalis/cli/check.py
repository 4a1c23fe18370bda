"""`focalis check`: whether a data set can be used, and what a person should look at."""

from __future__ import annotations

import sys
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from focalis.cli.console import print_json, progress_bar
from focalis.cli.options import DatasetFolder, MayMiss
from focalis.display import counted

if TYPE_CHECKING:
    from focalis.quality import Survey

LINES_PER_KIND = 5


def check(
    dataset: DatasetFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for report.html and check.json; without it the first findings are printed.",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of splits, like nnU-Net's splits_final.json; default: the data set's own."
        ),
    ] = None,
    channels_may_miss: MayMiss = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of check.json.")] = False,
) -> None:
    """Find faults in a data set; nothing in it is changed.

    Exit code 1 means errors, which also stop fit. Warnings name cases to look at.
    """
    from focalis.workflows.check import check as run_check

    with progress_bar() as advance:
        found = run_check(
            dataset,
            out,
            splits=splits,
            channels_may_miss=channels_may_miss or (),
            progress=partial(advance, "check"),
        )
    if as_json:
        print_json(found.to_json())
    for problem in found.result.problems:
        print(f"error: {problem}", file=sys.stderr)
    if not as_json:
        _print(found, out)
    if found.result.problems:
        raise typer.Exit(1)


def _print(found: Survey, out: Path | None) -> None:
    """How many of what, and the first findings of each kind."""
    from focalis.quality import KINDS

    first = [finding for finding in found.findings if finding.kind == "few" and not finding.cases]
    for finding in first:
        print(f"WARNING: {finding}")
    counts = (
        (len(found.dataset.cases), "case"),
        (len(found.result.problems), "error"),
        (len(found.findings), "warning"),
    )
    print(", ".join(counted(count, noun) for count, noun in counts))
    rest = [finding for finding in found.findings if finding not in first]
    for kind, group in groupby(rest, key=lambda finding: finding.kind):
        findings = list(group)
        print(f"{KINDS[kind].title}:")
        for finding in findings[:LINES_PER_KIND]:
            print(f"  {finding}")
        if len(findings) > LINES_PER_KIND:
            print(f"  and {len(findings) - LINES_PER_KIND} more; -o OUT writes them all")
    if out is not None:
        print(f"report: {out / 'report.html'}")

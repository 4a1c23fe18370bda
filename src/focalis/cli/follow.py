"""`focalis follow`: the same lesions on another date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import print_card, print_json, print_warning, progress_bar
from focalis.cli.options import Device
from focalis.models import SHIPPED


def follow(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="EARLIER LATER ...", help="One scan per date: an image, or the folder of a DICOM series."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for report, tables and masks.")],
    model: Annotated[
        Path | None,
        typer.Option(help=f"Model that finds the lesions: a file, or a name: {', '.join(SHIPPED)}."),
    ] = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(
            "--masks",
            help="Masks instead of a model, once per scan: a file, or a folder with one per reader (the first counts).",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="X,Y,Z|FILE",
            help="For a model that takes points: one in each lesion of the first scan, in mm (LPS), as for `predict`.",
        ),
    ] = None,
    dates: Annotated[
        str | None, typer.Option(help="Dates of the scans, such as 2026-01-05,2026-04-02; DICOM has its own.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Target lesions of RECIST 1.1, such as 1,3; default: the five largest.")
    ] = None,
    same_person: Annotated[
        bool, typer.Option("--same-person", help="Accept scans with different Patient IDs.")
    ] = False,
    memory_gb: Annotated[float, typer.Option(help="Memory that a prediction may use, in 10^9 bytes.")] = 4.0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of follow.json.")] = False,
) -> None:
    """Follow each lesion over several dates: new, gone, grown, shrunk or unchanged."""
    from focalis.errors import UsageError
    from focalis.workflows.follow import follow as run_follow

    numbers = [part.strip() for part in targets.split(",")] if targets is not None else []
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--targets: {targets!r} are not numbers of lesions; write them as 1,3")
    with progress_bar() as advance:
        followed = run_follow(
            images,
            out,
            model=model,
            masks=masks or [],
            at=at or [],
            dates=dates.split(",") if dates is not None else [],
            targets=[int(number) for number in numbers],
            same_person=same_person,
            memory_gb=memory_gb,
            device=device,
            progress=advance,
        )
    if model is not None:
        print_card(model)
    for note in followed.notes:
        print_warning(note)
    if as_json:
        print_json(followed.to_json())
        return
    for number, study in enumerate(followed.studies):
        counts: dict[str, int] = {}
        for each in followed.tracks:
            status = each.sightings[number].status
            counts[status] = counts.get(status, 0) + 1
        counts.pop("absent", None)
        told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no lesion"
        day = f" of {study.day}" if study.day else ""
        print(f"{study.name}{day}: {told}")
    if followed.targets is not None:
        said = [
            f"{'not evaluable' if each.sum_mm is None else f'{each.sum_mm:.1f} mm'} ({each.response})"
            for each in followed.targets.sums
        ]
        print(f"targets {', '.join(map(str, followed.targets.numbers))}: {', '.join(said)}")
    print(f"report: {out / 'report.html'}")

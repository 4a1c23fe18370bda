"""`focalis import`: clinical contours become a data set."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import print_json, print_warning, progress_bar
from focalis.cli.options import Charset


def import_dicom(
    folder: Annotated[
        Path, typer.Argument(metavar="DICOM_DIR", help="Folder with series and their SEG or RTSTRUCT files.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data set's folder, new or empty.")],
    structure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A structure, or a pattern such as 'GTV*'; repeat for more. Default: all."
        ),
    ] = None,
    rename: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="CSV file that unites names: columns structure (name or pattern) and label."
        ),
    ] = None,
    modality: Annotated[str | None, typer.Option(help="Take only what was drawn on CT, MR or PT.")] = None,
    charset: Charset = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of each study as JSON.")] = False,
) -> None:
    """Turn contoured DICOM studies into a data set, one case per study.

    A study that cannot be read is refused with the reason. The others go on, and the exit code is 1.
    """
    from focalis.workflows.import_dicom import import_dicom as run_import

    with progress_bar() as advance:
        report = run_import(
            folder,
            out,
            structures=structure or (),
            rename=rename,
            modality=modality,
            charset=charset,
            progress=partial(advance, "import"),
        )
    if as_json:
        print_json(report)
    else:
        for row in report.imported:
            found = ", ".join(f"{name} {voxels} voxels" for name, voxels in row.voxels.items())
            print(f"{row.case}: {row.modality}, {found}")
    for pattern in report.unused:
        print_warning(f"{pattern!r} fits no structure")
    for doubt in (doubt for row in report.rows for doubt in row.doubts):
        print_warning(doubt)
    for row in report.rows:
        if row.status != "imported":
            print(f"{row.status}: {row.reason}", file=sys.stderr)
    if not as_json:
        labels = ", ".join(f"{value} {name}" for value, name in report.labels.items())
        print(f"{len(report.imported)} of {len(report.rows)} studies in {report.dataset}; labels {labels}")
    if any(row.status == "refused" for row in report.rows):
        raise typer.Exit(1)
